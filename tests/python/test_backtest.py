"""Acceptance against its evaluator: both accountings, every rule at its edge, the sealed splits."""

import functools
import json
import math
from collections.abc import Mapping

import pandas as pd
import pytest

import oracle_pm as oracle
from oracle_pm import METRICS, SCOPES
from pm_frames import FRAME_COLUMNS, LOOSE, SPLITS, frame_of, random_frame
from pm_world import (
    BACKTEST_MODELS,
    World,
    below_backtest,
    below_pm,
    built,
    differences,
    features,
    rows_of,
    same,
    upstream,
    without_lost_paths,
)

TUNE, LOCKED, STRESS = SPLITS
ACCOUNTINGS = {"label_edge": False, "executed": True}
SESSIONS = ("asia", "europe", "america")  # eight hours each from midnight UTC
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
CARRIED = ("direction_prob", "entry_prob", "market_risk_prob", "predicted_edge_bps",
           "actual_edge_bps", "planned_ratio", "weighted_edge_bps", "threshold_hash")  # fmt: skip


def config_of(thresholds: Mapping) -> pd.DataFrame:
    hashes = {"threshold_hash": oracle.threshold_hash(thresholds), "config_hash": "c" * 64}
    return pd.DataFrame([{**thresholds, **hashes, "edge_basis": "max_future_edge"}])


# ---- expected, by the evaluator


