"""Neural nets: the trainer of heads for which a smooth function of many features is wanted.

Deep Sets or a plain MLP with TabM's ensembling, see `torch_net`. It runs on CUDA where there is
one, on the CPU else, by the same code. Rows go to the device once per fold; targets and seeds
share them.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from wavehouse.heads import torch_net
from wavehouse.heads.base import Block, CurvePoint, HeadsError, Target, Untrainable
from wavehouse.heads.data import StoredFeatures
from wavehouse.heads.torch_member import (
    CHUNK_ROWS,
    FORMAT,
    Groups,
    TorchMember,
    load,
    net_shape,
    pick_device,
    reproducible,
    to_tensor,
)
from wavehouse.heads.torch_net import Batch, Net
from wavehouse.heads.tune_metrics import (
    average_precision,
    mean_average_precision,
    rank_groups,
    rank_ic,
)

DEFAULTS: dict[str, Any] = {
    "rounds": 30,  # epochs at most
    "min_rounds": 1,  # the best epoch is this one or a later one; noisy labels overfit early
    "patience": 5,  # epochs without a better tune metric before training ends
    "scale": 1.0,  # divides the learning rate: train longer in smaller steps
    "members": 8,  # k of TabM, which uses 32: more members, smoother scores, as much more work
    "hidden": [64, 64],  # units of each hidden layer
    "pool": False,  # join the mean encoding of the cross-section to each row
    "loss": "auto",  # regression: mse (auto), huber or ic, the correlation within groups
    "huber_delta": 1.0,  # standard deviations of the label beyond which huber is linear
    "batch_rows": 1024,  # rows of a step, about as many when batches are whole groups
    "learning_rate": 2e-3,  # of AdamW, constant
    "weight_decay": 3e-4,  # of the matrices alone
    "dropout": 0.0,  # share of hidden units dropped; drawing them costs as much as the net
    "clip_norm": 1.0,  # longest gradient
    "statistics_rows": 200_000,  # evenly spaced fit rows behind medians and ranges
    "cpu_threads": 1,  # at most; on a busy machine two threads took 25 times as long as one
    "device": "auto",  # auto (cuda where there is one), cpu or cuda
}
__all__ = ["DEFAULTS", "TorchMember", "fit", "load", "to_tensor"]
LOSSES = {
    "binary": ("binary_cross_entropy",),
    "multiclass": ("cross_entropy",),
    "regression": ("mse", "huber", "ic"),
}
MIN_GROUP_ROWS = 5  # a correlation over fewer rows is noise
LINE_ROWS = 65_536  # fit rows behind the line that takes a score of loss ic to the label's unit


def fit(
    target: Target,
    fit: Block,
    tune: Block,
    seed: int,
    params: dict[str, Any],
    threads: int,
    shared: dict[Any, Any],
) -> TorchMember:
    """Train on `fit` until the metric on `tune` has not risen for `patience` epochs.

    The metric is the head's own: average precision of a probability (its mean over classes), mean
    rank IC per period of a value. The weights of the best epoch are kept. Every member has its own
    term in the loss (TabM, section 3). Rows of unknown label or weight 0 are left out of the
    loss; a net that pools still sees them in their group. Loss `ic` is minus Pearson's correlation
    within groups (within batches where groups are small), which has no unit: each member is taken
    back to the label's by least squares over fit rows.

    The same rows, parameters and seed give the same bytes on the same kind of device, whatever the
    number of `threads`; no random state outside is read or changed.

    Raises HeadsError when a parameter is unknown or out of range, when a block has no row of known
    label, when a class has none, when the labels to fit are constant, or when the loss diverges.
    """
    if target.objective == "ranking":
        raise HeadsError(
            f"target {target.target}: the torch trainer has no objective ranking. Use lightgbm, or "
            "objective regression with heads_torch: {loss: ic}, which orders a cross-section too."
        )
    settings = _settings(target, params)
    device = pick_device(settings["device"])
    known, tune_known = _known("fit", fit, target), _known("tune", tune, target)
    metric_name, metric = _tune_metric(target, tune, tune_known)
    goals, score_scale, score_offset = _goals(target, fit, known)
    with reproducible(device, min(threads, settings["cpu_threads"])):
        stats, scaled, tune_scaled = _shared_rows(fit, tune, settings, device, shared)
        shape = net_shape(settings, stats, goals.shape[1])
        generator = torch.Generator().manual_seed(seed)
        drops = torch.Generator(device).manual_seed(seed)
        weights = torch_net.initial_weights(shape, generator)
        if target.objective != "regression":
            weights["head.bias"] += _base_logits(target, goals[known], fit.weights[known])
        weights = {name: value.to(device).requires_grad_() for name, value in weights.items()}
        rows = _training_rows(settings, fit, known, goals, scaled)
        net = Net(shape, stats["missing"])
        optimizer = _optimizer(weights, settings)
        tune_batches = list(_tune_batches(tune, tune_known, shape.pool, device))
        curve: list[CurvePoint] = []
        best_value, best_round, best_weights = -math.inf, 0, {}
        for number in range(1, settings["rounds"] + 1):
            loss = _train_round(net, weights, optimizer, rows, settings, generator, drops)
            if not math.isfinite(loss):
                raise HeadsError(
                    f"target {target.target}: the loss is {loss} in epoch {number}. Lower "
                    "learning_rate or clip_norm."
                )
            now = {name: value.detach().clone() for name, value in weights.items()}
            if rows.loss == "ic":
                _to_label_unit(net, now, rows)
            scores = _scores(net, now, tune_scaled, tune_batches, target.objective)
            value = metric(scores[tune_known])
            curve.append(CurvePoint(number, "fit", rows.loss, loss))
            curve.append(CurvePoint(number, "tune", metric_name, value))
            if number >= min(settings["min_rounds"], settings["rounds"]) and value > best_value:
                best_value, best_round, best_weights = value, number, now
            if best_round and number - best_round >= settings["patience"]:
                break
        tensors = {name: value.cpu().contiguous() for name, value in (best_weights | stats).items()}
    config = {
        "format": FORMAT,
        "seed": seed,
        "features": fit.features.column_names,
        "outputs": goals.shape[1],
        "objective": target.objective,
        "best_iteration": best_round,
        "curve": [dataclasses.astuple(point) for point in curve],
        "score_scale": score_scale,
        "score_offset": score_offset,
        "params": settings,
    }
    return TorchMember(config, tensors)


@dataclasses.dataclass(frozen=True)
class TrainingRows:
    """The rows of the block fit: `scaled`, `goals` and `weights` lie on the device.

    `known` numbers the rows that the loss counts. With `groups`, batches are whole groups out of
    `chosen`; `loss` names the loss and `within` says that it is taken within groups.
    """

    scaled: torch.Tensor
    goals: torch.Tensor
    weights: torch.Tensor
    known: np.ndarray
    groups: Groups | None
    chosen: np.ndarray | None
    loss: str
    within: bool


def _train_round(
    net: Net,
    weights: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    rows: TrainingRows,
    settings: dict[str, Any],
    generator: torch.Generator,
    drops: torch.Generator,
) -> float:
    """Take one step for each batch of an epoch; return the mean loss of its rows."""
    device = rows.scaled.device
    total, count = torch.zeros((), dtype=torch.float64, device=device), 0
    for batch in _round_batches(rows, settings["batch_rows"], generator):
        layers = torch_net.dense_layers(weights)
        outputs = net.outputs(layers, rows.scaled, batch, settings["dropout"], drops)
        loss = _loss(outputs, batch, rows, settings)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights.values(), settings["clip_norm"])
        optimizer.step()
        total += loss.detach() * len(batch.rows)
        count += len(batch.rows)
    return float(total) / count


def _round_batches(
    rows: TrainingRows, batch_rows: int, generator: torch.Generator
) -> Iterator[Batch]:
    """Yield the batches of an epoch in a drawn order: rows, or whole groups."""
    device = rows.scaled.device
    if rows.groups is None:
        drawn = torch.from_numpy(rows.known)[torch.randperm(len(rows.known), generator=generator)]
        for part in drawn.to(device).tensor_split(math.ceil(len(drawn) / batch_rows)):
            yield Batch(part)
    else:
        order = torch.randperm(len(rows.chosen), generator=generator).numpy()
        yield from rows.groups.batches(rows.chosen[order], batch_rows, device)


def _loss(
    outputs: torch.Tensor, batch: Batch, rows: TrainingRows, settings: dict[str, Any]
) -> torch.Tensor:
    """Return the loss of the outputs (k, b, outputs) of a batch."""
    goals = rows.goals.index_select(0, batch.rows)
    weights = rows.weights.index_select(0, batch.rows)
    if rows.loss != "ic":
        return torch_net.mean_loss(outputs, goals, weights, rows.loss, settings["huber_delta"])
    groups, count = batch.groups, batch.group_count
    if not rows.within:
        groups, count = torch.zeros_like(batch.rows), 1
    return -torch_net.correlations(outputs[..., 0], goals[:, 0], weights, groups, count).mean()


@torch.no_grad()
def _to_label_unit(net: Net, weights: dict[str, torch.Tensor], rows: TrainingRows) -> None:
    """Put into each member's head the line that fits its outputs to the goals by least squares.

    A loss of correlations leaves the scale of every member free, and the mean over members must
    not weigh them by it.
    """
    device = rows.scaled.device
    if rows.groups is None:
        step = math.ceil(len(rows.known) / LINE_ROWS)
        batches = _row_batches(rows.known[::step], device)
    else:
        size = rows.groups.sizes[rows.chosen].sum()
        chosen = rows.chosen[:: math.ceil(size / LINE_ROWS)]
        batches = rows.groups.batches(chosen, CHUNK_ROWS[device.type], device)
    layers = torch_net.dense_layers(weights)
    parts = [(net.outputs(layers, rows.scaled, batch)[..., 0], batch.rows) for batch in batches]
    outputs = torch.cat([part[0] for part in parts], dim=1).double()
    used = torch.cat([part[1] for part in parts])
    goals, mass = rows.goals[used, 0].double(), rows.weights[used].double()
    mass = mass / mass.sum()
    middle = (outputs * mass).sum(1, keepdim=True)
    goal_middle = (goals * mass).sum()
    cross = ((outputs - middle) * (goals - goal_middle) * mass).sum(1, keepdim=True)
    slope = cross / ((outputs - middle).square() * mass).sum(1, keepdim=True).clamp_min(1e-12)
    weights["head.weight"] = (weights["head.weight"] * slope.unsqueeze(2)).float()
    weights["head.bias"] = ((weights["head.bias"] - middle) * slope + goal_middle).float()


@torch.no_grad()
def _scores(
    net: Net,
    weights: dict[str, torch.Tensor],
    scaled: torch.Tensor,
    batches: Sequence[Batch],
    objective: str,
) -> np.ndarray:
    """Return the scores (n, outputs) of the rows of the batches, NaN elsewhere."""
    layers = torch_net.dense_layers(weights)
    scores = np.full((len(scaled), net.shape.outputs), np.nan)
    for batch in batches:
        outputs = net.outputs(layers, scaled, batch)
        scores[batch.rows.cpu().numpy()] = torch_net.ensemble_scores(outputs, objective, 1, 0).cpu()
    return scores


def _row_batches(rows: np.ndarray, device: torch.device) -> Iterator[Batch]:
    """Yield the rows in order, a chunk at a time."""
    for part in torch.from_numpy(rows).to(device).split(CHUNK_ROWS[device.type]):
        yield Batch(part)


def _tune_batches(
    block: Block, known: np.ndarray, pool: bool, device: torch.device
) -> Iterator[Batch]:
    """Yield the rows of known label, or every group that has one, in order."""
    if not pool:
        return _row_batches(np.flatnonzero(known), device)
    groups = Groups.of(block.groups, np.arange(len(known)))
    chosen = np.flatnonzero(np.add.reduceat(known[groups.order], groups.starts))
    return groups.batches(chosen, CHUNK_ROWS[device.type], device)


def _training_rows(
    settings: dict[str, Any],
    block: Block,
    known: np.ndarray,
    goals: np.ndarray,
    scaled: torch.Tensor,
) -> TrainingRows:
    """Return the rows of the block fit with the plan of its batches."""
    groups = chosen = None
    within = False
    loss = settings["loss"]
    if settings["pool"] or loss == "ic":
        rows = np.arange(len(known)) if settings["pool"] else np.flatnonzero(known)
        groups = Groups.of(block.groups, rows)
        counts = np.add.reduceat(known[groups.order].astype(int), groups.starts)
        wide = counts >= MIN_GROUP_ROWS
        within = loss == "ic" and 2 * counts[wide].sum() >= counts.sum()
        chosen = np.flatnonzero(wide if within else counts)
        if not (settings["pool"] or within):
            groups = chosen = None
    weights = np.where(known, block.weights, 0.0)
    return TrainingRows(
        scaled=scaled,
        goals=torch.from_numpy(goals).to(scaled.device, torch.float32),
        weights=torch.from_numpy(weights / weights[known].mean()).to(scaled.device, torch.float32),
        known=np.flatnonzero(known),
        groups=groups,
        chosen=chosen,
        loss=loss,
        within=within,
    )


def _optimizer(weights: dict[str, torch.Tensor], settings: dict[str, Any]) -> torch.optim.AdamW:
    """Return AdamW that decays matrices alone: pulling adapters to 0 would end a member."""
    matrices = [value for name, value in weights.items() if name.endswith(".weight")]
    others = [value for name, value in weights.items() if not name.endswith(".weight")]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings["weight_decay"]},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=settings["learning_rate"] / settings["scale"],
    )


def _known(role: str, block: Block, target: Target) -> np.ndarray:
    """Return which rows (n,) count; raise HeadsError when their labels cannot be used."""
    where = f"target {target.target}, role {role}"
    labels, weights = block.labels, block.weights
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise HeadsError(f"{where}: a weight is negative or not finite; expected 0 or more.")
    known = np.isfinite(labels) & (weights > 0)
    if not known.any():
        raise Untrainable(
            f"{where}: none of {len(labels)} rows has a known label and a weight above 0. Train on "
            "more bars, or on a label that this market has."
        )
    if target.objective == "regression":
        if labels[known].min() == labels[known].max():
            raise Untrainable(f"{where}: all {known.sum()} known labels are {labels[known][0]}.")
        return known
    names = target.classes or (0, 1)
    found = np.unique(labels[known])
    strange = [value for value in found if value not in range(len(names))]
    if strange:
        raise HeadsError(f"{where}: labels hold {strange}, expected 0 to {len(names) - 1}.")
    absent = [str(name) for number, name in enumerate(names) if number not in found]
    if absent:
        raise Untrainable(
            f"{where}: of {known.sum()} rows with a label none is {', '.join(absent)}. Train on "
            "more bars or on a less rare label."
        )
    return known


def _goals(target: Target, block: Block, known: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Return what the net is to give (n, outputs), and the scale and offset back to labels.

    Classes as 0 and 1, values with weighted mean 0 and deviation 1; 0 where unknown.
    """
    labels = block.labels
    if target.objective == "multiclass":
        return (labels[:, None] == np.arange(len(target.classes))).astype(float), 1.0, 0.0
    if target.objective == "binary":
        return np.where(known, labels, 0.0)[:, None], 1.0, 0.0
    weights = block.weights[known]
    mean = float(np.average(labels[known], weights=weights))
    scale = float(np.sqrt(np.average((labels[known] - mean) ** 2, weights=weights)))
    return np.where(known, (labels - mean) / scale, 0.0)[:, None], scale, mean


