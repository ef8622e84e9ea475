"""Score any row in SQL: the present models as functions of a row, run by their own library.

    select sample_id, long_entry_prob(f) from factors.minute_features as f

`wavehouse.connect` and `wavehouse sql` register two kinds. A function per output gives what
`heads.<head>_predictions` has in the column of that name. A function per head, named like that
relation, gives a struct of all its predictions, each model asked once:

    select sample_id, unnest(entry_predictions(f)) from factors.minute_features as f

The argument is the row, the alias of its relation; features are found in it by name, so that any
relation with these columns will do, and what-if rows too: `struct_update(f, spread_bps := 9)`.

Every row is scored by the champions of today, where `heads.<head>_predictions` takes those of the
row's own time. Models are loaded at the first call. The functions are no macros, since a temporary
macro is not seen by the cursors of its connection; nor does any relation of the warehouse use them.
"""

import contextlib
import dataclasses
import functools
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
import numpy as np
import pyarrow as pa

from wavehouse.heads.base import HeadsError

if TYPE_CHECKING:
    from wavehouse.heads.model import Model

EXAMPLE = "`select long_entry_prob(f) from factors.minute_features as f`"
ScoringFunction = Callable[[pa.ChunkedArray], pa.Array]


@dataclasses.dataclass(frozen=True)
class Champion:
    """The model of a target that predicts from now on: a row of `heads.model_aliases`."""

    head: str
    target: str
    model_id: str
    objective: str
    outputs: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the columns that the model fills in `heads.<head>_predictions`."""
        if self.objective not in ("regression", "ranking"):
            return self.outputs
        return tuple(f"{end}{name}" for name in self.outputs for end in ("", "lower_", "upper_"))


def champions(con: duckdb.DuckDBPyConnection) -> list[Champion]:
    """Return the champions whose span has no end, probabilities before values, by head and target.

    There are none in a warehouse where nothing is trained yet.
    """
    try:
        rows = con.execute("""
            select aliases.head, aliases.target, model_id, registry.objective, registry.outputs
            from heads.model_aliases as aliases
            inner join heads.model_registry as registry using (model_id)
            where aliases.alias = 'champion' and aliases.valid_to_ms is null
            order by aliases.head, registry.objective in ('regression', 'ranking'), aliases.target
        """).fetchall()
    except (duckdb.CatalogException, duckdb.BinderException):  # none yet, or of another version
        return []
    return [Champion(*row, outputs=tuple(outputs)) for *row, outputs in rows]


def register(con: duckdb.DuckDBPyConnection, root: Path) -> None:
    """Register the functions of the warehouse's present champions, kept in the store `root`.

    A warehouse without any gets none. A model that is missing or damaged is told by the query that
    asks for it.
    """
    found = champions(con)
    functions = scoring_functions(root.absolute(), tuple(found))
    for name, function in functions.items():
        columns = [
            column for each in found if name == predictions_of(each.head) for column in each.columns
        ]
        kind = duckdb.struct_type(dict.fromkeys(columns, "DOUBLE")) if columns else "DOUBLE"
        # it is there where another connection of this process to the same file registered it
        with contextlib.suppress(duckdb.CatalogException):
            con.create_function(name, function, None, kind, type="arrow", null_handling="special")


def described(con: duckdb.DuckDBPyConnection) -> list[tuple[str, str, str]]:
    """Return (call, type, what it gives) of each function that `register` registers."""
    rows, heads = [], {}
    for champion in champions(con):
        heads.setdefault(champion.head, []).extend(champion.columns)
        kind = (
            "expected value" if champion.objective in ("regression", "ranking") else "probability"
        )
        text = f"{kind}, target {champion.target}, model {champion.model_id[:12]}"
        rows += [(f"{output}(row)", "DOUBLE", text) for output in champion.outputs]
    for head, columns in heads.items():
        name = predictions_of(head)
        rows.append((f"{name}(row)", "STRUCT", f"{len(columns)} columns as in heads.{name}"))
    return rows


def predictions_of(head: str) -> str:
    """Return the name of the relation, and of the function, with the predictions of a head."""
    return f"{head}_predictions"


@functools.cache
def scoring_functions(root: Path, found: tuple[Champion, ...]) -> dict[str, ScoringFunction]:
    """Return the function of each output and of each head, by name.

    Cached for good: all connections of a process to one file share the functions, and DuckDB calls
    them still when the connection that registered them is closed and its references are gone.
    """
    functions: dict[str, ScoringFunction] = {}
    heads: dict[str, list[StoredModel]] = {}
    for champion in found:
        model = StoredModel(root, champion)
        heads.setdefault(champion.head, []).append(model)
        for output in champion.outputs:
            functions[output] = _function_of_output(output, model)
    for head, models in heads.items():
        functions[predictions_of(head)] = _function_of_head(predictions_of(head), models)
    return functions


class StoredModel:
    """A champion that is read from the store, every hash checked, when it is first asked."""

    def __init__(self, root: Path, champion: Champion) -> None:
        self.root = root
        self.champion = champion
        self._model: Model | None = None
        self._lock = threading.Lock()

    def predictions(self, name: str, rows: pa.StructArray) -> dict[str, pa.Array]:
        """Return the columns of the champion for rows (n), as the SQL models define them.

        A prediction is NULL where the row is, and where a feature is unknown that never was in
        the fit. `name` is the function that was called. Raises ModelStoreError when the model is
        missing or damaged, HeadsError when the rows do not have its features.
        """
        from wavehouse.heads import calibration

        model = self._loaded()
        features = features_of(rows, model.features, name)
        unknown = rows.is_null().to_numpy(zero_copy_only=False)
        for feature in model.manifest["unseen_nulls"]:
            if features[feature].null_count:
                unknown |= features[feature].is_null().to_numpy()
        # DuckDB has spread the rows over its threads already
        options = {"threads": 1} if model.manifest["trainer"] == "lightgbm" else {}
        seed_scores = np.stack(
            [member.predict(features, **options) for member in model.members], axis=2
        )
        predictions = model.predictions(seed_scores)
        columns = {output: predictions[:, n] for n, output in enumerate(model.outputs)}
        for output, intervals in model.intervals.items():
            ends = calibration.apply_conformal(intervals, columns[output])
            columns |= zip((f"lower_{output}", f"upper_{output}"), ends, strict=True)
        nulls = np.full(len(rows), np.nan)
        return {
            column: _doubles(columns.get(column, nulls), unknown)
            for column in self.champion.columns
        }

    def _loaded(self) -> "Model":
        """Return the model, read once even when several threads of DuckDB ask."""
        from wavehouse.heads.model import load  # not earlier: it imports every trainer's library

        with self._lock:
            if self._model is None:
                self._model = load(self.root, self.champion.model_id)[0]
        return self._model


def features_of(rows: pa.StructArray, features: tuple[str, ...], name: str) -> pa.Table:
    """Return the features of rows as `data.feature_columns` does: float32, infinity unknown.

    Raises HeadsError when `rows`, given to the function `name`, are no rows or lack a feature.
    """
    if not pa.types.is_struct(rows.type):
        raise HeadsError(f"{name} was given {rows.type}, expected a row, as in {EXAMPLE}.")
    places = {field.name.lower(): place for place, field in enumerate(rows.type)}
    missing = [feature for feature in features if feature.lower() not in places]
    if missing:
        raise HeadsError(
            f"{name} needs {len(features)} features and the row lacks {len(missing)} of them: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}. Give it a row that "
            f"has them, as in {EXAMPLE}."
        )
    columns = []
    for feature in features:
        column = rows.field(places[feature.lower()])
        if not is_number(column.type):
            raise HeadsError(f"{name}: feature {feature} is {column.type}, expected a number.")
        column = column.cast(pa.float32(), safe=False)
        if not math.isfinite(column.sum(min_count=0).as_py()):
            values = column.to_numpy(zero_copy_only=False)
            column = pa.array(values, mask=~np.isfinite(values))
        columns.append(column)
    return pa.table(columns, names=list(features))


def is_number(kind: pa.DataType) -> bool:
    """Return whether values of an Arrow type can be a feature; the type of a bare NULL can."""
    return (
        pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_null(kind)
    )


def _function_of_output(output: str, model: StoredModel) -> ScoringFunction:
    def score(row: pa.ChunkedArray) -> pa.Array:
        return model.predictions(output, _one_array(row))[output]

    return score


def _function_of_head(name: str, models: list[StoredModel]) -> ScoringFunction:
    def score(row: pa.ChunkedArray) -> pa.Array:
        rows = _one_array(row)
        columns: dict[str, pa.Array] = {}
        for model in models:
            columns |= model.predictions(name, rows)
        return pa.StructArray.from_arrays(list(columns.values()), names=list(columns))

    return score


def _one_array(row: pa.ChunkedArray) -> pa.Array:
    """Return what DuckDB gives as chunks, of which there is one, without a copy."""
    return row.chunk(0) if row.num_chunks == 1 else row.combine_chunks()


def _doubles(values: np.ndarray, unknown: np.ndarray) -> pa.Array:
    return pa.array(values, pa.float64(), mask=unknown | np.isnan(values))
