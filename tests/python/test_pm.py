"""The position manager against its evaluator, the evaluator against tables worked by hand."""

import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest

import oracle_pm as oracle
from oracle_pm import AXES, METRICS
from pm_frames import FRAME_COLUMNS, LOOSE, SMALL_AXES, START, frame_of, random_frame
from pm_world import (
    PM_MODELS,
    World,
    below_pm,
    built,
    differences,
    macros,
    rows_of,
    same,
    upstream,
    without_lost_paths,
)
from warehouse import REPO

TUNE, SEALED = "tune_inner", ("validation_locked", "latest_stress")
LIMITS = dict(zip(AXES, (0.5, 0.5, 0.25, 0.75, 1.0, 0.25), strict=True))  # exact in binary
OTHER = {"long": "short", "short": "long"}
VERSION = "trader_pm_config_v1"
METRICS_AND_SCORE = (*METRICS, "score", "score_rank")


def below(value: float) -> float:
    return math.nextafter(value, -math.inf)


def above(value: float) -> float:
    return math.nextafter(value, math.inf)


# ---- trades of a frame, by the three of them


def trades_by_sql(
    frame: pd.DataFrame,
    thresholds: Mapping,
    settings: Mapping | None = None,
    change: tuple[str, str, str] | None = None,
) -> list[dict]:
    """Return pm.pm_trades as SQL makes it of a frame and a config, by split and trade_index."""
    chosen = {name: float(thresholds[name]) for name in AXES}
    config = chosen | {"threshold_hash": oracle.threshold_hash(chosen)}
    world = World({"pm.pm_frame": frame, "pm.pm_config": pd.DataFrame([config])}, settings)
    world.run("pm_trades", change=change)
    return world.rows("pm.pm_trades", "split_id, trade_index")


def trades_expected(frame: pd.DataFrame, thresholds: Mapping) -> list[dict]:
    trades = oracle.admit(frame, thresholds)
    return trades.sort_values(["split_id", "trade_index"]).to_dict("records")


def trade_differences(frame: pd.DataFrame, thresholds: Mapping, **how) -> set[tuple]:
    expected = trades_expected(frame, thresholds)
    columns = [*oracle.TRADE_COLUMNS, *oracle.BASIS_COLUMNS]
    return differences(trades_by_sql(frame, thresholds, **how), expected, columns, "pm_trades")


def sides_of(frame: pd.DataFrame, thresholds: Mapping) -> dict[str, str]:
    """Return {sample_id: side} of the trades, the same by SQL, evaluator and plain loop."""
    assert trade_differences(frame, thresholds) == set()
    by_hand = {trade[0]: trade[1] for trade in oracle.admit_by_hand(frame, thresholds)}
    trades = oracle.admit(frame, thresholds)
    assert dict(zip(trades["sample_id"], trades["side"], strict=True)) == by_hand
    return by_hand


# ---- gates, sides and sizes, worked by hand


def at_the_gates(side: str) -> dict[str, tuple[dict, bool]]:
    """Return {case: (row, whether it is admitted)}: every gate met exactly, missed by a bit."""
    own, other = side, OTHER[side]
    exact = {
        f"{own}_prob": 0.5,
        f"{other}_prob": 0.25,
        f"{own}_entry_prob": 0.25,
        f"{other}_entry_prob": 0.0,
        "market_risk_prob": 0.75,
        f"pred_{own}_expected_net_edge_bps": 1.0,
    }
    missed = {
        "prob": {f"{own}_prob": below(0.5), f"{other}_prob": 0.0},
        "margin": {f"{own}_prob": 0.6, f"{other}_prob": above(0.35)},
        "entry": {f"{own}_entry_prob": below(0.25)},
        "risk": {"market_risk_prob": above(0.75)},
        "edge": {f"pred_{own}_expected_net_edge_bps": below(1.0)},
    }
    names = (*exact, f"pred_{other}_expected_net_edge_bps")
    nulls = {f"{name} unknown": {name: math.nan} for name in names}
    # what the other side alone needs may be unknown
    harmless = {f"{other}_entry_prob unknown", f"pred_{other}_expected_net_edge_bps unknown"}
    return {
        f"{side}: exact": (exact, True),
        **{f"{side}: {gate} missed": (exact | change, False) for gate, change in missed.items()},
        **{f"{side}: {name}": (exact | row, name in harmless) for name, row in nulls.items()},
    }


@pytest.mark.parametrize("side", ["long", "short"])
def test_a_gate_admits_at_its_threshold_not_a_bit_beyond_and_never_an_unknown_value(side):
    cases = at_the_gates(side)
    frame = frame_of(*(row | {"sample_id": case} for case, (row, _) in cases.items()))
    found = sides_of(frame, LIMITS)
    assert found == {case: side.upper() for case, (_, admitted) in cases.items() if admitted}
    assert len(found) == 3


