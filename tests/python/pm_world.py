"""A warehouse whose floors below pm are made up: dbt compiles and builds what lies above them once.

A World is that SQL of dbt on other made-up rows, in memory: it costs no dbt run. Its models can be
changed before they run, to see that a test would notice.
"""

import atexit
import functools
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from dbt_common.clients.jinja import get_template

from oracle_pm import AXES, admit
from pm_frames import LOOSE, SMALL_AXES, random_frame
from rendering import macro_context, project_vars
from warehouse import REPO, Warehouse, memory_connection

COST_BPS = 6.5
PM_MODELS = (
    "pm_frame",
    "pm_candidates",
    "pm_grid_search",
    "pm_config_settings",
    "pm_config",
    "pm_trades",
    "pm_equity_curve",
    "pm_regime_metrics",
)
BACKTEST_MODELS = (
    "backtest_frame",
    "backtest_trades",
    "volatility_regimes",
    "accounted_trades",
    "backtest_metrics",
    "backtest_rule_checks",
    "backtest_manifest",
    "equity_curve",
    "regime_metrics",
    "failure_cases",
)
OTHER_PM_MODELS = tuple(  # what else a search says about itself
    sorted({file.stem for file in (REPO / "models/pm").glob("*.sql")} - {*PM_MODELS})
)
DIAGNOSTICS_MODELS = (
    "label_summary",
    "score_distribution",
    "gate_funnel",
    "relaxed_variants",
    "direction_top_score",
    "entry_prob_deciles",
    "training_diagnosis",
    "grid_trade_summary",
)
MODELS = (*PM_MODELS, *OTHER_PM_MODELS, *BACKTEST_MODELS, *DIAGNOSTICS_MODELS)
SEEDS = tuple(
    sorted(
        file.stem
        for kind in ("pm", "backtest", "trading", "diagnostic")
        for file in (REPO / "seeds").glob(f"{kind}_*.csv")
        if file.stem != "pm_grid_axes"  # a world has its own
    )
)
HEADS = {
    "direction": ("long_prob", "short_prob", "neutral_prob"),
    "entry": (
        "long_entry_prob",
        "short_entry_prob",
        "long_expected_net_edge_bps",
        "short_expected_net_edge_bps",
    ),
    "risk": ("market_risk_prob", "long_position_risk_prob", "short_position_risk_prob"),
}
KEYS = ["sample_id", "symbol", "event_time", "split_id"]


