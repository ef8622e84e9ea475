"""The net of the torch trainer: scaled features, an ensemble of MLPs in one pass, its losses.

TabM: Gorishniy, Kotelnikov, Babenko (2025), Advancing tabular deep learning with
parameter-efficient ensembling, ICLR, section 3; its layer is BatchEnsemble's, Wen, Tran, Ba
(2020), ICLR, equation 5. Member i of k sees ((x * r_i) W) * s_i + b_i: W is shared, the vectors
r_i, s_i and b_i are its own, and so is the last layer. Scaling and clipping: Holzmüller,
Grinsztajn, Steinwart (2024), RealMLP, NeurIPS, section 3. Pooling: Zaheer et al. (2017), Deep
Sets, NeurIPS. Weights are a flat dictionary of tensors; there are no modules and no hidden state.
"""

import dataclasses
import itertools

import numpy as np
import torch
from torch.nn import functional

CLIP = 3.0  # the smooth clip bends at, and never leaves, plus and minus this
FAR = 1e6  # scaled values stop here, or their square would overflow float32
TINY = 1e-6  # variance, of standardised values, that counts as none
BLOCK_ROWS = 65_536  # rows scaled at once: bounds the temporaries


@dataclasses.dataclass(frozen=True)
class Shape:
    """The sizes of a net; `inputs` counts features and missing indicators."""

    inputs: int
    hidden: tuple[int, ...]
    outputs: int
    members: int
    pool: bool

    @property
    def encoder_layers(self) -> int:
        """Return how many layers come before the pool: all hidden ones but the last, at least 1."""
        return max(1, len(self.hidden) - 1)

    def sizes(self) -> list[tuple[int, int]]:
        """Return (inputs, outputs) of each layer, the head last; the pool doubles an input."""
        widths = [self.inputs, *self.hidden, self.outputs]
        sizes = list(itertools.pairwise(widths))
        if self.pool:
            wide, outputs = sizes[self.encoder_layers]
            sizes[self.encoder_layers] = (2 * wide, outputs)
        return sizes