def test_the_margin_is_a_difference_of_doubles():
    """0.56 - 0.54 is above 0.02 and 0.58 - 0.56 below: both as the reference computes them."""
    limits = LIMITS | {"min_direction_margin": 0.02}
    frame = frame_of(
        {"sample_id": "above", "long_prob": 0.56, "short_prob": 0.54, "short_entry_prob": 0.0},
        {"sample_id": "below", "long_prob": 0.58, "short_prob": 0.56, "short_entry_prob": 0.0},
    )
    assert sides_of(frame, limits) == {"above": "LONG"}


def test_both_gates_hold_only_within_the_margin_and_long_wins_equal_scores():
    # probability ahead by 0.25 is worth 2.5 bps to LONG and -2.5 bps to SHORT
    limits = LIMITS | {"min_direction_margin": -0.25}
    ahead = {"long_prob": 0.75, "short_prob": 0.5, "pred_long_expected_net_edge_bps": 10.0}
    level = {"long_prob": 0.5, "short_prob": 0.5, "pred_long_expected_net_edge_bps": 10.0}
    edge = "pred_short_expected_net_edge_bps"
    frame = frame_of(
        {"sample_id": "level, equal edges"} | level | {edge: 10.0},
        {"sample_id": "level, short a bit better"} | level | {edge: above(10.0)},
        {"sample_id": "ahead, equal scores"} | ahead | {edge: 15.0},
        {"sample_id": "ahead, short better"} | ahead | {edge: 15.25},
        {"sample_id": "only short"} | ahead | {edge: 2.0, "long_entry_prob": 0.0},
        {"sample_id": "short unknown"} | ahead | {edge: math.nan},
        {"sample_id": "neither"} | ahead | {"market_risk_prob": 1.0},
    )
    assert sides_of(frame, limits) == {
        "level, equal edges": "LONG",
        "level, short a bit better": "SHORT",
        "ahead, equal scores": "LONG",
        "ahead, short better": "SHORT",
        "only short": "SHORT",
        "short unknown": "LONG",
    }


@pytest.mark.parametrize(
    ("predicted", "risk", "least", "ratio"),
    [
        (11.0, 0.0, 1.0, 0.5),
        (11.0, 0.5, 1.0, 0.25),
        (21.0, 0.0, 1.0, 1.0),
        (31.0, 0.0, 1.0, 1.0),  # strength 1.5, ratio at most 1
        (31.0, 0.5, 1.0, 0.75),  # strength 1.5 before the discount
        (81.0, 0.5, 1.0, 0.75),  # and no more than 1.5
        (1.0, 0.0, 1.0, 0.05),  # at the gate: the least ratio
        (11.0, 1.0, 1.0, 0.05),
        (11.0, -0.5, 1.0, 0.5),  # no discount below 0 or above 1
        (11.0, 1.5, 1.0, 0.05),
        (11.0, 0.0, -9.0, 1.0),  # the same edge is larger above a lower threshold
        (0.0, 0.25, -8.0, 0.3),
    ],
)
def test_size_grows_with_the_edge_above_its_threshold_and_shrinks_with_risk(
    predicted, risk, least, ratio
):
    limits = LIMITS | {"min_expected_edge_bps": least, "max_market_risk_prob": 2.0}
    frame = frame_of(
        {"pred_long_expected_net_edge_bps": predicted, "market_risk_prob": risk},
        actual_long_expected_net_edge_bps=-8.0,
    )
    ((_, _, by_hand, weighted),) = oracle.admit_by_hand(frame, limits)
    assert by_hand == pytest.approx(ratio, rel=1e-15)
    assert weighted == pytest.approx(-8.0 * ratio, rel=1e-15)
    assert trade_differences(frame, limits) == set()


