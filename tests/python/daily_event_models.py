"""Event models of the daily label floor on made-up rows, built in memory."""

from collections.abc import Mapping

import duckdb
import pandas as pd

import daily_sql

LABEL_SETS = ("excess_adaptive", "trend_scanning", "triple_barrier", "directional_change")
EVENT_MODELS = tuple(f"{label_set}_events" for label_set in LABEL_SETS)
LABEL_MODELS = tuple(f"{label_set}_labels" for label_set in LABEL_SETS)
MODELS = (
    "event_benchmarks",
    "daily_event_inputs",
    "directional_changes",
    *EVENT_MODELS,
    "label_events",
    "event_thresholds",
    *LABEL_MODELS,
    "anchor_labels",
)


def build(
    panel: pd.DataFrame,
    members: pd.DataFrame,
    settings: Mapping | None = None,
    models: tuple[str, ...] = MODELS,
) -> duckdb.DuckDBPyConnection:
    """Build models on a panel and universe members, given in no order; read them by bare names."""
    connection = daily_sql.new_connection()
    for name, rows in (("factors.daily_panel", panel), ("universe.universe_members", members)):
        connection.register("given", rows)
        connection.execute(f"create table {name} as from given order by random()")
    connection.unregister("given")
    daily_sql.build(connection, models, settings)
    connection.execute("set search_path = 'labels,factors,universe'")
    return connection
