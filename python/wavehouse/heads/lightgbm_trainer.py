"""Gradient-boosted trees: the default trainer of heads.

The rows of a fold are binned once: targets and seeds share the binned Dataset and exchange labels.
Ke et al. (2017), LightGBM, NeurIPS 30.
"""

import re
import warnings
from collections.abc import Callable
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa

from wavehouse.heads import trees
from wavehouse.heads.base import Block, CurvePoint, HeadsError, Target, Untrainable
from wavehouse.heads.tune_metrics import metric_of, ranks_within

DEFAULTS = {
    "learning_rate": 0.1,
    "num_leaves": 15,
    "min_data_in_leaf": 200,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 1.0,
    "max_bin": 255,
}
# These make the bytes of a model a function of rows, parameters and seed alone.
FIXED = {
    "deterministic": True,
    "force_col_wise": True,
    "feature_pre_filter": False,  # a shared Dataset must not depend on min_data_in_leaf
    "verbosity": -1,
}
DATASET_PARAMS = ("max_bin", "min_data_in_bin", "bin_construct_sample_cnt", "enable_bundle")
OURS = (
    *("objective", "metric", "num_class", "num_threads", "seed", "num_iterations"),
    "early_stopping_round",
    "boosting",  # dart changes earlier trees and rf averages: neither can be cut at the best round
    *FIXED,
)
LOSSES = {
    "binary": "binary_logloss",
    "multiclass": "multi_logloss",
    "regression": "l2",
    "ranking": "ndcg",
}
GRADES = 5  # of a ranking: fifths of the label within its cross-section
MEMBER_FILE = "member.txt"
COLUMNS_AT_ONCE = 16


class TreeMember:
    """Boosted trees of one seed, cut at the best round."""

    pools = False

    def __init__(
        self,
        text: str,
        seed: int = 0,
        best_iteration: int = 0,
        curve: tuple[CurvePoint, ...] = (),
    ) -> None:
        self.text = text
        self.seed = seed
        self.curve = curve
        self.booster = lgb.Booster(model_str=text)
        self.features = tuple(self.booster.feature_name())
        self.outputs = self.booster.num_model_per_iteration()
        self.best_iteration = best_iteration or self.booster.current_iteration()

    def predict(self, features: pa.Table | pa.RecordBatch, threads: int = 0) -> np.ndarray:
        """Return raw scores (n, outputs): probabilities, or values for regression."""
        scores = self.booster.predict(self._table(features), num_threads=threads)
        return scores.reshape(features.num_rows, self.outputs)

    def contributions(self, features: pa.Table) -> np.ndarray:
        """Return SHAP values (n, outputs, features) by LightGBM's own TreeSHAP.

        Lundberg et al. (2020), Nature Machine Intelligence 2, 56-67, algorithm 2.
        """
        values = self.booster.predict(self._table(features), pred_contrib=True)
        return values.reshape(features.num_rows, self.outputs, -1)[:, :, :-1]

    def gains(self) -> np.ndarray:
        """Return the total gain (features,) of the splits on each feature."""
        return self.booster.feature_importance("gain")

    def files(self) -> dict[str, bytes]:
        """Return the model as LightGBM's own text."""
        return {MEMBER_FILE: self.text.encode()}

    def onnx(self) -> bytes:
        """Return the trees as an ONNX model, see `trees.to_onnx`."""
        return trees.to_onnx(trees.parse(self.text))

    def sql(self) -> list[str]:
        """Return one SQL expression per output, see `trees.to_sql`."""
        return trees.to_sql(trees.parse(self.text))

    def _table(self, features: pa.Table | pa.RecordBatch) -> pa.Table:
        """Return the inputs in the order of the model."""
        missing = [name for name in self.features if name not in features.schema.names]
        if missing:
            raise HeadsError(f"the rows to score have no feature {', '.join(missing)}.")
        if isinstance(features, pa.RecordBatch):
            features = pa.Table.from_batches([features])
        return features.select(self.features)