def test_a_trade_carries_the_columns_of_its_side_and_an_index_per_split():
    sides = {
        "long_prob": 0.75, "short_prob": 0.5, "long_entry_prob": 0.625, "short_entry_prob": 0.5,
        "pred_long_expected_net_edge_bps": 11.0, "pred_short_expected_net_edge_bps": 12.0,
        "actual_long_expected_net_edge_bps": 4.0, "actual_short_expected_net_edge_bps": -6.0,
        "long_entry_target": 1.0, "short_entry_target": 0.0, "market_risk_prob": 0.5,
        "long_max_future_edge_net_bps": 4.0, "short_max_future_edge_net_bps": -6.0,
        "long_gross_edge_net_bps": 3.0, "short_gross_edge_net_bps": -7.0,
        "long_future_return_net_bps": 2.0, "short_future_return_net_bps": -8.0,
        "long_executed_net_bps": 1.0, "short_executed_net_bps": -9.0,
    }  # fmt: skip
    turned = {
        name.replace("long", "LONG").replace("short", "long").replace("LONG", "short"): value
        for name, value in sides.items()
    }
    frame = frame_of(
        sides | {"sample_id": "b", "symbol": "A", "event_time": START},
        turned | {"sample_id": "a", "symbol": "B", "event_time": START},
        sides | {"sample_id": "c", "symbol": "A", "event_time": START},
        sides | {"sample_id": "d", "event_time": START - pd.Timedelta(minutes=1)},
        sides | {"sample_id": "e", "split_id": "latest_stress"},
    )
    trades = trades_by_sql(frame, LIMITS)
    assert [(t["split_id"], t["trade_index"], t["sample_id"]) for t in trades] == [
        ("latest_stress", 1, "e"),
        (TUNE, 1, "d"),
        (TUNE, 2, "b"),
        (TUNE, 3, "c"),
        (TUNE, 4, "a"),
    ]
    columns = ("direction_prob", "entry_prob", "market_risk_prob", "predicted_edge_bps",
               "actual_edge_bps", "entry_target", "planned_ratio", "weighted_edge_bps",
               "max_future_edge_net_bps", "gross_edge_net_bps", "future_return_net_bps",
               "executed_net_bps")  # fmt: skip
    for trade in trades:
        values = [trade[name] for name in columns]
        assert values == [0.75, 0.625, 0.5, 11.0, 4.0, 1, 0.25, 1.0, 4.0, 3.0, 2.0, 1.0]
        assert trade["side"] == ("SHORT" if trade["sample_id"] == "a" else "LONG")
    assert trade_differences(frame, LIMITS) == set()


# ---- metrics, worked by hand

NULL = math.nan
WORKED = {
    # weighted edges: nine metrics with a ratio of 0.5, and the drawdown from zero
    "mixed": (
        [-2.0, 3.0, -1.0, -1.0, NULL, -4.0, 0.0, -1.0, 10.0],
        (9, 2 / 9, 1.0, 0.5, 4.0, 7.0, 0.5, 13 / 9, 2),
        7.0,
    ),
    "a first loss is no drawdown": ([-3.0, 1.0], (2, 0.5, -2.0, -1.0, -2.0, 0.0, 0.5, 1 / 3, 1), 3),
    "losses from the first": ([-3.0, -2.0, 1.0], (3, 1 / 3, -8 / 3, -4 / 3, -4, 2, 0.5, 0.2, 2), 5),
    "no loss": ([2.0, 0.0], (2, 0.5, 2.0, 1.0, 2.0, 0.0, 0.5, math.inf, 0), 0.0),
    "no gain": ([-1.0], (1, 0.0, -2.0, -1.0, -1.0, 0.0, 0.5, 0.0, 1), 1.0),
    "zero ends a run": ([-1.0, 0.0, -1.0], (3, 0, -4 / 3, -2 / 3, -2.0, 1.0, 0.5, 0.0, 1), 2.0),
    "unknown ends a run": ([-1.0, NULL, -1.0], (3, 0, -2, -1, -2.0, 1.0, 0.5, 0.0, 1), 2.0),
    "last unknown": ([1.0, -3.0, NULL], (3, 1 / 3, -2.0, -1.0, -2.0, 3.0, 0.5, 1 / 3, 1), 3.0),
    "first unknown": ([NULL, -3.0, 1.0], (3, 1 / 3, -2.0, -1.0, -2.0, 0.0, 0.5, 1 / 3, 1), 3.0),
    "all unknown": ([NULL, NULL], (2, 0.0, None, None, 0.0, 0.0, 0.5, math.inf, 0), 0.0),
}


def as_trades(weighted: Sequence[float], key: str = "", ratio: float = 0.5) -> pd.DataFrame:
    count = len(weighted)
    return pd.DataFrame(
        {
            "key": key,
            "trade_index": np.arange(1, count + 1),
            "planned_ratio": ratio,
            "actual_edge_bps": np.array(weighted) / ratio,
            "weighted_edge_bps": np.array(weighted),
        }
    )


def metrics_by_sql(
    trades: pd.DataFrame, settings: Mapping | None = None, change: tuple[str, str] | None = None
) -> dict[str, dict]:
    world = World({"pm.made_up_trades": trades})
    query = macros(settings)["trade_metrics"]("pm.made_up_trades", ["key"])
    if change:
        assert change[0] in query, change
        query = query.replace(*change)
    return {row["key"]: row for row in rows_of(world.connection, f"({query})")}


@pytest.mark.parametrize("from_zero", [False, True])
def test_metrics_are_those_worked_by_hand(from_zero):
    trades = pd.concat([as_trades(weighted, key) for key, (weighted, *_) in WORKED.items()])
    found = metrics_by_sql(
        trades.sample(frac=1, random_state=1), {"pm_drawdown_from_zero": from_zero}
    )
    assert found.keys() == WORKED.keys()
    for key, (weighted, values, drawdown_from_zero) in WORKED.items():
        expected = dict(zip(METRICS, values, strict=True))
        if from_zero:
            expected["max_drawdown_bps"] = drawdown_from_zero
        evaluated = oracle.trade_metrics(as_trades(weighted), from_zero)
        for name in METRICS:
            assert same(evaluated[name], expected[name]), (key, name)
            assert same(found[key][name], expected[name]), (key, name)


