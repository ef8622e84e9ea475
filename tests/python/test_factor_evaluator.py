"""The factor operators as the evaluator computes them, against tables worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings

from factor_trees import expressions, frames
from oracle_factors import ELEMENT, SECTION, SERIES, evaluate
from wavehouse.factors.expression import Expression, look_back, normalise, walk
from wavehouse.factors.language import parse
from wavehouse.factors.operators import OPERATORS

N = None  # unknown
INF = math.inf

# x, y and the value of one row
ELEMENT_ROWS = [
    ("x + y", 1, 2, 3),
    ("x + y", N, 2, N),
    ("x + y", 1e308, 1e308, N),
    ("x - y", 1, 2, -1),
    ("x * y", -2, 3, -6),
    ("x * y", 0, N, N),
    ("x / y", 1, 4, 0.25),
    ("x / y", 1, 0, N),
    ("x / y", 0, 0, N),
    ("x ^ y", 4, 0.5, 2),
    ("x ^ y", -2, 2, 4),
    ("x ^ y", -2, -3, -0.125),
    ("x ^ y", -2, 0.5, N),
    ("x ^ y", 0, 0, 1),
    ("x ^ y", 0, 2, 0),
    ("x ^ y", 0, -1, N),
    ("x ^ y", 10, 400, N),
    ("-x ^ y", 3, 2, -9),
    ("(-x) ^ y", 3, 2, 9),
    ("-x", N, 0, N),
    ("-20 * (20 - 1) ^ x", 1.5, 0, -20 * 19 * math.sqrt(19)),
    ("x < y", 1, 2, 1),
    ("x < y", 2, 2, 0),
    ("x < y", N, 2, N),
    ("x <= y", 2, 2, 1),
    ("x <= y", 3, 2, 0),
    ("x > y", 2, 1, 1),
    ("x > y", 2, 2, 0),
    ("x >= y", 2, 2, 1),
    ("x >= y", 1, 2, 0),
    ("x == y", 2, 2, 1),
    ("x == y", 0.3, 0.1 + 0.2, 0),
    ("x == y", N, N, N),
    ("x != y", 2, 2, 0),
    ("x != y", 2, 3, 1),
    ("x > 0 & y > 0", 1, 1, 1),
    ("x > 0 & y > 0", 1, 0, 0),
    ("x > 0 & y > 0", 0, N, N),
    ("x > 0 | y > 0", 0, 1, 1),
    ("x > 0 | y > 0", 0, 0, 0),
    ("x > 0 | y > 0", 1, N, N),
    ("x > 0 ? y : 7", 1, 5, 5),
    ("x > 0 ? y : 7", 0, 5, 7),
    ("x > 0 ? y : 7", N, 5, N),
    ("x > 0 ? y : 7", 1, N, N),
    ("x > 0 ? y : 7", 0, N, 7),
    ("x > 0 ? 1 / x : 1", 0, N, 1),
    ("x > 0 ? 1 : y > 0 ? 2 : 3", 0, 1, 2),
    ("(x < y) * -1", 1, 2, -1),
    ("(x < y) < y", 1, 2, 1),
    ("abs(x)", -3, 0, 3),
    ("sign(x)", -3, 0, -1),
    ("sign(x)", 0, 0, 0),
    ("sign(x)", 0.1, 0, 1),
    ("sign(x)", N, 0, N),
    ("log(x)", math.e, 0, 1),
    ("log(x)", 0, 0, N),
    ("log(x)", -1, 0, N),
    ("sqrt(x)", 9, 0, 3),
    ("sqrt(x)", 0, 0, 0),
    ("sqrt(x)", -1, 0, N),
    ("exp(x)", 0, 0, 1),
    ("exp(x)", 1000, 0, N),
    ("signed_power(x, y)", -3, 2, -9),
    ("signed_power(x, y)", -4, 0.5, -2),
    ("signed_power(x, y)", 0, 0, 0),
    ("signed_power(x, y)", 0, -1, N),
    ("min(x, y)", 1, 2, 1),
    ("min(x, y)", 2, 1, 1),
    ("min(x, y)", N, 2, N),
    ("max(x, y)", 1, 2, 2),
    ("max(x, 0)", -1, 0, 0),
    ("max(0, x)", N, 0, N),
    ("x", INF, 0, N),
    ("3 + 4", 0, 0, 7),
]


@pytest.mark.parametrize(("text", "x", "y", "expected"), ELEMENT_ROWS)
def test_operators_of_one_row(text: str, x: float, y: float, expected: float):
    same(values(text, {"x": [x], "y": [y]}), [expected])


# the rows of one stock, oldest first
SERIES_ROWS = [
    ("delay(x)", {"x": [1, 2, N, 4]}, [N, 1, 2, N]),
    ("delay(x, 2)", {"x": [1, 2, N, 4]}, [N, N, 1, 2]),
    ("delay(x, 0)", {"x": [1, N]}, [1, N]),
    ("delay(x > 1, 1)", {"x": [1, 2, 3]}, [N, 0, 1]),
    ("delta(x)", {"x": [1, 3, N, 4, 9]}, [N, 2, N, N, 5]),
    ("delta(x, 2)", {"x": [1, 3, 7]}, [N, N, 6]),
    ("sum(x, 2)", {"x": [1, 2, N, 4, 5]}, [N, 3, N, N, 9]),
    ("sum(x, 1)", {"x": [1, N]}, [1, N]),
    ("sum(x, 5)", {"x": [1, 2, 3, 4]}, [N, N, N, N]),
    ("sum(x, 2)", {"x": [1e308, 1e308, 1]}, [N, N, 1e308]),
    ("mean(x, 2)", {"x": [1, 2, N, 4, 5]}, [N, 1.5, N, N, 4.5]),
    ("mean(x > 1, 2)", {"x": [1, 2, 3]}, [N, 0.5, 1]),
    ("stddev(x, 3)", {"x": [1, 2, 3, 3, 3]}, [N, N, 1, math.sqrt(1 / 3), 0]),
    ("1 / stddev(x, 3)", {"x": [0.1, 0.1, 0.1]}, [N, N, N]),
    ("variance(x, 3)", {"x": [1, 2, 3, 3, 3]}, [N, N, 1, 1 / 3, 0]),
    ("variance(x, 2)", {"x": [1, N, 3, 5]}, [N, N, N, 2]),
    ("ts_min(x, 2)", {"x": [3, 1, 2, N]}, [N, 1, 1, N]),
    ("ts_max(x, 2)", {"x": [3, 1, 2, N]}, [N, 3, 2, N]),
    ("max(x, 2)", {"x": [3, 1, 2]}, [N, 3, 2]),
    ("ts_argmax(x, 3)", {"x": [1, 3, 3, 2, 1]}, [N, N, 2, 1, 1]),
    ("high_day(x, 3)", {"x": [1, 3, 3, 2, 1]}, [N, N, 1, 2, 2]),
    ("ts_argmin(x, 3)", {"x": [2, 1, 1, 3, 0]}, [N, N, 2, 1, 3]),
    ("low_day(x, 3)", {"x": [2, 1, 1, 3, 0]}, [N, N, 1, 2, 0]),
    ("ts_argmax(x, 2)", {"x": [1, N, 2, 3]}, [N, N, N, 2]),
    ("ts_rank(x, 4)", {"x": [1, 2, 2, 0, 2, 3]}, [N, N, N, 0.25, 0.75, 1]),
    ("ts_rank(x, 2)", {"x": [0.3, 0.1 + 0.2, N]}, [N, 0.75, N]),
    ("ts_rank(x, 1)", {"x": [5, N]}, [1, N]),
    ("product(x, 2)", {"x": [2, 3, 0, -1, -4]}, [N, 6, 0, 0, 4]),
    ("product(x, 2)", {"x": [1e200, 1e200, N]}, [N, N, N]),
    (
        "correlation(x, y, 3)",
        {"x": [1, 2, 3, 4, N], "y": [1, 3, 2, 2, 1]},
        [N, N, 0.5, -math.sqrt(3) / 2, N],
    ),
    ("correlation(x, y, 3)", {"x": [1, 2, 3, 4], "y": [0.1, 0.1, 0.1, 0]}, [N, N, N, -(0.75**0.5)]),
    ("correlation(x, x, 2)", {"x": [5, 5, 6]}, [N, N, 1]),
    ("correlation(x, y, 2)", {"x": [1, 2], "y": [1e200, -1e200]}, [N, N]),
    ("correlation(x, y, 4)", {"x": [3, 5, 7, 9], "y": [1, 2, 2, 1]}, [N, N, N, 0]),
    ("correlation(x, y, 3)", {"x": [1, 2, 4], "y": [1, 2, 4 + 1e-8]}, [N, N, 1]),
    ("covariance(x, y, 3)", {"x": [1, 2, 4], "y": [0.3, 0.1 + 0.2, 0.3]}, [N, N, 0]),
    ("stddev(x, 2)", {"x": [1, 1 + 1e-13, 1 + 1e-11]}, [N, 0, math.sqrt(0.5) * (1e-11 - 1e-13)]),
    ("covariance(x, y, 3)", {"x": [1, 2, 3, 4], "y": [1, 3, 2, 2]}, [N, N, 0.5, -0.5]),
    ("covariance(x, y, 2)", {"x": [1, 2, 3], "y": [7, 7, N]}, [N, 0, N]),
    ("count(x > 1, 3)", {"x": [0, 2, 3, 1, N, 2]}, [N, N, 2, 2, N, N]),
    ("sum_if(x, y > 0, 2)", {"x": [1, 2, N, 4, 5], "y": [1, 0, 0, 1, N]}, [N, 1, 0, 4, N]),
    ("sum_if(x, y > 0, 2)", {"x": [1, N, 3, 4], "y": [1, 1, 1, 1]}, [N, N, N, 7]),
    ("decay_linear(x, 3)", {"x": [1, 2, 4, N]}, [N, N, 17 / 6, N]),
    ("decay_linear(x > 1, 3)", {"x": [1, 2, 0]}, [N, N, 2 / 6]),
    ("wma(x, 3)", {"x": [N, 1, 2, 4, N]}, [N, N, N, (4 + 1.8 + 0.81) / 2.71, N]),
    ("wma(x > 1, 2)", {"x": [1, 2, 0, 3]}, [N, 1 / 1.9, 0.9 / 1.9, 1 / 1.9]),
    ("sma(x, 3, 1)", {"x": [N, 3, 6, N, 0]}, [N, 3, 4, N, 8 / 3]),
    ("sma(x, 2, 2)", {"x": [3, N, 7]}, [3, N, 7]),
    ("skew(x, 3)", {"x": [0, 0, 3, 3]}, [N, N, math.sqrt(0.5), -math.sqrt(0.5)]),
    ("skew(x, 2)", {"x": [0.1, 0.1, N]}, [N, N, N]),
    ("kurt(x, 4)", {"x": [0, 0, 0, 4]}, [N, N, N, -2 / 3]),
    ("kurt(x, 2)", {"x": [5, 5]}, [N, N]),
    ("median(x, 3)", {"x": [5, 1, 2, 9]}, [N, N, 2, 2]),
    ("median(x, 2)", {"x": [5, 1, 2, 9, N]}, [N, 3, 1.5, 5.5, N]),
    ("reg_beta(y, x, 3)", {"y": [1, 3, 2, 5], "x": [1, 2, 3, N]}, [N, N, 0.5, N]),
    ("reg_beta(y, x, 3)", {"y": [1, 3, 2], "x": [0.1, 0.1, 0.1]}, [N, N, N]),
    ("reg_beta(y, x, 2)", {"y": [7, 7], "x": [1, 3]}, [N, 0]),
    ("reg_beta(x, sequence(3))", {"x": [1, 3, 2, 2]}, [N, N, 0.5, -0.5]),
    (
        "reg_beta(filter(y, c > 0), filter(x, c > 0), 4)",
        {"y": [1, 9, 3, 2], "x": [1, N, 2, 3], "c": [1, 0, 1, 1]},
        [N, N, N, 0.5],
    ),
    (
        "reg_beta(filter(y, c > 0), filter(x, d > 0), 4)",
        {"y": [1, 9, 3, 2], "x": [1, 8, 2, 3], "c": [1, 0, 1, 1], "d": [1, 1, 1, 1]},
        [N, N, N, 0.5],
    ),
    (
        "reg_beta(filter(y, c > 0), x, 4)",
        {"y": [1, 9, 3, 2], "x": [1, N, 2, 3], "c": [1, 0, 0, 1]},
        [N, N, N, N],  # two rows are left
    ),
    (
        "reg_beta(filter(y, c > 0), x, 4)",
        {"y": [1, 9, 3, 2, 4], "x": [1, 2, 3, 4, 5], "c": [N, 1, 1, 1, 1]},
        [N, N, N, N, (-1.5 * 9 - 0.5 * 3 + 0.5 * 2 + 1.5 * 4) / 5],
    ),
    (
        "reg_beta(filter(y, c > 0), x, 3)",
        {"y": [1, 2, 3], "x": [1, N, 3], "c": [1, 1, 1]},
        [N, N, N],
    ),
    (
        "reg_beta(filter(y, c > 0), sequence, 4)",
        {"y": [1, 9, 3, 2], "c": [1, 0, 1, 1]},
        [N, N, N, 3 / 7],
    ),
    ("reg_residual(y, x, 3)", {"y": [1, 3, 2, N], "x": [1, 2, 3, 4]}, [N, N, -0.5, N]),
    ("reg_residual(y, x, 3)", {"y": [1, 3, 2], "x": [2, 2, 2]}, [N, N, N]),
    (
        "reg_residual(y, x, 3 * x - 1, 4)",
        {"y": [1, 3, 2, 7], "x": [1, 2, 3, 5]},
        [N, N, N, N],  # one regressor follows from the other
    ),
    ("self(2, x)", {"x": [N, 3, N, 0.5]}, [N, 6, N, 3]),
    (
        "event_decay(x > 0, 2, 2)",
        {"x": [1, 0, 1, N, 0, 0]},
        [N, N, 1 + math.exp(-1), math.exp(-0.5), math.exp(-1), 0],
    ),
    (
        "event_decay(x > 0, 10, 10)",
        {"x": [1] * 11},
        [N] * 10 + [(1 - math.exp(-1.1)) / (1 - math.exp(-0.1))],
    ),
]


@pytest.mark.parametrize(("text", "columns", "expected"), SERIES_ROWS)
def test_operators_along_a_stock(text: str, columns: dict, expected: list):
    same(values(text, columns), expected)


# the rows of one day
SECTION_ROWS = [
    ("rank(x)", {"x": [3, 1, 3, N, 2]}, [0.875, 0.25, 0.875, N, 0.5]),
    ("rank(x)", {"x": [5]}, [1]),
    ("rank(x)", {"x": [N, N]}, [N, N]),
    ("rank(x)", {"x": [0.3, 0.1 + 0.2, 5]}, [0.5, 0.5, 1]),
    ("rank(x)", {"x": [1, 1 + 1e-10, 1 + 1e-13]}, [0.5, 1, 0.5]),
    ("rank(x)", {"x": [1e300, -1e300, 0]}, [1, 1 / 3, 2 / 3]),
    ("rank(x > 1)", {"x": [1, 2, 3]}, [1 / 3, 2.5 / 3, 2.5 / 3]),
    ("scale(x)", {"x": [1, -3, N, 0]}, [0.25, -0.75, N, 0]),
    ("scale(x, 2)", {"x": [1, -3]}, [0.5, -1.5]),
    ("scale(x)", {"x": [0, 0]}, [N, N]),
    (
        "ind_neutralize(x, IndClass.sector)",
        {"x": [1, 3, 5, 7, N], "industry_l1": ["a", "a", "b", None, "a"]},
        [-1, 1, 0, N, N],
    ),
    ("zscore(x)", {"x": [1, 3, N]}, [-1, 1, N]),
    ("zscore(x)", {"x": [0.1, 0.1, 0.1]}, [N, N, N]),
    ("zscore(x)", {"x": [4, N]}, [N, N]),
    ("cs_mean(x)", {"x": [1, 3, N]}, [2, 2, 2]),
    ("cs_mean(x)", {"x": [N, N]}, [N, N]),
    ("cs_mean(x)", {"x": [1e308, 1e308]}, [N, N]),
    ("cs_median(x)", {"x": [1, 9, 3, N]}, [3, 3, 3, 3]),
    ("cs_median(x)", {"x": [1, 3, N]}, [2, 2, 2]),
    ("cs_mean_if(x, y > 0)", {"x": [1, 3, N, 5, 7], "y": [1, 1, 1, N, 0]}, [2, 2, 2, 2, 2]),
    ("cs_mean_if(x, y > 0)", {"x": [1, 3], "y": [0, N]}, [N, N]),
]


@pytest.mark.parametrize(("text", "columns", "expected"), SECTION_ROWS)
def test_operators_across_a_day(text: str, columns: dict, expected: list):
    same(values(text, columns, along="stock"), expected)


def test_stages_mix_and_rows_come_in_any_order():
    frame = {
        "stock": np.array([2, 1, 1, 2, 1, 2]),
        "day": np.array([7, 9, 3, 9, 7, 3]),
        # stock 1: 1, 5, 2; stock 2: 3, 4, 9 on days 3, 7, 9
        "x": np.array([4.0, 2.0, 1.0, 9.0, 5.0, 3.0]),
    }
    same(evaluate(parse("rank(x)"), frame), [0.5, 0.5, 0.5, 1, 1, 1])
    same(evaluate(parse("sum(rank(x), 2)"), frame), [1.5, 1.5, N, 1.5, 1.5, N])
    same(evaluate(parse("rank(delta(x, 1))"), frame), [0.5, 0.5, N, 1, 1, N])


def test_a_stock_without_a_row_leaves_no_hole_in_its_windows():
    frame = {"stock": np.zeros(3, int), "day": np.array([1, 2, 9]), "x": np.array([1.0, 2, 4])}
    same(evaluate(parse("delta(x, 1)"), frame), [N, 1, 2])


def test_every_operator_is_evaluated_and_pinned_by_hand():
    by_kind = {"element": ELEMENT, "series": SERIES, "section": SECTION}
    for kind, functions in by_kind.items():
        assert functions.keys() == {name for name, it in OPERATORS.items() if it.kind == kind}
    texts = [text for text, *_ in ELEMENT_ROWS + SERIES_ROWS + SECTION_ROWS]
    pinned = {node.op for text in texts for node in walk(parse(text))}
    assert pinned - {"column", "constant"} == OPERATORS.keys()


def test_values_of_shared_nodes_are_kept():
    frame = {"stock": np.zeros(3, int), "day": np.arange(3), "x": np.array([1.0, 2, 4])}
    known = {}
    evaluate(parse("sum(delta(x, 1), 2)"), frame, known)
    assert parse("delta(x, 1)") in known
    known[parse("delta(x, 1)")] = [0.0, 10.0, 20.0]
    same(evaluate(parse("mean(delta(x, 1), 2)"), frame, known), [N, 5, 15])


@settings(max_examples=40, deadline=None)
@given(frames())
def test_ranks_are_shares_of_their_order(frame: dict):
    x, rank, known = (
        evaluate(parse(text), frame) for text in ("close", "rank(close)", "cs_mean(1)")
    )
    assert np.array_equal(np.isnan(rank), np.isnan(x))
    held = rank[~np.isnan(rank)]
    assert np.all((held > 0) & (held <= 1))
    assert np.all(known == 1)
    for text in ("rank(4 * close)", "rank(close ^ 3)", "rank(rank(close))"):
        same(evaluate(parse(text), frame), rank)
    # the other way round ranks 1 to N become N to 1
    turned = evaluate(parse("rank(close) + rank(-close)"), frame)
    for day in np.unique(frame["day"]):
        of_day = (frame["day"] == day) & ~np.isnan(x)
        assert turned[of_day] == pytest.approx(1 + 1 / max(of_day.sum(), 1))
    for n in (1, 3):
        ts_rank = evaluate(parse(f"ts_rank(close, {n})"), frame)
        ts_rank = ts_rank[~np.isnan(ts_rank)]
        assert np.all((ts_rank >= 1 / n) & (ts_rank <= 1))


EQUAL = [
    ("sum(delay(close, 2), 3)", "delay(sum(close, 3), 2)"),
    ("high_day(close, 4)", "4 - ts_argmax(close, 4)"),
    ("low_day(close, 4)", "high_day(-close, 4)"),
    ("ts_argmin(close, 4)", "ts_argmax(-close, 4)"),
    ("ts_min(close, 3)", "-ts_max(-close, 3)"),
    ("min(close, open)", "-max(-close, -open)"),
    ("delta(close, 2)", "close - delay(close, 2)"),
    ("count(close > open, 3)", "sum(close > open ? 1 : 0, 3)"),
    ("sum_if(close, close > open, 3)", "sum(close > open ? close : 0, 3)"),
    ("sma(close, 5, 5)", "close"),
    ("wma(close, 1)", "close"),
    ("decay_linear(close, 2)", "(2 * close + delay(close)) / 3"),
    ("stddev(close, 4)", "sqrt(variance(close, 4))"),
    ("signed_power(close, 2)", "close * abs(close)"),
    (
        "ind_neutralize(1 + 0 * close, IndClass.sector) * 0",
        "ind_neutralize(close, industry_l1) * 0",
    ),
    ("cs_mean_if(close, close > 0)", "cs_mean_if(close, close > 0 & close == close)"),
    ("event_decay(close > 0, 2, 0)", "close == close & close > 0 ? 1 : 0"),
]
NEAR = [
    ("correlation(close, open, 4)", "correlation(2 * close, -4 * open, 4) * -1"),
    ("skew(close, 4)", "-skew(-close, 4)"),
    ("kurt(close, 4)", "kurt(2 * close, 4)"),
    ("covariance(close, close, 4)", "variance(close, 4)"),
    ("covariance(close, open, 4)", "covariance(open, 8 * close, 4) / 8"),
    ("reg_beta(close, close, 4)", "variance(close, 4) / variance(close, 4)"),
    ("reg_beta(close, open, 4)", "reg_beta(8 * close, open / 4, 4) / 32"),
    ("reg_beta(filter(close, 1 < 2), open, 4)", "reg_beta(close, open, 4)"),
    ("scale(close)", "scale(-2 * close, -1)"),
    ("zscore(close)", "zscore(close * 4)"),
    ("self(1, close)", "self(0.5, close) * 2"),
    ("wma(close, 3)", "(close + 0.9 * delay(close) + 0.81 * delay(close, 2)) / 2.71"),
]


@pytest.mark.parametrize(("one", "other"), EQUAL + NEAR)
@settings(max_examples=8, deadline=None)
@given(frame=frames())
def test_algebra(one: str, other: str, frame: dict):
    if one.startswith("event_decay"):
        frame["close"] = np.nan_to_num(frame["close"])
    relative = 0 if (one, other) in EQUAL else 1e-9
    same(evaluate(parse(one), frame), evaluate(parse(other), frame), relative)


@settings(max_examples=30, deadline=None)
@given(frames(days=12))
def test_residuals_are_those_of_least_squares(frame: dict):
    random = np.random.default_rng(3)
    for name in ("open", "volume"):  # regressors in general position
        frame[name] = random.normal(size=frame["day"].size)
    found = evaluate(parse("reg_residual(close, open, volume, 6)"), frame)
    for stock in np.unique(frame["stock"]):
        rows = np.flatnonzero(frame["stock"] == stock)
        rows = rows[np.argsort(frame["day"][rows])]
        for last in range(5, rows.size):
            window = rows[last - 5 : last + 1]
            y = frame["close"][window]
            design = np.column_stack([np.ones(6), frame["open"][window], frame["volume"][window]])
            if np.isnan(y).any():
                assert np.isnan(found[window[-1]])
                continue
            residual = (y - design @ np.linalg.lstsq(design, y)[0])[-1]
            scale = max(1.0, np.abs(y).max())
            assert found[window[-1]] == pytest.approx(residual, abs=1e-9 * scale)


@settings(max_examples=150, deadline=None)
@given(expressions(), frames())
def test_the_order_of_the_rows_does_not_matter(expression: Expression, frame: dict):
    turned = {name: values[::-1] for name, values in frame.items()}
    same(evaluate(expression, turned)[::-1], evaluate(expression, frame))


@settings(max_examples=300, deadline=None)
@given(expressions(), frames(present=1.0))
def test_only_the_rows_of_the_look_back_matter(expression: Expression, frame: dict):
    """Without later days nothing changes; without days before the look-back the last does not."""
    whole = evaluate(expression, frame)
    early = frame["day"] <= 5
    same(evaluate(expression, part_of(frame, early)), whole[early])
    for form in (expression, normalise(expression)):
        last = frame["day"].max()
        needed = frame["day"] >= last - look_back(form)
        kept = evaluate(form, part_of(frame, needed))
        same(kept[frame["day"][needed] == last], whole[frame["day"] == last])


def part_of(frame: dict, rows: np.ndarray) -> dict:
    return {name: values[rows] for name, values in frame.items()}


def values(text: str, columns: dict, along: str = "day") -> np.ndarray:
    """A formula on the rows of one stock, or of one day."""
    count = len(next(iter(columns.values())))
    frame = {"stock": np.zeros(count, int), "day": np.zeros(count, int), along: np.arange(count)}
    for name, column in columns.items():
        is_group = name.startswith("industry")
        frame[name] = np.array(column, dtype=object if is_group else float)
    return evaluate(parse(text), frame)


def same(found: np.ndarray, expected: list, relative: float = 1e-12) -> None:
    expected = np.array(expected, dtype=float)
    assert np.array_equal(np.isnan(found), np.isnan(expected)), (found, expected)
    np.testing.assert_allclose(found, expected, rtol=relative, atol=relative * 1e-3)
