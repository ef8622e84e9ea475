"""Diagnostics against their evaluator, the evaluator against tables worked by hand."""

import functools
import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

import oracle_diagnostics as oracle
from oracle_pm import candidates, grid, threshold_hash
from pm_frames import SMALL_AXES, SPLITS, START, frame_of, random_frame
from pm_world import (
    World,
    below_pm,
    built,
    differences,
    rows_of,
    same,
    upstream,
    without_lost_paths,
)

TUNE = SPLITS[0]
ON_FRAME = (
    "score_distribution",
    "gate_funnel",
    "relaxed_variants",
    "direction_top_score",
    "entry_prob_deciles",
    "training_diagnosis",
)
MODELS = ("label_summary", *ON_FRAME)
ORDERS = {
    "relaxed_variants": "split_id, position",
    "gate_funnel": "split_id, side, position",
    "direction_top_score": "split_id, fraction",
    "entry_prob_deciles": "split_id, side, bucket",
    "score_distribution": "split_id, column_name, quantile",
    "grid_trade_summary": "split_id",
    "label_summary": "split_id, label_set, side, statistic, quantile",
}
PLAIN = {
    "row_count": "rows",
    "win_rate": "win_rate",
    "avg_actual_edge_bps": "avg_actual_edge_bps",
    "long_rows": "long_count",
    "short_rows": "short_count",
}
NULL = math.nan


def below(value: float) -> float:
    return math.nextafter(value, -math.inf)


# ---- expected, by the evaluator, in the rows and columns of the relations