def upstream(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return the relations below pm that a frame comes from, by name."""
    predicted = frame.rename(columns=lambda name: name.removeprefix("pred_"))
    relations = {
        f"heads.{head}_predictions": predicted[[*KEYS, *outputs]] for head, outputs in HEADS.items()
    }
    entries, executed = [], []
    for side in ("long", "short"):
        rows = frame[KEYS].assign(side=side.upper())
        best = frame[f"{side}_max_future_edge_net_bps"]
        entries.append(
            rows.assign(
                entry_target=frame[f"{side}_entry_target"],
                max_achievable_net_edge_bps=best,
                expected_net_edge_bps=best,
                path_exit_net_edge_bps=frame[f"{side}_gross_edge_net_bps"],
                future_return_bps=frame[f"{side}_future_return_net_bps"] + COST_BPS,
                cost_bps=COST_BPS,
                mfe_bps=best + COST_BPS,
                mae_bps=np.arange(len(frame)) % 9.0,
            )
        )
        executed.append(
            rows.assign(
                net_edge_bps=frame[f"{side}_executed_net_bps"],
                entry_time=frame["event_time"] + pd.Timedelta(minutes=1),
                entry_price=100.0,
                exit_time=frame["event_time"] + pd.Timedelta(minutes=9),
                exit_price=np.arange(len(frame)) % 7 + 97.0,
                exit_reason="timeout",
                holding_minutes=9,
            )
        )
    returns = frame["long_future_return_net_bps"] + COST_BPS
    relations["labels.direction_labels"] = frame[KEYS].assign(
        future_return_bps=returns,
        direction_label=np.select([returns >= 5, returns <= -5], ["LONG", "SHORT"], "NEUTRAL"),
    )[returns.notna()]
    relations["labels.entry_labels"] = pd.concat(entries)
    relations["labels.executed_paths"] = pd.concat(executed)
    return relations


def with_rows_to_ignore(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return upstream relations with rows of other splits and samples that lack a partner.

    Every twentieth executed path is missing too: that basis of its side is unknown.
    """
    outside = frame.head(10).assign(sample_id=lambda rows: "outside " + rows["sample_id"])
    outside["split_id"] = ["fit", "purged"] * 5
    lacking = frame.head(40).assign(sample_id=lambda rows: "lacking " + rows["sample_id"])
    relations = upstream(pd.concat([frame, outside, lacking]))
    parts = [f"heads.{head}_predictions" for head in HEADS] + ["LONG", "SHORT"]
    part_of = dict(zip(lacking["sample_id"], parts * 8, strict=True))
    for name, rows in relations.items():
        lost = rows["sample_id"].map(part_of)
        own = rows["side"] if name == "labels.entry_labels" else name
        relations[name] = rows[lost != own]
    paths = relations["labels.executed_paths"]
    relations["labels.executed_paths"] = paths[np.arange(len(paths)) % 20 != 7]
    return relations


def write(connection: duckdb.DuckDBPyConnection, relations: Mapping[str, pd.DataFrame]) -> None:
    """Write frames as tables; NaN becomes NULL, targets small integers."""
    for name, rows in relations.items():
        types = dict.fromkeys(rows.select_dtypes("datetime"), "timestamp")
        types["entry_target"] = "tinyint"
        columns = [f"{each}::{types[each]} as {each}" if each in types else each for each in rows]
        connection.execute(f"create schema if not exists {name.split('.')[0]}")
        connection.register("made_up", pa.Table.from_pandas(rows, preserve_index=False))
        connection.execute(
            f"create or replace table {name} as select {', '.join(columns)} from made_up"
        )
        connection.unregister("made_up")


def features(frame: pd.DataFrame) -> pd.DataFrame:
    """Return minute features of the frame's samples and of as many in split fit."""
    rows = pd.concat([frame, frame.assign(sample_id="fit " + frame["sample_id"], split_id="fit")])
    random = np.random.default_rng(len(frame))
    rows = rows[KEYS].assign(
        realized_vol_60m_bps=np.round(random.gamma(2.0, 4.0, len(rows))),
        spread_bps=np.round(random.random(len(rows)), 2),
    )
    rows.loc[random.random(len(rows)) < 0.1, "realized_vol_60m_bps"] = np.nan
    return rows[random.random(len(rows)) < 0.95]


def positions(trades: pd.DataFrame) -> pd.DataFrame:
    """Return made-up executed positions of some of the trades, closed in another order."""
    random = np.random.default_rng(len(trades))
    held = trades[random.random(len(trades)) < 0.6]
    count = len(held)
    bought = np.round(held["planned_ratio"] * random.choice([1.0, 1.25], count), 4)
    cost = COST_BPS * bought
    gross = np.round(random.normal(6.0, 12.0, count)) * bought
    opened = held["event_time"] + pd.Timedelta(minutes=1)
    minutes = random.integers(1, 46, count)
    rows = pd.DataFrame(
        {
            "position_id": held["sample_id"],
            "symbol": held["symbol"],
            "side": held["side"],
            "eval_split": held["split_id"],
            "signal_time": held["event_time"],
            "opened_at": opened,
            "closed_at": opened + pd.to_timedelta(minutes, unit="min"),
            "entry_price": 100.0,
            "average_entry_price": 100.5,
            "exit_price": 101.0,
            "exit_reason": random.choice(["target", "stop", "timeout", "exit_prob"], count),
            "holding_minutes": minutes,
            "add_count": (bought > held["planned_ratio"]).astype(int),
            "reduce_count": 0,
            "initial_ratio": held["planned_ratio"],
            "peak_ratio": bought,
            "traded_ratio": bought,
            "gross_pnl_bps": gross,
            "cost_bps": cost,
            "weighted_edge_bps": gross - cost,
            "actual_edge_bps": (gross - cost) / bought,
            "planned_ratio": bought,
            "direction_prob": held["direction_prob"],
            "entry_prob": held["entry_prob"],
            "market_risk_prob": held["market_risk_prob"],
            "predicted_edge_bps": held["predicted_edge_bps"],
            "threshold_hash": held["threshold_hash"],
        }
    ).sort_values(["closed_at", "symbol", "position_id"])
    rows["trade_index"] = rows.groupby("eval_split").cumcount() + 1
    return rows.sample(frac=1, random_state=count)


def below_backtest(frame: pd.DataFrame, thresholds: Mapping) -> dict[str, pd.DataFrame]:
    """Return what acceptance reads beside pm and what pm reads."""
    trades = admit(frame, thresholds)
    return {
        "factors.minute_features": features(frame),
        "backtest.executed_positions": positions(trades),
        "labels.label_manifest": pd.DataFrame(
            {"label_set": ["entry_labels", "direction_labels"], "data_hash": ["e" * 64, "d" * 64]}
        ),
        "labels.price_plan": pd.DataFrame({"price_plan_id": ["p"], "price_plan_hash": ["f" * 64]}),
        "heads.model_aliases": pd.DataFrame(
            {
                "track": ["minute", "minute", "daily"],
                "target": ["direction", "long_entry", "wave"],
                "fold": ["anchor"] * 3,
                "alias": ["champion"] * 3,
                "model_id": ["one", "two", "three"],
            }
        ),
    }


def below_pm(frame: pd.DataFrame, axes: Mapping = SMALL_AXES) -> dict[str, pd.DataFrame]:
    """Return all that pm reads, with rows that it must leave out."""
    return with_rows_to_ignore(frame) | {"seeds.pm_grid_axes": axis_rows(axes)}


def without_lost_paths(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with executed edges unknown where below_pm leaves their path out."""
    frame = frame.copy()
    kept = below_pm(frame)["labels.executed_paths"]
    for side in ("long", "short"):
        samples = set(kept.loc[kept["side"] == side.upper(), "sample_id"])
        frame.loc[~frame["sample_id"].isin(samples), f"{side}_executed_net_bps"] = np.nan
    return frame


def axis_rows(axes: Mapping[str, Sequence[float]]) -> pd.DataFrame:
    """Return the rows of seeds.pm_grid_axes, the last position first."""
    rows = [
        (axis, position, float(value))
        for axis in AXES
        for position, value in enumerate(axes[axis], start=1)
    ]
    return pd.DataFrame(rows[::-1], columns=["axis", "position", "value"])


@dataclass(frozen=True)
class Built:
    """What dbt made of a made-up warehouse: the file, the manifest and the SQL of each model."""

    warehouse: Warehouse
    frame: pd.DataFrame
    manifest: dict

    def node(self, model: str) -> dict:
        return self.manifest["nodes"][f"model.wavehouse.{model}"]

    def models(self, floor: str) -> list[str]:
        """Return the models of a floor that were built here, each after what it reads."""
        left = [name for name in MODELS if self.node(name)["schema"] == floor]
        found = []
        while left:
            for name in left:
                parents = self.node(name)["depends_on"]["nodes"]
                if not any(f"model.wavehouse.{other}" in parents for other in left):
                    found.append(name)
                    left.remove(name)
                    break
        return found


@functools.cache
def build() -> tuple[Warehouse, pd.DataFrame, str]:
    """Run dbt once per session; return the warehouse, its frame and dbt's output when it failed."""
    folder = Path(tempfile.mkdtemp(prefix="pm_world_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    warehouse = Warehouse(folder / "data", folder / "warehouse.duckdb")
    warehouse.data_dir.mkdir()
    frame = random_frame(7, rows=1_800, symbols=5)
    with duckdb.connect(str(warehouse.file)) as connection:
        write(connection, below_pm(frame) | below_backtest(frame, LOOSE))
    done = warehouse.dbt(
        *("build", "--select", *SEEDS, *MODELS),
        *("--exclude-resource-type", "test", "unit_test"),
        settings={"pm_null_draws": 0},  # searches on shuffled edges have tests of their own
        check=False,
    )
    return warehouse, frame, "" if done.returncode == 0 else done.stdout


@functools.cache
def built() -> Built:
    """Return pm and what lies above it, built by dbt on a made-up frame."""
    warehouse, frame, failure = build()
    assert not failure, failure
    manifest = json.loads((warehouse.file.parent / "target/manifest.json").read_text())
    return Built(warehouse, frame, manifest)


@functools.cache
def seeds() -> dict[str, pd.DataFrame]:
    """Return the seeds that dbt loaded, by relation; those that a test replaces are not there."""
    with built().warehouse.connect() as connection:
        return {f"seeds.{seed}": connection.sql(f"from seeds.{seed}").df() for seed in SEEDS}


def macros(changed: Mapping | None = None) -> dict[str, Callable]:
    """Return the macros by name, rendered as dbt does, with vars of the project or changed ones."""
    schemas = {
        node["name"]: node["schema"]
        for node in built().manifest["nodes"].values()
        if node["resource_type"] in ("model", "seed")
    }
    return macro_context(
        project_vars() | (changed or {}),
        ref=lambda name: f"{schemas[name]}.{name}",
        execute=True,
    )


class World:
    """Models of `built()` on other relations, in memory.

    With settings, their SQL is rendered here with these vars over the project's.
    """

    def __init__(self, relations: Mapping[str, pd.DataFrame], settings: Mapping | None = None):
        self.settings = settings
        self.connection = memory_connection()
        self.connection.execute("attach ':memory:' as warehouse")
        self.connection.execute("use warehouse")
        self.write(seeds())
        self.write(relations)

    def write(self, relations: Mapping[str, pd.DataFrame]) -> None:
        write(self.connection, relations)

    def run(self, *models: str, change: tuple[str, str, str] | None = None) -> None:
        """Build models in the given order; `change` is (model, text, other text)."""
        for model in models:
            sql = self.sql_of(model)
            if change and change[0] == model:
                assert change[1] in sql, change
                sql = sql.replace(*change[1:])
            schema = built().node(model)["schema"]
            self.connection.execute(f"create schema if not exists {schema}")
            self.connection.execute(f"create or replace table {schema}.{model} as {sql}")

    def sql_of(self, model: str) -> str:
        if self.settings is None:
            return built().node(model)["compiled_code"]
        raw = built().node(model)["raw_code"]
        return get_template(raw, {}).render(macros(self.settings))

    def rows(self, relation: str, order: str = "all") -> list[dict]:
        return rows_of(self.connection, relation, order)


def rows_of(connection: duckdb.DuckDBPyConnection, relation: str, order: str = "all") -> list[dict]:
    return connection.sql(f"from {relation} order by {order}").to_arrow_table().to_pylist()


def unknown(value) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def same(found, expected, tolerance: float = 1e-9) -> bool:
    """Equal; numbers to a relative tolerance, NULL and NaN are the same."""
    if unknown(found) or unknown(expected):
        return unknown(found) and unknown(expected)
    if isinstance(expected, float | int) and not isinstance(expected, bool):
        if math.isinf(expected) or math.isinf(found):
            return found == expected
        return abs(found - expected) <= tolerance * max(1.0, abs(expected))
    return found == expected


def differences(
    found: Sequence[Mapping], expected: Sequence[Mapping], columns: Sequence[str], name: str = ""
) -> set[tuple]:
    """Return (name, column) of the columns that differ in any row, (name, "rows") for a count."""
    if len(found) != len(expected):
        return {(name, "rows")}
    return {
        (name, column)
        for ours, theirs in zip(found, expected, strict=True)
        for column in columns
        if not same(ours[column], theirs[column])
    }
