"""A warehouse file of a made-up market with trained heads, built without dbt in a few seconds.

Rows, configuration and training are those of `heads_market`; the SQL models above `training_runs`
are the repository's own files, rendered.
"""

import contextlib
import functools
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

import heads_market
from heads_market import CLASSES, EXPANDING, minute_rows, put, target_row
from rendering import macro_context, model_sql
from wavehouse.heads.config import MINUTE
from wavehouse.heads.scoring import score
from wavehouse.heads.training import train

TARGETS = [
    target_row("direction", "multiclass", **CLASSES),
    target_row(
        *("long_entry", "binary", "entry"),
        **{"head": "entry", "outputs": "long_entry_prob", "calibration": "isotonic"},
    ),
    target_row(
        *("short_entry", "binary", "rare_entry"),
        **{"head": "entry", "outputs": "short_entry_prob", "calibration": "none"},
    ),
    *(
        target_row(
            *(f"{side}_entry_edge", "regression", "edge_bps"),
            **{"head": "entry", "outputs": f"{side}_expected_net_edge_bps"},
        )
        for side in ("long", "short")
    ),
    target_row("market_risk", "binary", "entry", head="risk", outputs="market_risk_prob"),
]
SQL_MODELS = (
    *("model_registry", "model_aliases", "model_fits", "model_rows", "feature_importance"),
    *("calibration_maps", "conformal_intervals"),
)
LATE_SHARE = 0.9  # of the rows; later ones have what no fit has seen


def market_rows() -> pa.Table:
    """Rows like `minute_rows`; late ones lack what was always there, or have infinite values."""
    rows = minute_rows()
    late = np.arange(rows.num_rows) >= LATE_SHARE * rows.num_rows
    turn = np.arange(rows.num_rows) % 6
    for number, (name, value) in enumerate(
        [("whole", None), ("strong", np.inf), ("gaps", -np.inf), ("noise", np.nan)]
    ):
        column = rows[name].combine_chunks()
        changed = pa.compute.if_else(pa.array(late & (turn == number)), value, column)
        rows = rows.set_column(rows.column_names.index(name), name, changed)
    return rows


def rendered(name: str) -> str:
    """The SQL of a model of the floor heads, as dbt compiles it for a first build."""
    context = macro_context(
        {},
        ("calibration", "head_outputs", "head_predictions"),
        ref=lambda relation: f"heads.{relation}",
        is_incremental=lambda: False,
    )
    return model_sql(name, context)


@functools.cache
def trained_warehouse(folder: Path) -> Path:
    """Write a warehouse file with its model store beside it into `folder`; return the file.

    Its relations hold what dbt would have built: every target of TARGETS trained in two folds that
    follow each other, market_risk by torch; all rows scored; predictions of direction and entry.
    """
    folder.mkdir()
    store, file = folder / "model_store", folder / "warehouse.duckdb"
    settings = {"train_folds": ["expanding"], "trainers": {"risk": "torch"}}
    built = heads_market.warehouse(market_rows(), targets=TARGETS, folds=EXPANDING, **settings)
    with contextlib.closing(built) as con:
        put(con, "heads.training_runs", train(con, MINUTE, store))
        for name in SQL_MODELS:
            con.execute(f"create table heads.{name} as {rendered(name)}")
        put(con, "heads.raw_scores", score(con, MINUTE, store).read_all())
        for name in ("direction_predictions", "entry_predictions"):
            con.execute(f"create table heads.{name} as {rendered(name)}")
        con.execute(f"attach '{file}' as built")
        con.execute("copy from database memory to built")
    return file


def plain_query(file: Path, sql: str) -> list[tuple]:
    """The rows of a query by a plain DuckDB that knows nothing of this package."""
    with contextlib.closing(duckdb.connect(str(file), read_only=True)) as con:
        return con.execute(sql).fetchall()
