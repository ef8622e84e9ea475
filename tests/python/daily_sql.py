"""Models of the daily track on made-up relations, in memory: their SQL rendered as dbt does."""

import functools
import json
import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import duckdb
import pandas as pd
import pyarrow as pa
import yaml

import rendering
from rendering import macro_context, model_file, project_vars
from warehouse import REPO, memory_connection


@functools.cache
def schemas() -> dict[str, str]:
    """Return the schema of each model and seed by name: the floor's name, or seeds."""
    models = REPO / "models"
    floors = {file.stem: file.relative_to(models).parts[0] for file in models.rglob("*.sql")}
    return floors | {file.stem: "seeds" for file in (REPO / "seeds").glob("*.csv")}


@functools.cache
def model_source(model: str) -> str:
    return model_file(model).read_text()


def rendering_context(settings: Mapping | None = None) -> dict[str, Callable]:
    """Return what a model's template needs, with vars of the project or changed ones."""
    return macro_context(
        project_vars() | dict(settings or {}),
        modules=SimpleNamespace(re=re),
        # a relation that another floor has yet to bring is one of staging
        ref=lambda name: f"{schemas().get(name, 'staging')}.{name}",
        execute=True,
        is_incremental=lambda: False,
    )


def model_sql(model: str, settings: Mapping | None = None) -> str:
    """Return a model's SQL."""
    return _rendered(model, json.dumps(settings or {}, sort_keys=True))


@functools.cache
def _rendered(model: str, settings: str) -> str:
    return rendering.model_sql(model, rendering_context(json.loads(settings)))


def new_connection() -> duckdb.DuckDBPyConnection:
    """Return an empty warehouse in memory with the schemas of all floors."""
    connection = memory_connection()
    for schema in sorted({*schemas().values()}):
        connection.execute(f"create schema {schema}")
    return connection


def build(
    connection: duckdb.DuckDBPyConnection, models: tuple[str, ...], settings: Mapping | None = None
) -> None:
    """Create models as tables, in the order given."""
    for model in models:
        connection.execute(
            f"create or replace table {schemas()[model]}.{model} as {model_sql(model, settings)}"
        )


def put(connection: duckdb.DuckDBPyConnection, relations: Mapping[str, pd.DataFrame]) -> None:
    """Write frames as tables by schema.name; a missing value of any kind is NULL."""
    for relation, frame in relations.items():
        connection.register("frame_to_write", frame)
        connection.execute(f"create or replace table {relation} as from frame_to_write")
        connection.unregister("frame_to_write")


@functools.cache
def seed_types(seed: str) -> dict[str, str]:
    described = yaml.safe_load((REPO / f"seeds/{seed}.yml").read_text())["seeds"][0]
    return described["config"]["column_types"]


def load_seed(connection: duckdb.DuckDBPyConnection, seed: str) -> None:
    """Create a seed's table as dbt would: its columns typed by its yml, an empty cell is NULL."""
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in seed_types(seed).items())
    connection.execute("create schema if not exists seeds")
    connection.execute(
        f"create or replace table seeds.{seed} as from"
        f" read_csv('{REPO}/seeds/{seed}.csv', header = true, columns = {{{types}}})"
    )


def write_relation(
    connection: duckdb.DuckDBPyConnection, name: str, rows: pd.DataFrame, types: Mapping[str, str]
) -> None:
    """Create schema.name from a frame, its columns cast to the given types, in their order."""
    connection.execute(f"create schema if not exists {name.split('.')[0]}")
    arrow = pa.Table.from_pandas(rows[list(types)], preserve_index=False)  # NaN is NULL
    connection.register("rows_of_frame", arrow)
    columns = ", ".join(f"{column}::{kind} as {column}" for column, kind in types.items())
    connection.execute(f"create or replace table {name} as select {columns} from rows_of_frame")
    connection.unregister("rows_of_frame")