def fit(
    target: Target,
    fit: Block,
    tune: Block,
    seed: int,
    params: dict[str, Any],
    threads: int,
    shared: dict[Any, Any],
) -> TreeMember:
    """Grow trees on `fit` until the metric on `tune` has not risen for `patience` rounds.

    The metric is the head's own: average precision of a probability (its mean over classes), mean
    rank IC per period of a value. `params` may hold LightGBM's parameters beside `rounds`,
    `min_rounds`, `patience` and `scale` (which divides the learning rate). Rows of unknown label
    are left out.

    Raises HeadsError when a parameter is not the caller's to set or is none of LightGBM's, when no
    label is known, when a label is no class, or when a class has no row.
    """
    params = dict(params)
    rounds, min_rounds = params.pop("rounds"), params.pop("min_rounds")
    patience, scale = params.pop("patience"), params.pop("scale", 1.0)
    refused = sorted(set(params) & set(OURS))
    if refused:
        raise HeadsError(
            f"heads_lightgbm sets {', '.join(refused)}, which the trainer decides. Rounds and "
            "seeds have vars of their own: heads_max_rounds, heads_seeds."
        )
    own = list(params)
    params = FIXED | DEFAULTS | params
    params["learning_rate"] /= scale
    params |= {
        "objective": "lambdarank" if target.objective == "ranking" else target.objective,
        "metric": LOSSES[target.objective],
        "num_threads": threads,
        "seed": seed,
    }
    if target.objective == "multiclass":
        params["num_class"] = len(target.classes)
    datasets = {}
    curves: dict[str, dict[str, list[float]]] = {}
    try:
        for role, block in (("fit", fit), ("tune", tune)):
            datasets[role] = _labelled(role, block, target, params, shared)
        stop_name, stop, _ = metric_of(target, tune)
        booster = lgb.train(
            params,
            datasets["fit"],
            num_boost_round=rounds,
            valid_sets=[datasets["fit"], datasets["tune"]],
            valid_names=["fit", "tune"],
            feval=lambda scores, data: (
                [(stop_name, stop(scores), True)] if data is datasets["tune"] else []
            ),
            callbacks=[
                lgb.record_evaluation(curves),
                _stop_after(stop_name, min_rounds, patience),
            ],
        )
    except lgb.basic.LightGBMError as error:
        raise HeadsError(
            f"target {target.target}: LightGBM refuses to train: {error} Look at var "
            "heads_lightgbm."
        ) from error
    values = curves["tune"][stop_name]
    first = min(min_rounds, len(values)) - 1
    best = first + int(np.nanargmax(np.r_[values[first:], -np.inf])) + 1
    curve = tuple(
        CurvePoint(iteration, role, metric, value)
        for role, metrics in curves.items()
        for metric, series in metrics.items()
        for iteration, value in enumerate(series, start=1)
    )
    text = booster.model_to_string(num_iteration=best, start_iteration=0)
    # LightGBM ignores what it does not know, and an alias can lose against the main name.
    if strange := [name for name in own if f"\n[{name}: " not in text]:
        raise HeadsError(
            f"heads_lightgbm sets {', '.join(strange)}, which is no main name of a LightGBM "
            "parameter. Write learning_rate, for example, not eta."
        )
    return TreeMember(_portable(text), seed, best, curve)


def load(files: dict[str, bytes]) -> TreeMember:
    """Return the member whose `files()` these are. Raises HeadsError when they cannot be read."""
    try:
        text = files[MEMBER_FILE].decode()
        trees.parse(text)  # LightGBM itself may abort the process on a damaged text,
        _check_sizes(text)  # and does where a tree is not as long as the header says
        return TreeMember(text)
    except (KeyError, UnicodeDecodeError, lgb.basic.LightGBMError) as error:
        raise HeadsError(f"{MEMBER_FILE} is not a LightGBM model: {error}") from error


def _check_sizes(text: str) -> None:
    """Raise HeadsError where the trees of a model text are not of the sizes that it states."""
    stated = re.search(r"^tree_sizes=(.*)$", text, re.MULTILINE)
    starts = [found.start() for found in re.finditer(r"^Tree=\d+$", text, re.MULTILINE)]
    ends = [*starts[1:], text.index("end of trees")]
    sizes = [str(end - start) for start, end in zip(starts, ends, strict=True)]
    if stated is None or stated.group(1).split() != sizes:
        raise HeadsError(
            f"{MEMBER_FILE} is not a LightGBM model: its trees are not as long as its header "
            "says. Restore the file."
        )


