"""The rows of a fold from DuckDB as Arrow, in one order, without a frame between.

The features of the fit rows, the bulk, never lie in memory whole: they stay in a temporary table
and are read by groups of columns (LightGBM bins) or by batches (tensors).
"""

import dataclasses
from collections.abc import Iterator, Sequence

import duckdb
import numpy as np
import pyarrow as pa

from wavehouse.heads.base import Block, HeadsError, Target
from wavehouse.heads.config import Track

TRAINING_ROLES = ("fit", "tune", "calibrate")
KEYS = ("sample_id", "symbol", "starts_at_ms", "label_ends_at_ms", "period_ms", "weight")
ROWS = "heads_fold_rows"  # temporary table


@dataclasses.dataclass(frozen=True)
class StoredFeatures:
    """Features that stay in DuckDB, read as float32 by columns or by batches when asked for.

    It stands where a pa.Table of features stands: `relation` is a table stored in the order of
    training, whose rows with a rowid from `start` to `end` (exclusive) are meant.
    """

    con: duckdb.DuckDBPyConnection
    relation: str
    column_names: list[str]
    start: int
    end: int

    @property
    def num_rows(self) -> int:
        """Return how many rows there are."""
        return self.end - self.start

    @property
    def schema(self) -> pa.Schema:
        """Return float32 for every feature."""
        return pa.schema([(name, pa.float32()) for name in self.column_names])

    def select(self, names: Sequence[str]) -> pa.Table:
        """Return some columns of all rows, in order. Raises HeadsError when the order is lost."""
        table = self._query(names).to_arrow_table()
        self._check(table.column("rowid").to_numpy(), self.start)
        return table.drop_columns("rowid")

    def filter(self, rows: pa.Array) -> pa.Table:
        """Return every column of the rows where `rows` is true."""
        return self.select(self.column_names).filter(rows)

    def to_batches(self, batch_rows: int = 16_384) -> Iterator[pa.RecordBatch]:
        """Yield every column batch by batch; the connection is busy until the last one."""
        found = self.start
        for batch in self._query(self.column_names).to_arrow_reader(batch_rows):
            self._check(batch.column("rowid").to_numpy(), found)
            found += batch.num_rows
            yield batch.select(self.column_names)

    def _query(self, names: Sequence[str]) -> duckdb.DuckDBPyRelation:
        return self.con.sql(f"""
            select rowid, {", ".join(map(quoted, names))}
            from {self.relation}
            where rowid >= {self.start} and rowid < {self.end}
        """)

    def _check(self, positions: np.ndarray, first: int) -> None:
        if not np.array_equal(positions, np.arange(first, first + len(positions))):
            raise HeadsError(
                f"{self.relation} came back out of order, and training on it would not be "
                "repeatable. Set preserve_insertion_order to true in profiles.yml."
            )


@dataclasses.dataclass(frozen=True)
class FoldData:
    """All rows of the asked roles of one fold, ordered by role, time and symbol.

    `table` holds sample_id, symbol, starts_at_ms, label_ends_at_ms, period_ms, weight and the label
    columns; `bounds` has the first row and the row after the last of each role. The features lie
    in the temporary table ROWS of `con` beside all that; those of the fit rows are read when they
    are asked for, the others are kept.
    """

    con: duckdb.DuckDBPyConnection
    fold: str
    table: pa.Table
    features: tuple[str, ...]
    bounds: dict[str, tuple[int, int]]
    kept: dict[str, pa.Table]
    cross_sectional: bool = False

    def block(self, role: str, target: Target) -> Block:
        """Return the rows of `role` with the labels of `target`, NaN where unknown."""
        rows = self.rows(role)
        return Block(
            features=self.kept.get(role, self.stored(role)),
            labels=labels_of(rows.column(target.label_column), target),
            weights=rows.column("weight").to_numpy(),
            groups=rows.column("starts_at_ms").to_numpy(),
            periods=rows.column("period_ms").to_numpy(),
            cross_sectional=self.cross_sectional,
        )

    def rows(self, role: str) -> pa.Table:
        """Return keys, weight and labels of the rows of `role`, without a copy."""
        start, end = self.bounds[role]
        return self.table.slice(start, end - start)

    def stored(self, role: str) -> StoredFeatures:
        """Return the features of the rows of `role` where they lie."""
        return StoredFeatures(self.con, ROWS, list(self.features), *self.bounds[role])


