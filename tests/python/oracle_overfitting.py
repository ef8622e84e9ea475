"""The honest search from its definitions: Sharpe ratios, cross-validation, neighbours, luck.

A trial is a distinct set of trades, named by its lowest candidate; candidates are those of
oracle_pm.grid. Unknown is None.
"""

import datetime
import hashlib
import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

import oracle_pm
from oracle_pm import AXES

EULER_MASCHERONI = 0.5772156649015329
ACTUAL = ["actual_long_expected_net_edge_bps", "actual_short_expected_net_edge_bps"]


# ---- trials and their returns


def trials_of(grid: Sequence[Mapping]) -> dict[int, list[Mapping]]:
    """Return {lowest candidate_id: candidates} of each set of trades, in that order."""
    sets = defaultdict(list)
    for candidate in grid:
        if candidate["trade_count"]:
            sets[candidate["trade_set"]].append(candidate)
    return {members[0]["candidate_id"]: members for members in sets.values()}


def period_returns(frame: pd.DataFrame, trials: Mapping, minutes: int) -> pd.DataFrame:
    """Sums of weighted edges: a row per period that the frame has rows in, a column per trial."""
    starts = period_starts(frame, minutes)
    columns = {}
    for candidate_id, members in trials.items():
        trades = oracle_pm.admit(frame, members[0])
        sums = dict.fromkeys(starts, 0.0)
        for time, edge in zip(trades["event_time"], trades["weighted_edge_bps"], strict=True):
            if not math.isnan(edge):
                sums[period_start(time, minutes)] += edge
        columns[candidate_id] = sums
    return pd.DataFrame(columns, index=starts)


def period_starts(frame: pd.DataFrame, minutes: int) -> list[int]:
    return sorted({period_start(time, minutes) for time in frame["event_time"]})


def period_start(time: pd.Timestamp, minutes: int) -> int:
    """Start of the period in minutes since 1970."""
    return int(time.timestamp()) // 60 // minutes * minutes


# ---- Sharpe ratios


def varies(returns: np.ndarray) -> bool:
    return len(returns) > 1 and np.ptp(returns) > 0


def sharpe(returns: np.ndarray) -> float | None:
    return float(returns.mean() / returns.std(ddof=1)) if varies(returns) else None


def moments(returns: np.ndarray) -> tuple[float | None, float | None]:
    """Skewness and kurtosis (3 for a normal) of the population."""
    if not varies(returns):
        return None, None
    return float(stats.skew(returns)), float(stats.kurtosis(returns, fisher=False))


def expected_maximum(variance: float | None, trials: float | None) -> float | None:
    """Of the Sharpe ratios of independent trials that are worth nothing."""
    if trials is None or (variance is None and trials > 1):
        return None
    if trials <= 1:
        return 0.0
    first, second = stats.norm.isf(1 / trials), stats.norm.isf(1 / (trials * math.e))
    mixture = (1 - EULER_MASCHERONI) * first + EULER_MASCHERONI * second
    return math.sqrt(variance) * max(0.0, float(mixture))