def _base_logits(target: Target, goals: np.ndarray, weights: np.ndarray) -> torch.Tensor:
    """Return the logits (outputs,) of the weighted shares of classes, where training begins."""
    shares = np.average(goals, axis=0, weights=weights)
    logits = np.log(shares) if target.objective == "multiclass" else np.log(shares / (1 - shares))
    return torch.from_numpy(logits).float()


def _tune_metric(
    target: Target, tune: Block, known: np.ndarray
) -> tuple[str, Callable[[np.ndarray], float]]:
    """Return the name of the metric and the function of the scores (known rows, outputs)."""
    labels, weights = tune.labels[known], tune.weights[known]
    if target.objective == "multiclass":
        return "mean_average_precision", lambda scores: mean_average_precision(
            labels, scores, weights
        )
    if target.objective == "binary":
        return "average_precision", lambda scores: average_precision(labels, scores[:, 0], weights)
    metric = rank_ic(labels, rank_groups(tune)[known])
    return "rank_ic", lambda scores: metric(scores[:, 0])


def _shared_rows(
    fit: Block, tune: Block, settings: dict[str, Any], device: torch.device, shared: dict[Any, Any]
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Return the statistics of the fit rows and the scaled rows of both blocks on the device.

    Kept in `shared` by where the columns lie in memory, so any select of the same table finds
    them; the table is kept too, or its memory could be given to another.
    """
    key = ("torch", str(device), settings["statistics_rows"], _memory(fit.features))
    names = fit.features.column_names
    if key not in shared:
        raw = to_tensor(fit.features, names)
        stats = torch_net.statistics(raw, settings["statistics_rows"])
        stats = {name: value.to(device) for name, value in stats.items()}
        shared[key] = fit.features, stats, torch_net.scale_(raw.to(device), stats)
    _, stats, scaled = shared[key]
    tune_key = (*key, _memory(tune.features))
    if tune_key not in shared:
        raw = to_tensor(tune.features, names).to(device)
        shared[tune_key] = tune.features, torch_net.scale_(raw, stats)
    return stats, scaled, shared[tune_key][1]


def _memory(table: pa.Table | StoredFeatures) -> tuple[Any, ...]:
    """Return what tells whether two tables are the same memory under the same names."""
    if isinstance(table, StoredFeatures):
        return ("stored", table.relation, table.start, table.end, *table.column_names)
    return tuple(
        (name, chunk.offset, len(chunk), *(part.address if part else 0 for part in chunk.buffers()))
        for name, column in zip(table.column_names, table.columns, strict=True)
        for chunk in column.chunks
    )


def _settings(target: Target, params: dict[str, Any]) -> dict[str, Any]:
    """Return all parameters, checked. Raises HeadsError."""
    where = f"target {target.target}: the torch trainer"
    unknown = sorted(set(params) - set(DEFAULTS))
    if unknown:
        raise HeadsError(
            f"{where} has no parameter {', '.join(unknown)}. It has {', '.join(DEFAULTS)}."
        )
    settings = DEFAULTS | params
    whole = ("rounds", "min_rounds", "patience", "members", "batch_rows")
    whole += ("statistics_rows", "cpu_threads")
    above = ("scale", "huber_delta", "learning_rate", "clip_norm")
    hidden = settings["hidden"]
    losses = ("auto", *LOSSES[target.objective])
    checks = {
        "a whole number of at least 1": {name: _is_count(settings[name]) for name in whole},
        "a number above 0": {
            name: _is_number(settings[name]) and settings[name] > 0 for name in above
        },
        "a list of whole numbers of at least 1": {
            "hidden": isinstance(hidden, list | tuple) and hidden and all(map(_is_count, hidden))
        },
        "a number from 0": {
            "weight_decay": _is_number(settings["weight_decay"]) and settings["weight_decay"] >= 0
        },
        "a number from 0 to below 1": {
            "dropout": _is_number(settings["dropout"]) and 0 <= settings["dropout"] < 1
        },
        "true or false": {"pool": isinstance(settings["pool"], bool)},
        f"one of {', '.join(losses)}": {"loss": settings["loss"] in losses},
        "auto, cpu or cuda": {"device": settings["device"] in ("auto", "cpu", "cuda")},
    }
    for expected, results in checks.items():
        for name, good in results.items():
            if not good:
                raise HeadsError(f"{where}: {name} is {settings[name]!r}, expected {expected}.")
    loss = losses[1] if settings["loss"] == "auto" else settings["loss"]
    return settings | {"loss": loss, "hidden": list(hidden)}


def _is_count(value: Any) -> bool:
    """Return whether a value is a whole number of at least 1."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: Any) -> bool:
    """Return whether a value is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)
