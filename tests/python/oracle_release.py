"""Gating, walk-forward, deployment and drift from their definitions: plain loops, slow on purpose.

The definition is document 004 with the choices of models/release/*.yml. Nothing here reads the
warehouse's SQL or seeds: thresholds and rules are written out again. Unknown is None.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

MINUTE = 60_000
SEALED = ("validation_locked", "latest_stress")
APPROVED = {"fitness": 0.70, "profit_factor": 1.8, "consistency_pct": 85, "max_drawdown_pct": 8}
REVIEW = {"fitness": 0.50, "profit_factor": 1.3, "consistency_pct": 65, "max_drawdown_pct": 15}
CRITERIA = tuple(APPROVED)
DRIFT = {
    "psi": (0.10, 0.25),
    "median_shift": (0.25, 0.50),
    "precision_at_k": (0.05, 0.10),
    "ece": (0.02, 0.05),
}


@dataclass(frozen=True)
class Position:
    """A position really held; times are epoch milliseconds."""

    symbol: str
    position_id: str
    split: str
    signal_ms: int
    closed_ms: int
    edge: float | None


@dataclass
class Period:
    """The sealed period of a subject: where it starts and ends, its rows and its positions."""

    start: int
    end: int
    rows: list[int]
    positions: list[Position] = field(default_factory=list)


def is_known(number: float | None) -> bool:
    return number is not None and not math.isnan(number)


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


# ---- what positions earned


def sealed_periods(positions: Iterable[Position], rows: Iterable[tuple]) -> dict[str, Period]:
    """Return {subject: its sealed period}; rows are (symbol, time_ms, split)."""
    times = defaultdict(list)
    for symbol, time_ms, split in rows:
        if split in SEALED:
            times[symbol].append(time_ms)
            times["ALL"].append(time_ms)
    periods = {
        subject: Period(min(found), max(found) + MINUTE, found) for subject, found in times.items()
    }
    for position in positions:
        if position.split in SEALED:
            periods[position.symbol].positions.append(position)
            periods["ALL"].positions.append(position)
    return periods


def fold_borders(period: Period, folds: int) -> list[Fraction]:
    """Return where folds start, and the end of the last."""
    length = period.end - period.start
    return [period.start + Fraction(length * k, folds) for k in range(folds + 1)]


def within(position: Position, start: Fraction, end: Fraction) -> bool:
    return start <= position.signal_ms < end


def total(positions: Sequence[Position]) -> float | None:
    edges = [position.edge for position in positions]
    return math.fsum(edges) if all(map(is_known, edges)) else None


def profit_factor(positions: Sequence[Position]) -> float | None:
    if not positions:
        return 0.0
    if total(positions) is None:
        return None
    losses = -math.fsum(position.edge for position in positions if position.edge < 0)
    gains = math.fsum(position.edge for position in positions if position.edge > 0)
    return gains / losses if losses else math.inf


def max_drawdown(positions: Sequence[Position]) -> float | None:
    if total(positions) is None:
        return None
    equity = peak = worst = 0.0
    for position in sorted(positions, key=lambda p: (p.closed_ms, p.symbol, p.position_id)):
        equity += position.edge
        peak = max(peak, equity)
        worst = max(worst, peak - equity)
    return worst


def period_returns(
    positions: Sequence[Position], start: Fraction, end: Fraction, minutes: int
) -> list[float | None]:
    """Return what each period from `start` on earned; the last may be cut by `end`."""
    returns = []
    first = math.ceil(start)
    for opens in range(first, math.ceil(end), minutes * MINUTE):
        closes = min(opens + minutes * MINUTE, math.ceil(end))
        returns.append(total([p for p in positions if opens <= p.signal_ms < closes]))
    return returns


def sharpe(returns: Sequence[float | None]) -> float | None:
    """Return the ratio per period; None where returns do not vary or one is unknown."""
    if len(returns) < 2 or not all(map(is_known, returns)) or len(set(returns)) == 1:
        return None
    centre = mean(returns)
    variance = math.fsum((value - centre) ** 2 for value in returns) / (len(returns) - 1)
    return centre / math.sqrt(variance)


def standard_moment(returns: Sequence[float], order: int) -> float:
    centre = mean(returns)
    spread = math.sqrt(mean([(value - centre) ** 2 for value in returns]))
    return mean([((value - centre) / spread) ** order for value in returns])


def probabilistic_sharpe(returns: Sequence[float | None]) -> float | None:
    """Return P(true Sharpe ratio > 0), equation 11 of Bailey and Lopez de Prado (2012)."""
    ratio = sharpe(returns)
    if ratio is None:
        return None
    variance = (
        1
        - standard_moment(returns, 3) * ratio
        + (standard_moment(returns, 4) - 1) / 4 * ratio * ratio
    )
    if variance <= 0:
        return None
    z = ratio * math.sqrt(len(returns) - 1) / math.sqrt(variance)
    return math.erfc(-z / math.sqrt(2)) / 2


def folds(positions: Iterable[Position], rows: Iterable[tuple], settings: Mapping) -> dict:
    """Return {(subject, fold): its columns}."""
    count, minutes = settings["walk_forward_release_folds"], settings["return_period_minutes"]
    per_year = settings["release_days_per_year"] * 1440 / minutes
    found = {}
    for subject, period in sealed_periods(positions, rows).items():
        borders = fold_borders(period, count)
        for number in range(count):
            start, end = borders[number], borders[number + 1]
            held = [p for p in period.positions if within(p, start, end)]
            returns = period_returns(held, start, end, minutes)
            ratio = sharpe(returns)
            earned = total(held)
            found[subject, number + 1] = {
                "starts_at": math.ceil(start),
                "ends_at": math.ceil(end),
                "period_count": len(returns),
                "position_count": len(held),
                "return_bps": earned,
                "sharpe": None if ratio is None else ratio * math.sqrt(per_year),
                "profit_factor": profit_factor(held),
                "max_drawdown_bps": max_drawdown(held),
                "is_positive": earned is not None and earned > 0,
            }
    return found


def history(positions: Iterable[Position], rows: Iterable[tuple], settings: Mapping) -> dict:
    """Return {(subject, checkpoint): what gating looks at}."""
    count, minutes = settings["walk_forward_release_folds"], settings["return_period_minutes"]
    day_ms = settings["consistency_period_minutes"] * MINUTE
    found = {}
    for subject, period in sealed_periods(positions, rows).items():
        borders = fold_borders(period, count)
        returns = []
        for number in range(count):
            held = [p for p in period.positions if within(p, period.start, borders[number + 1])]
            returns += period_returns(held, borders[number], borders[number + 1], minutes)
            days = {time // day_ms for time in period.rows if time < borders[number + 1]}
            earned = {day: total([p for p in held if p.signal_ms // day_ms == day]) for day in days}
            positive = sum(value is not None and value > 0 for value in earned.values())
            drawdown = max_drawdown(held)
            found[subject, number + 1] = {
                "position_count": len(held),
                "period_count": len(returns),
                "day_count": len(days),
                "positive_days": positive,
                "period_sharpe": sharpe(returns),
                "fitness": probabilistic_sharpe(returns),
                "profit_factor": profit_factor(held),
                "consistency_pct": 100 * positive / len(days) if days else None,
                "max_drawdown_pct": None if drawdown is None else drawdown / 100,
            }
    return found


# ---- gating


def missed(values: Mapping[str, float | None], limits: Mapping[str, float]) -> list[str]:
    """Return the criteria that do not meet the limits of a class."""
    return [
        name
        for name in CRITERIA
        if not is_known(values[name])
        or (values[name] > limits[name] if name == "max_drawdown_pct" else False)
        or (values[name] < limits[name] if name != "max_drawdown_pct" else False)
    ]


def gate(checkpoints: Sequence[Mapping], judged: str) -> dict:
    """Return the gating of one subject from its checkpoints in order."""
    final = checkpoints[-1]
    best = None
    for checkpoint in checkpoints:
        if is_known(checkpoint["fitness"]) and (
            best is None or checkpoint["fitness"] > best["fitness"]
        ):
            best = checkpoint
    use = best is not None and is_known(final["fitness"]) and best["fitness"] > final["fitness"]
    values = best if use and judged == "used" else final
    flags = {"APPROVED": missed(values, APPROVED), "REVIEW": missed(values, REVIEW)}
    classes = [name for name, criteria in flags.items() if not criteria]
    return {
        "classification": classes[0] if classes else "DROP",
        "flags": [f"{name}.{criterion}" for name in flags for criterion in flags[name]],
        "use_checkpoint": use,
        "checkpoint_index": best["checkpoint"] if use else None,
        "judged_checkpoint": values["checkpoint"],
    }


# ---- walk-forward and decision


def summary(rows: Sequence[Mapping], settings: Mapping) -> dict:
    """Return the summary of one subject's folds in order."""
    per_year = settings["release_days_per_year"] * 1440 / settings["return_period_minutes"]
    count = len(rows)
    positive = sum(row["is_positive"] for row in rows)
    negative = sum(is_known(row["return_bps"]) and row["return_bps"] < 0 for row in rows)
    ratios = [row["sharpe"] for row in rows if is_known(row["sharpe"])]
    spread = None
    if len(ratios) > 1:
        centre = mean(ratios)
        spread = math.sqrt(math.fsum((r - centre) ** 2 for r in ratios) / (len(ratios) - 1))
    noise = math.sqrt(mean([per_year / row["period_count"] for row in rows]))
    if positive * 5 >= 4 * count:
        positive_rating = "good"
    else:
        positive_rating = "marginal" if positive * 5 >= 3 * count else "poor"
    if spread is None:
        spread_rating = None
    elif spread < 1:
        spread_rating = "good"
    else:
        spread_rating = "marginal" if spread <= 2 else "poor"
    if positive == count:
        returns_rating = "good"
    else:
        returns_rating = "marginal" if 2 * negative <= count else "poor"
    returns = [row["return_bps"] for row in rows]
    return {
        "fold_count": count,
        "position_count": sum(row["position_count"] for row in rows),
        "positive_folds": positive,
        "negative_folds": negative,
        "positive_share": positive / count,
        "negative_share": negative / count,
        "return_bps": math.fsum(returns) if all(map(is_known, returns)) else None,
        "sharpe_folds": len(ratios),
        "sharpe_mean": mean(ratios) if ratios else None,
        "sharpe_stddev": spread,
        "sharpe_noise": noise,
        "sharpe_stddev_ratio": None if spread is None else spread / noise,
        "positive_folds_rating": positive_rating,
        "sharpe_spread_rating": spread_rating,
        "fold_returns_rating": returns_rating,
    }