def split_frames(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return dict(iter(frame.groupby("split_id")))


def executed_too(evaluate, frame: pd.DataFrame) -> tuple:
    """Return what `evaluate` makes of a frame, and of the same frame with executed edges."""
    honest = frame.copy()
    for side in ("long", "short"):
        honest[f"actual_{side}_expected_net_edge_bps"] = frame[f"{side}_executed_net_bps"]
    return evaluate(frame), evaluate(honest)


def plain(found: Mapping, honest: Mapping) -> dict:
    columns = {name: found[theirs] for name, theirs in PLAIN.items()}
    return columns | {"avg_executed_edge_bps": honest["avg_actual_edge_bps"]}


def expected_on_frame(frame: pd.DataFrame) -> dict[str, list[dict]]:
    expected = {model: [] for model in ON_FRAME}
    for split, rows in sorted(split_frames(frame).items()):
        key = {"split_id": split}
        for column, quantiles in sorted(oracle.score_distribution(rows).items()):
            finite = int(np.isfinite(rows[column].astype("float64")).sum())
            expected["score_distribution"] += [
                key
                | {
                    "column_name": column,
                    "quantile": point,
                    "value": quantiles.get(point),
                    "finite_rows": finite,
                }
                for point in oracle.SCORE_POINTS
            ]
        for side, steps in sorted(oracle.gate_funnel(rows).items()):
            expected["gate_funnel"] += [
                key
                | {
                    "side": side,
                    "position": position,
                    "gate": gate,
                    "threshold": oracle.FUNNEL_LIMITS[gate],
                    "row_count": len(rows),
                    "rows_passing_gate": alone,
                    "passing_share": alone / len(rows),
                    "rows_after_gate": left,
                    "remaining_share": left / len(rows),
                }
                for position, (gate, alone, left) in enumerate(steps, start=1)
            ]
        tops, honest = executed_too(oracle.direction_top_score, rows)
        expected["direction_top_score"] += [
            key | {"fraction": fraction} | plain(tops[fraction], honest[fraction])
            for fraction in tops
        ]
        for side in ("LONG", "SHORT"):
            expected["entry_prob_deciles"] += [
                key | {"side": side, "row_count": bucket["rows"]} | bucket
                for bucket in oracle.entry_prob_deciles(rows, side)
            ]
    both_variants = {
        split: executed_too(oracle.relaxed_variants, frame[frame["split_id"] == split])
        for split in sorted(SPLITS)  # each has its variants, rows or not
    }
    expected["relaxed_variants"] = [
        {"split_id": split, "variant": name} | plain(variants[name], honest[name])
        for split, (variants, honest) in both_variants.items()
        for name in variants
    ]
    funnel = oracle.gate_funnel(frame[frame["split_id"] == TUNE])
    variants, honest = both_variants[TUNE]
    traded = [each["avg_actual_edge_bps"] for each in variants.values() if each["rows"]]
    expected["training_diagnosis"] = [
        {
            "status": oracle.conclusion(funnel, variants),
            "executed_status": oracle.conclusion(funnel, honest),
            "long_rows_passing_edge": funnel["LONG"][-1][1],
            "short_rows_passing_edge": funnel["SHORT"][-1][1],
            "best_relaxed_avg_actual_edge_bps": max(
                (each for each in traded if each is not None), default=None
            ),
        }
    ]
    return expected


COLUMNS = {
    "score_distribution": ("split_id", "column_name", "quantile", "value", "finite_rows"),
    "gate_funnel": (
        *("split_id", "side", "position", "gate", "threshold", "row_count"),
        *("rows_passing_gate", "passing_share", "rows_after_gate", "remaining_share"),
    ),
    "relaxed_variants": ("split_id", "variant", *PLAIN, "avg_executed_edge_bps"),
    "direction_top_score": ("split_id", "fraction", *PLAIN, "avg_executed_edge_bps"),
    "entry_prob_deciles": (
        *("split_id", "side", "bucket", "row_count", "score_min", "score_max", "hit_rate"),
        "avg_actual_edge_bps",
    ),
    "training_diagnosis": (
        *("status", "executed_status", "long_rows_passing_edge", "short_rows_passing_edge"),
        "best_relaxed_avg_actual_edge_bps",
    ),
}


def expected_labels(direction: pd.DataFrame, entry: pd.DataFrame) -> dict[tuple, float]:
    """Return {(split, label set, side, statistic): value}; a split without rows has only rows."""
    values = {}
    for split, found in oracle.label_summary(direction, entry).items():
        of_direction = found["direction"]
        key = (split, "direction", "BOTH")
        values[*key, "rows"] = of_direction.get("rows", 0)
        if of_direction:
            for label in ("LONG", "NEUTRAL", "SHORT"):
                ratio = of_direction["label_ratio"].get(label, 0.0)
                values[*key, f"ratio_{label.lower()}"] = ratio
            for point, value in of_direction["future_return_bps_quantile"].items():
                values[*key, f"future_return_bps_q{point}"] = value
        values[split, "entry", "BOTH", "rows"] = sum(
            each["rows"] for each in found["entry"].values()
        )
        for side in ("LONG", "SHORT"):
            of_side = found["entry"].get(side)
            key = (split, "entry", side)
            values[*key, "rows"] = of_side["rows"] if of_side else 0
            if of_side:
                values[*key, "target_rate"] = of_side["target_rate"]
                values[*key, "net_edge_bps_mean"] = of_side["edge_mean"]
                for point, value in of_side["edge_quantile"].items():
                    values[*key, f"net_edge_bps_q{point}"] = value
    return values


# ---- found, by SQL


def frame_differences(found: Mapping[str, list], expected: Mapping[str, list]) -> set[tuple]:
    wrong = set()
    for model, columns in COLUMNS.items():
        wrong |= differences(found[model], expected[model], columns, model)
    return wrong


def label_differences(found: list[dict], expected: Mapping[tuple, float]) -> set[tuple]:
    values = {
        (row["split_id"], row["label_set"], row["side"], row["statistic"]): row["value"]
        for row in found
    }
    assert len(values) == len(found)
    known = {place: value for place, value in values.items() if value is not None}
    unexpected = known.keys() ^ {place for place, value in expected.items() if value is not None}
    return {(place, "there or not") for place in unexpected} | {
        (place, "value") for place in known if not same(known[place], expected.get(place))
    }


def found_in(connection, models=ON_FRAME) -> dict[str, list[dict]]:
    return {
        model: rows_of(connection, f"diagnostics.{model}", ORDERS.get(model, "all"))
        for model in models
    }


def on_frame(frame: pd.DataFrame, change: tuple[str, str, str] | None = None) -> dict:
    world = World({"backtest.backtest_frame": frame})
    world.run(*ON_FRAME, change=change)
    return found_in(world.connection)


def checked(frame: pd.DataFrame) -> dict[str, list[dict]]:
    """Return the relations of a frame, the same by SQL and evaluator."""
    found = on_frame(frame)
    assert frame_differences(found, expected_on_frame(frame)) == set()
    return found


# ---- quantiles, worked by hand


def test_quantiles_are_linear_and_pass_over_what_is_not_finite():
    values = pd.Series([4.0, 1.0, NULL, 2.0, math.inf, 3.0, -math.inf, 5.0])
    found = oracle.quantiles(values, (0.0, 0.05, 0.5, 0.95, 1.0))
    assert found == {0.0: 1.0, 0.05: 1.2, 0.5: 3.0, 0.95: 4.8, 1.0: 5.0}
    assert oracle.quantiles(pd.Series([NULL]), (0.5,)) == {}
    assert oracle.quantiles(pd.Series([0.0, 1e-5 / 3]), (1.0,)) == {1.0: 3e-6}


# ---- the funnel, worked by hand

EXACT = {
    "long_prob": 0.54, "short_prob": 0.5, "long_entry_prob": 0.5, "market_risk_prob": 0.55,
    "pred_long_expected_net_edge_bps": 1.0, "short_entry_prob": 0.0,
}  # fmt: skip


def test_a_funnel_counts_each_gate_alone_and_those_before_it_together():
    frame = frame_of(
        EXACT,
        EXACT | {"long_prob": below(0.54)},
        EXACT | {"short_prob": 0.53},
        EXACT | {"long_entry_prob": below(0.5)},
        EXACT | {"market_risk_prob": math.nextafter(0.55, 1)},
        EXACT | {"pred_long_expected_net_edge_bps": below(1.0)},
        EXACT | {"market_risk_prob": NULL},
        EXACT | {"short_prob": NULL},
    )
    funnel = {
        row["gate"]: (row["rows_passing_gate"], row["rows_after_gate"])
        for row in checked(frame)["gate_funnel"]
        if row["side"] == "LONG"
    }
    assert funnel == {
        "prob": (7, 7),
        "margin": (6, 5),
        "entry": (7, 4),
        "risk": (6, 2),
        "edge": (7, 1),
    }


def test_a_funnel_of_a_split_that_stops_every_row_has_all_its_gates():
    found = checked(frame_of({"long_prob": 0.1, "short_prob": 0.1}))["gate_funnel"]
    assert [row["rows_after_gate"] for row in found] == [0] * 10
    assert {row["rows_passing_gate"] for row in found if row["gate"] != "prob"} == {0, 1}


# ---- relaxed variants, worked by hand


def test_a_row_that_passes_both_sides_counts_once_for_each():
    both = {"long_prob": 0.5, "short_prob": 0.5, "long_entry_prob": 0.55, "short_entry_prob": 0.55}
    frame = frame_of(
        both | {"actual_long_expected_net_edge_bps": 4.0, "actual_short_expected_net_edge_bps": -1},
        both | {"actual_long_expected_net_edge_bps": NULL, "actual_short_expected_net_edge_bps": 0},
        both | {"short_entry_prob": below(0.45), "long_entry_prob": 0.45},
    )
    rows = [row for row in checked(frame)["relaxed_variants"] if row["split_id"] == TUNE]
    found = {row["variant"]: row for row in rows}
    counts = {
        name: [row[column] for column in ("row_count", "long_rows", "short_rows")]
        for name, row in found.items()
    }
    assert counts == {
        "no_risk_no_edge": [0, 0, 0],
        "entry_only_55": [4, 2, 2],
        "direction_only_54": [0, 0, 0],
        "very_loose": [5, 3, 2],
    }
    assert found["entry_only_55"]["win_rate"] == 0.25
    assert found["entry_only_55"]["avg_actual_edge_bps"] == 1.0
    assert found["no_risk_no_edge"]["win_rate"] == 0
    assert found["no_risk_no_edge"]["avg_actual_edge_bps"] == 0


# ---- highest direction scores, worked by hand


def test_the_highest_scores_are_those_of_the_likelier_side_ties_in_order():
    def row(name, minute, long_prob, short_prob, **columns):
        time = START + pd.Timedelta(minutes=minute)
        return {"sample_id": name, "event_time": time, "long_prob": long_prob,
                "short_prob": short_prob, **columns}  # fmt: skip

    edges = {"actual_long_expected_net_edge_bps": 1.0, "actual_short_expected_net_edge_bps": -2.0}
    first = row("z", 0, 0.6, 0.2, actual_long_expected_net_edge_bps=8.0)
    equal = row("y", 1, 0.6, 0.6, actual_long_expected_net_edge_bps=16.0)
    short = row("x", 2, 0.3, 0.6, actual_short_expected_net_edge_bps=32.0)
    unknown = row("w", 3, 0.9, NULL)  # cannot be compared: SHORT, and its probability is unknown
    rest = [row(f"r{minute}", minute, 0.1, 0.05) for minute in range(4, 40)]
    frame = frame_of(short, unknown, *rest, equal, first, **edges)
    found = {row["fraction"]: row for row in checked(frame)["direction_top_score"]}
    assert {fraction: row["row_count"] for fraction, row in found.items()} == {
        0.01: 1,
        0.02: 1,
        0.05: 2,
        0.1: 4,
    }
    assert found[0.01]["avg_actual_edge_bps"] == 8.0
    assert found[0.05]["avg_actual_edge_bps"] == 12.0
    assert (found[0.1]["long_rows"], found[0.1]["short_rows"]) == (3, 1)
    assert found[0.1]["avg_actual_edge_bps"] == (8 + 16 + 32 + 1) / 4


@pytest.mark.parametrize(
    ("rows", "counts"),
    [(1, [1, 1, 1, 1]), (99, [1, 1, 4, 9]), (100, [1, 2, 5, 10]), (290, [2, 5, 14, 29])],
)
def test_a_fraction_rounds_down_to_at_least_one_row(rows, counts):
    frame = frame_of(*({"long_prob": 0.5} for _ in range(rows)))
    assert [row["row_count"] for row in checked(frame)["direction_top_score"]] == counts


# ---- deciles

SIZES = [1, 2, 7, 10, 11, 15, 20, 91, 171, 181, 331]


@functools.cache
def deciles_of_sizes() -> dict[int, list[dict]]:
    """Return the LONG buckets of splits of these sizes: all at once, a split each."""
    rows = [
        {
            "sample_id": f"{size}-{number}",
            "split_id": f"{size}",
            "long_entry_prob": number // 3 / 999,
        }
        for size in SIZES
        for number in range(size)
    ]
    found = on_frame(frame_of(*rows, short_entry_prob=NULL))["entry_prob_deciles"]
    assert {row["side"] for row in found} == {"LONG"}
    return {size: [row for row in found if row["split_id"] == f"{size}"] for size in SIZES}


@pytest.mark.parametrize("size", SIZES)
def test_deciles_are_those_of_qcut_on_the_rank(size):
    found = {row["bucket"]: row["row_count"] for row in deciles_of_sizes()[size]}
    if size == 1:
        assert found == {1: 1}
    else:
        buckets = pd.qcut(pd.Series(np.arange(1.0, size + 1)), 10, labels=False) + 1
        assert found == buckets.value_counts().to_dict()
        sizes = oracle.decile_sizes(size)
        assert found == {bucket: n for bucket, n in enumerate(sizes, start=1) if n}


def test_tied_probabilities_are_cut_in_the_order_of_the_frame():
    rows = [
        {
            "sample_id": f"s{number}",
            "event_time": START + pd.Timedelta(minutes=19 - number),
            "actual_long_expected_net_edge_bps": float(number),
            "long_entry_target": float(number >= 10),
        }
        for number in range(20)
    ]
    found = checked(frame_of(*rows, {"long_entry_target": NULL}))["entry_prob_deciles"]
    found = [row for row in found if row["side"] == "LONG"]
    assert [row["avg_actual_edge_bps"] for row in found] == [18.5 - 2 * k for k in range(10)]
    assert [row["hit_rate"] for row in found] == [1.0] * 5 + [0.0] * 5


# ---- the grid


def grid_differences(found: list[dict], frame: pd.DataFrame, axes: Mapping) -> set[tuple]:
    expected = []
    for split in sorted(SPLITS):
        summary = oracle.grid_trade_summary(grid(frame[frame["split_id"] == split], axes))
        most = candidates(axes)[summary["best_candidate_id"] - 1]
        expected.append(
            summary["best_metrics"]
            | most
            | {
                "split_id": split,
                "candidate_count": summary["candidate_count"],
                "candidates_with_trade": summary["candidates_with_trade"],
                "candidate_id": summary["best_candidate_id"],
                "threshold_hash": threshold_hash(most),
            }
        )
    return differences(found, expected, list(expected[0]), "grid_trade_summary")


@pytest.mark.parametrize("most_probable", [0.5, 0.97, 2.0])
def test_the_grid_summary_counts_candidates_that_trade(most_probable):
    """Nearly all trade; those of one side; none."""
    axes = SMALL_AXES | {"long_open_prob": [most_probable, 0.99], "min_entry_prob": [0.1, 0.5]}
    if most_probable > 1:
        axes["short_open_prob"] = [0.97]
    frame = random_frame(6, 210)
    world = World(below_pm(frame, axes))
    world.run("pm_frame", "backtest_frame", "pm_candidates", "pm_grid_search", "grid_trade_summary")
    found = world.rows("diagnostics.grid_trade_summary", "split_id")
    assert grid_differences(found, without_lost_paths(frame), axes) == set()
    shares = {row["candidates_with_trade"] / row["candidate_count"] for row in found}
    assert shares == {0.0} if most_probable > 1 else min(shares) > 0.5


# ---- the conclusion, worked by hand

LOST = {"actual_long_expected_net_edge_bps": -4.0, "actual_short_expected_net_edge_bps": -4.0}
BLOCKED = {"pred_long_expected_net_edge_bps": below(1.0), "pred_short_expected_net_edge_bps": 0.0}


@pytest.mark.parametrize(
    ("row", "status"),
    [
        (LOST | BLOCKED, "MODEL_SIGNAL_NOT_TRADABLE"),
        (BLOCKED | dict.fromkeys(LOST, 0.0), "MODEL_SIGNAL_NOT_TRADABLE"),
        (BLOCKED | dict.fromkeys(LOST, NULL), "MODEL_SIGNAL_NOT_TRADABLE"),
        (BLOCKED | {"long_prob": 0.1, "long_entry_prob": 0.1, "short_entry_prob": 0.1},
         "MODEL_SIGNAL_NOT_TRADABLE"),  # no variant has a row
        (BLOCKED | dict.fromkeys(LOST, 0.001), "ENTRY_EDGE_GATE_BLOCKED"),
        (LOST | BLOCKED | {"pred_long_expected_net_edge_bps": 1.0}, "NEEDS_MANUAL_REVIEW"),
        (LOST | BLOCKED | {"pred_short_expected_net_edge_bps": 1.0}, "NEEDS_MANUAL_REVIEW"),
    ],
)  # fmt: skip
def test_the_conclusion_is_the_one_worked_by_hand(row, status):
    """Sealed splits have no say: theirs would be another."""
    sealed = {"split_id": "latest_stress", "pred_long_expected_net_edge_bps": 9.0}
    (diagnosis,) = checked(frame_of(row, row, sealed))["training_diagnosis"]
    assert diagnosis["status"] == status
    seeds = rows_of(built().warehouse.connect(), "seeds.diagnostic_conclusions")
    texts = {seed["status"]: seed for seed in seeds}
    assert set(texts) == {
        "MODEL_SIGNAL_NOT_TRADABLE",
        "ENTRY_EDGE_GATE_BLOCKED",
        "NEEDS_MANUAL_REVIEW",
    }
    for name in ("reason_en", "next_action_en", "reason_zh", "next_action_zh"):
        assert diagnosis[name] == texts[status][name]
        assert len(diagnosis[name]) > 10


def test_one_variant_that_earns_is_enough():
    frame = frame_of(
        LOST | BLOCKED | {"long_prob": 0.5, "short_prob": 0.2},
        BLOCKED | {"long_entry_prob": 0.1, "short_entry_prob": 0.1},
        LOST | BLOCKED | {"long_prob": 0.2, "short_prob": 0.5},
    )
    found = checked(frame)
    earning = [
        row["variant"] for row in found["relaxed_variants"] if row["avg_actual_edge_bps"] > 0
    ]
    assert earning == ["direction_only_54"]
    (diagnosis,) = found["training_diagnosis"]
    assert diagnosis["status"] == "ENTRY_EDGE_GATE_BLOCKED"
    assert diagnosis["best_relaxed_variant"] == "direction_only_54"


# ---- labels


def labels_of(frame: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    relations = upstream(frame)
    return relations["labels.direction_labels"], relations["labels.entry_labels"]


def summary_of(direction: pd.DataFrame, entry: pd.DataFrame) -> list[dict]:
    world = World({"labels.direction_labels": direction, "labels.entry_labels": entry})
    world.run("label_summary")
    return world.rows("diagnostics.label_summary")


def test_a_label_summary_is_the_one_worked_by_hand():
    returns = [-20.0, -5.0, 0.0, 5.0, 10.0, math.inf]
    named = ["SHORT", "SHORT", "NEUTRAL", "LONG", "LONG", "LONG"]
    direction = pd.DataFrame(
        {"split_id": "fit", "direction_label": named, "future_return_bps": returns}
    )
    entry = pd.DataFrame(
        {
            "split_id": ["latest_stress"] * 4 + ["purged"],
            "side": ["LONG", "LONG", "LONG", "SHORT", "LONG"],
            "entry_target": [1, 0, 0, 1, 1],
            "expected_net_edge_bps": [3.0, 1.0, NULL, 5.0, 100.0],
        }
    )
    found = summary_of(direction, entry)
    assert label_differences(found, expected_labels(direction, entry)) == set()
    values = {
        (row["split_id"], row["side"], row["statistic"]): row["value"]
        for row in found
        if row["value"]  # neither unknown nor zero
    }
    assert values == {
        ("fit", "BOTH", "rows"): 6,
        ("fit", "BOTH", "ratio_long"): 0.5,
        ("fit", "BOTH", "ratio_neutral"): 0.166667,
        ("fit", "BOTH", "ratio_short"): 0.333333,
        ("fit", "BOTH", "future_return_bps_q0.01"): -19.4,
        ("fit", "BOTH", "future_return_bps_q0.05"): -17.0,
        ("fit", "BOTH", "future_return_bps_q0.25"): -5.0,
        ("fit", "BOTH", "future_return_bps_q0.75"): 5.0,
        ("fit", "BOTH", "future_return_bps_q0.95"): 9.0,
        ("fit", "BOTH", "future_return_bps_q0.99"): 9.8,
        ("latest_stress", "BOTH", "rows"): 4,
        ("latest_stress", "LONG", "rows"): 3,
        ("latest_stress", "LONG", "target_rate"): 0.333333,
        ("latest_stress", "LONG", "net_edge_bps_mean"): 2.0,
        ("latest_stress", "LONG", "net_edge_bps_q0.05"): 1.1,
        ("latest_stress", "LONG", "net_edge_bps_q0.5"): 2.0,
        ("latest_stress", "LONG", "net_edge_bps_q0.95"): 2.9,
        ("latest_stress", "SHORT", "rows"): 1,
        ("latest_stress", "SHORT", "target_rate"): 1.0,
        ("latest_stress", "SHORT", "net_edge_bps_mean"): 5.0,
        ("latest_stress", "SHORT", "net_edge_bps_q0.05"): 5.0,
        ("latest_stress", "SHORT", "net_edge_bps_q0.5"): 5.0,
        ("latest_stress", "SHORT", "net_edge_bps_q0.95"): 5.0,
    }


# ---- the floor as a whole


def test_every_relation_that_dbt_built_is_the_evaluators():
    with built().warehouse.connect() as connection:
        found = found_in(connection, MODELS)
        labels = [
            connection.sql(f"from labels.{name}").df()
            for name in ("direction_labels", "entry_labels")
        ]
    frame = without_lost_paths(built().frame)
    assert frame_differences(found, expected_on_frame(frame)) == set()
    assert label_differences(found["label_summary"], expected_labels(*labels)) == set()
    assert {row["split_id"] for row in found["label_summary"]} == {*SPLITS, "fit"}
    found = found_in(built().warehouse.connect(), ["grid_trade_summary"])["grid_trade_summary"]
    assert grid_differences(found, frame, SMALL_AXES) == set()


@pytest.mark.parametrize(
    ("rows", "symbols", "null_rate"), [(3, 1, 0.0), (60, 20, 0.5), (700, 3, 0.05)]
)
def test_random_frames_are_the_evaluators(rows, symbols, null_rate):
    frame = random_frame(rows, rows, symbols, null_rate=null_rate)
    assert len(split_frames(frame)) == 3
    checked(frame)
    labels = labels_of(frame)
    assert label_differences(summary_of(*labels), expected_labels(*labels)) == set()


def test_order_of_rows_and_threads_leave_every_bit():
    frame = random_frame(5, 500, 8)
    before = on_frame(frame)
    world = World({"backtest.backtest_frame": frame.sample(frac=1, random_state=9)})
    world.connection.execute("set threads = 1")
    world.run(*ON_FRAME)
    assert found_in(world.connection) == before


# ---- each of these must be noticed

FAULTS = [
    ("score_distribution", "isfinite(long_prob)", "long_prob > 0.5"),
    ("gate_funnel", "frame.long_prob >= thresholds", "frame.long_prob > thresholds"),
    ("gate_funnel", "frame.market_risk_prob <=", "frame.market_risk_prob <"),
    (
        "gate_funnel",
        "frame.short_prob - frame.long_prob >=",
        "frame.long_prob - frame.short_prob >=",
    ),
    ("gate_funnel", "filter (where depth >= 3)", "filter (where depth >= 2)"),
    ("relaxed_variants", "frame.short_entry_prob >=", "frame.long_entry_prob >="),
    ("relaxed_variants", "actual_edge_bps > 0", "actual_edge_bps >= 0"),
    ("direction_top_score", "long_prob >= short_prob", "long_prob > short_prob"),
    ("direction_top_score", "score desc nulls last", "score desc nulls first"),
    ("direction_top_score", "nulls last, event_time asc", "nulls last, sample_id asc"),
    ("direction_top_score", "floor(", "ceil("),
    ("entry_prob_deciles", "order by score, event_time", "order by score, sample_id, event_time"),
    ("entry_prob_deciles", "side_rows - 2)", "side_rows - 1)"),
    ("entry_prob_deciles", "and long_entry_target is not null", ""),
    ("training_diagnosis", "where split_id = 'tune_inner'", "where split_id = 'latest_stress'"),
]


@functools.cache
def frame_of_faults() -> tuple[pd.DataFrame, dict]:
    frame = random_frame(41, 590, 5, null_rate=0.1)
    frame.loc[::17, "long_entry_target"] = NULL
    blocked = frame["split_id"] == TUNE
    for side in ("long", "short"):
        column = f"pred_{side}_expected_net_edge_bps"
        frame[column] = frame[column].where(~blocked, frame[column].clip(upper=0.0))
    return frame, expected_on_frame(frame)


def test_the_frame_of_faults_is_the_evaluators():
    frame, expected = frame_of_faults()
    assert frame_differences(on_frame(frame), expected) == set()


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault[0]}: {fault[1][:30]}")
def test_a_fault_is_noticed(fault):
    frame, expected = frame_of_faults()
    assert frame_differences(on_frame(frame, fault), expected)
