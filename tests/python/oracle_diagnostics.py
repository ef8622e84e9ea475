"""The diagnostics of a training run from their definition, by pandas and plain loops.

The definition is `shared/reference/trader_semantics.md` with document 002. Nothing here reads the
warehouse's SQL. A frame has the columns of pm.pm_frame and holds one split; unknown is NaN. Where
rows tie, the order is (event_time, symbol, sample_id); the reference leaves it to its sort.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from oracle_pm import METRICS, ordered

LABEL_SPLITS = ("fit", "tune_inner", "validation_locked", "latest_stress")
RETURN_POINTS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
EDGE_POINTS = (0.05, 0.5, 0.95)
SCORE_POINTS = (0.0, 0.05, 0.5, 0.95, 1.0)
SCORE_COLUMNS = (
    "long_prob",
    "short_prob",
    "long_entry_prob",
    "short_entry_prob",
    "market_risk_prob",
    "pred_long_expected_net_edge_bps",
    "pred_short_expected_net_edge_bps",
    "actual_long_expected_net_edge_bps",
    "actual_short_expected_net_edge_bps",
)
GATES = ("prob", "margin", "entry", "risk", "edge")
FUNNEL_LIMITS = {"prob": 0.54, "margin": 0.02, "entry": 0.50, "risk": 0.55, "edge": 1.0}
VARIANTS = {
    "no_risk_no_edge": {"prob": 0.54, "entry": 0.50, "margin": 0.02, "risk": 1.0, "edge": -99.0},
    "entry_only_55": {"prob": 0.0, "entry": 0.55, "margin": -99.0, "risk": 1.0, "edge": -99.0},
    "direction_only_54": {"prob": 0.54, "entry": 0.0, "margin": 0.02, "risk": 1.0, "edge": -99.0},
    "very_loose": {"prob": 0.50, "entry": 0.45, "margin": 0.0, "risk": 1.0, "edge": -99.0},
}
TOP_FRACTIONS = (0.01, 0.02, 0.05, 0.10)
SIDES = {"LONG": ("long", "short"), "SHORT": ("short", "long")}


def quantiles(values: pd.Series, points: Sequence[float]) -> dict[float, float]:
    """Return {point: linear quantile of the finite values, 6 decimals}; empty without any."""
    finite = sorted(value for value in values.astype("float64") if math.isfinite(value))
    found = {}
    for point in points if finite else ():
        place = point * (len(finite) - 1)
        low, high = math.floor(place), math.ceil(place)
        value = finite[low] + (finite[high] - finite[low]) * (place - low)
        found[point] = float(np.round(value, 6))
    return found


# ---- labels


def label_summary(direction: pd.DataFrame, entry: pd.DataFrame) -> dict[str, dict]:
    """Return {split: {"direction": ..., "entry": {side: ...}}}; a split without rows has none."""
    summary = {}
    for split in LABEL_SPLITS:
        directions = direction[direction["split_id"] == split]
        entries = entry[entry["split_id"] == split]
        summary[split] = {"direction": {}, "entry": {}}
        if len(directions):
            labels = list(directions["direction_label"])
            summary[split]["direction"] = {
                "rows": len(directions),
                "label_ratio": {
                    label: np.round(labels.count(label) / len(labels), 6) for label in set(labels)
                },
                "future_return_bps_quantile": quantiles(
                    directions["future_return_bps"], RETURN_POINTS
                ),
            }
        for side in sorted(set(entries["side"])):
            rows = entries[entries["side"] == side]
            edges = rows["expected_net_edge_bps"].astype("float64")
            summary[split]["entry"][side] = {
                "rows": len(rows),
                "target_rate": np.round(rows["entry_target"].astype("float64").mean(), 6),
                "edge_mean": np.round(edges.mean(), 6),
                "edge_quantile": quantiles(edges, EDGE_POINTS),
            }
    return summary


# ---- scores and gates


def score_distribution(frame: pd.DataFrame) -> dict[str, dict[float, float]]:
    return {column: quantiles(frame[column], SCORE_POINTS) for column in SCORE_COLUMNS}


def passed(row: Mapping, side: str, gate: str, limits: Mapping) -> bool:
    """Say whether a row (a dictionary of floats) passes one gate of one side."""
    own, other = SIDES[side]
    if gate == "prob":
        return row[f"{own}_prob"] >= limits["prob"]
    if gate == "margin":
        return row[f"{own}_prob"] - row[f"{other}_prob"] >= limits["margin"]
    if gate == "entry":
        return row[f"{own}_entry_prob"] >= limits["entry"]
    if gate == "risk":
        return row["market_risk_prob"] <= limits["risk"]
    return row[f"pred_{own}_expected_net_edge_bps"] >= limits["edge"]


def gate_funnel(frame: pd.DataFrame, limits: Mapping = FUNNEL_LIMITS) -> dict[str, list[tuple]]:
    """Return {side: [(gate, rows that pass it, rows that pass it and all before it)]}."""
    funnel = {}
    for side in SIDES:
        left = frame.to_dict("records")
        rows = list(left)
        funnel[side] = []
        for gate in GATES:
            alone = [row for row in rows if passed(row, side, gate, limits)]
            left = [row for row in left if passed(row, side, gate, limits)]
            funnel[side].append((gate, len(alone), len(left)))
    return funnel


def plain_metrics(trades: Sequence[tuple[str, float]]) -> dict:
    """Rows, win rate, mean edge (None when every edge is unknown) and counts of (side, edge)."""
    edges = [edge for _, edge in trades if not math.isnan(edge)]
    average = math.fsum(edges) / len(edges) if edges else None
    return {
        "rows": len(trades),
        "win_rate": sum(edge > 0 for edge in edges) / len(trades) if trades else 0.0,
        "avg_actual_edge_bps": average if trades else 0.0,
        "long_count": sum(side == "LONG" for side, _ in trades),
        "short_count": sum(side == "SHORT" for side, _ in trades),
    }


def relaxed_variants(frame: pd.DataFrame, variants: Mapping = VARIANTS) -> dict[str, dict]:
    """Return {variant: plain metrics}; a row that passes the gates of both sides counts twice."""
    rows = frame.to_dict("records")
    found = {}
    for name, limits in variants.items():
        trades = [
            (side, row[f"actual_{side.lower()}_expected_net_edge_bps"])
            for side in SIDES
            for row in rows
            if all(passed(row, side, gate, limits) for gate in GATES)
        ]
        found[name] = plain_metrics(trades)
    return found


# ---- does a higher score earn more


def direction_top_score(
    frame: pd.DataFrame, fractions: Sequence[float] = TOP_FRACTIONS
) -> dict[float, dict]:
    """Return {fraction: plain metrics} of the rows with the highest probability of their side.

    The side is LONG where its probability is at least SHORT's; an unknown probability makes it
    SHORT, and a row whose own probability is unknown comes last.
    """
    rows = []
    for row in ordered(frame).to_dict("records"):
        side = "LONG" if row["long_prob"] >= row["short_prob"] else "SHORT"
        probability = row[f"{side.lower()}_prob"]
        edge = row[f"actual_{side.lower()}_expected_net_edge_bps"]
        rows.append((math.inf if math.isnan(probability) else -probability, side, edge))
    rows.sort(key=lambda row: row[0])  # stable: ties stay in the frame's order
    return {
        fraction: plain_metrics(
            [(side, edge) for _, side, edge in rows[: max(1, int(len(rows) * fraction))]]
        )
        for fraction in fractions
    }


def entry_prob_deciles(frame: pd.DataFrame, side: str) -> list[dict]:
    """Return the buckets of one side from the lowest probability; rows with an unknown are out."""
    own = side.lower()
    columns = {
        "score": f"{own}_entry_prob",
        "edge": f"actual_{own}_expected_net_edge_bps",
        "target": f"{own}_entry_target",
    }
    rows = ordered(frame)[list(columns.values())].astype("float64")
    rows.columns = list(columns)
    rows = rows.dropna()
    if rows.empty:
        return []
    rank = rows["score"].rank(method="first")
    # one row has no quantiles that differ: the reference stops there, ours calls it bucket 1
    bucket = pd.qcut(rank, 10, labels=False) + 1 if len(rows) > 1 else rank
    return [
        {
            "bucket": int(number),
            "rows": len(group),
            "score_min": group["score"].min(),
            "score_max": group["score"].max(),
            "hit_rate": group["target"].mean(),
            "avg_actual_edge_bps": group["edge"].mean(),
        }
        for number, group in rows.groupby(bucket.astype(int))
    ]


def decile_sizes(count: int) -> list[int]:
    """Return how many of `count` ranked rows fall in each of the ten buckets."""
    # pandas cuts at k x 0.1, which is not k / 10 for 3, 6 and 7: other rows at 91, 171, 181, ...
    edges = np.quantile(np.arange(1.0, count + 1.0), np.linspace(0.0, 1.0, 11)[1:-1])
    buckets = [1 + sum(edge < rank for edge in edges) for rank in range(1, count + 1)]
    return [buckets.count(number) for number in range(1, 11)]


def grid_trade_summary(evaluated: Sequence[Mapping]) -> dict:
    """Candidates, those with any trade, and the first with the most trades with its metrics."""
    most = max(evaluated, key=lambda each: (each["trade_count"], -each["candidate_id"]))
    return {
        "candidate_count": len(evaluated),
        "candidates_with_trade": sum(each["trade_count"] > 0 for each in evaluated),
        "best_candidate_id": most["candidate_id"],
        "best_metrics": {name: most[name] for name in METRICS},
    }


# ---- conclusion


def conclusion(funnel: Mapping, variants: Mapping) -> str:
    """Return the status from the funnel and the relaxed variants of tune_inner."""
    singles = {(side, gate): alone for side in SIDES for gate, alone, _ in funnel[side]}
    blocked = singles["LONG", "edge"] == 0 and singles["SHORT", "edge"] == 0
    positive = any((each["avg_actual_edge_bps"] or 0.0) > 0 for each in variants.values())
    if not blocked:
        return "NEEDS_MANUAL_REVIEW"
    return "ENTRY_EDGE_GATE_BLOCKED" if positive else "MODEL_SIGNAL_NOT_TRADABLE"