def test_no_trades_are_all_zero():
    empty = oracle.trade_metrics(as_trades([]))
    assert empty == dict.fromkeys(METRICS, 0)
    world = World({})
    zeros = macros()["no_trades_are_zero"]("metrics")
    columns = ", ".join(f"null::double as {name}" for name in METRICS)
    assert world.rows(f"(select {zeros} from (select {columns}) as metrics)") == [empty]


def random_trades(seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    parts = []
    for number, count in enumerate(random.integers(1, 60, 12)):
        weighted = np.round(random.normal(0, 3, count), 1)
        weighted[random.random(count) < 0.1] = 0.0
        weighted[random.random(count) < 0.1] = np.nan
        parts.append(as_trades(weighted, f"key {number}", ratio=0.25))
    return pd.concat(parts).sample(frac=1, random_state=seed)


def metric_differences(trades: pd.DataFrame, change: tuple[str, str] | None = None) -> set[tuple]:
    found = metrics_by_sql(trades, change=change)
    grouped = trades.sort_values("trade_index").groupby("key")
    expected = {key: oracle.trade_metrics(rows) for key, rows in grouped}
    assert found.keys() == expected.keys()
    return differences(
        [found[key] for key in expected], list(expected.values()), METRICS, "trade_metrics"
    )


@pytest.mark.parametrize("seed", range(3))
def test_metrics_of_random_trades_are_the_evaluators(seed):
    assert metric_differences(random_trades(seed)) == set()


SCORED = dict(zip(METRICS, (144, 0.6, 3.0, 0.5, 72.0, 10.0, 0.5, 1.15, 3), strict=True))


@pytest.mark.parametrize(
    ("change", "score"),
    [
        ({}, 0.5 * 12 + 0.05 * 72 - 0.25 * 10),
        ({"profit_factor": math.inf}, 0.5 * 12 + 0.05 * 72 - 0.25 * 10),
        ({"profit_factor": 1.05}, 7.1 - 2.0),
        ({"trade_count": 121}, 0.5 * 11 + 3.6 - 2.5),
        ({"trade_count": 100}, 0.5 * 10 + 3.6 - 2.5 - 30.0),
        ({"avg_weighted_edge_bps": -0.5, "total_weighted_edge_bps": -72}, -6 - 3.6 - 2.5 - 20),
        ({"avg_weighted_edge_bps": None}, None),
        ({"trade_count": 0}, -1_000_000.0),
    ],
)
def test_the_score_of_the_evaluator_is_the_one_worked_by_hand(change, score):
    assert same(oracle.score(SCORED | change), score)


def test_the_evaluators_curve_stays_beside_an_unknown_edge():
    trades = frame_of({}, {}, {}, {}).assign(weighted_edge_bps=[NULL, -2.0, NULL, 5.0])
    points = oracle.equity_curve(trades)
    assert [point["equity_bps"] for point in points] == [None, -2.0, -2.0, 3.0]
    assert [point["drawdown_bps"] for point in points] == [None, 0.0, 0.0, 0.0]
    points = oracle.equity_curve(trades, drawdown_from_zero=True)
    assert [point["drawdown_bps"] for point in points] == [None, 2.0, 2.0, 0.0]


# ---- candidates and config


def candidates_by_sql(axes: Mapping) -> list[dict]:
    world = World({k: v for k, v in below_pm(random_frame(1, 90), axes).items() if "axes" in k})
    world.run("pm_candidates")
    return world.rows("pm.pm_candidates", "candidate_id")


AWKWARD_AXES = {
    "long_open_prob": [0.1 + 0.2, 1e-05],
    "short_open_prob": [1e-7],
    "min_entry_prob": [1 / 3, 0.0],
    "max_market_risk_prob": [1e16, 123456789.125],
    "min_expected_edge_bps": [-0.0, -1e22, 2.5e-310],
    "min_direction_margin": [1.0],
}


@pytest.mark.parametrize("axes", [oracle.REFERENCE_AXES, SMALL_AXES, AWKWARD_AXES])
def test_candidates_are_the_product_of_the_axes_in_nesting_order(axes):
    expected = oracle.candidates(axes)
    found = candidates_by_sql(axes)
    assert [row["candidate_id"] for row in found] == list(range(1, len(expected) + 1))
    assert [{name: row[name] for name in AXES} for row in found] == expected
    assert [row["threshold_hash"] for row in found] == list(map(oracle.threshold_hash, expected))


def test_the_evaluators_candidates_nest_as_the_reference_loops():
    made = oracle.candidates(oracle.REFERENCE_AXES)
    assert len(made) == 14_000
    assert list(made[0].values()) == [0.5, 0.5, 0.1, 0.55, -8.0, 0.0]
    assert list(made[1].values()) == [0.5, 0.5, 0.1, 0.55, -8.0, 0.01]
    assert list(made[4].values()) == [0.5, 0.5, 0.1, 0.55, -4.0, 0.0]
    assert list(made[20].values()) == [0.5, 0.5, 0.1, 0.75, -8.0, 0.0]
    assert list(made[80].values()) == [0.5, 0.5, 0.12, 0.55, -8.0, 0.0]
    assert list(made[-1].values()) == [0.58, 0.58, 0.5, 1.0, 3.0, 0.05]


def test_the_shipped_axes_are_the_references():
    seed = pd.read_csv(REPO / "seeds/pm_grid_axes.csv").sort_values(["axis", "position"])
    axes = {name: list(rows["value"]) for name, rows in seed.groupby("axis")}
    assert axes == oracle.REFERENCE_AXES


def test_equal_scores_go_to_the_first_candidate_and_unknown_ones_last():
    scores = [1.0, None, 2.0, 2.0 + 1e-12, -1e6]
    rows = [{"candidate_id": i, "score": points} for i, points in enumerate(scores, start=1)]
    assert oracle.best(rows)["candidate_id"] == 3
    assert [row["candidate_id"] for row in sorted(rows, key=oracle.preference)] == [3, 4, 1, 5, 2]


def test_the_evaluators_config_reads_back_as_its_thresholds():
    chosen = oracle.candidates(AWKWARD_AXES)[3]
    assert oracle.thresholds_of(oracle.config(chosen, VERSION)) == chosen


# ---- the floor as a whole


def search_of(frame: pd.DataFrame, axes: Mapping = SMALL_AXES) -> list[dict]:
    return oracle.grid(frame[frame["split_id"] == TUNE], axes)


def found_on_pm(connection) -> dict[str, list[dict]]:
    orders = {
        "pm_frame": "event_time, symbol, sample_id",
        "pm_grid_search": "candidate_id",
        "pm_trades": "trade_index",
        "pm_equity_curve": "trade_index",
        "pm_regime_metrics": "split_id, side",
    }
    return {
        model: rows_of(connection, f"pm.{model}", orders.get(model, "all")) for model in PM_MODELS
    }


def pm_differences(found: Mapping[str, list[dict]], frame: pd.DataFrame, search: list) -> set:
    """Compare every relation of pm with what the evaluator makes of the same frame."""
    tune = oracle.ordered(frame[frame["split_id"] == TUNE])
    chosen = oracle.best(search)
    thresholds = {name: chosen[name] for name in AXES}
    trades = oracle.admit(tune, thresholds)
    regimes = [
        {"split_id": split, "side": side} | metrics
        for (split, side), metrics in oracle.regime_metrics(trades).items()
    ]
    wrong = {
        *differences(found["pm_frame"], tune.to_dict("records"), FRAME_COLUMNS, "pm_frame"),
        *differences(found["pm_grid_search"], search, ["candidate_id", *AXES], "pm_grid_search"),
        *differences(found["pm_grid_search"], search, METRICS_AND_SCORE, "pm_grid_search"),
        *differences(
            found["pm_trades"],
            trades.to_dict("records"),
            [*oracle.TRADE_COLUMNS, *oracle.BASIS_COLUMNS],
            "pm_trades",
        ),
        *differences(
            found["pm_equity_curve"],
            oracle.equity_curve(trades),
            ["event_time", "trade_index", "weighted_edge_bps", "equity_bps", "drawdown_bps"],
            "pm_equity_curve",
        ),
        *differences(
            found["pm_regime_metrics"], regimes, ["split_id", "side", *METRICS], "pm_regime_metrics"
        ),
    }
    if set_pairs(found["pm_grid_search"], search):
        wrong.add(("pm_grid_search", "trade_set_id"))
    (config,) = found["pm_config"]
    expected = oracle.config(thresholds, VERSION)
    stability = oracle.stability(search)
    payload = json.loads(config["payload_json"])
    expected_row = thresholds | {
        "pm_config_version": VERSION,
        "candidate_id": chosen["candidate_id"],
        "threshold_hash": oracle.threshold_hash(thresholds),
        "best_score": chosen["score"],
        "edge_basis": "max_future_edge",
        "config_json": oracle.canonical_json(expected),
        "config_hash": oracle.sha256_json(expected),
    }
    wrong |= differences([config], [expected_row], list(expected_row), "pm_config")
    for name, text in config.items():
        if name.endswith("_json") and oracle.canonical_json(json.loads(text)) != text:
            wrong.add(("pm_config", f"{name} is not canonical"))
    block = json.loads(config["stability_json"])
    for name in ("source", "method", "candidate_count", "best_score"):
        if not same(block[name], stability[name]):
            wrong.add(("stability_json", name))
    for name in METRICS:
        value = stability["best_metrics"][name]
        if not same(block["best_metrics"][name], None if math.isinf(value) else value):
            wrong.add(("stability_json", name))
    if payload != {
        "pm_config_version": VERSION,
        "config": expected,
        "config_hash_sha256": oracle.sha256_json(expected),
        "threshold_stability_json": block,
    }:
        wrong.add(("pm_config", "payload_json"))
    return wrong


def set_pairs(found: list[dict], search: list[dict]) -> list:
    """Return the trade_set_ids that stand for two sets of trades, and sets that have two."""
    pairs = {
        (ours["trade_set_id"], theirs["trade_set"])
        for ours, theirs in zip(found, search, strict=True)
    }
    ids, sets = zip(*pairs, strict=True)
    return [*(each for each in ids if ids.count(each) > 1), *(s for s in sets if sets.count(s) > 1)]


@pytest.fixture(scope="module")
def made_up():
    """The frame that dbt built on, and its search by the evaluator."""
    frame = without_lost_paths(built().frame)
    return frame, search_of(frame)


def test_every_relation_that_dbt_built_is_the_evaluators(made_up):
    with built().warehouse.connect() as connection:
        found = found_on_pm(connection)
    assert len(found["pm_trades"]) > 120
    assert pm_differences(found, *made_up) == set()


def test_a_world_runs_what_dbt_built():
    world = World(below_pm(built().frame))
    world.run(*PM_MODELS)
    rendered = World(below_pm(built().frame), settings={})
    rendered.run(*PM_MODELS)
    with built().warehouse.connect() as connection:
        assert found_on_pm(world.connection) == found_on_pm(connection)
        assert found_on_pm(rendered.connection) == found_on_pm(connection)


# rows, symbols, rate of unknown values, drift: few rows, one symbol, many symbols in a minute,
# mostly unknown, losing, winning
FRAMES = [
    (40, 1, 0.0, 0),
    (300, 60, 0.03, 2),
    (400, 3, 0.4, 0),
    (500, 5, 0.0, -6),
    (500, 4, 0.0, 9),
]


@pytest.mark.parametrize(("rows", "symbols", "null_rate", "drift"), FRAMES)
def test_random_searches_are_the_evaluators(rows, symbols, null_rate, drift):
    frame = random_frame(rows + symbols, rows, symbols, null_rate=null_rate, drift_bps=drift)
    world = World(below_pm(frame))
    world.run(*PM_MODELS)
    frame = without_lost_paths(frame)
    assert pm_differences(found_on_pm(world.connection), frame, search_of(frame)) == set()


@pytest.mark.parametrize("seed", range(4))
def test_random_trades_are_the_evaluators(seed):
    random = np.random.default_rng(seed)
    frame = random_frame(100 + seed, rows=240, symbols=int(random.integers(1, 12)))
    made = oracle.candidates(SMALL_AXES)
    for number in random.choice(len(made), 5, replace=False):
        thresholds = made[number]
        trades = oracle.admit(frame, thresholds)
        by_hand = oracle.admit_by_hand(frame, thresholds)
        evaluated = zip(
            trades["sample_id"],
            trades["side"],
            trades["planned_ratio"],
            trades["weighted_edge_bps"],
            strict=True,
        )
        for ours, theirs in zip(evaluated, by_hand, strict=True):
            assert all(map(same, ours, theirs))
        assert trade_differences(frame, thresholds) == set()


def test_a_search_that_admits_nothing_takes_the_first_candidate():
    axes = SMALL_AXES | {"long_open_prob": [0.9, 0.8], "short_open_prob": [0.9]}
    frame = random_frame(4, 60)
    world = World(below_pm(frame, axes))
    world.run(*PM_MODELS)
    found = found_on_pm(world.connection)
    (config,) = found["pm_config"]
    assert (config["candidate_id"], config["best_score"]) == (1, -1_000_000.0)
    assert found["pm_trades"] == found["pm_equity_curve"] == found["pm_regime_metrics"] == []
    assert pm_differences(found, without_lost_paths(frame), search_of(frame, axes)) == set()


@pytest.mark.parametrize("basis", oracle.EDGE_BASES)
def test_search_optimises_the_edge_of_the_setting(basis):
    frame = random_frame(8, 300)
    settings = {"pm_edge_basis": basis, "pm_drawdown_from_zero": True}
    world = World(below_pm(frame), settings)
    world.run("pm_frame", "pm_candidates", "pm_grid_search")
    expected = without_lost_paths(frame)
    for side in ("long", "short"):
        column = f"actual_{side}_expected_net_edge_bps"
        expected[column] = expected[f"{side}_{basis}_net_bps"]
    tune = expected[expected["split_id"] == TUNE]
    search = oracle.grid(tune, SMALL_AXES, drawdown_from_zero=True)
    found = world.rows("pm.pm_grid_search", "candidate_id")
    assert differences(found, search, METRICS_AND_SCORE) == set()


@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ("pm_settings", "pm_edge_basis", "hindsight"),
        ("pm_settings", "pm_drawdown_from_zero", 1),
        ("pm_settings", "pm_edge_scale_bps", 0),
        ("pm_settings", "pm_direction_weight_bps", "ten"),
        ("pm_settings", "pm_min_planned_ratio", 1.5),
        ("pm_grid_settings", "pm_ordered_metrics", "some"),
        ("pm_grid_settings", "pm_score_drawdown_weight", -0.01),
    ],
)
def test_a_wrong_setting_is_named(settings, name, value):
    with pytest.raises(ValueError, match=f"var '{name}' is .*, expected "):
        macros({name: value})[settings]()