def binned(block: Block, params: dict[str, Any], reference: lgb.Dataset | None) -> lgb.Dataset:
    """Return the constructed Dataset of a block, without labels, binned like `reference`.

    COLUMNS_AT_ONCE columns are read and binned at a time, so that their values never lie in memory
    all together; the Dataset is the same as one made at once.
    """
    own = {name: params[name] for name in (*DATASET_PARAMS, *FIXED) if name in params}
    own["num_threads"] = params["num_threads"]
    names = block.features.column_names
    if reference is not None:
        table = block.features.select(names)
        return lgb.Dataset(
            table, weight=block.weights, params=own, reference=reference, free_raw_data=True
        ).construct()
    whole = None
    for first in range(0, len(names), COLUMNS_AT_ONCE):
        table = block.features.select(names[first : first + COLUMNS_AT_ONCE])
        part = lgb.Dataset(table, params=own, free_raw_data=True)
        del table
        part.construct()
        if whole is None:
            whole = part
        else:
            with warnings.catch_warnings():  # that the raw data is freed, and of categories
                warnings.simplefilter("ignore", UserWarning)
                whole.add_features_from(part)
    return whole.set_weight(block.weights)


def _labelled(
    role: str, block: Block, target: Target, params: dict[str, Any], shared: dict[Any, Any]
) -> lgb.Dataset:
    """Return the shared Dataset of a block with the labels of `target` set.

    Bins are built once per fold and kept in `shared`, rows of unknown label cut away once per
    pattern of unknown labels.
    """
    known = ~np.isnan(block.labels)
    if not known.any():
        raise Untrainable(f"target {target.target}: no row of role {role} has a known label.")
    labels = block.labels[known]
    if target.objective in ("binary", "multiclass"):
        classes, found = range(max(len(target.classes), 2)), np.unique(labels)
        if strange := [float(value) for value in found if value not in classes]:
            raise HeadsError(
                f"target {target.target}: labels of role {role} hold {strange}, expected 0 to "
                f"{classes[-1]}."
            )
        absent = [number for number in classes if number not in found]
        if absent:
            names = [target.classes[number] if target.classes else number for number in absent]
            raise Untrainable(
                f"target {target.target}: {len(labels)} rows of role {role} have a label and none "
                f"is {', '.join(map(str, names))}. Train on more bars or on a less rare label."
            )
    key = ("lightgbm", role, *(params.get(name) for name in DATASET_PARAMS))
    if key not in shared:
        reference = shared[("lightgbm", "fit", *key[2:])] if role == "tune" else None
        shared[key] = binned(block, params, reference)
    dataset = shared[key]
    ranking = target.objective == "ranking"
    if ranking or not known.all():
        part = (*key, ranking, known.tobytes())
        if part not in shared:
            shared[part] = dataset.subset(np.flatnonzero(known)).construct()
        dataset = shared[part]
    if ranking:
        groups = block.groups[known]
        labels = _grades(labels, groups)
        dataset.set_group(np.unique(groups, return_counts=True)[1])
    dataset.set_label(labels)
    return dataset


def _grades(labels: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Return which of GRADES equal parts of its cross-section each label lies in, from 0.

    Equal labels share the part of their middle rank. `groups` ascends.
    """
    sizes = np.unique(groups, return_counts=True)[1]
    ids = np.repeat(np.arange(len(sizes)), sizes)
    middle = ranks_within(labels, ids) - np.repeat(np.cumsum(sizes) - sizes, sizes) + 0.5
    return np.floor(GRADES * middle / np.repeat(sizes, sizes))


def _stop_after(metric: str, min_rounds: int, patience: int) -> Callable[[Any], None]:
    """Return a callback that ends training `patience` rounds after the best value of `metric`.

    Rounds before `min_rounds` do not count: a value they had by chance would end training while
    the rounds that may be chosen still rise.
    """
    best = {"value": -np.inf, "round": min_rounds}

    def callback(env: lgb.callback.CallbackEnv) -> None:
        number = env.iteration + 1
        value = next(item[2] for item in env.evaluation_result_list if item[1] == metric)
        if number >= min_rounds and value > best["value"]:
            best.update(value=value, round=number)
        if number >= best["round"] + patience:
            raise lgb.callback.EarlyStopException(env.iteration, env.evaluation_result_list)

    callback.order = 30
    return callback


def _portable(text: str) -> str:
    """Return the model text without what depends on the machine: the number of threads."""
    return re.sub(r"\[num_threads: \d+\]", "[num_threads: 0]", text)
