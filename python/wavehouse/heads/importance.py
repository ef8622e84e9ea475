"""What a model leans on: gain, SHAP and permutation. None of them says what to drop.

Only retraining without a feature does (`trials`): a feature may be used and yet be replaceable,
or be harmful through others (Strobl et al. 2008, BMC Bioinformatics 9, 307).
"""

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa

from wavehouse.heads.base import Block, Target
from wavehouse.heads.model import Model, ensemble_scores
from wavehouse.heads.tune_metrics import metric_of

PERMUTATION_SEED = 0


def importances(model: Model, target: Target, block: Block, rows: int) -> list[dict[str, Any]]:
    """Return one row per feature and kind, measured on up to `rows` evenly spaced rows of `block`.

    gain: share of the loss reduction of all splits, mean over seeds. shap: mean absolute SHAP
    value over rows, summed over outputs, as a share. permutation: how much the head's own metric
    falls when the feature's values change rows. Nets have permutation alone.
    """
    used = np.flatnonzero(~np.isnan(block.labels))
    if len(used) > rows:
        used = used[np.linspace(0, len(used) - 1, rows).astype(int)]
    if model.pools:  # whole cross-sections, as many as hold about so many rows
        sizes = np.unique(block.groups, return_counts=True)
        many = max(1, min(len(sizes[0]), rows * len(sizes[0]) // len(block.groups)))
        spread = sizes[0][np.linspace(0, len(sizes[0]) - 1, many).astype(int)]
        used = np.flatnonzero(np.isin(block.groups, spread))
    part = dataclasses.replace(
        block,
        features=block.features.select(model.features).take(used).combine_chunks(),
        labels=block.labels[used],
        weights=block.weights[used],
        groups=block.groups[used],
        periods=None if block.periods is None else block.periods[used],
    )
    found = {"permutation": _permutation(model, target, part)}
    if all(hasattr(member, "gains") for member in model.members):
        found["gain"] = _shares(np.mean([member.gains() for member in model.members], axis=0))
        size = [
            np.abs(member.contributions(part.features)).mean(axis=0).sum(axis=0)
            for member in model.members
        ]
        found["shap"] = _shares(np.mean(size, axis=0))
    return [
        {"feature": feature, "kind": kind, "value": float(value)}
        for kind in sorted(found)
        for feature, value in zip(model.features, found[kind], strict=True)
    ]


def _permutation(model: Model, target: Target, block: Block) -> np.ndarray:
    """Return the fall of the metric (features,) under one permutation of each feature.

    Breiman (2001), Machine Learning 45, 5-32, section 10.
    """
    _, metric, known = metric_of(target, block)

    def value(features: pa.Table) -> float:
        return metric(ensemble_scores(model.seed_scores(features, block.groups))[known])

    whole = value(block.features)
    order = np.random.default_rng(PERMUTATION_SEED).permutation(block.row_count)
    falls = np.zeros(len(model.features))
    for number, feature in enumerate(model.features):
        shuffled = block.features.set_column(number, feature, block.features[feature].take(order))
        falls[number] = whole - value(shuffled)
    return falls


def _shares(values: np.ndarray) -> np.ndarray:
    """Return values over their sum; all zero when nothing was used."""
    total = values.sum()
    return values / total if total > 0 else np.zeros_like(values)