def test_the_sample_is_searched_as_the_evaluator_does(sample_warehouse):
    """The whole sample market: trades and config of the winner, every thousandth candidate."""
    with sample_warehouse.connect() as connection:
        frame = connection.sql("from pm.pm_frame").df()
        found = {model: rows_of(connection, f"pm.{model}") for model in ("pm_config", "pm_trades")}
        search = rows_of(connection, "pm.pm_grid_search", "candidate_id")
    made = oracle.candidates(oracle.REFERENCE_AXES)
    assert [row["score_rank"] for row in sorted(search, key=oracle.preference)] == list(
        range(1, len(made) + 1)
    )
    (config,) = found["pm_config"]
    best = config["candidate_id"]
    assert search[best - 1]["score_rank"] == 1
    for number in {best, *range(1, len(made), 1_000)}:
        trades = oracle.admit(frame, made[number - 1])
        metrics = oracle.trade_metrics(trades)
        expected = metrics | {"score": oracle.score(metrics)} | made[number - 1]
        assert differences([search[number - 1]], [expected], list(expected)) == set(), number
    trades = oracle.admit(frame, made[best - 1])
    found["pm_trades"].sort(key=lambda trade: trade["trade_index"])
    columns = [*oracle.TRADE_COLUMNS, *oracle.BASIS_COLUMNS]
    assert differences(found["pm_trades"], trades.to_dict("records"), columns) == set()
    assert config["config_hash"] == oracle.sha256_json(oracle.config(made[best - 1], VERSION))


