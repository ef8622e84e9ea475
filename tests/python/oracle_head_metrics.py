"""The metrics of heads from their definitions: plain loops over rows, slow on purpose."""

import hashlib
import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

RANK_IC = ("rank_ic", "icir", "rank_ic_newey_west_t", "rank_ic_newey_west_lag")
TOP_K = ("precision_at_k", "precision_at_k_lift", "mean_actual_top_k")
INTERVAL = ("interval_coverage", "interval_width")
WITHOUT_INTERVAL = ("rank_ic_newey_west_t", "rank_ic_newey_west_lag")


@dataclass
class Row:
    """One evaluated sample of one series; `rank`, `actual_rank`, `bin` and `tail` are pooled."""

    sample_id: str
    period: int
    prediction: float
    actual: float
    lower: float | None = None
    upper: float | None = None
    seed_scores: list[float | None] | None = None
    time: int = 0  # within the period
    rank: float = math.nan
    actual_rank: float = math.nan
    bin: int = -1
    tail: int = -1


def is_known(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def ranks_from_highest(values: list[float]) -> list[float]:
    """1 for the highest; equal values share the mean of their ranks."""
    return [
        sum(other > value for other in values) + (sum(other == value for other in values) + 1) / 2
        for value in values
    ]


def correlation(x: list[float], y: list[float]) -> float | None:
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    covariance = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    variances = [math.fsum((a - mean_x) ** 2 for a in x), math.fsum((b - mean_y) ** 2 for b in y)]
    return covariance / math.sqrt(variances[0] * variances[1])


def mean(values: Iterable[float]) -> float | None:
    values = list(values)
    return math.fsum(values) / len(values) if values else None


def highest(rows: list[Row], scores: list[float], k: int) -> list[Row]:
    order = sorted(range(len(rows)), key=lambda i: (-scores[i], rows[i].sample_id))
    return [rows[i] for i in order[:k]]


def jaccard_of_seeds(rows: list[Row], seed_count: int, k: int) -> float | None:
    """Mean over pairs of seeds of |A and B| / |A or B|, A and B the k highest of a seed."""
    scored = [
        row
        for row in rows
        if row.seed_scores is not None
        and len([score for score in row.seed_scores if score is not None]) == seed_count
        and all(is_known(score) for score in row.seed_scores)
    ]
    if seed_count < 2 or len(scored) <= k:
        return None
    chosen = [
        {row.sample_id for row in highest(scored, [row.seed_scores[seed] for row in scored], k)}
        for seed in range(seed_count)
    ]
    return mean(len(a & b) / len(a | b) for a, b in itertools.combinations(chosen, 2))


def period_metrics(rows: list[Row], settings: dict) -> dict[int, dict]:
    """Return {period: its row count, means, ic, rank_ic, mean_actual_top_k, top_k_jaccard}."""
    k = settings["head_metric_top_k"]
    seed_count = max(
        (len([s for s in row.seed_scores if s is not None]) for row in rows if row.seed_scores),
        default=0,
    )
    found = {}
    for period in sorted({row.period for row in rows}):
        inside = [row for row in rows if row.period == period]
        predictions = [row.prediction for row in inside]
        actuals = [row.actual for row in inside]
        enough = len(inside) >= settings["head_metric_min_period_rows"]
        times = [
            [row for row in inside if row.time == time]
            for time in sorted({row.time for row in inside})
        ]
        wide = [rows for rows in times if len(rows) >= k]
        chosen = [
            (mean(row.actual for row in highest(rows, [r.prediction for r in rows], k)), len(rows))
            for rows in wide
        ]
        candidates = [row.actual for rows in wide for row in rows]
        jaccards = [jaccard_of_seeds(rows, seed_count, k) for rows in times]
        found[period] = {
            "row_count": len(inside),
            "mean_prediction": mean(predictions),
            "mean_actual": mean(actuals),
            "ic": correlation(*centred(times, list)) if enough else None,
            "rank_ic": correlation(*centred(times, ranks_from_highest)) if enough else None,
            "mean_actual_top_k": sum(value * count for value, count in chosen) / len(candidates)
            if wide
            else None,
            "mean_actual_any_k": mean(candidates) if wide else None,
            "top_k_jaccard": mean(value for value in jaccards if value is not None),
        }
    return found


def centred(times: list[list[Row]], scale) -> tuple[list[float], list[float]]:
    """Return predictions and actuals, scaled within each time, less their mean there."""
    sides = []
    for name in ("prediction", "actual"):
        side = []
        for rows in times:
            values = scale([getattr(row, name) for row in rows])
            constant = len(set(values)) == 1
            side += [0.0 if constant else value - np.mean(values) for value in values]
        sides.append(side)
    return sides[0], sides[1]


def newey_west(values: list[float]) -> tuple[float, float, int]:
    """Return variance, long-run variance and lag: Newey and West (1987, 1994), Bartlett kernel."""
    count = len(values)
    lag = min(count - 1, math.floor(4 * (count / 100) ** (2 / 9)))
    centre = math.fsum(values) / count
    autocovariances = []
    for j in range(lag + 1):
        products = [(values[t] - centre) * (values[t - j] - centre) for t in range(j, count)]
        autocovariances.append(math.fsum(products) / count)
    long_run = autocovariances[0]
    for j in range(1, lag + 1):
        long_run += 2 * (1 - j / (lag + 1)) * autocovariances[j]
    if len(set(values)) == 1:
        return 0.0, 0.0, lag
    return autocovariances[0], long_run, lag


def average_precision(scores: list[float], labels: list[float]) -> float | None:
    """Sum over thresholds of the gain in recall times the precision; ties are one threshold."""
    positives = sum(labels)
    if positives == 0:
        return None
    total = previous_recall = 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        recall = sum(taken) / positives
        total += (recall - previous_recall) * sum(taken) / len(taken)
        previous_recall = recall
    return total


def area_under_roc(scores: list[float], labels: list[float]) -> float | None:
    """Share of (positive, negative) pairs in which the positive scores higher, ties half."""
    positives = [score for score, label in zip(scores, labels, strict=True) if label == 1]
    negatives = [score for score, label in zip(scores, labels, strict=True) if label == 0]
    if not positives or not negatives:
        return None
    won = 0.0
    for high in positives:
        for low in negatives:
            won += 1.0 if high > low else 0.5 if high == low else 0.0
    return won / len(positives) / len(negatives)


def pooled(rows: list[Row], settings: dict) -> None:
    """Set what a row keeps in every draw: its ranks and bins among all rows of the series."""
    count = len(rows)
    bins = max(1, min(settings["head_metric_bins"], count // settings["head_metric_min_bin_rows"]))
    ranks = ranks_from_highest([row.prediction for row in rows])
    actual_ranks = ranks_from_highest([row.actual for row in rows])
    for row, rank, actual_rank in zip(rows, ranks, actual_ranks, strict=True):
        row.rank, row.actual_rank = rank, actual_rank
        row.bin = round(2 * rank - 1) * bins // (2 * count)
        row.tail = round(2 * rank - 1) * settings["head_metric_tail_bins"] // (2 * count)


def ratio(top: float | None, bottom: float | None) -> float | None:
    return None if top is None or not bottom else top / bottom


def probability_metrics(rows: list[Row], settings: dict) -> dict[str, float | None]:
    count = len(rows)
    labels = [row.actual for row in rows]
    scores = [row.prediction for row in rows]
    base_rate = sum(labels) / count
    clip = settings["head_metric_log_loss_clip"]
    ece = reliability = resolution = debiased = 0.0
    for number in {row.bin for row in rows}:
        inside = [row for row in rows if row.bin == number]
        size = len(inside)
        predicted, observed = mean(r.prediction for r in inside), mean(r.actual for r in inside)
        noise = observed * (1 - observed) / (size - 1) if size > 1 else 0.0
        ece += size / count * abs(predicted - observed)
        reliability += size / count * (predicted - observed) ** 2
        resolution += size / count * (observed - base_rate) ** 2
        debiased += size / count * ((predicted - observed) ** 2 - noise)
    brier = mean((score - label) ** 2 for score, label in zip(scores, labels, strict=True))
    pr_auc = average_precision(scores, labels)
    return {
        "base_rate": base_rate,
        "hit_rate": mean((s >= 0.5) == (y == 1) for s, y in zip(scores, labels, strict=True)),
        "pr_auc": pr_auc,
        "pr_auc_lift": ratio(pr_auc, base_rate),
        "roc_auc": area_under_roc(scores, labels),
        "ece": ece,
        "ece_debiased": math.sqrt(max(0.0, debiased)),
        "brier": brier,
        "brier_ratio": ratio(brier, base_rate * (1 - base_rate)),
        "brier_reliability": reliability,
        "brier_resolution": resolution,
        "brier_uncertainty": base_rate * (1 - base_rate),
        "log_loss": mean(
            -math.log(max(clip, score if label == 1 else 1 - score))
            for score, label in zip(scores, labels, strict=True)
        ),
    }


def sign(number: float) -> int:
    return (number > 0) - (number < 0)


def value_metrics(rows: list[Row], settings: dict) -> dict[str, float | None]:
    centre = mean(row.actual for row in rows)
    errors = [row.prediction - row.actual for row in rows]
    top = mean(row.actual for row in rows if row.tail == 0)
    bottom = mean(row.actual for row in rows if row.tail == settings["head_metric_tail_bins"] - 1)
    with_interval = rows_with_interval(rows)
    spread = math.fsum((row.actual - centre) ** 2 for row in rows)
    constant = len({row.actual for row in rows}) == 1
    return {
        "hit_rate": mean(sign(row.prediction) == sign(row.actual) for row in rows),
        "top_minus_bottom": None if top is None or bottom is None else top - bottom,
        "rmse": math.sqrt(mean(error**2 for error in errors)),
        "mae": mean(abs(error) for error in errors),
        "r_squared": None if constant else 1 - math.fsum(error**2 for error in errors) / spread,
        "interval_coverage": mean(row.lower <= row.actual <= row.upper for row in with_interval),
        "interval_width": mean(row.upper - row.lower for row in with_interval),
    }


def rows_with_interval(rows: list[Row]) -> list[Row]:
    return [
        row
        for row in rows
        if not (row.lower is None or row.upper is None)
        and not (math.isnan(row.lower) or math.isnan(row.upper))
    ]


def metrics_of_draw(rows: list[Row], periods: list[dict], kind: str, settings: dict) -> dict:
    """Return {metric: value} of rows (annotated by `pooled`) and of their periods' metrics."""
    rank_ics = [period["rank_ic"] for period in periods if period["rank_ic"] is not None]
    top_k = [period for period in periods if period["mean_actual_top_k"] is not None]
    found = {
        "ic": mean(period["ic"] for period in periods if period["ic"] is not None),
        "rank_ic": mean(rank_ics),
        "icir": None,
        "pooled_rank_ic": correlation([row.rank for row in rows], [r.actual_rank for r in rows]),
        "top_k_jaccard": mean(
            period["top_k_jaccard"] for period in periods if period["top_k_jaccard"] is not None
        ),
        "rank_ic_newey_west_t": None,
        "rank_ic_newey_west_lag": None,
    }
    if len(rank_ics) > 1:
        if len(set(rank_ics)) > 1:
            found["icir"] = mean(rank_ics) / np.std(rank_ics, ddof=1)
        _, long_run, lag = newey_west(rank_ics)
        found["rank_ic_newey_west_lag"] = lag
        if long_run > 0:
            found["rank_ic_newey_west_t"] = mean(rank_ics) / math.sqrt(long_run / len(rank_ics))
    chosen = mean(period["mean_actual_top_k"] for period in top_k)
    if kind == "probability":
        found |= probability_metrics(rows, settings)
        found["precision_at_k"] = chosen
        found["precision_at_k_lift"] = ratio(chosen, mean(p["mean_actual_any_k"] for p in top_k))
    else:
        found |= value_metrics(rows, settings)
        found["mean_actual_top_k"] = chosen
    return found


def drawn_periods(period_count: int, settings: dict) -> list[list[int]]:
    """Return, for each draw, the places of its periods: moving blocks of Kuensch (1989)."""
    length = min(
        settings["head_metric_block_periods"], period_count // settings["head_metric_min_blocks"]
    )
    if length == 0:
        return []
    draws = []
    for draw in range(1, settings["head_metric_bootstrap_draws"] + 1):
        places: list[int] = []
        block = 0
        while len(places) < period_count:
            text = f"{settings['head_metric_bootstrap_seed']}:{draw}:{block}"
            number = int(hashlib.md5(text.encode()).hexdigest()[:15], 16)
            first = number % (period_count - length + 1)
            places += list(range(first, first + length))
            block += 1
        draws.append(places[:period_count])
    return draws


def series_metrics(rows: list[Row], kind: str, settings: dict) -> dict[str, dict]:
    """Return {metric: its value, interval and counts} of the known rows of one series."""
    rows = [row for row in rows if is_known(row.prediction) and is_known(row.actual)]
    pooled(rows, settings)
    by_period = period_metrics(rows, settings)
    periods = list(by_period.values())
    found = metrics_of_draw(rows, periods, kind, settings)
    draws = []
    for places in drawn_periods(len(periods), settings):
        names = [list(by_period)[place] for place in places]
        drawn_rows = [row for name in names for row in rows if row.period == name]
        drawn = [by_period[name] for name in names]
        draws.append(metrics_of_draw(drawn_rows, drawn, kind, settings))
    return {
        name: {"value": value}
        | interval(name, value, draws, settings)
        | counts(name, rows, periods)
        for name, value in found.items()
    }


def interval(name: str, value: float | None, draws: list[dict], settings: dict) -> dict:
    values = [draw[name] for draw in draws if draw[name] is not None]
    if value is None or not values or name in WITHOUT_INTERVAL:
        return {"ci_lower": None, "ci_upper": None}
    tail = (1 - settings["head_metric_confidence"]) / 2
    lower, upper = np.quantile(values, [tail, 1 - tail])
    return {"ci_lower": lower, "ci_upper": upper}


def counts(name: str, rows: list[Row], periods: list[dict]) -> dict:
    """Return the rows and periods that a metric is made from, and the periods they are worth."""
    column = (
        "rank_ic"
        if name in RANK_IC
        else "mean_actual_top_k"
        if name in TOP_K
        else name
        if name in ("ic", "top_k_jaccard")
        else None
    )
    if column is None:
        if name in INTERVAL:
            rows = rows_with_interval(rows)
        count = len({row.period for row in rows})
        effective = float(count) if rows else None
        return {"row_count": len(rows), "period_count": count, "effective_count": effective}
    used = [period for period in periods if period[column] is not None]
    effective = None
    if used:
        variance, long_run, _ = newey_west([period[column] for period in used])
        effective = min(len(used), len(used) * variance / long_run) if long_run > 0 else len(used)
    return {
        "row_count": sum(period["row_count"] for period in used),
        "period_count": len(used),
        "effective_count": effective,
    }