def statistics(raw: torch.Tensor, rows_max: int) -> dict[str, torch.Tensor]:
    """Return how raw features (n, F) are scaled: `center` and `inverse_scale` (F,), `missing` (M,).

    The center is the median. The scale is the interquartile range, or the standard deviation where
    that is 0, or 1 where that is 0 too; all from at most `rows_max` rows, evenly spaced. `missing`
    lists the features that are NaN or infinite in any row. Computed on the CPU, so that every
    device scales alike.
    """
    values = raw.numpy()
    known = np.ones(values.shape[1], dtype=bool)
    for start in range(0, len(values), BLOCK_ROWS):
        known &= np.isfinite(values[start : start + BLOCK_ROWS]).all(axis=0)
    step = max(1, -(-len(values) // rows_max))
    sample = np.ascontiguousarray(values[::step].T)
    sample[~np.isfinite(sample)] = np.nan
    sample.sort(axis=1)  # NaN goes last
    counts = np.isfinite(sample).sum(axis=1)
    low, center, high = (_quantile(sample, counts, share) for share in (0.25, 0.5, 0.75))
    scale = high - low
    for ordinal in np.flatnonzero((scale == 0) & (counts > 0)):
        scale[ordinal] = sample[ordinal, : counts[ordinal]].astype(np.float64).std()
    scale[scale == 0] = 1.0
    return {
        "center": torch.from_numpy(center.astype(np.float32)),
        "inverse_scale": torch.from_numpy((1 / np.maximum(scale, 1e-30)).astype(np.float32)),
        "missing": torch.from_numpy(np.flatnonzero(~known)),
    }


def _quantile(ordered: np.ndarray, counts: np.ndarray, share: float) -> np.ndarray:
    """Return a quantile (F,) of the first `counts` values of each row (F, n); 0 without any."""
    place = np.maximum(counts - 1, 0) * share
    below = place.astype(int)
    above = np.minimum(below + 1, np.maximum(counts - 1, 0))
    rows = np.arange(len(ordered))
    left, right = (ordered[rows, at].astype(np.float64) for at in (below, above))
    return np.where(counts > 0, left + (right - left) * (place - below), 0.0)


def scale_(raw: torch.Tensor, stats: dict[str, torch.Tensor]) -> torch.Tensor:
    """Scale raw features (n, F) in place and return them; what is not finite becomes NaN."""
    for start in range(0, len(raw), BLOCK_ROWS):
        block = raw[start : start + BLOCK_ROWS]
        unknown = ~block.isfinite()
        block.sub_(stats["center"]).mul_(stats["inverse_scale"]).clamp_(-FAR, FAR)
        block.div_(block.div(CLIP).square_().add_(1).sqrt_())
        block.masked_fill_(unknown, torch.nan)
    return raw


def net_inputs(scaled: torch.Tensor, missing: torch.Tensor) -> torch.Tensor:
    """Return the inputs (n, F + M): unknown features as 0, then the missing indicators."""
    unknown = scaled.index_select(1, missing).isnan().to(scaled.dtype)
    return torch.cat([scaled.nan_to_num(nan=0.0), unknown], dim=1)


def initial_weights(shape: Shape, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Return first weights, drawn on the CPU so that a seed begins alike on every device.

    Matrices and biases are uniform within 1/sqrt(inputs); members differ by the random signs of
    the first r and by their heads, the other adapters are 1 (TabM, section 3). Members share
    the first value of a bias.
    """
    weights = {}
    members = shape.members
    *hidden, (wide, outputs) = shape.sizes()

    def uniform(*size: int, inputs: int) -> torch.Tensor:
        return (torch.rand(size, generator=generator) * 2 - 1) * inputs**-0.5

    for number, (inputs, width) in enumerate(hidden):
        signs = torch.randint(0, 2, (members, inputs), generator=generator).float() * 2 - 1
        weights[f"layer{number}.weight"] = uniform(inputs, width, inputs=inputs)
        weights[f"layer{number}.r"] = signs if number == 0 else torch.ones(members, inputs)
        weights[f"layer{number}.s"] = torch.ones(members, width)
        weights[f"layer{number}.bias"] = uniform(width, inputs=inputs).repeat(members, 1)
    weights["head.weight"] = uniform(members, wide, outputs, inputs=wide)
    weights["head.bias"] = uniform(members, outputs, inputs=wide)
    return weights


Dense = list[tuple[torch.Tensor, torch.Tensor]]


def dense_layers(weights: dict[str, torch.Tensor]) -> Dense:
    """Return each layer as the dense layers of its members: (k, inputs, outputs), (k, 1, outputs).

    ((x * r) W) * s + b is x (r W s) + b with r and s as diagonals: the same arithmetic for a batch
    that is larger than a layer, in half the time.
    """
    layers = []
    number = 0
    while f"layer{number}.weight" in weights:
        name = f"layer{number}"
        matrix = weights[f"{name}.r"].unsqueeze(2) * weights[f"{name}.weight"]
        matrix = matrix * weights[f"{name}.s"].unsqueeze(1)
        layers.append((matrix, weights[f"{name}.bias"].unsqueeze(1)))
        number += 1
    return [*layers, (weights["head.weight"], weights["head.bias"].unsqueeze(1))]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Row numbers (b,) on the device and, where it is made of whole groups, the group of each."""

    rows: torch.Tensor
    groups: torch.Tensor | None = None
    group_count: int = 0


@dataclasses.dataclass(frozen=True)
class Net:
    """All that turns scaled rows into outputs, except the weights."""

    shape: Shape
    missing: torch.Tensor

    def outputs(
        self,
        layers: Dense,
        scaled: torch.Tensor,
        batch: Batch,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Return the raw outputs (k, b, outputs) of every member for the rows of a batch.

        A net that pools needs the groups of the batch. `generator` draws the dropped units and
        must be on the device of the rows.
        """
        inputs = net_inputs(scaled.index_select(0, batch.rows), self.missing)
        hidden = inputs.expand(self.shape.members, *inputs.shape)
        for number, (matrix, bias) in enumerate(layers):
            if self.shape.pool and number == self.shape.encoder_layers:
                hidden = _join_pool(hidden, batch)
            # Transposed, rows lie along the kernels' vectors, and a row's bits do not depend on its
            # place in the batch; the other way round they do for some odd widths.
            parts = (part.transpose(1, 2) for part in (bias, matrix, hidden))
            hidden = torch.baddbmm(*parts).transpose(1, 2)
            if number < len(layers) - 1:
                hidden = hidden.relu()
                if dropout:
                    drawn = torch.rand(hidden.shape, generator=generator, device=hidden.device)
                    hidden = hidden * ((drawn >= dropout) / (1 - dropout))
        return hidden


def _join_pool(hidden: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Return encodings (k, b, d) joined to the mean encoding of their group: (k, b, 2 d)."""
    members, rows, width = hidden.shape
    ones = hidden.new_ones(rows)
    sizes = hidden.new_zeros(batch.group_count).index_add(0, batch.groups, ones)
    sums = hidden.new_zeros(members, batch.group_count, width).index_add(1, batch.groups, hidden)
    means = sums / sizes.unsqueeze(1)
    return torch.cat([hidden, means.index_select(1, batch.groups)], dim=2)


def ensemble_scores(
    outputs: torch.Tensor, objective: str, scale: float, offset: float
) -> torch.Tensor:
    """Return scores (n, outputs) float64: the mean over members of probabilities or values."""
    outputs = outputs.double()
    if objective == "binary":
        return outputs.sigmoid().mean(0)
    if objective == "multiclass":
        return outputs.softmax(-1).mean(0)
    return outputs.mean(0) * scale + offset


def mean_loss(
    outputs: torch.Tensor, goals: torch.Tensor, weights: torch.Tensor, loss: str, huber_delta: float
) -> torch.Tensor:
    """Return the mean over members of each member's weighted mean loss.

    Outputs are (k, b, o), goals (b, o): classes as 0 and 1, or standardised values. Rows of weight
    0 do not count. `loss` is binary_cross_entropy, cross_entropy, mse or huber.
    """
    goals = goals.expand_as(outputs)
    if loss == "binary_cross_entropy":
        each = functional.binary_cross_entropy_with_logits(outputs, goals, reduction="none")
    elif loss == "cross_entropy":
        each = -outputs.log_softmax(-1) * goals
    elif loss == "huber":
        each = functional.huber_loss(outputs, goals, reduction="none", delta=huber_delta)
    else:
        each = (outputs - goals).square()
    return (each.sum(-1) * weights).mean(0).sum() / weights.count_nonzero()


def correlations(
    outputs: torch.Tensor,
    goals: torch.Tensor,
    weights: torch.Tensor,
    groups: torch.Tensor,
    group_count: int,
) -> torch.Tensor:
    """Return Pearson's weighted correlation (groups, k) of outputs (k, b) with goals (b,).

    `groups` (b,) are numbers below `group_count`; where a side is constant the correlation is 0.
    """

    def total(values: torch.Tensor) -> torch.Tensor:
        return values.new_zeros(group_count, values.shape[1]).index_add(0, groups, values)

    weights = weights.unsqueeze(1)
    mass = total(weights)

    def centered(values: torch.Tensor) -> torch.Tensor:
        return values - (total(weights * values) / mass).index_select(0, groups)

    left, right = centered(outputs.T), centered(goals.unsqueeze(1))
    cross = total(weights * left * right) / mass
    left_square = total(weights * left.square()) / mass
    right_square = total(weights * right.square()) / mass
    return cross / ((left_square + TINY) * (right_square + TINY)).sqrt()
