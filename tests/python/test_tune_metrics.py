"""What early stopping watches, against SciPy and scikit-learn by period and by class."""

import math
import warnings

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import ConstantInputWarning, rankdata, spearmanr
from sklearn.metrics import average_precision_score

from wavehouse.heads import tune_metrics
from wavehouse.heads.base import Block, Target

MANY = settings(max_examples=200, deadline=None)


def correlation(left, right):
    """Spearman's correlation, None where a side is constant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        found = spearmanr(left, right).statistic
    return None if math.isnan(found) else found


def rank_ic(labels, periods, scores):
    """The definition: the mean over periods of at least 5 rows, else over all rows, else 0."""
    each = []
    for period in sorted(set(periods)):
        rows = [number for number, other in enumerate(periods) if other == period]
        if len(rows) >= 5:
            each.append(correlation(labels[rows], scores[rows]))
    each = [value for value in each if value is not None]
    if not each and len(labels) > 1:
        each = [value for value in [correlation(labels, scores)] if value is not None]
    return float(np.mean(each)) if each else 0.0


@st.composite
def period_rows(draw):
    """Labels and scores with many ties, some periods constant on a side, some short."""
    labels, periods, scores = [], [], []
    for period in range(draw(st.integers(1, 5))):
        count = draw(st.integers(1, 9))
        for side in (labels, scores):
            if draw(st.integers(0, 4)) == 0:
                side += [draw(st.integers(-2, 2))] * count
            else:
                side += draw(st.lists(st.integers(-3, 3), min_size=count, max_size=count))
        periods += [period * 7 - 3] * count
    scale = draw(st.sampled_from([1.0, 1e-7, 1e9]))
    return np.array(labels, float) * scale, np.array(periods), np.array(scores, float)


@MANY
@given(period_rows())
def test_rank_ic_is_the_mean_of_spearmans_correlation_per_period(rows):
    labels, periods, scores = rows
    found = tune_metrics.rank_ic(labels, periods)(scores)
    assert found == pytest.approx(rank_ic(labels, periods, scores), abs=1e-12)
    assert -1 - 1e-12 <= found <= 1 + 1e-12


@pytest.mark.parametrize(
    ("labels", "periods", "scores", "expected"),
    [
        ([1, 2, 3, 4, 5], [0] * 5, [1, 2, 3, 4, 5], 1.0),
        ([1, 2, 3, 4, 5], [0] * 5, [5, 4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5] * 2, [0] * 5 + [1] * 5, [1, 2, 3, 4, 5, 5, 4, 3, 2, 1], 0.0),
        # four rows do not count, whatever they say
        ([1, 2, 3, 4, 5, 1, 2, 3, 4], [0] * 5 + [1] * 4, [*range(5), 4, 3, 2, 1], 1.0),
        # nor does a period in which a side is constant
        ([1, 2, 3, 4, 5] + [7] * 5, [0] * 5 + [1] * 5, [*range(5), 4, 3, 2, 1, 0], 1.0),
        ([1, 2, 3, 4, 5, 4, 3, 2, 1, 0], [0] * 5 + [1] * 5, [*range(5), 9, 9, 9, 9, 9], 1.0),
        # no period counts: over all rows
        ([1, 2, 3, 4], [0, 0, 1, 1], [1, 2, 3, 4], 1.0),
        ([1, 1, 1, 1], [0, 0, 1, 1], [1, 2, 3, 4], 0.0),
        ([1], [0], [1], 0.0),
    ],
)
def test_rank_ic_of_small_cases(labels, periods, scores, expected):
    metric = tune_metrics.rank_ic(np.array(labels, float), np.array(periods))
    assert metric(np.array(scores, float)) == pytest.approx(expected, abs=1e-12)


def test_a_period_counts_once_however_long_it_is():
    """Long hours do not outweigh short ones: the mean is over periods, not over rows."""
    rng = np.random.default_rng(1)
    labels = rng.normal(size=1005)
    periods = np.repeat([0, 1], [1000, 5])
    scores = np.r_[labels[:1000], -labels[1000:]]
    assert tune_metrics.rank_ic(labels, periods)(scores) == pytest.approx(0, abs=1e-12)


def test_the_metric_can_be_asked_again_and_again():
    rng = np.random.default_rng(2)
    labels, periods = rng.normal(size=60), np.repeat(np.arange(6), 10)
    metric = tune_metrics.rank_ic(labels, periods)
    for _ in range(3):
        scores = rng.normal(size=60)
        before = scores.copy()
        assert metric(scores) == pytest.approx(rank_ic(labels, periods, scores), abs=1e-12)
        np.testing.assert_array_equal(scores, before)


@MANY
@given(period_rows())
def test_ranks_are_scipys_average_ranks_within_each_period(rows):
    _, periods, scores = rows
    ids = np.unique(periods, return_inverse=True)[1]
    found = tune_metrics.ranks_within(scores, ids)
    for number in np.unique(ids):
        mine = found[ids == number]
        expected = rankdata(scores[ids == number])
        np.testing.assert_allclose(mine - mine.mean(), expected - expected.mean(), atol=1e-12)


@st.composite
def classified_rows(draw, classes=2):
    count = draw(st.integers(2, 25))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=count, max_size=count))
    levels = st.integers(0, 6)
    scores = draw(
        st.lists(
            st.lists(levels, min_size=classes, max_size=classes), min_size=count, max_size=count
        )
    )
    weights = draw(st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=count, max_size=count))
    return np.array(labels, float), np.array(scores, float) / 6, np.array(weights)


def average_precision(labels, scores, weights):
    """The definition: the mean, over positives by weight, of the precision at their score."""
    total = 0.0
    for label, score, weight in zip(labels, scores, weights, strict=True):
        if label == 1:
            above = scores >= score
            total += weight * weights[above & (labels == 1)].sum() / weights[above].sum()
    return total / weights[labels == 1].sum()


@MANY
@given(classified_rows())
def test_average_precision_is_scikit_learns_and_the_definition(rows):
    labels, scores, weights = rows
    found = tune_metrics.average_precision(labels, scores[:, 1], weights)
    if len(set(labels)) < 2:
        assert math.isnan(found)
        return
    expected = average_precision_score(labels, scores[:, 1], sample_weight=weights)
    assert found == pytest.approx(expected, abs=1e-12)
    assert found == pytest.approx(average_precision(labels, scores[:, 1], weights), abs=1e-9)


@MANY
@given(classified_rows(classes=3))
def test_mean_average_precision_is_the_mean_over_classes_that_are_there(rows):
    labels, scores, weights = rows
    assume(len(set(labels)) > 1)
    expected = np.mean(
        [
            average_precision(np.array(labels == number, float), scores[:, number], weights)
            for number in range(3)
            if (labels == number).any()
        ]
    )
    found = tune_metrics.mean_average_precision(labels, scores, weights)
    assert found == pytest.approx(expected, abs=1e-9)


def target(objective):
    classes = ("A", "B", "C") if objective == "multiclass" else ()
    return Target("x", "x", "x", objective, classes, classes or ("x",), "all", "none", None)


@pytest.mark.parametrize("cross_sectional", [True, False])
@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_the_metric_of_a_block_is_over_its_labelled_rows(objective, cross_sectional):
    rng = np.random.default_rng(4)
    count = 80
    labels = {
        "binary": rng.integers(0, 2, count).astype(float),
        "multiclass": rng.integers(0, 3, count).astype(float),
        "regression": rng.normal(size=count),
    }[objective]
    unknown = rng.random(count) < 0.2
    labels[unknown] = np.nan
    weights = rng.choice([0.5, 2.0], count)
    groups, periods = np.repeat(np.arange(10), 8), np.repeat(np.arange(4), 20)
    table = pa.table({"x": np.zeros(count, np.float32)})
    block = Block(table, labels, weights, groups, periods, cross_sectional)
    name, metric, known = tune_metrics.metric_of(target(objective), block)
    np.testing.assert_array_equal(known, ~unknown)
    scores = rng.random(((~unknown).sum(), 3 if objective == "multiclass" else 1))
    own = labels[~unknown]
    if objective == "binary":
        expected = average_precision(own, scores[:, 0], weights[~unknown])
    elif objective == "multiclass":
        each = [
            average_precision((own == number).astype(float), scores[:, number], weights[~unknown])
            for number in range(3)
        ]
        expected = np.mean(each)
    else:
        spans = (groups if cross_sectional else np.zeros(count, int))[~unknown]
        expected = rank_ic(own, spans, scores[:, 0])
    assert metric(scores) == pytest.approx(expected, abs=1e-9)
    assert metric(scores.ravel()) == pytest.approx(expected, abs=1e-9)  # as LightGBM may give them
    assert (
        name
        == {
            "binary": "average_precision",
            "multiclass": "mean_average_precision",
            "regression": "rank_ic",
        }[objective]
    )
