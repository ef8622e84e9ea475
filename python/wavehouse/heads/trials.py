"""Retrain a head under changed conditions: without its labels, with a leak, without features.

Every trial is judged on the calibrate rows, which neither trees nor early stopping saw, so that
the tested splits stay untouched.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from sklearn.metrics import roc_auc_score

from wavehouse.heads.base import Block, HeadsError, Target
from wavehouse.heads.config import (
    Settings,
    Track,
    read_features,
    read_folds,
    read_settings,
    read_targets,
)
from wavehouse.heads.data import FoldData, as_table, read_fold
from wavehouse.heads.model import member_scores, trainer_named
from wavehouse.heads.training import threads
from wavehouse.heads.tune_metrics import metric_of

FOLD = "anchor"
ROLES = ("fit", "tune", "calibrate")
LEAK = "planted_leak"
DRAWS = 100  # of the paired bootstrap over periods
CONFIDENCE = 0.90
SEED = 20_180_101  # of shuffles and draws

SCHEMA = pa.schema(
    {
        "track": pa.string(),
        "head": pa.string(),
        "target": pa.string(),
        "fold": pa.string(),
        "trial": pa.string(),
        "kind": pa.string(),
        "feature_group": pa.string(),
        "seed": pa.int64(),
        "best_iteration": pa.int64(),
        "metric": pa.string(),
        "value": pa.float64(),
        "base_value": pa.float64(),
        "skill": pa.float64(),
        "row_count": pa.int64(),
        "loss_without": pa.float64(),
        "loss_without_lower": pa.float64(),
        "loss_without_upper": pa.float64(),
    }
)


def run_trials(con: duckdb.DuckDBPyConnection, track: Track) -> pa.Table:
    """Run the trials of every target in var heads_trial_targets; return rows of SCHEMA.

    Kinds: `baseline` (the head as it is), `label_shuffle` (labels permuted over all rows),
    `date_shuffle` (labels of a whole period given to the rows of another), `planted_leak` (the
    label itself among the features) and `drop_group` (one feature group left out, for each).

    Raises HeadsError for a target that the seed does not have.
    """
    settings, targets = read_settings(con), read_targets(con, track)
    known = {target.target: target for target in targets}
    unknown = [name for name in settings.trial_targets if name not in known]
    if unknown:
        raise HeadsError(
            f"var heads_trial_targets names {', '.join(unknown)}; seeds/head_targets.csv has "
            f"{', '.join(known)}."
        )
    rows = []
    if settings.trial_targets:
        read_folds(con, track, (FOLD,))
    for name in settings.trial_targets:
        target = known[name]
        features = read_features(con, track, target.feature_list)
        groups = dict(
            con.execute(
                "select feature, feature_group from seeds.head_features where feature_list = $name",
                {"name": target.feature_list},
            ).fetchall()
        )
        data = read_fold(con, track, FOLD, features, [target], ROLES)
        for row in target_trials(data, target, settings, groups):
            rows.append(row | {"track": track.name})
            print(
                f"heads trial {row['target']} {row['trial']}: "
                f"{row['metric']} {row['value']:.4f}, by chance {row['base_value']:.4f}",
                flush=True,
            )
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def target_trials(
    data: FoldData, target: Target, settings: Settings, groups: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield the row of every trial of one target; `groups` maps features to their groups."""
    blocks = {role: data.block(role, target) for role in ROLES}
    shared: dict[Any, Any] = {}
    baseline = _Trial(target, settings, blocks, shared)
    yield baseline.row("baseline")
    for kind, order in (("label_shuffle", _any_order), ("date_shuffle", _period_order)):
        yield _Trial(target, settings, _shuffled(blocks, order), shared).row(kind)
    leaked = {
        role: dataclasses.replace(
            block, features=as_table(block.features).append_column(LEAK, _float32(block.labels))
        )
        for role, block in blocks.items()
    }
    yield _Trial(target, settings, leaked, {}).row(LEAK)
    for group in dict.fromkeys(groups.values()):
        kept = [name for name in data.features if groups[name] != group]
        if not kept:
            continue  # the list has one group alone
        without = {
            role: dataclasses.replace(block, features=block.features.select(kept))
            for role, block in blocks.items()
        }
        trial = _Trial(target, settings, without, {})
        yield trial.row("drop_group", group) | trial.loss_against(baseline)


