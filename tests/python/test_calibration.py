"""Calibration maps and conformal intervals: against definitions and sklearn, SQL against numpy."""

import io
import math
from collections.abc import Mapping
from fractions import Fraction
from types import ModuleType

import duckdb
import jinja2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from warehouse import REPO
from wavehouse.heads import calibration
from wavehouse.heads.base import HeadsError

MACROS = (REPO / "macros/calibration.sql").read_text()


def skewed_sample(
    seed: int, count: int, ties: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores that overstate the probability of label 1 (its square), and uneven weights."""
    rng = np.random.default_rng(seed)
    scores = rng.random(count)
    if ties:
        scores = np.round(scores, 2)
    labels = (rng.random(count) < scores**2).astype(float)
    return scores, labels, rng.uniform(0.1, 3, count)


def fit(scores, labels, method: str, weights=None, **keywords) -> calibration.CalibrationMap:
    weights = np.ones(len(labels)) if weights is None else weights
    return calibration.fit_calibrator(scores, labels, weights, method, **keywords)


# ---------- evaluators written from the definitions


def isotonic_by_definition(scores, labels, weights) -> dict[float, float]:
    """Isotonic least squares by its min-max formula: the value at each distinct score."""
    distinct = sorted(set(scores))

    def mean_between(low: float, high: float) -> float:
        inside = [
            (w, y) for s, y, w in zip(scores, labels, weights, strict=True) if low <= s <= high
        ]
        return sum(w * y for w, y in inside) / sum(w for w, _ in inside)

    return {
        score: max(
            min(mean_between(low, high) for high in distinct if high >= score)
            for low in distinct
            if low <= score
        )
        for score in distinct
    }


def platt_by_definition(scores, labels, weights) -> tuple[float, float]:
    """Platt's slope and intercept by Newton's method, steps halved until the loss falls."""
    effective = {}
    for label in (0, 1):
        own = [w for y, w in zip(labels, weights, strict=True) if y == label]
        effective[label] = sum(own) ** 2 / sum(w * w for w in own)
    target = {1: (effective[1] + 1) / (effective[1] + 2), 0: 1 / (effective[0] + 2)}
    rows = [
        (math.log(s / (1 - s)), target[int(y)], w)
        for s, y, w in zip(scores, labels, weights, strict=True)
    ]

    def loss(a: float, b: float) -> float:
        return sum(w * (math.log1p(math.exp(a * x + b)) - t * (a * x + b)) for x, t, w in rows)

    a = b = 0.0
    for _ in range(100):
        gradient_a = gradient_b = curve_aa = curve_ab = curve_bb = 0.0
        for x, t, w in rows:
            p = 1 / (1 + math.exp(-(a * x + b)))
            gradient_a += w * (p - t) * x
            gradient_b += w * (p - t)
            curve_aa += w * p * (1 - p) * x * x
            curve_ab += w * p * (1 - p) * x
            curve_bb += w * p * (1 - p)
        determinant = curve_aa * curve_bb - curve_ab**2
        step_a = (curve_bb * gradient_a - curve_ab * gradient_b) / determinant
        step_b = (curve_aa * gradient_b - curve_ab * gradient_a) / determinant
        share = 1.0
        while loss(a - share * step_a, b - share * step_b) > loss(a, b) and share > 1e-6:
            share /= 2
        a, b = a - share * step_a, b - share * step_b
    return a, b


def offsets_by_definition(residuals: list[float], level: str) -> tuple[float, float]:
    """The nearest residuals with (n + 1)(1 - alpha / 2) of the n not beyond them, NaN without."""
    needed = (len(residuals) + 1) * (1 + Fraction(level)) / 2
    upper = [t for t in residuals if sum(r <= t for r in residuals) >= needed]
    lower = [t for t in residuals if sum(r >= t for r in residuals) >= needed]
    return max(lower, default=math.nan), min(upper, default=math.nan)


# ---------- SQL


def macros(source: str = MACROS) -> ModuleType:
    return jinja2.Environment().from_string(source).module


def rows_of_models(rows_by_model: Mapping[str, pa.Table]) -> pa.Table:
    parts = [
        rows.append_column("model_id", pa.array([model] * rows.num_rows))
        for model, rows in rows_by_model.items()
    ]
    return pa.concat_tables(parts)


def sql_columns(query: str, names: list[str], **relations: pa.Table) -> list[np.ndarray]:
    """Columns of a query over Arrow tables, in the order of the column `row_number`; NULL: NaN."""
    with duckdb.connect(config={"threads": 2}) as connection:
        for name, table in relations.items():
            connection.register(name, table)
        result = connection.sql(f"select * from ({query}) order by row_number").to_arrow_table()
    assert result.num_rows == relations["samples"].num_rows  # no fan-out, nothing lost
    assert result["row_number"].to_pylist() == list(range(result.num_rows))
    return [result[name].to_numpy().astype(float) for name in names]


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return np.array_equal(left, right, equal_nan=True)


def awkward_scores(calibration_map: calibration.CalibrationMap, seed: int) -> np.ndarray:
    """Random scores, breakpoints and their neighbours, values outside the range, and no value."""
    starts = calibration_map.score_from[1:]
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            rng.random(500),
            starts,
            np.nextafter(starts, -np.inf),
            np.nextafter(starts, np.inf),
            [0, 1, -0.5, 1.5, 1e-300, 1 - 2**-53, np.inf, -np.inf, np.nan],
        ]
    )


def sql_probabilities(
    maps: Mapping[str, calibration.CalibrationMap], scores: np.ndarray, source: str = MACROS
) -> np.ndarray:
    """Calibrate the same scores with the map of each model of one output, one row after another."""
    samples = pa.table(
        {
            "row_number": range(len(scores) * len(maps)),
            "model_id": [model for model in maps for _ in scores],
            "raw": np.tile(scores, len(maps)),
        }
    )
    query = macros(source).with_probabilities("samples", {"entry_prob": "raw"}, "maps")
    relation = rows_of_models({model: m.to_arrow("entry_prob") for model, m in maps.items()})
    (result,) = sql_columns(query, ["entry_prob"], samples=samples, maps=relation)
    return result.reshape(len(maps), len(scores))


def maps_of_all_kinds() -> dict[str, calibration.CalibrationMap]:
    scores, labels, weights = skewed_sample(1, 2000)
    tied = skewed_sample(2, 500, ties=True)
    few = skewed_sample(3, 12)
    return {
        "isotonic": fit(scores, labels, "isotonic", weights),
        "isotonic_ties": fit(*tied[:2], "isotonic", tied[2]),
        "isotonic_few": fit(*few[:2], "isotonic"),
        "isotonic_flat": fit(scores, np.ones(2000), "isotonic"),
        "platt": fit(scores, labels, "platt", weights),
        "platt_few": fit(*few[:2], "platt"),
        "platt_separable": fit(scores, (scores > 0.6).astype(float), "platt"),
        "platt_flat": fit(scores, 1 - labels, "platt"),
        "none": fit(scores, labels, "none"),
    }


def test_sql_gives_the_bits_of_numpy():
    maps = maps_of_all_kinds()
    scores = np.concatenate([awkward_scores(m, seed) for seed, m in enumerate(maps.values())])
    assert len(scores) > 4_000
    found = sql_probabilities(maps, scores)
    for row, (name, one) in zip(found, maps.items(), strict=True):
        assert same_bits(row, calibration.apply(one, scores)), name


@pytest.mark.parametrize("count", [1, 5, 70])
def test_sql_gives_the_same_on_few_rows(count):
    """DuckDB plans an ASOF join of few rows otherwise."""
    maps = maps_of_all_kinds()
    scores = awkward_scores(maps["isotonic_few"], 0)[::-1][:count]
    found = sql_probabilities(maps, scores)
    for row, (name, one) in zip(found, maps.items(), strict=True):
        assert same_bits(row, calibration.apply(one, scores)), name


@pytest.mark.parametrize(
    ("original", "mutated"),
    [
        (">= {{ output }}_map.score_from", "> {{ output }}_map.score_from"),
        ("_map.slope * (", "_map.slope + ("),
        ("when isnan({{ score }}) then null", ""),
        ("{{ output }}_map.method = 'none'", "{{ output }}_map.slope is null"),
        ("+ {{ output }}_map.logit_intercept", "- {{ output }}_map.logit_intercept"),
        ("hash({{ model_id }}) = hash({{ output }}_map.model_id)\n            and", ""),
    ],
)
def test_a_change_of_the_sql_is_seen(original, mutated):
    assert MACROS.count(original) == 1
    maps = maps_of_all_kinds()
    scores = np.concatenate([awkward_scores(m, seed) for seed, m in enumerate(maps.values())])
    found = sql_probabilities(maps, scores, MACROS.replace(original, mutated))
    expected = np.stack([calibration.apply(one, scores) for one in maps.values()])
    assert not same_bits(found, expected)


def test_without_score_or_map_sql_gives_null():
    samples = pa.table(
        {
            "row_number": [0, 1, 2, 3],
            "model_id": ["known", "known", "unknown", None],
            "raw": pa.array([0.5, None, 0.5, 0.5], pa.float64()),
        }
    )
    maps = rows_of_models(
        {"known": fit(np.array([0.2, 0.7]), np.array([0, 1]), "none").to_arrow("p")}
    )
    query = macros().with_probabilities("samples", {"p": "raw"}, "maps")
    (result,) = sql_columns(query, ["p"], samples=samples, maps=maps)
    assert same_bits(result, np.array([0.5, np.nan, np.nan, np.nan]))


def test_each_output_may_have_its_own_model():
    scores, labels, weights = skewed_sample(4, 300)
    long_map, short_map = fit(scores, labels, "isotonic", weights), fit(scores, labels, "platt")
    samples = pa.table(
        {
            "row_number": range(300),
            "long_model_id": ["a"] * 300,
            "short_model_id": ["b"] * 300,
            "raw": scores,
        }
    )
    query = macros().with_probabilities(
        "samples",
        {"long_prob": "raw", "short_prob": "raw"},
        "maps",
        model_id={"long_prob": "long_model_id", "short_prob": "short_model_id"},
    )
    maps = rows_of_models(
        {"a": long_map.to_arrow("long_prob"), "b": short_map.to_arrow("short_prob")}
    )
    found = sql_columns(query, ["long_prob", "short_prob"], samples=samples, maps=maps)
    assert same_bits(found[0], calibration.apply(long_map, scores))
    assert same_bits(found[1], calibration.apply(short_map, scores))


# ---------- isotonic and platt


@pytest.mark.parametrize("ties", [False, True])
def test_isotonic_is_what_sklearn_predicts(ties):
    scores, labels, weights = skewed_sample(5, 3000, ties)
    pieces = calibration._straight_pieces(
        *calibration._isotonic_breakpoints(scores, labels, weights)
    )
    score_from, probability_from, slope, logit_slope, logit_intercept = np.array(pieces).T
    unclipped = calibration.CalibrationMap(
        "isotonic", score_from, probability_from, slope, logit_slope, logit_intercept, 0.3, 3000, 9
    )
    probe = np.concatenate([scores, np.random.default_rng(0).uniform(-0.1, 1.1, 3000)])
    expected = IsotonicRegression(out_of_bounds="clip").fit(scores, labels, weights).predict(probe)
    assert np.abs(calibration.apply(unclipped, probe) - expected).max() < 1e-12
    # the clip moves a probability by no more than the margin
    clipped = calibration.apply(fit(scores, labels, "isotonic", weights), probe)
    assert 0 < np.abs(clipped - expected).max() <= 1 / 6000 + 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_isotonic_is_the_least_squares_fit(seed):
    scores, labels, weights = skewed_sample(seed, 40)
    scores = np.round(scores, 1)
    expected = isotonic_by_definition(scores, labels, weights)
    found = calibration.apply(fit(scores, labels, "isotonic", weights), np.array(list(expected)))
    margin = 1 / 80
    assert found == pytest.approx(np.clip(list(expected.values()), margin, 1 - margin), abs=1e-12)
    unweighted = calibration.apply(fit(scores, labels, "isotonic"), np.array(list(expected)))
    assert found != pytest.approx(unweighted, abs=1e-6)


def steep_sample(kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    scores, labels, weights = skewed_sample(6, 60)
    if kind == "separable":
        labels = (scores > 0.5).astype(float)
    if kind == "narrow":
        scores = 0.3 + scores * 1e-6
    if kind == "rare":
        labels[20:] = 0
    return scores, labels, weights


def logistic_piece(calibration_map: calibration.CalibrationMap) -> tuple[float, float]:
    return calibration_map.logit_slope[1], calibration_map.logit_intercept[1]


@pytest.mark.parametrize("kind", ["skewed", "separable", "narrow", "rare"])
def test_platt_is_the_best_logistic_curve(kind):
    scores, labels, weights = steep_sample(kind)
    found = fit(scores, labels, "platt", weights)
    slope, intercept = platt_by_definition(scores, labels, weights)
    assert logistic_piece(found) == pytest.approx((slope, intercept), rel=1e-6)
    expected = [1 / (1 + math.exp(-(slope * math.log(s / (1 - s)) + intercept))) for s in scores]
    margin = 1 / 120
    expected = np.clip(expected, margin, 1 - margin)
    assert calibration.apply(found, scores) == pytest.approx(expected, abs=1e-8)


def test_platt_takes_scores_at_the_ends_as_its_limit():
    rng = np.random.default_rng(21)
    found = fit(rng.random(400) ** 8, (rng.random(400) < 0.4).astype(float), "platt")
    slope, intercept = logistic_piece(found)
    assert 0 < slope < 0.1  # so flat that the curve does not reach 1 / (2 n) before the limit
    for limit, beyond in ((1e-9, [0, 1e-30, -1]), (1 - 1e-9, [1, 1.5])):
        at_limit = 1 / (1 + math.exp(-(slope * math.log(limit / (1 - limit)) + intercept)))
        assert calibration.apply(found, np.array(beyond)) == pytest.approx(at_limit, abs=1e-8)


def test_platt_too_steep_for_any_score_is_the_mean_target(monkeypatch):
    monkeypatch.setattr(calibration, "_platt_fit", lambda *rows: (1e18, 0.0, 0.4))
    found = fit(*skewed_sample(22, 100)[:2], "platt")
    assert (found.score_from.tolist(), found.probability_from.tolist()) == ([-math.inf], [0.4])


def test_platt_without_smoothed_targets_is_seen(monkeypatch):
    scores, labels, weights = steep_sample("skewed")
    monkeypatch.setattr(calibration, "_effective_count", lambda weights: 1e12)
    found = fit(scores, labels, "platt", weights)
    assert logistic_piece(found) != pytest.approx(
        platt_by_definition(scores, labels, weights), rel=1e-3
    )


def test_the_scale_of_weights_has_no_influence():
    scores, labels, weights = skewed_sample(7, 400)
    for method in ("isotonic", "platt"):
        one = calibration.apply(fit(scores, labels, method, weights), scores)
        for scale in (1 / 700, 1e-200):
            other = calibration.apply(fit(scores, labels, method, weights * scale), scores)
            assert one == pytest.approx(other, abs=1e-9)
        assert one != pytest.approx(
            calibration.apply(fit(scores, labels, method), scores), abs=1e-4
        )


def test_auto_takes_isotonic_when_both_labels_have_rows_enough():
    scores, labels, weights = skewed_sample(8, 400)
    positives = int(labels.sum())
    assert positives < 200
    assert fit(scores, labels, "auto", min_positives=positives).method == "isotonic"
    assert fit(scores, labels, "auto", min_positives=positives + 1).method == "platt"
    assert fit(scores, 1 - labels, "auto", min_positives=positives + 1).method == "platt"
    weights[labels == 1] = 0  # rows of no weight do not count
    assert fit(scores, labels, "auto", weights, min_positives=1).method == "platt"


def test_counts_and_base_rate_are_of_the_rows_used():
    nan = math.nan
    found = fit(
        np.array([0.1, 0.2, 0.3, nan, 0.5]),
        np.array([0, 1, nan, 1, 1]),
        "isotonic",
        np.array([1.0, 3.0, 1.0, 1.0, 0.0]),
    )
    assert (found.row_count, found.positive_count, found.base_rate) == (2, 1, 0.75)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_flat_maps(method):
    scores = np.linspace(0.1, 0.9, 10)
    ones, zeros = fit(scores, np.ones(10), method), fit(scores, np.zeros(10), method)
    falling = fit(scores, (scores < 0.5).astype(float), method)
    equal = fit(np.full(10, 0.3), np.tile([0, 1], 5), method)
    probe = np.array([0, 0.3, 0.77, 1])
    high = 11 / 12 if method == "platt" else 19 / 20
    assert calibration.apply(ones, probe) == pytest.approx(np.full(4, high))
    assert calibration.apply(zeros, probe) == pytest.approx(np.full(4, 1 - high))
    assert calibration.apply(falling, probe) == pytest.approx(np.full(4, 0.5))
    assert calibration.apply(equal, probe) == pytest.approx(np.full(4, 0.5))
    assert all(len(one.score_from) == 1 for one in (ones, zeros, falling, equal))


def test_none_is_the_score_itself():
    scores, labels, weights = skewed_sample(9, 50)
    probe = np.array([0.0, 1.0, 0.3, -4.0, np.nan])
    assert same_bits(calibration.apply(fit(scores, labels, "none", weights), probe), probe)
    empty = fit(np.array([]), np.array([]), "none")
    assert (empty.row_count, math.isnan(empty.base_rate)) == (0, True)


@pytest.mark.parametrize("method", ["isotonic", "platt", "auto"])
def test_calibration_improves_the_brier_score(method):
    scores, labels, weights = skewed_sample(10, 4000)
    found = fit(scores, labels, method, weights, min_positives=500)
    scores, labels, _ = skewed_sample(11, 4000)
    before = np.mean((scores - labels) ** 2)
    after = np.mean((calibration.apply(found, scores) - labels) ** 2)
    best = np.mean((scores**2 - labels) ** 2)
    assert after < before - 0.02
    assert after < best + 0.003


unit_scores = st.one_of(
    st.floats(0, 1),
    st.sampled_from([0.0, 1e-12, 0.25, 0.5, 0.5 + 2**-53, 1 - 2**-53, 1.0]),
)
samples = st.lists(
    st.tuples(unit_scores, st.sampled_from([0.0, 1.0]), st.floats(1e-3, 1e3)),
    min_size=1,
    max_size=40,
)


@pytest.mark.filterwarnings("error")
@settings(max_examples=150, deadline=None)
@given(rows=samples, probe=st.lists(st.floats(-1, 2), max_size=20))
def test_maps_are_monotone_and_within_their_bounds(rows, probe):
    scores, labels, weights = np.array(rows).T
    margin = 1 / (2 * len(rows))
    for method, tolerance in (("isotonic", 0.0), ("platt", 1e-12)):
        found = fit(scores, labels, method, weights)
        starts = found.score_from[1:]
        grid = np.sort(
            np.concatenate(
                [probe, scores, starts, np.nextafter(starts, -9), np.linspace(0, 1, 50), [-np.inf]]
            )
        )
        probabilities = calibration.apply(found, grid)
        assert (np.diff(probabilities) >= -tolerance).all()
        slack = 0 if method == "isotonic" else 1e-6
        assert probabilities.min() >= margin * (1 - slack)
        assert probabilities.max() <= 1 - margin * (1 - slack)
        assert 0 < probabilities.min() <= probabilities.max() < 1 or len(rows) == 1


def test_a_rounded_slope_would_make_the_map_fall():
    """Without care for the last bit, one piece in a thousand ends above the next one's start."""
    rng = np.random.default_rng(12)
    breakpoints = np.stack([rng.uniform(0, 0.01, 20_000), rng.uniform(0.9, 1, 20_000)])
    levels = np.stack([rng.uniform(0, 0.01, 20_000), rng.uniform(0.5, 0.55, 20_000)])
    slopes = np.diff(levels, axis=0)[0] / np.diff(breakpoints, axis=0)[0]
    widths = np.nextafter(breakpoints[1], -1) - breakpoints[0]
    falling = np.flatnonzero(levels[0] + slopes * widths > levels[1])
    assert len(falling) > 5
    for draw in falling:
        slope = calibration._straight_pieces(breakpoints[:, draw], levels[:, draw])[1][2]
        assert levels[0, draw] + slope * widths[draw] <= levels[1, draw]
        assert slope == pytest.approx(slopes[draw], rel=1e-14)


# ---------- classes


def class_sample(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of three classes, too sure of themselves, and the class numbers; class 2 is rare."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet([2, 2, 0.2], count)
    labels = np.array([rng.choice(3, p=row) for row in truth], dtype=float)
    return truth**2 / (truth**2).sum(axis=1, keepdims=True), labels


def test_classes_sum_to_one_and_match_the_sql():
    scores, labels = class_sample(13, 1500)
    labels[::50] = np.nan
    maps = calibration.fit_class_calibrators(scores, labels, np.ones(1500), "auto", 200)
    assert [one.method for one in maps] == ["isotonic", "isotonic", "platt"]
    assert sum(one.base_rate for one in maps) == pytest.approx(1, abs=1e-12)
    scores[3, 1] = np.nan
    expected = calibration.apply_classes(maps, scores)
    assert np.isnan(expected[3]).all()
    known = np.delete(expected, 3, axis=0)
    assert known.sum(axis=1) == pytest.approx(np.ones(1499), abs=1e-15)
    single = np.stack([calibration.apply(m, scores[:, k]) for k, m in enumerate(maps)], axis=1)
    assert known == pytest.approx(
        np.delete(single / single.sum(axis=1, keepdims=True), 3, axis=0), abs=1e-15
    )
    found = sql_classes(maps, scores)
    assert same_bits(found, expected)
    assert not same_bits(found, single)


def sql_classes(maps, scores: np.ndarray) -> np.ndarray:
    outputs = ["long_prob", "short_prob", "neutral_prob"]
    samples = pa.table(
        {
            "row_number": range(len(scores)),
            "model_id": ["m"] * len(scores),
            **{f"raw_{name}": scores[:, k] for k, name in enumerate(outputs)},
        }
    )
    query = macros().with_probabilities(
        "samples", {name: f"raw_{name}" for name in outputs}, "maps", sum_to_one=True
    )
    rows = calibration.calibrators_to_arrow(dict(zip(outputs, maps, strict=True)))
    columns = sql_columns(query, outputs, samples=samples, maps=rows_of_models({"m": rows}))
    return np.stack(columns, axis=1)


def test_classes_that_are_all_zero_get_their_base_rates():
    scores, labels = class_sample(14, 200)
    maps = calibration.fit_class_calibrators(scores, labels, np.ones(200), "none")
    scores[0] = 0
    found = calibration.apply_classes(maps, scores)
    assert found[0] == pytest.approx(np.bincount(labels.astype(int)) / 200)
    assert found[1] == pytest.approx(scores[1])
    assert same_bits(sql_classes(maps, scores), found)


# ---------- conformal intervals


@pytest.mark.parametrize("level", ["0.8", "0.68", "0.9"])
@pytest.mark.parametrize("count", [1, 8, 9, 18, 19, 24, 60])
def test_offsets_are_those_of_the_definition(level, count):
    rng = np.random.default_rng(count)
    residuals = np.round(rng.normal(size=count), 1)
    found = calibration.fit_conformal(np.zeros(count), residuals, float(level), 5)
    expected = offsets_by_definition(residuals.tolist(), level)
    assert (found.lower_offset[0], found.upper_offset[0]) == pytest.approx(expected, nan_ok=True)


def test_too_few_rows_for_the_level_give_no_interval():
    for count, known in ((8, False), (9, True)):
        found = calibration.fit_conformal(np.arange(count), np.zeros(count), 0.8, 3)
        assert found.row_count.tolist() == [count]
        assert (
            np.isfinite(found.lower_offset).all() == np.isfinite(found.upper_offset).all() == known
        )
    empty = calibration.fit_conformal(np.array([]), np.array([]), 0.8, 3)
    assert empty.row_count.tolist() == [0]
    assert np.isnan(calibration.apply_conformal(empty, np.array([1.0]))).all()


def covered_share(fit_offsets, draws: int, count: int, seed: int) -> float:
    """Share of new rows inside the interval fitted on `count` rows, one new row per draw."""
    rng = np.random.default_rng(seed)
    inside = 0
    for _ in range(draws):
        residuals = rng.standard_exponential(count + 1)
        lower, upper = fit_offsets(residuals[:-1])
        inside += lower <= residuals[-1] <= upper
    return inside / draws


def conformal_offsets(residuals: np.ndarray) -> tuple[float, float]:
    found = calibration.fit_conformal(np.zeros(len(residuals)), residuals, 0.8, 1)
    return found.lower_offset[0], found.upper_offset[0]


def test_coverage_is_the_level_on_exchangeable_rows():
    draws = 3000
    error = 4 * math.sqrt(0.8 * 0.2 / draws)
    # 8 of the 10 gaps between 9 residuals are inside, 80 of 100 between 99
    for count in (9, 99):
        assert covered_share(conformal_offsets, draws, count, seed=count) == pytest.approx(
            0.8, abs=error
        )
    # plain quantiles, without the correction for finite samples, fall short
    plain = covered_share(lambda r: np.quantile(r, [0.1, 0.9]), draws, 9, seed=9)
    assert plain < 0.8 - error


def noisy_sample(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Predictions from 0 to 3 and labels whose noise grows with the prediction."""
    predictions = rng.uniform(0, 3, count)
    return predictions, predictions + (0.2 + predictions) * rng.standard_normal(count)


def test_coverage_holds_in_each_bin_and_intervals_are_wide_where_the_noise_is():
    rng = np.random.default_rng(15)
    draws, new_rows = 150, 60
    inside, whole = np.zeros(3), np.zeros(3)
    one_width_inside = np.zeros(3)
    widths = np.zeros(3)
    for _ in range(draws):
        predictions, labels = noisy_sample(rng, 450)
        found = calibration.fit_conformal(predictions, labels, 0.8, 3)
        assert found.row_count.tolist() == [150, 150, 150]
        widths += (found.upper_offset - found.lower_offset) / draws
        plain = calibration.fit_conformal(predictions, labels, 0.8, 1)
        predictions, labels = noisy_sample(rng, new_rows)
        third = predictions.astype(int)
        for intervals, hits in ((found, inside), (plain, one_width_inside)):
            lower, upper = calibration.apply_conformal(intervals, predictions)
            np.add.at(hits, third, (lower <= labels) & (labels <= upper))
        np.add.at(whole, third, 1)
    error = 4 * math.sqrt(0.8 * 0.2 / (draws * new_rows / 3))
    assert (inside / whole > 0.8 - error).all()
    assert (inside / whole < 0.85).all()
    assert one_width_inside[2] / whole[2] < 0.8 - error  # one bin fails where the noise is
    assert widths[0] * 1.7 < widths[1] < widths[2] / 1.3


def test_bins_are_fewer_when_rows_are_few_or_tied():
    rng = np.random.default_rng(16)
    labels = rng.normal(size=1000)
    counts = calibration.fit_conformal(rng.random(1000), labels, 0.8, 4).row_count
    assert counts.tolist() == [250, 250, 250, 250]
    assert len(calibration.fit_conformal(rng.random(1000), labels, 0.8, 20).row_count) == 10
    tied = calibration.fit_conformal(np.repeat([1, 2, 3], [600, 350, 50]), labels, 0.8, 5)
    assert tied.prediction_from.tolist() == [-np.inf, 2]
    assert tied.row_count.tolist() == [600, 400]
    # the bin of the middle value alone would be too small
    tied = calibration.fit_conformal(np.repeat([1, 2, 3], [480, 40, 480]), labels, 0.8, 4)
    assert tied.row_count.tolist() == [520, 480]
    # 0.998 needs 999 rows
    assert len(calibration.fit_conformal(rng.random(1000), labels, 0.998, 4).row_count) == 1


def test_rows_without_prediction_or_label_are_left_out():
    rng = np.random.default_rng(17)
    predictions, labels = noisy_sample(rng, 400)
    expected = calibration.fit_conformal(predictions, labels, 0.8, 3)
    predictions = np.concatenate([predictions, [np.nan, 1.0]])
    labels = np.concatenate([labels, [1.0, np.nan]])
    found = calibration.fit_conformal(predictions, labels, 0.8, 3)
    assert found.to_arrow("x").equals(expected.to_arrow("x"))


def test_intervals_in_sql_are_those_of_numpy():
    rng = np.random.default_rng(18)
    sides = {
        "long_edge_bps": calibration.fit_conformal(*noisy_sample(rng, 900), 0.8, 5),
        "short_edge_bps": calibration.fit_conformal(*noisy_sample(rng, 5), 0.8, 5),
    }
    predictions = np.concatenate(
        [rng.uniform(-1, 4, 2000), sides["long_edge_bps"].prediction_from, [np.nan, np.inf]]
    )
    samples = pa.table(
        {
            "row_number": range(len(predictions)),
            "model_id": ["m"] * len(predictions),
            "long_edge_bps": predictions,
            "short_edge_bps": predictions,
        }
    )
    intervals = rows_of_models({"m": calibration.intervals_to_arrow(sides)})
    for source, same in (
        (MACROS, True),
        (MACROS.replace(">= {{ output }}_interval", "> {{ output }}_interval"), False),
    ):
        query = macros(source).with_intervals(
            "samples", {name: name for name in sides}, "intervals"
        )
        for name, one in sides.items():
            found = sql_columns(
                query, [f"lower_{name}", f"upper_{name}"], samples=samples, intervals=intervals
            )
            expected = calibration.apply_conformal(one, predictions)
            equal = same_bits(found[0], expected[0]) and same_bits(found[1], expected[1])
            assert equal == (same or name == "short_edge_bps")  # NULL throughout
            assert np.isnan(found[0][-2])  # NaN


# ---------- files and errors


def parquet_bytes(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def test_rows_come_back_from_a_file_to_the_byte():
    maps = maps_of_all_kinds()
    written = parquet_bytes(calibration.calibrators_to_arrow(maps))
    table = pq.read_table(io.BytesIO(written))
    back = calibration.calibrators_from_arrow(table)
    assert list(back) == list(maps)
    assert parquet_bytes(calibration.calibrators_to_arrow(back)) == written
    scores = np.random.default_rng(0).random(500)
    for name, one in back.items():
        assert same_bits(calibration.apply(one, scores), calibration.apply(maps[name], scores))
    shuffled = table.take(np.random.default_rng(1).permutation(table.num_rows))
    again = calibration.calibrators_from_arrow(shuffled)
    restored = calibration.calibrators_to_arrow({name: again[name] for name in maps})
    assert parquet_bytes(restored) == written
    again_fitted = parquet_bytes(calibration.calibrators_to_arrow(maps_of_all_kinds()))
    assert again_fitted == written


def test_intervals_come_back_from_a_file_to_the_byte():
    rng = np.random.default_rng(19)
    intervals = {
        "edge_bps": calibration.fit_conformal(*noisy_sample(rng, 900), 0.8, 5),
        "few_bps": calibration.fit_conformal(*noisy_sample(rng, 3), 0.9, 5),
    }
    written = parquet_bytes(calibration.intervals_to_arrow(intervals))
    table = pq.read_table(io.BytesIO(written))
    assert table["lower_offset"].null_count == 1
    back = calibration.intervals_from_arrow(table)
    assert parquet_bytes(calibration.intervals_to_arrow(back)) == written


def test_no_output_is_an_empty_table():
    assert calibration.calibrators_to_arrow({}).schema == calibration.CALIBRATION_SCHEMA
    assert calibration.intervals_to_arrow({}).schema == calibration.INTERVAL_SCHEMA
    assert calibration.calibrators_from_arrow(calibration.calibrators_to_arrow({})) == {}


def test_rows_hold_null_where_a_column_has_no_use():
    table = calibration.calibrators_to_arrow(maps_of_all_kinds())
    rows = {}
    for row in table.to_pylist():
        rows.setdefault(row["output"], []).append(row)
    for output, pieces in rows.items():
        assert [row["ordinal"] for row in pieces] == list(range(1, len(pieces) + 1))
        assert pieces[0]["score_from"] == -math.inf
        for row in pieces:
            straight = row["slope"] is not None
            logistic = row["logit_slope"] is not None
            assert straight + logistic == (output != "none")
            assert straight == (row["probability_from"] is not None)
            assert logistic == (row["logit_intercept"] is not None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "beta"}, "calibration 'beta' is not known"),
        ({"labels": [0, 2, 1]}, "label 2.0"),
        ({"scores": [0.1, math.inf, 0.3]}, "infinite raw scores"),
        ({"weights": [1, -1, 1]}, "negative or infinite sample weights"),
        ({"weights": [0, 0, 0]}, "no row to calibrate on"),
        ({"labels": [0, 1]}, "three columns of one length"),
        ({"scores": [0.1, 0.2, 1.3]}, "platt needs probabilities"),
    ],
)
def test_what_cannot_be_fitted_is_refused(changes, message):
    arguments = {
        "scores": [0.1, 0.2, 0.3],
        "labels": [0, 1, 1],
        "weights": [1, 1, 1],
        "method": "platt",
    }
    calibration.fit_calibrator(**arguments)
    with pytest.raises(HeadsError, match=message):
        calibration.fit_calibrator(**{**arguments, **changes})


def test_a_class_that_is_not_there_is_refused():
    with pytest.raises(HeadsError, match=r"class 3\.0; expected a class number from 0 to 2"):
        calibration.fit_class_calibrators(np.zeros((2, 3)), np.array([0, 3]), np.ones(2), "none")


@pytest.mark.parametrize(
    ("level", "bins", "label", "message"),
    [(1.0, 3, 1, "level 1.0"), (0.8, 0, 1, "0 bins"), (0.8, 3, math.inf, "infinite predictions")],
)
def test_what_has_no_interval_is_refused(level, bins, label, message):
    with pytest.raises(HeadsError, match=message):
        calibration.fit_conformal(np.array([1.0]), np.array([label]), level, bins)


def test_damaged_rows_are_refused():
    table = fit(*skewed_sample(20, 200)[:2], "isotonic").to_arrow("p")
    for damaged, message in (
        (table.slice(1), "expected -infinity first"),
        (table.slice(0, 0), "at least one row"),
        (table.drop_columns(["slope"]), r"columns \['slope'\] missing"),
        (pa.concat_tables([table, table]), "ascending numbers"),
        (
            table.set_column(2, "method", pa.array(["beta"] * table.num_rows)),
            "calibration map of method 'beta'",
        ),
    ):
        with pytest.raises(HeadsError, match=message):
            calibration.CalibrationMap.from_arrow(damaged)
