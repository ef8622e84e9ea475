"""What the model before the present one says of the rows that a run is judged on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from wavehouse.heads.base import HeadsError
from wavehouse.heads.config import Track
from wavehouse.heads.model import Model, load
from wavehouse.heads.scoring import KEYS, Span, read_rows, unseen_nulls
from wavehouse.paths import model_store_dir

EVALUATION_SPLITS = ("tune_inner", "validation_locked", "latest_stress")
SCHEMA = pa.schema(
    {
        "target": pa.string(),
        "model_id": pa.string(),
        "fold": pa.string(),
        "valid_from_ms": pa.int64(),
        "refusal": pa.string(),
    }
)


def previous_model(
    con: duckdb.DuckDBPyConnection, track: Track, target: str, root: Path | None = None
) -> pa.Table:
    """Return one row of SCHEMA: the model that the alias `previous` names for a target.

    `refusal` says why it cannot predict the rows of today (there is none, it is gone from the store
    or damaged, it needs a feature or has an output that the track has no more); NULL where it can.
    """
    row, _ = _previous(con, track, target, root or model_store_dir())
    return pa.Table.from_pylist([row], schema=SCHEMA)


def predict_with_previous(
    con: duckdb.DuckDBPyConnection, track: Track, target: str, root: Path | None = None
) -> pa.RecordBatchReader:
    """Return a stream of one row per row of EVALUATION_SPLITS, predicted by the previous model.

    Columns: those of `heads.<head>_predictions` of a head with this target alone, calibrated by the
    previous model's own maps, to the bit as SQL does it. `is_out_of_sample` is true from the end of
    the last label on that this model learned from. There are no rows where `previous_model` gives a
    refusal.
    """
    row, model = _previous(con, track, target, root or model_store_dir())
    outputs = _outputs_of(con, track, target)
    keys = [name for name in KEYS if name != "starts_at_ms"]
    schema = pa.schema(
        [
            *((name, KEYS[name]) for name in keys),
            *((output, pa.float64()) for output in outputs),
            ("is_out_of_sample", pa.bool_()),
            ("unseen_null_count", pa.int32()),
            (f"{target}_model_id", pa.string()),
        ]
    )

    def batches(model: Model) -> Iterator[pa.RecordBatch]:
        known_at_ms, model_id = row["valid_from_ms"], row["model_id"]
        span = Span(None, None, known_at_ms, {target: model_id})
        for batch in read_rows(con, track, span, [model], EVALUATION_SPLITS):
            starts = batch.column("starts_at_ms")
            nulls = unseen_nulls(model, batch)
            predictions = model.predictions(model.seed_scores(batch, starts.to_numpy()))
            columns = dict(zip(model.outputs, predictions.T, strict=True))
            yield pa.RecordBatch.from_arrays(
                [
                    *(batch.column(name) for name in keys),
                    *(
                        pa.array(columns[output], mask=(nulls > 0) | np.isnan(columns[output]))
                        for output in outputs
                    ),
                    pa.compute.greater_equal(starts, known_at_ms),
                    pa.array(nulls),
                    pa.repeat(pa.scalar(model_id), batch.num_rows),
                ],
                schema=schema,
            )

    return pa.RecordBatchReader.from_batches(schema, batches(model) if model else ())


def _previous(
    con: duckdb.DuckDBPyConnection, track: Track, target: str, root: Path
) -> tuple[dict[str, Any], Model | None]:
    """Return the row of `previous_model`, and the model where it can predict."""
    found = con.execute(
        """
        select model_id, fold, valid_from_ms from heads.model_aliases
        where track = $track and target = $target and alias = 'previous'
        """,
        {"track": track.name, "target": target},
    ).fetchall()
    row: dict[str, Any] = {"target": target}
    if not found:
        return row | {"refusal": f"The registry has no earlier model of {target}."}, None
    row |= dict(zip(("model_id", "fold", "valid_from_ms"), found[0], strict=True))
    name = f"The previous model of {target}, {row['model_id'][:12]},"
    try:
        model, _ = load(root, row["model_id"])
    except HeadsError:
        is_there = (root / row["model_id"]).is_dir()
        state = "cannot be read: its files were changed or damaged" if is_there else "is gone"
        return row | {"refusal": f"{name} {state} in the model store."}, None
    outputs = _outputs_of(con, track, target)
    if sorted(model.outputs) != sorted(outputs):
        given, wanted = ", ".join(model.outputs), ", ".join(outputs)
        return row | {"refusal": f"{name} predicts {given}, and the target has {wanted}."}, None
    known = {column for column, *_ in con.execute(f"describe {track.features}").fetchall()}
    missing = [feature for feature in model.features if feature not in known]
    if missing:
        return row | {
            "refusal": f"{name} needs {', '.join(missing)}, which {track.features} has no more."
        }, None
    return row | {"refusal": None}, model


def _outputs_of(con: duckdb.DuckDBPyConnection, track: Track, target: str) -> list[str]:
    """Return the outputs of a target in the order of the seed. Raises HeadsError without it."""
    rows = con.execute(
        "select string_split(outputs, '|') from seeds.head_targets"
        " where track = $track and target = $target",
        {"track": track.name, "target": target},
    ).fetchall()
    if not rows:
        raise HeadsError(
            f"seeds/head_targets.csv has no target {target!r} of track {track.name}; its previous "
            "model was asked for."
        )
    return rows[0][0]