class _Trial:
    """A member fitted on changed blocks, and its scores on the calibrate rows."""

    def __init__(
        self,
        target: Target,
        settings: Settings,
        blocks: dict[str, Block],
        shared: dict[Any, Any],
    ) -> None:
        self.target = target
        name = settings.trainer_of(target.head)
        self.member = trainer_named(name).fit(
            target,
            blocks["fit"],
            blocks["tune"],
            settings.seeds[0],
            settings.params(name),
            threads(),
            shared,
        )
        self.block = blocks["calibrate"]
        self.metric, measure, known = metric_of(target, self.block)
        features = as_table(self.block.features)
        self.scores = member_scores(self.member, features, self.block.groups)[known]
        self.labels = self.block.labels[known]
        self.periods = (self.block.groups if self.block.periods is None else self.block.periods)[
            known
        ]
        self.weights = self.block.weights[known]
        self.value = measure(self.scores)

    def row(self, kind: str, feature_group: str | None = None) -> dict[str, Any]:
        """Return the row of SCHEMA, without what compares it with another trial."""
        base = _base_value(self.target, self.labels, self.weights)
        return {
            "head": self.target.head,
            "target": self.target.target,
            "fold": FOLD,
            "trial": f"{kind}:{feature_group}" if feature_group else kind,
            "kind": kind,
            "feature_group": feature_group,
            "seed": self.member.seed,
            "best_iteration": self.member.best_iteration,
            "metric": self.metric,
            "value": self.value,
            "base_value": base,
            "skill": _skill(self.target, self.labels, self.scores, self.value),
            "row_count": len(self.labels),
        }

    def loss_against(self, other: "_Trial") -> dict[str, float]:
        """Return how much worse this trial is than `other`, with a paired bootstrap interval.

        Periods are drawn with replacement, the same for both (Efron and Tibshirani 1993, ch. 8).
        """
        rng = np.random.default_rng(SEED)
        firsts = np.flatnonzero(np.r_[True, self.periods[1:] != self.periods[:-1]])
        bounds = list(zip(firsts, np.r_[firsts[1:], len(self.periods)], strict=True))
        losses = []
        for _ in range(DRAWS):
            drawn = rng.integers(0, len(bounds), len(bounds))
            rows = np.concatenate([np.arange(*bounds[number]) for number in drawn])
            sizes = [bounds[number][1] - bounds[number][0] for number in drawn]
            periods = np.repeat(np.arange(len(drawn)), sizes)
            part = (self.labels[rows], self.weights[rows], periods, self.block.cross_sectional)
            measure = _measure_of(self.target, *part)
            losses.append(measure(other.scores[rows]) - measure(self.scores[rows]))
        lower, upper = np.nanquantile(losses, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return {
            "loss_without": other.value - self.value,
            "loss_without_lower": float(lower),
            "loss_without_upper": float(upper),
        }


def _measure_of(
    target: Target,
    labels: np.ndarray,
    weights: np.ndarray,
    periods: np.ndarray,
    cross_sectional: bool,
) -> Callable[[np.ndarray], float]:
    """Return the head's own metric on rows given as columns."""
    rows = pa.table({"row": np.arange(len(labels))})
    block = Block(rows, labels, weights, periods, periods, cross_sectional)
    return metric_of(target, block)[1]


def _base_value(target: Target, labels: np.ndarray, weights: np.ndarray) -> float:
    """Return what the metric is without any skill: the share of positives, or no correlation."""
    if target.objective in ("regression", "ranking"):
        return 0.0
    if target.objective == "multiclass":
        return 1.0 / len(target.classes)  # the mean over classes of their shares
    return float(np.average(labels, weights=weights))


def _skill(target: Target, labels: np.ndarray, scores: np.ndarray, value: float) -> float:
    """Return how well scores order the rows, whatever the base rate: 0 by chance, 1 perfectly.

    Somers' D (twice the area under the ROC curve less one) of a probability, its mean over
    classes, and the rank IC of a value.
    """
    if target.objective in ("regression", "ranking"):
        return value
    if target.objective == "binary":
        return float(2 * roc_auc_score(labels, scores[:, 0]) - 1)
    each = [
        2 * roc_auc_score(labels == number, scores[:, number]) - 1
        for number in range(len(target.classes))
    ]
    return float(np.mean(each))


def _shuffled(
    blocks: dict[str, Block], order: Callable[[np.ndarray, np.random.Generator], np.ndarray]
) -> dict[str, Block]:
    """Return the blocks with labels permuted over the rows of all roles that have one."""
    labels = np.concatenate([blocks[role].labels for role in ROLES])
    periods = np.concatenate(
        [
            blocks[role].groups if blocks[role].periods is None else blocks[role].periods
            for role in ROLES
        ]
    )
    known = ~np.isnan(labels)
    mixed = labels.copy()
    mixed[known] = labels[known][order(periods[known], np.random.default_rng(SEED))]
    parts = np.split(mixed, np.cumsum([blocks[role].row_count for role in ROLES])[:-1])
    return {
        role: dataclasses.replace(blocks[role], labels=part)
        for role, part in zip(ROLES, parts, strict=True)
    }


def _any_order(periods: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a permutation of all rows."""
    return rng.permutation(len(periods))


def _period_order(periods: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return an order of the rows in which whole periods change places, their rows mixed within.

    Labels stay together as they were within a period, so their clustering in time survives; what
    ties them to the features of their time, or to a symbol, does not.
    """
    _, number = np.unique(periods, return_inverse=True)
    place = rng.permutation(number.max() + 1)
    return np.lexsort((rng.random(len(periods)), place[number]))


def _float32(values: np.ndarray) -> pa.Array:
    """Return values as a float32 column, NaN as NULL."""
    return pa.array(values.astype(np.float32), from_pandas=True)