# ---- what does not change a search


def test_order_of_rows_and_threads_leave_every_bit():
    relations = below_pm(built().frame)
    world = World({name: rows.sample(frac=1, random_state=5) for name, rows in relations.items()})
    world.connection.execute("set threads = 1")
    world.run(*PM_MODELS)
    with built().warehouse.connect() as connection:
        assert found_on_pm(world.connection) == found_on_pm(connection)


def test_equal_trade_sets_have_equal_bits():
    with built().warehouse.connect() as connection:
        found = rows_of(connection, "pm.pm_grid_search")
    metrics = {row["trade_set_id"]: [row[name] for name in METRICS] for row in found}
    assert len(metrics) < len(found)
    for row in found:
        assert [row[name] for name in METRICS] == metrics[row["trade_set_id"]]


def test_later_rows_change_no_earlier_trade():
    frame = built().frame
    moment = frame.loc[frame["split_id"] == TUNE, "event_time"].quantile(0.6)
    curves = {}
    for name, rows in {"whole": frame, "cut": frame[frame["event_time"] <= moment]}.items():
        config = pd.DataFrame([LOOSE | {"threshold_hash": "x"}])
        world = World(upstream(rows) | {"pm.pm_config": config})
        world.run("pm_frame", "pm_trades", "pm_equity_curve")
        curves[name] = [
            world.rows(f"(from pm.{model} where event_time <= timestamp '{moment}')", "trade_index")
            for model in ("pm_trades", "pm_equity_curve")
        ]
    assert len(curves["cut"][0]) > 50
    assert curves["cut"] == curves["whole"]