def decision(
    position_count: int,
    positive_folds: int,
    positive_folds_rating: str | None,
    sharpe_spread_rating: str | None,
    classification: str | None,
    executed_status: str | None,
) -> tuple[str, str]:
    """Return (decision, rule)."""
    if position_count == 0:
        return "DROP", "no_positions"
    if positive_folds == 0:
        return "DROP", "consistent_losses"
    if classification == "DROP":
        return "DROP", "gating_drop"
    if executed_status == "REJECTED":
        return "RETRAIN", "backtest_rejected"
    if executed_status == "PASS":
        many, close = positive_folds_rating == "good", sharpe_spread_rating == "good"
        if many and close and classification == "APPROVED":
            return "LIVE", "live"
        some = positive_folds_rating in ("good", "marginal")
        near = sharpe_spread_rating in ("good", "marginal")
        if some and near and classification in ("APPROVED", "REVIEW"):
            return "PAPER", "paper"
    return "RETRAIN", "otherwise"


# ---- drift


def quantile(values: Sequence[float], share: Fraction) -> float:
    """Return the smallest value with at least this share of the values at or below it."""
    return sorted(values)[max(1, math.ceil(share * len(values))) - 1]


def bin_of(value: float | None, cuts: Sequence[float]) -> tuple:
    """Return a name of the value's bin: unknown, the value of two or more cuts, or cuts below."""
    if value is None:
        return ("unknown",)
    if cuts.count(value) > 1:
        return ("tied", value)
    return ("between", sum(cut < value for cut in cuts))


