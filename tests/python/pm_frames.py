"""Made-up PM frames: values on a coarse grid, so that rows tie and gates are met exactly."""

import numpy as np
import pandas as pd

START = pd.Timestamp("2025-03-03 22:00")
SPLITS = ("tune_inner", "validation_locked", "latest_stress")
BASES = ("max_future_edge", "gross_edge", "future_return", "executed")
FRAME_COLUMNS = (
    "sample_id",
    "symbol",
    "event_time",
    "split_id",
    "long_prob",
    "short_prob",
    "neutral_prob",
    "long_entry_prob",
    "short_entry_prob",
    "pred_long_expected_net_edge_bps",
    "pred_short_expected_net_edge_bps",
    "market_risk_prob",
    "long_position_risk_prob",
    "short_position_risk_prob",
    "actual_long_expected_net_edge_bps",
    "actual_short_expected_net_edge_bps",
    "long_entry_target",
    "short_entry_target",
    *(f"{side}_{basis}_net_bps" for side in ("long", "short") for basis in BASES),
)
PREDICTIONS = FRAME_COLUMNS[4:14]
# few values an axis, met by the values of random_frame; some unsorted, 0.1 and 0.05 admit alike
SMALL_AXES = {
    "long_open_prob": [0.52, 0.5, 0.56],
    "short_open_prob": [0.5, 0.54],
    "min_entry_prob": [0.1, 0.05, 0.5],
    "max_market_risk_prob": [0.55, 0.9, 1.0],
    "min_expected_edge_bps": [-8.0, 0.0, 3.0],
    "min_direction_margin": [-0.02, 0.0, 0.02],
}
# the first value of each axis but one
LOOSE = {name: values[0] for name, values in SMALL_AXES.items()} | {"max_market_risk_prob": 0.9}


def random_frame(
    seed: int,
    rows: int = 400,
    symbols: int = 3,
    splits: tuple[str, ...] = SPLITS,
    null_rate: float = 0.03,
    actual_null_rate: float | None = None,
    drift_bps: float = 1.0,
) -> pd.DataFrame:
    """Return a frame in random row order, NaN where unknown.

    `rows` are spread over symbols that share minutes and, one after the other, over the splits. A
    third of the rows has equal probabilities and edges on both sides, where only the rule that
    LONG wins decides. sample_id sorts neither as event_time nor as symbol does.
    """
    random = np.random.default_rng(seed)
    minutes = -(-rows // symbols)
    places = [(minute, symbol) for minute in range(minutes) for symbol in range(symbols)][:rows]
    minute, symbol = np.array(places).T
    names = np.array([f"{'ZYXWVUTSRQ'[number % 10]}{number}USDT" for number in range(symbols)])
    times = START + pd.to_timedelta(minute, unit="min")

    def on_grid(low: float, high: float, step: float) -> np.ndarray:
        return np.round(random.integers(round(low / step), round(high / step) + 1, rows) * step, 4)

    both_sides = random.random(rows) < 1 / 3
    long_prob = on_grid(0.44, 0.6, 0.02)
    short_prob = np.where(both_sides, long_prob, on_grid(0.44, 0.6, 0.02))
    long_edge = on_grid(-10.0, 40.0, 1.0)
    same_edge = both_sides & (random.random(rows) < 0.5)
    frame = pd.DataFrame(
        {
            "sample_id": [f"s{number}" for number in random.permutation(rows)],
            "symbol": names[symbol],
            "event_time": times,
            "split_id": np.array(splits)[minute * len(splits) // minutes],
            "long_prob": long_prob,
            "short_prob": short_prob,
            "neutral_prob": on_grid(0.0, 0.2, 0.02),
            "long_entry_prob": on_grid(0.0, 0.7, 0.1),
            "short_entry_prob": on_grid(0.0, 0.7, 0.1),
            "pred_long_expected_net_edge_bps": long_edge,
            "pred_short_expected_net_edge_bps": np.where(
                same_edge, long_edge, on_grid(-10.0, 40.0, 1.0)
            ),
            "market_risk_prob": on_grid(0.0, 1.0, 0.05),
            "long_position_risk_prob": on_grid(0.0, 1.0, 0.1),
            "short_position_risk_prob": on_grid(0.0, 1.0, 0.1),
        }
    )
    for side in ("long", "short"):
        edges = np.round(random.normal(drift_bps, 9.0, rows))
        edges[random.random(rows) < 0.05] = 0.0  # neither a win nor a loss
        for basis in BASES:
            frame[f"{side}_{basis}_net_bps"] = edges - 1.5 * BASES.index(basis)
        frame[f"actual_{side}_expected_net_edge_bps"] = frame[f"{side}_max_future_edge_net_bps"]
        frame[f"{side}_entry_target"] = (edges >= 3.0).astype("float64")
    unknown = null_rate if actual_null_rate is None else actual_null_rate
    for name in PREDICTIONS:
        frame.loc[random.random(rows) < null_rate, name] = np.nan
    for side in ("long", "short"):
        lost = random.random(rows) < unknown
        frame.loc[lost, f"actual_{side}_expected_net_edge_bps"] = np.nan
        for basis in BASES:
            frame.loc[lost, f"{side}_{basis}_net_bps"] = np.nan
    return frame[list(FRAME_COLUMNS)].sample(frac=1, random_state=seed).reset_index(drop=True)


def frame_of(*rows: dict, **same) -> pd.DataFrame:
    """Return a frame of hand-made rows; what a row does not say is easily admitted LONG, +10 bps.

    Row i has the symbol A, the time START + i minutes and the split tune_inner.
    """
    made = []
    for number, row in enumerate(rows):
        usual = {
            "sample_id": f"A@{number}",
            "symbol": "A",
            "event_time": START + pd.Timedelta(minutes=number),
            "split_id": "tune_inner",
            "long_prob": 0.9,
            "short_prob": 0.05,
            "neutral_prob": 0.05,
            "long_entry_prob": 0.9,
            "short_entry_prob": 0.9,
            "pred_long_expected_net_edge_bps": 40.0,
            "pred_short_expected_net_edge_bps": 40.0,
            "market_risk_prob": 0.0,
            "long_position_risk_prob": 0.0,
            "short_position_risk_prob": 0.0,
            "actual_long_expected_net_edge_bps": 10.0,
            "actual_short_expected_net_edge_bps": 10.0,
            "long_entry_target": 1.0,
            "short_entry_target": 1.0,
        }
        usual |= same | row
        for side in ("long", "short"):
            for basis in BASES:
                actual = usual[f"actual_{side}_expected_net_edge_bps"]
                usual.setdefault(f"{side}_{basis}_net_bps", actual)
        made.append(usual)
    return pd.DataFrame(made, columns=list(FRAME_COLUMNS))
