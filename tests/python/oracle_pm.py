"""The position manager and its backtest from their definition, one candidate at a time.

The definition is `shared/reference/trader_semantics.md` with document 000. Nothing here reads the
warehouse's SQL: the warehouse is compared with these functions, so they must be able to disagree.

A frame has the columns of pm.pm_frame, one row per sample, in any order; trades have the columns
of pm.pm_trades. Unknown is NaN (None in a dictionary of metrics). A comparison with an unknown
number fails. A trade whose actual edge is unknown counts in trade_count and, as not a win, in
win_rate; sums and averages pass over it and it ends a run of losses. The reference instead makes a
total unknown when its last trade is: we decided otherwise.
"""

import hashlib
import itertools
import json
import math
import operator
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

AXES = (
    "long_open_prob",
    "short_open_prob",
    "min_entry_prob",
    "max_market_risk_prob",
    "min_expected_edge_bps",
    "min_direction_margin",
)
REFERENCE_AXES = {
    "long_open_prob": [0.50, 0.52, 0.54, 0.56, 0.58],
    "short_open_prob": [0.50, 0.52, 0.54, 0.56, 0.58],
    "min_entry_prob": [0.10, 0.12, 0.14, 0.16, 0.20, 0.30, 0.50],
    "max_market_risk_prob": [0.55, 0.75, 0.90, 1.0],
    "min_expected_edge_bps": [-8.0, -4.0, 0.0, 1.0, 3.0],
    "min_direction_margin": [0.0, 0.01, 0.02, 0.05],
}
METRICS = (
    "trade_count",
    "win_rate",
    "avg_actual_edge_bps",
    "avg_weighted_edge_bps",
    "total_weighted_edge_bps",
    "max_drawdown_bps",
    "avg_planned_ratio",
    "profit_factor",
    "max_consecutive_losses",
)
ORDER = ["event_time", "symbol", "sample_id"]
EDGE_BASES = ("max_future_edge", "gross_edge", "future_return", "executed")
EVALUATION_SPLITS = ("tune_inner", "validation_locked", "latest_stress")  # in the order of a run
NO_TRADES_SCORE = -1_000_000.0
PM_METHOD = "deterministic_grid_search_v1"
PM_SOURCE = "tune_predictions_and_entry_labels"

CARRIED = ("sample_id", "symbol", "event_time", "split_id")
BASIS_COLUMNS = tuple(f"{basis}_net_bps" for basis in EDGE_BASES)
TRADE_COLUMNS = (
    *CARRIED,
    "side",
    "direction_prob",
    "entry_prob",
    "market_risk_prob",
    "predicted_edge_bps",
    "actual_edge_bps",
    "entry_target",
    "planned_ratio",
    "weighted_edge_bps",
    "threshold_hash",
    "trade_index",
)


# ---- which rows are traded


