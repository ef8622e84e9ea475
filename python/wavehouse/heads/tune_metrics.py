"""What early stopping watches: average precision of a probability, rank IC of a value."""

from collections.abc import Callable

import numpy as np
from sklearn.metrics import average_precision_score

from wavehouse.heads.base import Block, Target

MIN_PERIOD_ROWS = 5  # a rank correlation over fewer rows is noise


def metric_of(
    target: Target, block: Block
) -> tuple[str, Callable[[np.ndarray], float], np.ndarray]:
    """Return the head's own metric on a block: its name, a function of scores, the rows it is on.

    The rows are a mask (n,) of those whose label is known; the function takes raw scores
    (known rows, outputs) and returns a number that is better when higher.
    """
    known = ~np.isnan(block.labels)
    labels, weights = block.labels[known], block.weights[known]
    if target.objective == "binary":
        name = "average_precision"
        return name, lambda scores: average_precision(labels, scores.ravel(), weights), known
    if target.objective == "multiclass":
        name, shape = "mean_average_precision", (len(labels), len(target.classes))
        metric = lambda scores: mean_average_precision(labels, scores.reshape(shape), weights)  # noqa: E731
        return name, metric, known
    correlation = rank_ic(labels, rank_groups(block)[known])
    return "rank_ic", lambda scores: correlation(scores.ravel()), known


def rank_groups(block: Block) -> np.ndarray:
    """Return the group (n,) within which each row is ranked: its cross-section, or one for all.

    Never a span of time: rows of several times ranked together, less the mean of so short a span,
    look as if they came back to it. On a random walk the fall of the last half hour then predicts
    the next half hour with an IC of 0.16 by the hour, and nothing by the minute or over all rows.
    """
    return block.groups if block.cross_sectional else np.zeros_like(block.groups)


def average_precision(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    """Return the average precision of scores (n,) against 0/1 labels; NaN without both classes."""
    if labels.min() == labels.max():
        return float("nan")
    return float(average_precision_score(labels, scores, sample_weight=weights))


def mean_average_precision(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> float:
    """Return the mean over classes of one-vs-rest average precision; scores are (n, classes)."""
    each = [
        average_precision((labels == number).astype(float), scores[:, number], weights)
        for number in range(scores.shape[1])
    ]
    return float(np.nanmean(each))


def rank_ic(labels: np.ndarray, periods: np.ndarray) -> Callable[[np.ndarray], float]:
    """Return a function of scores (n,): the mean over `periods` of Spearman's correlation.

    Ties have average ranks. Periods of fewer than MIN_PERIOD_ROWS rows, or with a constant side,
    do not count; without any period left the correlation is over all rows, 0 when that is
    undefined. The labels are ranked once, for early stopping asks after every round.
    """
    counts = np.unique(periods, return_counts=True)[1]
    wide = np.repeat(counts >= MIN_PERIOD_ROWS, counts)
    ids = np.repeat(np.arange(len(counts)), counts)
    whole = np.zeros(len(labels), dtype=int)
    label_ranks = ranks_within(labels, ids)
    whole_ranks = ranks_within(labels, whole)

    def metric(scores: np.ndarray) -> float:
        each = _correlations(label_ranks[wide], ranks_within(scores, ids)[wide], ids[wide])
        if not len(each):
            each = _correlations(whole_ranks, ranks_within(scores, whole), whole)
        return float(each.mean()) if len(each) else 0.0

    return metric


def ranks_within(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return average ranks of values, in order of id and value from 0; ids (n,) ascend.

    Within an id they are ranks from the number of rows before it.
    """
    order = np.lexsort((values, ids))
    sorted_values, sorted_ids = values[order], ids[order]
    fresh = np.r_[
        True, (sorted_values[1:] != sorted_values[:-1]) | (sorted_ids[1:] != sorted_ids[:-1])
    ]
    starts = np.flatnonzero(fresh)
    ends = np.r_[starts[1:], len(values)]
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((starts + ends - 1) / 2, ends - starts)
    return ranks


def _correlations(left: np.ndarray, right: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return Pearson's correlation within each id where both sides vary."""
    counts = np.bincount(ids)
    present = counts > 0
    divisor = np.maximum(counts, 1)
    left = left - (np.bincount(ids, left) / divisor)[ids]
    right = right - (np.bincount(ids, right) / divisor)[ids]
    cross = np.bincount(ids, left * right)
    scale = np.sqrt(np.bincount(ids, left * left) * np.bincount(ids, right * right))
    use = present & (scale > 0)
    return cross[use] / scale[use]