def expected_trades(frame: pd.DataFrame, positions: pd.DataFrame, thresholds: Mapping) -> dict:
    """Return {accounting: trades in run order} with the market at their signal."""
    label_edge = oracle.backtest_trades(frame, thresholds).assign(
        signal_time=lambda trades: trades["event_time"]
    )
    executed = positions.assign(
        sample_id=positions["position_id"], event_time=positions["closed_at"]
    )
    market = features(frame)
    borders = oracle.volatility_borders(
        market.loc[market["split_id"] == "fit", "realized_vol_60m_bps"]
    )
    found = {"label_edge": label_edge, "executed": oracle.in_run_order(executed)}
    for accounting, trades in found.items():
        beside = market.set_index("sample_id").reindex(trades["sample_id"])
        volatility = beside["realized_vol_60m_bps"].to_numpy()
        time = trades["signal_time"]
        found[accounting] = trades.assign(
            realized_vol_60m_bps=volatility,
            spread_bps=beside["spread_bps"].to_numpy(),
            volatility=[oracle.volatility_regime(value, borders) for value in volatility],
            session=[SESSIONS[hour // 8] for hour in time.dt.hour],
            weekday=time.dt.day_name(),
            month=time.dt.strftime("%Y-%m"),
        )
    return found


def expected_metrics(trades: Mapping[str, pd.DataFrame], from_zero: bool = False) -> list[dict]:
    return [
        {
            "accounting": accounting,
            "is_path_honest": ACCOUNTINGS[accounting],
            "eval_split": scope,
            "is_sealed": TUNE not in SCOPES[scope],
            **metrics,
        }
        for accounting, rows in trades.items()
        for scope, metrics in oracle.backtest_metrics(rows, from_zero).items()
    ]


def expected_curve(trades: Mapping[str, pd.DataFrame], from_zero: bool = False) -> list[dict]:
    points = []
    for accounting, rows in trades.items():
        run = oracle.equity_curve(rows, from_zero)
        splits = [
            point
            for split in SPLITS
            for point in oracle.equity_curve(rows[rows["eval_split"] == split], from_zero)
        ]
        for place, (of_run, of_split) in enumerate(zip(run, splits, strict=True)):
            points.append(
                of_run
                | {
                    "accounting": accounting,
                    "eval_split": rows["eval_split"].iloc[place],
                    "run_index": of_run["trade_index"],
                    "trade_index": of_split["trade_index"],
                    "split_equity_bps": of_split["equity_bps"],
                    "split_drawdown_bps": of_split["drawdown_bps"],
                }
            )
    return points


def expected_regimes(trades: Mapping[str, pd.DataFrame]) -> dict[tuple, dict]:
    return {
        (accounting, split, kind, regime): metrics
        for accounting, rows in trades.items()
        for kind in ("side", "symbol", "volatility", "session", "weekday", "month")
        for (split, regime), metrics in oracle.metrics_by(rows, ["eval_split", kind]).items()
    }


# ---- found, by SQL


ORDERS = {
    "backtest_frame": "event_time, symbol, sample_id",
    "backtest_trades": "split_id, trade_index",
    "accounted_trades": "is_path_honest, run_index",
    "backtest_metrics": "is_path_honest, list_position("
    "['tune_inner', 'validation_locked', 'latest_stress', 'sealed', 'combined'], eval_split)",
    "backtest_rule_checks": "is_path_honest, position",
    "equity_curve": "is_path_honest, run_index",
    "regime_metrics": "accounting, regime_kind, regime_position, eval_split",
    "failure_cases": "is_path_honest, failure_rank",
}


def found_on_backtest(connection) -> dict[str, list[dict]]:
    return {
        model: rows_of(connection, f"backtest.{model}", ORDERS.get(model, "all"))
        for model in BACKTEST_MODELS
    }


def expected_on_backtest(
    frame: pd.DataFrame, positions: pd.DataFrame, thresholds: Mapping
) -> dict[str, list[dict]]:
    """Return the rows of every relation of acceptance but of rules and manifest."""
    trades = expected_trades(frame, positions, thresholds)
    label_edge = trades["label_edge"].sort_values(["split_id", "trade_index"])
    accounted = {
        accounting: rows.rename(columns={"volatility": "volatility_regime"}).assign(
            accounting=accounting, is_path_honest=ACCOUNTINGS[accounting]
        )
        for accounting, rows in trades.items()
    }
    worst = {
        accounting: oracle.failure_cases(rows).to_dict("records")
        for accounting, rows in accounted.items()
    }
    regimes = expected_regimes(trades)
    return {
        "backtest_frame": oracle.ordered(frame).to_dict("records"),
        "backtest_trades": label_edge.to_dict("records"),
        "accounted_trades": [row for rows in accounted.values() for row in rows.to_dict("records")],
        "backtest_metrics": expected_metrics(trades),
        "equity_curve": expected_curve(trades),
        "failure_cases": [
            row | {"failure_rank": rank}
            for rows in worst.values()
            for rank, row in enumerate(rows, start=1)
        ],
        "regime_metrics": [
            dict(zip(REGIME_KEYS, place, strict=True)) | regimes[place] for place in sorted(regimes)
        ],
    }


RUN_KEYS = ("accounting", "eval_split", "run_index", "trade_index", "sample_id", "event_time")
REGIME_KEYS = ("accounting", "eval_split", "regime_kind", "regime")
COMPARED = {
    "backtest_frame": FRAME_COLUMNS,
    "backtest_trades": (*oracle.TRADE_COLUMNS, *oracle.BASIS_COLUMNS),
    "accounted_trades": (
        *RUN_KEYS,
        *CARRIED,
        *("is_path_honest", "symbol", "side", "signal_time", "session"),
        *("realized_vol_60m_bps", "spread_bps", "volatility_regime"),
    ),
    "backtest_metrics": ("accounting", "is_path_honest", "eval_split", "is_sealed", *METRICS),
    "equity_curve": (
        *RUN_KEYS,
        *("weighted_edge_bps", "equity_bps", "drawdown_bps"),
        *("split_equity_bps", "split_drawdown_bps"),
    ),
    "failure_cases": (
        *("accounting", "is_path_honest", "failure_rank", "eval_split", "sample_id", "side"),
        *("weighted_edge_bps", "planned_ratio", "event_time", "signal_time"),
    ),
    "regime_metrics": (*REGIME_KEYS, *METRICS),
}


def backtest_differences(found: Mapping, expected: Mapping) -> set[tuple]:
    """Compare every relation of acceptance with what the evaluator makes of the same rows."""
    for row in found["accounted_trades"]:
        row["volatility_regime"] = row["volatility_regime"] or "unknown"
    ordered = found | {
        "regime_metrics": sorted(
            found["regime_metrics"], key=lambda row: [row[name] for name in REGIME_KEYS]
        )
    }
    wrong = set()
    for model, columns in COMPARED.items():
        wrong |= differences(ordered[model], expected[model], columns, model)
    return wrong | verdict_differences(found, expected["backtest_metrics"])


def verdict_differences(found: Mapping, metrics: list[dict]) -> set[tuple]:
    (manifest,) = found["backtest_manifest"]
    wrong = set()
    payload = json.loads(manifest["payload_json"])
    for accounting in ACCOUNTINGS:
        scopes = {row["eval_split"]: row for row in metrics if row["accounting"] == accounting}
        status, reasons = oracle.backtest_status(scopes)
        violated = [
            row["reason"]
            for row in found["backtest_rule_checks"]
            if row["accounting"] == accounting and row["is_violated"]
        ]
        prefix = "executed_" if accounting == "executed" else ""
        block = payload["executed"] if prefix else payload
        verdicts = {
            "backtest_rule_checks": violated == reasons,
            f"{prefix}status": manifest[f"{prefix}status"] == status == block["status"],
            f"{prefix}status_reasons": manifest[f"{prefix}status_reasons"] == reasons,
            f"{prefix}reasons in payload": block["status_reasons"] == reasons,
        }
        wrong |= {("verdict", name) for name, right in verdicts.items() if not right}
        text = json.loads(manifest[f"{prefix}metrics_json"])
        for scope, expected in scopes.items():
            for name in METRICS:
                value = expected[name]
                value = None if value is None or math.isinf(value) else value
                if not same(text[scope][name], value) or text != block["metrics"]:
                    wrong.add(("metrics_json", name))
    return wrong


# ---- the evaluator, worked by hand


def test_the_evaluators_run_is_one_split_after_the_other():
    frame = frame_of(
        {"sample_id": "s1", "split_id": STRESS},
        {"sample_id": "l2", "split_id": LOCKED},
        {"sample_id": "t1", "split_id": TUNE},
        {"sample_id": "l3", "split_id": LOCKED},
        {"sample_id": "f", "split_id": "fit"},
        actual_long_expected_net_edge_bps=-2.0,
    )
    trades = oracle.backtest_trades(frame, LOOSE)
    assert list(trades["sample_id"]) == ["t1", "l2", "l3", "s1"]
    assert list(trades["run_index"]) == [1, 2, 3, 4]
    assert list(trades["trade_index"]) == [1, 1, 2, 1]
    metrics = oracle.backtest_metrics(trades)
    runs = {scope: values["max_consecutive_losses"] for scope, values in metrics.items()}
    assert runs == {TUNE: 1, LOCKED: 2, STRESS: 1, "sealed": 3, "combined": 4}
    drawdowns = {scope: values["max_drawdown_bps"] for scope, values in metrics.items()}
    assert drawdowns == {TUNE: 0.0, LOCKED: 2.0, STRESS: 0.0, "sealed": 4.0, "combined": 6.0}


def test_the_evaluators_borders_are_thirds():
    assert oracle.volatility_borders([3.0, 1.0, math.nan, 2.0]) == (1.0, 2.0)
    assert oracle.volatility_borders(range(1, 8)) == (3.0, 5.0)
    borders = (1.0, 2.0)
    values = (0.5, 1.0, 1.5, 2.0, 2.5, math.nan)
    named = [oracle.volatility_regime(value, borders) for value in values]
    assert named == ["low", "low", "middle", "middle", "high", "unknown"]


# ---- rules at their edges

GOOD = dict(zip(METRICS, (100, 0.6, 2.0, 1.0, 100.0, 10.0, 0.5, 1.5, 3), strict=True))
UP, DOWN = math.inf, -math.inf
LOCKED_RULES = [  # metric, a value that the rule lets pass, the next one, which it does not, rule
    ("total_weighted_edge_bps", math.nextafter(0.0, UP), 0.0, "net_edge_not_positive"),
    ("trade_count", 80, 79, "trade_count_below_80"),
    ("profit_factor", 1.15, math.nextafter(1.15, DOWN), "profit_factor_below_1.15"),
    ("avg_weighted_edge_bps", math.nextafter(0.0, UP), 0.0, "avg_trade_edge_not_positive"),
    ("max_consecutive_losses", 8, 9, "max_consecutive_losses_above_8"),
]
STRESS_RULES = [
    ("trade_count", 20, 19, "trade_count_below_20"),
    ("profit_factor", 1.0, math.nextafter(1.0, DOWN), "profit_factor_below_1.0"),
    ("avg_weighted_edge_bps", -3.0, math.nextafter(-3.0, DOWN), "avg_trade_edge_below_minus_3"),
    ("max_consecutive_losses", 10, 11, "max_consecutive_losses_above_10"),
    ("total_weighted_edge_bps", -50.0, math.nextafter(-50.0, DOWN), "loss_too_large_vs_validation"),
]
CASES = [
    (split, *rule)
    for split, rules in ((LOCKED, LOCKED_RULES), (STRESS, STRESS_RULES))
    for rule in rules
]


class Judge:
    """backtest.backtest_rule_checks and backtest_manifest on made-up metrics."""

    def __init__(self):
        frame = random_frame(1, 60)
        self.world = World(
            below_pm(frame) | below_backtest(frame, LOOSE) | {"pm.pm_config": config_of(LOOSE)}
        )

    def verdict(self, changes: Mapping[str, Mapping], accounting: str = "label_edge") -> list[str]:
        """Return the reasons against metrics that are GOOD but for {split: {metric: value}}.

        The evaluator agrees, and the other accounting, whose metrics are GOOD, passes.
        """
        rows = [
            {"accounting": each, "is_path_honest": honest, "eval_split": scope}
            | GOOD
            | (changes.get(scope, {}) if each == accounting else {})
            for each, honest in ACCOUNTINGS.items()
            for scope in SCOPES
        ]
        self.world.write({"backtest.backtest_metrics": pd.DataFrame(rows)})
        self.world.run("backtest_rule_checks", "backtest_manifest")
        found = {
            model: self.world.rows(f"backtest.{model}", ORDERS.get(model, "all"))
            for model in ("backtest_rule_checks", "backtest_manifest")
        }
        assert verdict_differences(found, rows) == set()
        (manifest,) = found["backtest_manifest"]
        prefixes = {"label_edge": "", "executed": "executed_"}
        (other,) = set(prefixes) - {accounting}
        assert manifest[f"{prefixes[other]}status"] == "PASS"
        return manifest[f"{prefixes[accounting]}status_reasons"]


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge()


@pytest.mark.parametrize("accounting", ACCOUNTINGS)
@pytest.mark.parametrize(("split", "metric", "passes", "fails", "rule"), CASES)
def test_a_rule_passes_its_threshold_and_rejects_the_next_value(
    judge, split, metric, passes, fails, rule, accounting
):
    assert judge.verdict({split: {metric: passes}}, accounting) == []
    assert judge.verdict({split: {metric: fails}}, accounting) == [f"{split}_{rule}"]


def test_every_rule_that_holds_is_named_in_order(judge):
    worst = {metric: fails for metric, _, fails, _ in LOCKED_RULES}
    stress = {metric: fails for metric, _, fails, _ in STRESS_RULES}
    # without a gain in validation no loss is too large against it
    reasons = [f"{LOCKED}_{rule}" for *_, rule in LOCKED_RULES]
    reasons += [f"{STRESS}_{rule}" for *_, rule in STRESS_RULES[:-1]]
    assert judge.verdict({LOCKED: worst, STRESS: stress}) == reasons
    del worst["total_weighted_edge_bps"]
    loss = f"{STRESS}_{STRESS_RULES[-1][-1]}"
    assert judge.verdict({LOCKED: worst, STRESS: stress}) == [*reasons[1:], loss]


@pytest.mark.parametrize("split", [TUNE, "sealed", "combined"])
def test_other_splits_do_not_decide(judge, split):
    assert judge.verdict({split: dict.fromkeys(METRICS, -1e9)}) == []


def test_no_trades_and_unknown_values_do_not_pass(judge):
    nothing = dict.fromkeys(METRICS, 0.0)
    assert judge.verdict({LOCKED: nothing}) == [
        f"{LOCKED}_{rule}" for _, _, _, rule in LOCKED_RULES[:-1]
    ]
    assert judge.verdict({STRESS: nothing}) == [
        f"{STRESS}_trade_count_below_20",
        f"{STRESS}_profit_factor_below_1.0",
    ]
    # thirty trades of unknown edge: the reference would pass the average
    unknown = nothing | {
        "trade_count": 30,
        "profit_factor": math.inf,
        "avg_weighted_edge_bps": None,
    }
    assert judge.verdict({STRESS: unknown}) == [f"{STRESS}_avg_trade_edge_below_minus_3"]


def test_an_infinite_profit_factor_passes(judge):
    assert judge.verdict({split: {"profit_factor": math.inf} for split in SPLITS}) == []


# ---- the floor as a whole


def test_every_relation_that_dbt_built_is_the_evaluators():
    frame = without_lost_paths(built().frame)
    with built().warehouse.connect() as connection:
        found = found_on_backtest(connection)
        (config,) = rows_of(connection, "pm.pm_config")
    assert len(found["backtest_trades"]) > 300
    thresholds = {name: config[name] for name in oracle.AXES}
    positions = below_backtest(built().frame, LOOSE)["backtest.executed_positions"]
    expected = expected_on_backtest(frame, positions, thresholds)
    assert backtest_differences(found, expected) == set()
    (manifest,) = found["backtest_manifest"]
    assert manifest["pm_config_hash_sha256"] == config["config_hash"]
    payload = json.loads(manifest["payload_json"])
    assert payload["pm_config_hash_sha256"] == config["config_hash"]
    assert payload["backtest_manifest_id"] == manifest["backtest_manifest_id"]
    assert payload["mode"] == manifest["mode"] == "VALIDATION_PM_BACKTEST"
    assert oracle.canonical_json(payload) == manifest["payload_json"]
    assert [row["accounting"] for row in found["failure_cases"]] == [
        *["label_edge"] * 20,
        *["executed"] * 20,
    ]


def test_the_sample_is_judged_as_the_evaluator_does(sample_warehouse):
    models = ("backtest_metrics", "backtest_rule_checks", "backtest_manifest")
    with sample_warehouse.connect() as connection:
        frame = connection.sql("from backtest.backtest_frame").df()
        (config,) = rows_of(connection, "pm.pm_config")
        held = connection.sql("from backtest.executed_positions").df()
        found = {
            model: rows_of(connection, f"backtest.{model}", ORDERS.get(model, "all"))
            for model in models
        }
    trades = {
        "label_edge": oracle.backtest_trades(frame, {name: config[name] for name in oracle.AXES}),
        "executed": oracle.in_run_order(held),
    }
    metrics = expected_metrics(trades)
    assert all(row["trade_count"] > 50 for row in metrics)
    columns = COMPARED["backtest_metrics"]
    assert differences(found["backtest_metrics"], metrics, columns) == set()
    assert verdict_differences(found, metrics) == set()


def backtest_world(frame: pd.DataFrame, thresholds: Mapping, **how) -> World:
    relations = below_pm(frame) | below_backtest(frame, thresholds)
    return World(relations | {"pm.pm_config": config_of(thresholds)}, **how)


@functools.cache
def frame_and_expected(rows: int, symbols: int, null_rate: float, drift: float):
    frame = random_frame(rows + symbols, rows, symbols, null_rate=null_rate, drift_bps=drift)
    positions = below_backtest(frame, LOOSE)["backtest.executed_positions"]
    return frame, expected_on_backtest(without_lost_paths(frame), positions, LOOSE)


def world_differences(made: tuple, change: tuple[str, str, str] | None = None) -> set[tuple]:
    frame, expected = frame_and_expected(*made)
    world = backtest_world(frame, LOOSE)
    world.run(*BACKTEST_MODELS, change=change)
    return backtest_differences(found_on_backtest(world.connection), expected)


# rows, symbols, rate of unknown values, drift: few trades, so that some rules and failure lists run
# short; one symbol; many unknown; all losing
FRAMES = [(45, 2, 0.0, 0.0), (300, 1, 0.03, 3.0), (400, 6, 0.4, 0.0), (600, 40, 0.02, -30.0)]


@pytest.mark.parametrize("made", FRAMES)
def test_random_runs_are_the_evaluators(made):
    assert world_differences(made) == set()


def test_a_run_without_trades_is_rejected_with_zero_metrics():
    frame = random_frame(3, 90)
    nothing = LOOSE | {"long_open_prob": 0.99, "short_open_prob": 0.99}
    relations = (
        below_pm(frame) | below_backtest(frame, LOOSE) | {"pm.pm_config": config_of(nothing)}
    )
    none = relations["backtest.executed_positions"].head(0)
    world = World(relations | {"backtest.executed_positions": none})
    world.run(*BACKTEST_MODELS)
    found = found_on_backtest(world.connection)
    assert found["backtest_trades"] == found["failure_cases"] == found["equity_curve"] == []
    assert len(found["backtest_metrics"]) == len(ACCOUNTINGS) * len(SCOPES)
    assert all(row[name] == 0 for row in found["backtest_metrics"] for name in METRICS)
    (manifest,) = found["backtest_manifest"]
    assert manifest["status"] == manifest["executed_status"] == "REJECTED"
    assert manifest["status_reasons"] == manifest["executed_status_reasons"]
    assert len(manifest["status_reasons"]) == 6


def test_drawdowns_may_count_from_zero():
    frame = random_frame(12, 400, 4, drift_bps=-2.0)
    settings = {"pm_drawdown_from_zero": True}
    world = backtest_world(frame, LOOSE, settings=settings)
    models = ("backtest_frame", "backtest_trades", "volatility_regimes", "accounted_trades")
    world.run(*models, "backtest_metrics", "equity_curve")
    positions = below_backtest(frame, LOOSE)["backtest.executed_positions"]
    trades = expected_trades(without_lost_paths(frame), positions, LOOSE)
    found = world.rows("backtest.backtest_metrics", ORDERS["backtest_metrics"])
    assert differences(found, expected_metrics(trades, True), METRICS) == set()
    found = world.rows("backtest.equity_curve", ORDERS["equity_curve"])
    columns = ["drawdown_bps", "split_drawdown_bps"]
    assert differences(found, expected_curve(trades, True), columns) == set()


def test_regimes_have_their_own_order():
    with built().warehouse.connect() as connection:
        found = rows_of(connection, "backtest.regime_metrics", ORDERS["regime_metrics"])
    orders = {
        "volatility": ("low", "middle", "high", "unknown"),
        "session": SESSIONS,
        "weekday": WEEKDAYS,
    }
    for kind, order in orders.items():
        regimes = list(dict.fromkeys(row["regime"] for row in found if row["regime_kind"] == kind))
        assert len(regimes) > 1
        assert regimes == sorted(regimes, key=order.index), kind


# ---- what does not change a run


def test_order_of_rows_and_threads_leave_every_bit():
    frame = built().frame
    relations = below_pm(frame) | below_backtest(frame, LOOSE)
    with built().warehouse.connect() as connection:
        relations["pm.pm_config"] = connection.execute("from pm.pm_config").df()
        before = found_on_backtest(connection)
    world = World({name: rows.sample(frac=1, random_state=3) for name, rows in relations.items()})
    world.connection.execute("set threads = 1")
    world.run(*BACKTEST_MODELS)
    after = found_on_backtest(world.connection)
    for found in (before, after):  # its id is of hashes that this world makes up
        for row in found["backtest_manifest"]:
            row.pop("inputs_json")
    assert after == before


def test_later_rows_change_no_earlier_trade_of_a_split():
    """What counts over the whole run is left out: a position of one split may close in the next."""
    frame = random_frame(17, 600, 4)
    moment = frame.loc[frame["split_id"] == LOCKED, "event_time"].quantile(0.5)
    beside = below_backtest(frame, LOOSE) | {"pm.pm_config": config_of(LOOSE)}
    held = beside["backtest.executed_positions"]
    found = {}
    for name, rows in {"whole": frame, "cut": frame[frame["event_time"] <= moment]}.items():
        until = held if name == "whole" else held[held["closed_at"] <= moment]
        world = World(upstream(rows) | beside | {"backtest.executed_positions": until})
        world.run(*BACKTEST_MODELS)
        found[name] = {
            model: world.rows(
                f"(select * exclude ({over_the_run}) from backtest.{model}"
                f" where event_time <= timestamp '{moment}')"
            )
            for model, over_the_run in (
                ("backtest_trades", "threshold_hash"),
                ("accounted_trades", "run_index"),
                ("equity_curve", "run_index, equity_bps, drawdown_bps"),
            )
        }
    assert len(found["cut"]["equity_curve"]) > 100
    assert found["cut"] == found["whole"]


# ---- each of these must be noticed

FAULTS = [
    ("backtest_frame", "'latest_stress'", "'fit'"),
    ("accounted_trades", "'validation_locked', 'latest_stress'",
     "'latest_stress', 'validation_locked'"),
    ("accounted_trades", "closed_at as event_time", "signal_time as event_time"),
    ("accounted_trades", "> regimes.above_bps", ">= regimes.above_bps"),
    ("accounted_trades", "hour(trades.signal_time)", "hour(trades.event_time)"),
    ("volatility_regimes", "where split_id = 'fit'", "where split_id <> 'fit'"),
    ("backtest_metrics", "'combined', false, 'tune_inner'", "'combined', false, 'latest_stress'"),
    ("equity_curve", "partition by accounting order by run_index",
     "partition by accounting order by event_time, run_index"),
    ("equity_curve", "partition by accounting, eval_split", "partition by accounting"),
    ("failure_cases", "weighted_edge_bps nulls last, event_time", "weighted_edge_bps, sample_id"),
    ("failure_cases", "weighted_edge_bps nulls last", "actual_edge_bps nulls last"),
    ("regime_metrics", "dayname(signal_time)", "dayname(signal_time + interval 1 hour)"),
    ("backtest_manifest", "filter (where is_violated)", "filter (where not is_violated)"),
    ("backtest_manifest", "label_edge.status_reasons", "executed.status_reasons"),
]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]}: {fault[1][:30]}")
def test_a_fault_is_noticed(fault):
    assert world_differences((400, 4, 0.03, 2.0), change=fault)