# ---- sealed splits


def without_sealed_rows(relations: dict) -> dict:
    return {
        name: rows[~rows["split_id"].isin(SEALED)] if "split_id" in rows else rows
        for name, rows in relations.items()
    }


def with_sealed_noise(relations: dict) -> dict:
    random = np.random.default_rng(0)
    changed = {}
    for name, rows in relations.items():
        changed[name] = rows = rows.copy()
        if "split_id" in rows:
            sealed = rows["split_id"].isin(SEALED)
            for column in rows.select_dtypes("number"):
                rows.loc[sealed, column] = random.random(sealed.sum()).round()
    return changed


@pytest.mark.parametrize("change", [without_sealed_rows, with_sealed_noise])
def test_search_never_reads_a_sealed_split(change):
    """Every relation of pm is the same to the bit when sealed rows are gone or noise."""
    before = below_pm(built().frame)
    after = change(before)
    models = built().models("pm")
    assert {*PM_MODELS} <= {*models}
    assert not after["heads.entry_predictions"].equals(before["heads.entry_predictions"])
    world = World(after)
    world.run(*models)
    with built().warehouse.connect() as connection:
        for model in models:
            relation = f"pm.{model}"
            assert world.rows(relation) == rows_of(connection, relation), model


@pytest.fixture(scope="module")
def graph() -> dict[str, dict]:
    """Models by name: floor and the names of the models and seeds that they read."""
    nodes = built().manifest["nodes"]
    return {
        node["name"]: {
            "floor": node["schema"],
            "reads": [parent.split(".")[-1] for parent in node["depends_on"]["nodes"]],
        }
        for node in nodes.values()
        if node["resource_type"] == "model"
    }


