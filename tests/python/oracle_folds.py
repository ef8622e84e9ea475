"""Folds and sample weights from their definitions, row by row; times are epoch milliseconds."""

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import floor


@dataclass(frozen=True)
class Sample:
    """A row of heads.head_samples: its bar, and the last bar its labels look at."""

    sample_id: str
    symbol: str
    starts: int
    label_ends: int


@dataclass(frozen=True)
class Boundaries:
    """Starts of the three splits after fit and of walk-forward blocks 1, 2, ..., in order.

    `embargo` is the time after each of them in which no row is tested.
    """

    splits: tuple[int, int, int]
    blocks: tuple[int, ...]
    embargo: int = 0


DEFAULTS = {
    "heads_tune_share": 0.1,
    "heads_calibrate_share": 0.1,
    "heads_embargo_bars": 5,
    "heads_rolling_blocks": 2,
    "heads_cpcv_test_groups": 2,
    "heads_weighting": "uniqueness",
    "heads_decay_half_life_bars": 0,
    "walk_forward_folds": 5,
}


def folds(
    samples: Sequence[Sample], boundaries: Boundaries, settings: Mapping
) -> dict[str, dict[str, str]]:
    """Role of each sample that has one, by fold, whether or not the fold can be used."""
    validation = boundaries.splits[1]
    block_starts = [-1, *boundaries.blocks, validation]
    found = {
        "anchor": _roles(
            samples,
            [-1, *boundaries.splits, None],
            [0],
            {1: "test", 2: "locked", 3: "stress"},
            boundaries.embargo,
            settings,
        )
    }
    blocks = range(len(boundaries.blocks) + 1)
    trained_and_tested = {}
    for k in blocks[1:]:
        first = max(0, k - settings["heads_rolling_blocks"])
        trained_and_tested[f"expanding_{k}"] = (list(range(k)), [k])
        trained_and_tested[f"rolling_{k}"] = (list(range(first, k)), [k])
    if settings["heads_cpcv_test_groups"]:
        for tested in combinations(blocks, settings["heads_cpcv_test_groups"]):
            name = "cpcv_" + "_".join(str(k) for k in tested)
            trained_and_tested[name] = ([k for k in blocks if k not in tested], tested)
    for fold, (trained, tested) in trained_and_tested.items():
        roles = dict.fromkeys(tested, "test")
        found[fold] = _roles(samples, block_starts, trained, roles, boundaries.embargo, settings)
    return found


def usable(found: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    """Folds that have rows to learn from and, but for the anchor, rows to test."""
    return {
        fold: roles
        for fold, roles in found.items()
        if {"fit", "tune", "calibrate"} <= set(roles.values())
        and (fold == "anchor" or "test" in roles.values())
    }


def _roles(samples, starts, trained, tested, embargo, settings):
    """Roles in one fold.

    Span k lasts from starts[k] to starts[k + 1], None being the end of time. Spans in `trained` are
    learned from; `tested` gives the role of the others that have one.
    """
    bars = sorted({sample.starts for sample in samples})
    spans = range(len(starts) - 1)
    span_of = {}
    for bar in bars:
        for span in spans:
            if starts[span] <= bar and (starts[span + 1] is None or bar < starts[span + 1]):
                span_of[bar] = span

    run_starts, run_ends = {}, {}  # of a trained span: the first and last of its trained neighbours
    for span in trained:
        run_starts[span] = run_starts.get(span - 1, span)
    for span in reversed(trained):
        run_ends[span] = run_ends.get(span + 1, span)

    learned = []  # bars to learn from; a run of spans after a tested one starts late
    for span in trained:
        run = [bar for bar in bars if starts[run_starts[span]] <= bar]
        late = run[: settings["heads_embargo_bars"]] if run_starts[span] - 1 in tested else []
        learned += [bar for bar in bars if span_of.get(bar) == span and bar not in late]

    calibrated = floor(len(learned) * settings["heads_calibrate_share"])
    tuned = floor(len(learned) * settings["heads_tune_share"])
    fitted = len(learned) - tuned - calibrated
    shares = ["fit"] * fitted + ["tune"] * tuned + ["calibrate"] * calibrated
    role_of_bar = dict(zip(learned, shares, strict=True))

    next_role_at = {}  # the bar, or the end of the run, where another role begins
    for place, bar in reversed(list(enumerate(learned))):
        run_end = starts[run_ends[span_of[bar]] + 1]
        next_role_at[bar] = run_end
        if place + 1 < len(learned) and learned[place + 1] < run_end:
            follower = learned[place + 1]
            same = role_of_bar[follower] == role_of_bar[bar]
            next_role_at[bar] = next_role_at[follower] if same else follower

    roles = {}
    for sample in samples:
        span = span_of.get(sample.starts)
        if span in tested:
            end = starts[span + 1]
            if sample.starts >= starts[span] + embargo and (end is None or sample.label_ends < end):
                roles[sample.sample_id] = tested[span]
        elif sample.starts in role_of_bar:
            limit = next_role_at[sample.starts]
            between = bisect_left(bars, limit) - bisect_right(bars, sample.label_ends)
            if sample.label_ends < limit and between >= settings["heads_embargo_bars"]:
                roles[sample.sample_id] = role_of_bar[sample.starts]
    return roles


def weights(samples: Sequence[Sample], settings: Mapping) -> dict[str, tuple[float, float]]:
    """Average uniqueness and weight of every sample."""
    all_bars = sorted({sample.starts for sample in samples})
    found = {}
    for sample in samples:
        same_symbol = [other for other in samples if other.symbol == sample.symbol]
        shares = []
        for bar in sorted({other.starts for other in same_symbol}):
            if sample.starts <= bar <= sample.label_ends:
                alive = sum(other.starts <= bar <= other.label_ends for other in same_symbol)
                shares.append(1 / alive)
        uniqueness = sum(shares) / len(shares)
        half_life = settings["heads_decay_half_life_bars"]
        decay = 2 ** (all_bars.index(sample.starts) / half_life) if half_life else 1.0
        at_this_time = sum(other.starts == sample.starts for other in samples)
        if settings["heads_weighting"] == "uniqueness":
            found[sample.sample_id] = uniqueness, uniqueness / at_this_time * decay
        else:
            found[sample.sample_id] = uniqueness, decay
    return found