def ordered(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values(ORDER, kind="stable").reset_index(drop=True)


def columns_of(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the columns as arrays; numbers are float64 with NaN for unknown."""
    return {
        name: frame[name].to_numpy()
        if name in (*CARRIED, "eval_split")
        else frame[name].astype("float64").to_numpy()
        for name in frame.columns
    }


def planned_ratios(predicted_edge, market_risk, min_edge: float) -> np.ndarray:
    strength = np.clip((predicted_edge - min_edge) / 20.0, 0.0, 1.5)
    discount = np.clip(1.0 - market_risk, 0.0, 1.0)
    return np.clip(strength * discount, 0.05, 1.0)


def gates(row: Mapping[str, np.ndarray], own: str, other: str, thresholds: Mapping) -> dict:
    """Return the five gates of one side, each a mask over the rows of the frame."""
    probability = row[f"{own}_prob"]
    return {
        "prob": probability >= thresholds[f"{own}_open_prob"],
        "margin": probability - row[f"{other}_prob"] >= thresholds["min_direction_margin"],
        "entry": row[f"{own}_entry_prob"] >= thresholds["min_entry_prob"],
        "risk": row["market_risk_prob"] <= thresholds["max_market_risk_prob"],
        "edge": row[f"pred_{own}_expected_net_edge_bps"] >= thresholds["min_expected_edge_bps"],
    }


def sides(row: Mapping[str, np.ndarray], thresholds: Mapping) -> np.ndarray:
    """Return LONG, SHORT or an empty text for each row; LONG wins equal scores."""
    may_long = np.logical_and.reduce(list(gates(row, "long", "short", thresholds).values()))
    may_short = np.logical_and.reduce(list(gates(row, "short", "long", thresholds).values()))
    lead = row["long_prob"] - row["short_prob"]
    long_score = row["pred_long_expected_net_edge_bps"] + lead * 10.0
    short_score = row["pred_short_expected_net_edge_bps"] - lead * 10.0
    takes_long = may_long & (~may_short | (long_score >= short_score))
    return np.where(takes_long, "LONG", np.where(may_short, "SHORT", ""))


def admitted(row: Mapping[str, np.ndarray], thresholds: Mapping) -> dict[str, np.ndarray]:
    """Return the columns of the trades, in the order of the rows."""
    side = sides(row, thresholds)
    kept = np.flatnonzero(side != "")
    is_long = side[kept] == "LONG"

    def of_side(long_name: str, short_name: str) -> np.ndarray:
        return np.where(is_long, row[long_name][kept], row[short_name][kept])

    trades = {name: row[name][kept] for name in CARRIED}
    trades["side"] = side[kept]
    trades["direction_prob"] = of_side("long_prob", "short_prob")
    trades["entry_prob"] = of_side("long_entry_prob", "short_entry_prob")
    trades["market_risk_prob"] = row["market_risk_prob"][kept]
    for name in ("pred", "actual"):
        trades[{"pred": "predicted"}.get(name, name) + "_edge_bps"] = of_side(
            f"{name}_long_expected_net_edge_bps", f"{name}_short_expected_net_edge_bps"
        )
    trades["entry_target"] = of_side("long_entry_target", "short_entry_target")
    trades["planned_ratio"] = planned_ratios(
        trades["predicted_edge_bps"],
        trades["market_risk_prob"],
        thresholds["min_expected_edge_bps"],
    )
    trades["weighted_edge_bps"] = trades["actual_edge_bps"] * trades["planned_ratio"]
    for name in BASIS_COLUMNS:
        if f"long_{name}" in row:
            trades[name] = of_side(f"long_{name}", f"short_{name}")
    trades["place"] = kept
    return trades


def admit(frame: pd.DataFrame, thresholds: Mapping) -> pd.DataFrame:
    """Return the trades by (event_time, symbol, sample_id); trade_index counts within a split."""
    trades = admitted(columns_of(ordered(frame)), thresholds)
    del trades["place"]
    result = pd.DataFrame(trades)
    result["threshold_hash"] = threshold_hash(thresholds)
    result["trade_index"] = result.groupby("split_id").cumcount() + 1
    names = [*TRADE_COLUMNS, *(name for name in BASIS_COLUMNS if name in result)]
    return result[names]


def admit_by_hand(frame: pd.DataFrame, thresholds: Mapping) -> list[tuple]:
    """Return (sample_id, side, planned_ratio, weighted_edge_bps) by a loop over plain numbers."""
    trades = []
    rows = sorted(frame.to_dict("records"), key=lambda row: tuple(row[name] for name in ORDER))
    for row in rows:
        scores = {}
        for own, other in (("long", "short"), ("short", "long")):
            edge = float(row[f"pred_{own}_expected_net_edge_bps"])
            lead = float(row[f"{own}_prob"]) - float(row[f"{other}_prob"])
            if (
                float(row[f"{own}_prob"]) >= thresholds[f"{own}_open_prob"]
                and lead >= thresholds["min_direction_margin"]
                and float(row[f"{own}_entry_prob"]) >= thresholds["min_entry_prob"]
                and float(row["market_risk_prob"]) <= thresholds["max_market_risk_prob"]
                and edge >= thresholds["min_expected_edge_bps"]
            ):
                scores[own] = edge + 10.0 * lead
        if not scores:
            continue
        side = max(("short", "long"), key=lambda own: (scores.get(own, -math.inf), own == "long"))
        edge = float(row[f"pred_{side}_expected_net_edge_bps"])
        strength = min(max((edge - thresholds["min_expected_edge_bps"]) / 20.0, 0.0), 1.5)
        discount = min(max(1.0 - float(row["market_risk_prob"]), 0.0), 1.0)
        ratio = min(max(strength * discount, 0.05), 1.0)
        actual = float(row[f"actual_{side}_expected_net_edge_bps"])
        trades.append((row["sample_id"], side.upper(), ratio, actual * ratio))
    return trades


# ---- what trades earn


def known(values: Iterable) -> list[float]:
    return [float(value) for value in values if value is not None and not math.isnan(value)]


def mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if len(values) else None


def running_sums(values: Iterable) -> list[float]:
    """Running sum after each known value."""
    return list(itertools.accumulate(known(values)))


def drawdowns(equity: Sequence[float], from_zero: bool = False) -> list[float]:
    """How far each point lies below the highest so far; from_zero: the start counts as a point."""
    peak = 0.0 if from_zero else -math.inf
    found = []
    for point in equity:
        peak = max(peak, point)
        found.append(peak - point)
    return found


def longest_losing_run(weighted: Iterable) -> int:
    longest = current = 0
    for value in weighted:
        current = current + 1 if value is not None and value < 0 else 0
        longest = max(longest, current)
    return longest


def metrics_of(weighted, actual, ratios, drawdown_from_zero: bool = False) -> dict:
    """Return the nine metrics of trades in order; an average of no known value is None."""
    if not len(weighted):
        return dict.fromkeys(METRICS, 0.0) | {"trade_count": 0, "max_consecutive_losses": 0}
    equity = running_sums(weighted)
    gains = math.fsum(value for value in known(weighted) if value > 0)
    losses = -math.fsum(value for value in known(weighted) if value < 0)
    return {
        "trade_count": len(weighted),
        "win_rate": sum(value > 0 for value in known(actual)) / len(weighted),
        "avg_actual_edge_bps": mean(known(actual)),
        "avg_weighted_edge_bps": mean(known(weighted)),
        "total_weighted_edge_bps": equity[-1] if equity else 0.0,
        "max_drawdown_bps": max(drawdowns(equity, drawdown_from_zero), default=0.0),
        "avg_planned_ratio": mean(known(ratios)),
        "profit_factor": gains / losses if losses > 0 else math.inf,
        "max_consecutive_losses": longest_losing_run(weighted),
    }


def trade_metrics(trades: pd.DataFrame, drawdown_from_zero: bool = False) -> dict:
    """Return the nine metrics of trades in the order of their rows."""
    return metrics_of(
        trades["weighted_edge_bps"].astype("float64").tolist(),
        trades["actual_edge_bps"].astype("float64").tolist(),
        trades["planned_ratio"].astype("float64").tolist(),
        drawdown_from_zero,
    )


def metrics_by(trades: pd.DataFrame, keys: list[str], drawdown_from_zero: bool = False) -> dict:
    """Return {key values: metrics} for the keys that have trades, each in the order of the rows."""
    return {
        key: trade_metrics(group, drawdown_from_zero)
        for key, group in trades.groupby(keys, sort=True)
    }


def regime_metrics(trades: pd.DataFrame) -> dict:
    """Return {(split, side): metrics}, the reference's regimes."""
    return metrics_by(trades, ["split_id", "side"])


def equity_curve(trades: pd.DataFrame, drawdown_from_zero: bool = False) -> list[dict]:
    """One point per trade in the order of the rows.

    Beside an unknown edge the curve stays where it was; before the first known edge it is unknown.
    """
    points = []
    equity, peak = None, 0.0 if drawdown_from_zero else -math.inf
    for index, trade in enumerate(trades.to_dict("records"), start=1):
        weighted = trade["weighted_edge_bps"]
        if not math.isnan(weighted):
            equity = weighted + (equity or 0.0)
            peak = max(peak, equity)
        points.append(
            {
                "sample_id": trade["sample_id"],
                "event_time": trade["event_time"],
                "trade_index": index,
                "weighted_edge_bps": None if math.isnan(weighted) else weighted,
                "equity_bps": equity,
                "drawdown_bps": None if equity is None else peak - equity,
            }
        )
    return points


# ---- the search


def score(metrics: Mapping) -> float | None:
    """Return the score of a candidate; None where its average is unknown."""
    count = metrics["trade_count"]
    if count == 0:
        return NO_TRADES_SCORE
    average = metrics["avg_weighted_edge_bps"]
    if average is None:
        return None
    return (
        average * math.sqrt(count)
        + metrics["total_weighted_edge_bps"] * 0.05
        - metrics["max_drawdown_bps"] * 0.25
        - max(0, 120 - count) * 1.5
        - max(0.0, 1.15 - metrics["profit_factor"]) * 20.0
        - max(0.0, -average) * 40.0
    )


def candidates(axes: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Return the thresholds of every candidate; the last axis runs fastest."""
    values = itertools.product(*(axes[name] for name in AXES))
    return [dict(zip(AXES, map(float, chosen), strict=True)) for chosen in values]


def grid(
    frame: pd.DataFrame, axes: Mapping[str, Sequence[float]], drawdown_from_zero: bool = False
) -> list[dict]:
    """Evaluate every candidate, in order.

    Each has candidate_id, the thresholds, the metrics, score, score_rank and trade_set: a value
    that two candidates share when they admit the same trades at the same weights.
    """
    row = columns_of(ordered(frame))
    found = []
    for candidate_id, thresholds in enumerate(candidates(axes), start=1):
        trades = admitted(row, thresholds)
        metrics = metrics_of(
            trades["weighted_edge_bps"].tolist(),
            trades["actual_edge_bps"].tolist(),
            trades["planned_ratio"].tolist(),
            drawdown_from_zero,
        )
        trade_set = (
            trades["place"].tobytes(),
            (trades["side"] == "LONG").tobytes(),
            trades["planned_ratio"].tobytes(),
        )
        found.append(
            {"candidate_id": candidate_id}
            | thresholds
            | metrics
            | {
                "threshold_hash": threshold_hash(thresholds),
                "score": score(metrics),
                "trade_set": trade_set,
            }
        )
    for rank, candidate in enumerate(sorted(found, key=preference), start=1):
        candidate["score_rank"] = rank
    return found


def preference(candidate: Mapping) -> tuple:
    """Sort key: the highest score first, an unknown one last, ties by candidate_id."""
    points = candidate["score"]
    return (points is None, 0.0 if points is None else -round(points, 9), candidate["candidate_id"])


def best(evaluated: Iterable[Mapping]) -> Mapping:
    return min(evaluated, key=preference)


# ---- the frozen config


def canonical_json(value) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def sha256_json(value) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def threshold_hash(thresholds: Mapping) -> str:
    return sha256_json({name: float(thresholds[name]) for name in AXES})[:16]


def default_config(version: str) -> dict:
    return {
        "pmConfigVersion": version,
        "open": {
            "longOpenProb": 0.58,
            "shortOpenProb": 0.58,
            "minLongEntryProb": 0.55,
            "minShortEntryProb": 0.55,
            "maxMarketRiskProb": 0.45,
            "minExpectedEdgeBps": 3.0,
            "minDirectionMargin": 0.03,
            "minLiquidityCapacityRatio": 0.1,
            "maxOodScore": 0.8,
        },
        "add": {
            "minLongProb": 0.6,
            "minShortProb": 0.6,
            "minContinueProb": 0.58,
            "minEntryProb": 0.55,
            "maxExitProb": 0.45,
            "maxMarketRiskProb": 0.45,
            "maxPositionRiskProb": 0.5,
            "minExpectedEdgeBps": 3.0,
            "minContinueVsExitEdgeBps": 0.0,
            "minLiquidityCapacityRatio": 0.1,
            "minPostTradeLiquidationBufferBps": 500.0,
            "maxAddCount": 3,
            "cooldownMinutes": 5,
        },
        "exit": {
            "closeExitProb": 0.7,
            "closePositionRiskProb": 0.7,
            "closeMarketRiskProb": 0.7,
            "closeContinueMax": 0.25,
            "reduceAdverseMoveProb": 0.62,
            "reduceContinueMin": 0.35,
            "reduceContinueMax": 0.7,
            "minProfitForReduceBps": 5.0,
            "maxPositionPathRiskBps": 80.0,
        },
        "sizing": {
            "baseRatio": 0.8,
            "minInitialRatio": 0.05,
            "maxSingleLegRatio": 1.0,
            "minAddRatio": 0.02,
            "maxAddRatio": 0.25,
            "maxTotalPositionRatio": 1.0,
            "minEdgeBps": 3.0,
            "maxLossPerTradeBps": 80.0,
            "maxLiquidityUsageRatio": 0.2,
            "uncertaintyPenaltyMultiplier": 0.5,
            "minPostTradeLiquidationBufferBps": 500.0,
        },
    }


def config(thresholds: Mapping, version: str) -> dict:
    """Return the default config with the thresholds set in open, add and sizing."""
    made = default_config(version)
    edge, risk = thresholds["min_expected_edge_bps"], thresholds["max_market_risk_prob"]
    made["open"] |= {
        "longOpenProb": thresholds["long_open_prob"],
        "shortOpenProb": thresholds["short_open_prob"],
        "minLongEntryProb": thresholds["min_entry_prob"],
        "minShortEntryProb": thresholds["min_entry_prob"],
        "maxMarketRiskProb": risk,
        "minExpectedEdgeBps": edge,
        "minDirectionMargin": thresholds["min_direction_margin"],
    }
    made["add"] |= {"maxMarketRiskProb": risk, "minExpectedEdgeBps": edge}
    made["sizing"] |= {"minEdgeBps": edge, "maxSingleLegRatio": 1.0}
    return made


def thresholds_of(made: Mapping) -> dict[str, float]:
    """Read the six thresholds back from a config, as the backtest does."""
    opening = made["open"]
    values = (
        opening["longOpenProb"],
        opening["shortOpenProb"],
        min(opening["minLongEntryProb"], opening["minShortEntryProb"]),
        opening["maxMarketRiskProb"],
        opening["minExpectedEdgeBps"],
        opening["minDirectionMargin"],
    )
    return dict(zip(AXES, map(float, values), strict=True))


def stability(evaluated: Sequence[Mapping]) -> dict:
    chosen = best(evaluated)
    return {
        "source": PM_SOURCE,
        "method": PM_METHOD,
        "candidate_count": len(evaluated),
        "best_score": chosen["score"],
        "best_metrics": {name: chosen[name] for name in METRICS},
    }


# ---- the backtest

SCOPES = {split: (split,) for split in EVALUATION_SPLITS} | {
    "sealed": EVALUATION_SPLITS[1:],
    "combined": EVALUATION_SPLITS,
}
RULES = (  # reason, split, metric, what must not hold
    ("validation_locked_net_edge_not_positive", 1, "total_weighted_edge_bps", "<=", 0.0),
    ("validation_locked_trade_count_below_80", 1, "trade_count", "<", 80),
    ("validation_locked_profit_factor_below_1.15", 1, "profit_factor", "<", 1.15),
    ("validation_locked_avg_trade_edge_not_positive", 1, "avg_weighted_edge_bps", "<=", 0.0),
    ("validation_locked_max_consecutive_losses_above_8", 1, "max_consecutive_losses", ">", 8),
    ("latest_stress_trade_count_below_20", 2, "trade_count", "<", 20),
    ("latest_stress_profit_factor_below_1.0", 2, "profit_factor", "<", 1.0),
    ("latest_stress_avg_trade_edge_below_minus_3", 2, "avg_weighted_edge_bps", "<", -3.0),
    ("latest_stress_max_consecutive_losses_above_10", 2, "max_consecutive_losses", ">", 10),
)
LOSS_TOO_LARGE = "latest_stress_loss_too_large_vs_validation"
TESTS = {"<": operator.lt, "<=": operator.le, ">": operator.gt}


def backtest_trades(frame: pd.DataFrame, thresholds: Mapping) -> pd.DataFrame:
    """Return the trades of the three evaluation splits with eval_split and run_index."""
    judged = frame[frame["split_id"].isin(EVALUATION_SPLITS)]
    return in_run_order(admit(judged, thresholds).assign(eval_split=lambda trades: trades.split_id))


def in_run_order(trades: pd.DataFrame) -> pd.DataFrame:
    """Return the trades one split after the other; run_index counts over the whole run."""
    place = trades["eval_split"].map(EVALUATION_SPLITS.index)
    result = trades.assign(place=place).sort_values(["place", "trade_index"]).drop(columns="place")
    return result.assign(run_index=range(1, len(result) + 1)).reset_index(drop=True)


def backtest_metrics(trades: pd.DataFrame, drawdown_from_zero: bool = False) -> dict:
    """Return {scope: metrics} of trades in run order: each split, the sealed ones, all."""
    return {
        scope: trade_metrics(trades[trades["eval_split"].isin(splits)], drawdown_from_zero)
        for scope, splits in SCOPES.items()
    }


def violated_rules(metrics: Mapping[str, Mapping]) -> list[str]:
    """Return the reasons to reject, in order. An unknown value is one: we decided so.

    The reference passes it, because a comparison with an unknown number is false.
    """
    reasons = []
    for reason, split, metric, comparison, limit in RULES:
        value = metrics[EVALUATION_SPLITS[split]][metric]
        if value is None or math.isnan(value) or TESTS[comparison](value, limit):
            reasons.append(reason)
    gain = metrics["validation_locked"]["total_weighted_edge_bps"]
    if gain > 0 and metrics["latest_stress"]["total_weighted_edge_bps"] < -0.5 * gain:
        reasons.append(LOSS_TOO_LARGE)
    return reasons


def backtest_status(metrics: Mapping[str, Mapping]) -> tuple[str, list[str]]:
    reasons = violated_rules(metrics)
    return ("REJECTED" if reasons else "PASS"), reasons


def failure_cases(trades: pd.DataFrame, count: int = 20) -> pd.DataFrame:
    """Return the worst trades by weighted edge, ties by time, symbol, sample; unknown ones last."""
    keys = ["weighted_edge_bps", *ORDER]
    return trades.sort_values(keys, kind="stable", na_position="last").head(count)


def volatility_borders(values: Iterable) -> tuple[float, float]:
    """Return the least values that a third and two thirds of the known values do not exceed."""
    order = sorted(known(values))
    return order[-(-len(order) // 3) - 1], order[-(-2 * len(order) // 3) - 1]


def volatility_regime(value: float, borders: tuple[float, float]) -> str:
    if math.isnan(value):
        return "unknown"
    return "low" if value <= borders[0] else "middle" if value <= borders[1] else "high"