def parents(graph: dict, model: str) -> dict[str, str]:
    """Return {name: floor} of the models that a model reads itself."""
    return {name: graph[name]["floor"] for name in graph[model]["reads"] if name in graph}


def all_parents(graph: dict, model: str) -> set[str]:
    found = set()
    left = [model]
    while left:
        new = set(parents(graph, left.pop())) - found
        found |= new
        left += new
    return found


def models_on(graph: dict, *floors: str) -> list[str]:
    found = [name for name, node in graph.items() if node["floor"] in floors]
    assert {graph[name]["floor"] for name in found} == set(floors)
    return found


def test_on_the_pm_floor_only_pm_frame_reads_below_it(graph):
    for model in models_on(graph, "pm"):
        floors = set(parents(graph, model).values())
        if model == "pm_frame":
            assert floors == {"labels", "heads"}
        else:
            assert floors <= {"pm"}, model


def test_nothing_below_the_backtest_depends_on_it(graph):
    for model in models_on(graph, "staging", "factors", "labels", "heads", "pm"):
        above = {graph[name]["floor"] for name in all_parents(graph, model)}
        assert not above & {"backtest", "diagnostics", "release"}, model


# compares populations, sealed and not, over every feature and output of the heads
READS_SEALED_PREDICTIONS = {"drift_check"}


def test_only_the_backtest_takes_sealed_predictions(graph):
    """Above it they come from its relations; nothing is decided on what reads them itself."""
    heads = {name for name in models_on(graph, "heads") if name.endswith("_predictions")}
    takers = {
        model
        for model in models_on(graph, "diagnostics", "release")
        if heads & set(parents(graph, model))
    }
    assert takers <= READS_SEALED_PREDICTIONS
    for model in graph.keys() - READS_SEALED_PREDICTIONS:
        assert not READS_SEALED_PREDICTIONS & set(parents(graph, model)), model


# ---- each of these must be noticed

TRADE_FAULTS = [
    ("frame.long_prob >= thresholds.long_open_prob", "frame.long_prob > thresholds.long_open_prob"),
    ("frame.short_entry_prob >=", "frame.short_entry_prob >"),
    ("market_risk_prob <=", "market_risk_prob <"),
    ("frame.pred_long_expected_net_edge_bps >= thresholds", "1e9 >= thresholds"),
    ("frame.short_prob - frame.long_prob >=", "frame.short_prob - frame.long_prob >"),
    ("(not is_short_open or prefers_long)", "not is_short_open"),
    ("order by event_time, symbol, sample_id", "order by event_time, sample_id"),
    ("actual_edge_bps * planned_ratio", "predicted_edge_bps * planned_ratio"),
    ("partition by split_id", "partition by split_id, symbol"),
]
METRIC_FAULTS = [
    ("coalesce(weighted_edge_bps >= 0, true)", "weighted_edge_bps >= 0"),
    ("coalesce(weighted_edge_bps >= 0, true)", "coalesce(weighted_edge_bps > 0, true)"),
    ("where actual_edge_bps > 0", "where actual_edge_bps >= 0"),
    ("/ count(weighted_edge_bps)", "/ count(*)"),
    ("max(equity_bps) over so_far", "greatest(max(equity_bps) over so_far, 0)"),
    ("max(drawdown_bps)", "min(drawdown_bps)"),
    (
        "where weighted_edge_bps < 0) = 0 then 'inf'::double",
        "where weighted_edge_bps < 0) = 0 then 0",
    ),
]


@pytest.mark.parametrize("fault", TRADE_FAULTS)
def test_a_fault_in_the_trades_is_noticed(fault):
    frame = random_frame(21, 400, symbols=8)
    thresholds = dict(zip(AXES, (0.5, 0.5, 0.1, 0.9, 3.0, 0.0), strict=True))
    assert trade_differences(frame, thresholds, change=("pm_trades", *fault))


@pytest.mark.parametrize("fault", METRIC_FAULTS)
def test_a_fault_in_the_metrics_is_noticed(fault):
    assert metric_differences(random_trades(0), change=fault)