def population_stability(
    baseline: Sequence[float | None], current: Sequence[float | None], bins: int, floor: float
) -> float | None:
    """Return the population stability index of `current` against `baseline`."""
    if not baseline or not current:
        return None
    known = [value for value in baseline if value is not None]
    cuts = [quantile(known, Fraction(k, bins)) for k in range(1, bins)] if known else []
    index = 0.0
    for name in {bin_of(value, cuts) for value in (*baseline, *current)}:
        p, q = (
            max(floor, sum(bin_of(value, cuts) == name for value in values) / len(values))
            for values in (current, baseline)
        )
        index += (p - q) * math.log(p / q)
    return index


def median_shift(baseline: Sequence[float | None], current: Sequence[float | None]) -> float | None:
    """Return how far the median moved, in the baseline's interquartile ranges."""
    before, now = ([v for v in values if v is not None] for values in (baseline, current))
    if not before or not now:
        return None
    moved = quantile(now, Fraction(1, 2)) - quantile(before, Fraction(1, 2))
    width = quantile(before, Fraction(3, 4)) - quantile(before, Fraction(1, 4))
    if moved == 0:
        return 0.0
    return moved / width if width else math.copysign(math.inf, moved)


@dataclass(frozen=True)
class Evaluation:
    """A prediction beside its label; hour and minute place it in time."""

    sample_id: str
    hour: int
    minute: int
    prediction: float | None
    actual: float | None