def probabilistic_sharpe(returns: np.ndarray, benchmark: float | None) -> float | None:
    ratio = sharpe(returns)
    if ratio is None or benchmark is None:
        return None
    skewness, kurtosis = moments(returns)
    error = math.sqrt((1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / (len(returns) - 1))
    return float(stats.norm.cdf((ratio - benchmark) / error))


def effective_trials(returns: pd.DataFrame) -> tuple[float | None, float | None]:
    """Mean correlation of all pairs of trials, and the number of independent trials it leaves."""
    varying = returns[[name for name in returns if varies(returns[name].to_numpy())]].to_numpy()
    count = returns.shape[1]
    if varying.shape[1] < 2:
        return None, 1.0 if count == 1 else None
    correlations = np.corrcoef(varying.T)
    mean = float(correlations[np.triu_indices(varying.shape[1], 1)].mean())
    positive = max(mean, 0.0)
    return mean, positive + (1 - positive) * count


def sharpe_columns(returns: pd.DataFrame, grid: Sequence[Mapping], trials: Mapping) -> dict:
    best = oracle_pm.best(grid)
    of_best = next((first for first, members in trials.items() if best in members), None)
    best_returns = np.array([]) if of_best is None else returns[of_best].to_numpy()
    sharpes = {name: sharpe(returns[name].to_numpy()) for name in returns}
    known = [value for value in sharpes.values() if value is not None]
    repeated = [value for name, value in sharpes.items() if value is not None for _ in trials[name]]
    variance = float(np.var(known, ddof=1)) if len(known) > 1 else None
    repeated_variance = float(np.var(repeated, ddof=1)) if len(repeated) > 1 else None
    mean_correlation, effective = effective_trials(returns) if trials else (None, None)
    skewness, kurtosis = moments(best_returns)
    found = {
        "sharpe_per_period": sharpe(best_returns),
        "skewness": skewness,
        "kurtosis": kurtosis,
        "highest_trial_sharpe": max(known, default=None),
        "probabilistic_sharpe": probabilistic_sharpe(best_returns, 0.0),
        "trial_sharpe_variance": variance,
        "candidate_sharpe_variance": repeated_variance,
        "mean_trial_correlation": mean_correlation,
        "effective_trials": effective,
    }
    for ending, count, spread in (
        ("", effective, variance),
        ("_distinct", len(trials), variance),
        ("_raw", len(grid), repeated_variance),
        ("_sampling", effective, 1 / (len(returns) - 1) if len(returns) > 1 else None),
    ):
        highest = expected_maximum(spread, count)
        found[f"expected_max_sharpe{ending}"] = highest if trials else None
        found[f"deflated_sharpe{ending}"] = probabilistic_sharpe(best_returns, highest)
    return found


# ---- combinatorially symmetric cross-validation


def cross_validation(returns: pd.DataFrame, blocks: int, measure: str) -> list[dict]:
    """One row per way to take half of the blocks as in sample."""
    periods, trials = returns.shape
    if periods < 2 * blocks or trials < 2:
        return []
    block_of = np.array([period * blocks // periods for period in range(periods)])
    values, ids = returns.to_numpy(), list(returns.columns)
    found = []
    for chosen in itertools.combinations(range(blocks), blocks // 2):
        inside = np.isin(block_of, chosen)
        first = [performance(values[inside, trial], measure) for trial in range(trials)]
        second = [performance(values[~inside, trial], measure) for trial in range(trials)]
        winner = min(range(trials), key=lambda trial: (-first[trial], ids[trial]))
        worse = sum(other < second[winner] for other in second)
        rank = (worse + (second.count(second[winner]) + 1) / 2) / (trials + 1)
        found.append(
            {
                "in_sample_blocks": [block + 1 for block in chosen],
                "candidate_id": ids[winner],
                "trial_count": trials,
                "in_sample_performance": first[winner],
                "out_of_sample_performance": second[winner],
                "relative_rank": rank,
                "logit": math.log(rank / (1 - rank)),
            }
        )
    return found


def performance(returns: np.ndarray, measure: str) -> float:
    """Rounded, so that trials that earn the same but for rounding tie."""
    return round(float(returns.mean()) if measure == "mean" else sharpe(returns) or 0.0, 9)


def overfitting_columns(returns: pd.DataFrame, blocks: int) -> dict:
    found = {}
    for measure, prefix in (("mean", "pbo"), ("sharpe", "pbo_sharpe")):
        splits = cross_validation(returns, blocks, measure)
        inside = np.array([split["in_sample_performance"] for split in splits])
        outside = np.array([split["out_of_sample_performance"] for split in splits])
        logits = np.array([split["logit"] for split in splits])
        varied = len(splits) > 1 and np.ptp(inside) > 1e-12 * np.abs(inside).max()
        slope = float(stats.linregress(inside, outside).slope) if varied else None
        found |= {
            "pbo_splits": len(splits),
            prefix: float((logits <= 0).mean()) if splits else None,
            f"{prefix}_loss_probability": float((outside < 0).mean()) if splits else None,
            f"{prefix}_slope": slope,
        }
    return found


# ---- neighbourhood


def places(candidate: Mapping, axes: Mapping[str, Sequence[float]]) -> list[int]:
    return [sorted(axes[axis]).index(candidate[axis]) for axis in AXES]


def neighbours(grid: Sequence[Mapping], axes: Mapping[str, Sequence[float]]) -> dict[tuple, dict]:
    """Return {(axis, step): candidate} one step away from the best on one axis."""
    here = places(oracle_pm.best(grid), axes)
    found = {}
    for candidate in grid:
        away = [there - mine for there, mine in zip(places(candidate, axes), here, strict=True)]
        if sum(map(abs, away)) == 1:
            number = next(i for i, step in enumerate(away) if step)
            found[AXES[number], away[number]] = candidate
    return found


def neighbourhood_columns(grid: Sequence[Mapping], axes: Mapping[str, Sequence[float]]) -> dict:
    best = oracle_pm.best(grid)
    here = places(best, axes)
    near = list(neighbours(grid, axes).values())
    box = [
        one
        for one in grid
        if one is not best
        and all(abs(a - b) <= 1 for a, b in zip(places(one, axes), here, strict=True))
    ]
    lengths = [len(axes[axis]) for axis in AXES]
    loosest = min(
        grid, key=lambda one: tuple(-one[axis] if axis[:3] == "max" else one[axis] for axis in AXES)
    )

    def share(values: list) -> float | None:
        known = values and None not in values
        return sum(value > 0 for value in values) / len(values) if known else None

    def median(values: list) -> float | None:
        return float(np.median(values)) if values and None not in values else None

    def least(values: list) -> float | None:
        return min(values) if values and None not in values else None

    scores, box_scores = [one["score"] for one in near], [one["score"] for one in box]
    return {
        "neighbours": len(near),
        "neighbours_positive_share": share(scores),
        "neighbours_positive_total_share": share([one["total_weighted_edge_bps"] for one in near]),
        "neighbour_worst_score": least(scores),
        "neighbour_median_score": median(scores),
        "box_candidates": len(box),
        "box_positive_share": share(box_scores),
        "box_worst_score": least(box_scores),
        "box_median_score": median(box_scores),
        "axes_on_edge": [
            axis
            for axis, place, length in zip(AXES, here, lengths, strict=True)
            if length > 1 and place in (0, length - 1)
        ],
        "loosest_candidate_rank": loosest["score_rank"],
    }


# ---- luck


def shuffled(frame: pd.DataFrame, draw: int, seed: int, method: str) -> pd.DataFrame:
    """Return the frame with actual edges moved among the rows of the same symbol and UTC day."""
    frame = frame.reset_index(drop=True)
    moved = frame.copy()
    for (_, day), members in frame.groupby(["symbol", frame["event_time"].dt.date]):
        takers = members.sort_values(["event_time", "sample_id"])
        names = dict(zip(takers.index, takers["sample_id"], strict=True))
        if method == "shuffle":
            givers = sorted(names, key=lambda row: (digest(seed, draw, names[row]), names[row]))
        else:
            steps = 1 + digest(seed, draw, day) % max(1, len(names) - 1)
            givers = [list(names)[(place + steps) % len(names)] for place in range(len(names))]
        moved.loc[list(names), ACTUAL] = frame.loc[givers, ACTUAL].to_numpy()
    return moved


def digest(seed: int, draw: int, name: str | datetime.date) -> int:
    """MD5 as a number, its first byte the smallest."""
    return int.from_bytes(hashlib.md5(f"{seed}:{draw}:{name}".encode()).digest(), "little")


def null_columns(best: Mapping, nulls: Sequence[Mapping]) -> dict:
    """`nulls` are the best candidates of the draws."""
    scores = [one["score"] for one in nulls]
    totals = [one["total_weighted_edge_bps"] for one in nulls]
    known = bool(best["trade_count"]) and bool(nulls)
    lucky = sum(round(score, 9) >= round(best["score"], 9) for score in scores)
    return {
        "null_draws": len(nulls),
        "null_best_score_mean": float(np.mean(scores)) if known else None,
        "null_best_score_max": max(scores) if known else None,
        "null_total_weighted_edge_bps_mean": float(np.mean(totals)) if known else None,
        "null_p_value": (1 + lucky) / (1 + len(nulls)) if known else None,
    }
