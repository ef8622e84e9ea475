"""Compare a relation with what an evaluator says it should be."""

import numpy as np
import pandas as pd


def assert_same_rows(
    found: pd.DataFrame, expected: pd.DataFrame, keys: list[str], what: str, rtol: float = 1e-9
) -> None:
    """Equal keys and equal columns of `expected`: floats to `rtol`, NULL only where NULL is due."""
    assert len(found) == len(expected) > 0, f"{what}: {len(found)} rows, expected {len(expected)}"
    ours = found.assign(**_dates(found)).sort_values(keys).reset_index(drop=True)
    theirs = expected.assign(**_dates(expected)).sort_values(keys).reset_index(drop=True)
    assert not ours.duplicated(keys).any(), f"{what}: repeated key"
    for column in expected.columns:
        assert column in ours.columns, f"{what}: no column {column}"
        left, right = ours[column], theirs[column]
        unknown = left.isna() != right.isna()
        assert not unknown.any(), (
            f"{what}.{column}: NULL on one side only in {unknown.sum()} rows\n"
            f"{pd.concat([ours[unknown][[*keys, column]], right[unknown]], axis=1).head()}"
        )
        known = right.notna()
        if pd.api.types.is_float_dtype(left) or pd.api.types.is_float_dtype(right):
            np.testing.assert_allclose(
                left[known].astype(float), right[known].astype(float), rtol=rtol,
                atol=1e-9 if column.startswith("score") else 1e-11,
                err_msg=f"{what}.{column}",
            )  # fmt: skip
        else:
            differs = left[known].astype(object) != right[known].astype(object)
            both = pd.concat([ours[[*keys, column]], right.rename("expected")], axis=1)[known]
            assert not differs.any(), (
                f"{what}.{column}: {differs.sum()} rows differ\n{both[differs].head()}"
            )


def _dates(frame: pd.DataFrame) -> dict[str, pd.Series]:
    """Date columns as timestamps, whichever way they came."""
    return {
        name: pd.to_datetime(frame[name]).astype("datetime64[s]")
        for name in frame.columns
        if name.endswith("_date") or "_date_" in name
    }