def evaluated(rows: Iterable[Evaluation]) -> list[Evaluation]:
    return [
        row
        for row in rows
        if all(v is not None and math.isfinite(v) for v in (row.prediction, row.actual))
    ]


def precision_at_k(rows: Iterable[Evaluation], k: int) -> float | None:
    """Return the mean over hours of the share of positives among the k highest of a time."""
    times = defaultdict(list)
    for row in evaluated(rows):
        times[row.hour, row.minute].append(row)
    hours = defaultdict(list)
    for (hour, _), found in times.items():
        if len(found) >= k:
            best = sorted(found, key=lambda row: (-row.prediction, row.sample_id))[:k]
            hours[hour].append((len(found), sum(row.actual for row in best) / k))
    if not hours:
        return None
    return mean(
        [sum(n * share for n, share in seen) / sum(n for n, _ in seen) for seen in hours.values()]
    )


def calibration_error(rows: Iterable[Evaluation], bins: int, min_rows: int) -> float | None:
    """Return the expected calibration error over bins of equal mass, ties in one bin."""
    rows = evaluated(rows)
    if not rows:
        return None
    bins = max(1, min(bins, len(rows) // min_rows))
    gaps = defaultdict(float)
    for row in rows:
        higher = sum(other.prediction > row.prediction for other in rows)
        same = sum(other.prediction == row.prediction for other in rows)
        middle = Fraction(2 * higher + same + 1, 2)
        gaps[math.floor(bins * (middle - Fraction(1, 2)) / len(rows))] += (
            row.prediction - row.actual
        )
    return math.fsum(abs(gap) for gap in gaps.values()) / len(rows)


def drift_status(check_name: str, drift: float | None) -> str | None:
    if not is_known(drift):
        return None
    warn, alarm = DRIFT[check_name]
    return "ALARM" if drift >= alarm else "WARN" if drift >= warn else "OK"


def by_subject(rows: Mapping[tuple, Mapping], convert: Callable) -> dict:
    """Return {subject: convert(its rows in order)} from {(subject, number): row}."""
    found = defaultdict(list)
    for subject, number in sorted(rows):
        found[subject].append(rows[subject, number])
    return {subject: convert(group) for subject, group in found.items()}