def read_fold(
    con: duckdb.DuckDBPyConnection,
    track: Track,
    fold: str,
    features: Sequence[str],
    targets: Sequence[Target],
    roles: Sequence[str] = TRAINING_ROLES,
) -> FoldData:
    """Read the rows of `roles` in a fold, ordered by role, time and symbol.

    The order is total, so the same warehouse gives the same rows. Weights are divided by their mean
    over the fit rows, so that a trainer's regularisation means the same whatever their scale. The
    rows are put into the temporary table ROWS, which DuckDB may spill, replacing that of an
    earlier fold. Raises HeadsError when a
    role has no rows.
    """
    labels = sorted({target.label_column for target in targets})  # rows_hash knows no seed order
    con.execute(
        f"""
        create or replace temp table {ROWS} as
        select
            list_position($roles, folds.role) as role_number,
            samples.sample_id,
            samples.symbol,
            samples.starts_at_ms,
            samples.label_ends_at_ms,
            epoch_ms(samples.evaluation_period) as period_ms,
            weights.weight,
            {", ".join(f"samples.{quoted(name)}" for name in labels)},
            {", ".join(feature_columns(features, "features"))}
        from {track.folds} as folds
        inner join {track.samples} as samples using (sample_id)
        inner join {track.weights} as weights using (sample_id)
        inner join {track.features} as features using (sample_id)
        where folds.fold = $fold and list_contains($roles, folds.role)
        order by role_number, samples.starts_at_ms, samples.symbol, samples.sample_id
        """,
        {"fold": fold, "roles": list(roles)},
    )
    table = con.sql(
        f"select role_number, {', '.join(map(quoted, [*KEYS, *labels]))} from {ROWS} order by rowid"
    ).to_arrow_table()
    numbers = table.column("role_number").to_numpy()
    bounds, missing = {}, []
    for number, role in enumerate(roles, start=1):
        start, end = np.searchsorted(numbers, [number, number + 1])
        bounds[role] = (int(start), int(end))
        missing += [role] if start == end else []
    if missing:
        raise HeadsError(
            f"fold {fold} has no rows of role {', '.join(missing)} in {track.folds}. The market is "
            "too short for its shares: raise heads_tune_share and heads_calibrate_share, lower "
            "heads_embargo_bars, or train on more bars."
        )
    kept = {
        role: StoredFeatures(con, ROWS, list(features), *bounds[role]).select(features)
        for role in roles
        if role != "fit"
    }
    weights = table.column("weight").to_numpy()
    scaled = weights / weights[slice(*bounds["fit"])].mean() if "fit" in bounds else weights
    table = table.set_column(table.schema.get_field_index("weight"), "weight", pa.array(scaled))
    return FoldData(
        con,
        fold,
        table.drop_columns("role_number"),
        tuple(features),
        bounds,
        kept,
        track.cross_sectional,
    )


def as_table(features: pa.Table | StoredFeatures) -> pa.Table:
    """Return features as a table in memory."""
    return features if isinstance(features, pa.Table) else features.select(features.column_names)


def feature_columns(features: Sequence[str], relation: str) -> list[str]:
    """Return the select list that gives every trainer and scorer float32.

    Infinity is unknown, and so is what float32 cannot hold.
    """
    values = {name: f"try_cast({relation}.{quoted(name)} as float)" for name in features}
    return [
        f"case when isfinite({value}) then {value} end as {quoted(name)}"
        for name, value in values.items()
    ]


def labels_of(column: pa.ChunkedArray, target: Target) -> np.ndarray:
    """Return labels as float64 (n,): class numbers for classes, NaN where unknown or infinite.

    Raises HeadsError when a multiclass label is none of the target's classes.
    """
    if target.objective != "multiclass":
        values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.where(np.isfinite(values), values, np.nan)
    codes = pa.compute.index_in(column, value_set=pa.array(target.classes))
    unknown = pa.compute.and_(codes.is_null(), column.is_valid())
    if pa.compute.any(unknown).as_py():
        other = pa.compute.unique(column.filter(unknown)).to_pylist()
        raise HeadsError(
            f"target {target.target}: {target.label_column} holds {other}, expected one of "
            f"{', '.join(target.classes)}."
        )
    return codes.cast(pa.float64()).to_numpy(zero_copy_only=False)


def quoted(name: str) -> str:
    """Return a column name quoted for SQL."""
    return '"{}"'.format(name.replace('"', '""'))
