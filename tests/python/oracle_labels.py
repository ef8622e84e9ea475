"""Labels of the minute track, evaluated from their written definition.

The definition is `shared/reference/trader_semantics.md`. Nothing here reads the warehouse's SQL:
the warehouse is compared with these functions, so they must be able to disagree with it.

Path statistics exist twice. `path_stats_windows` lays the future bars of every entry side by side
in numpy; `path_stats_by_hand` walks forward from one entry at a time in plain Python. They share
the input checks and the list of columns, and no arithmetic.

Units: bps is 1e4 times a ratio, times are epoch milliseconds, a horizon h counts one-minute bars.
NaN is unknown: a comparison with it is false, and a flag made of such a comparison is 0.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view

MINUTE_MS = 60_000
PRICE_FLOOR = 1e-12  # prices are lifted to this before a logarithm

BAR_COLUMNS = ["symbol", "open_time_ms", "open", "high", "low", "close", "spread_bps"]

FEATURE_COLUMNS = [
    "sample_id",
    "symbol",
    "event_time",
    "open_time_ms",
    "split_id",
    "walk_forward_fold",
    "data_quality_flag",
    "spread_bps",
    "spread_rank_24h_pct",
    "realized_vol_15m_bps",
]  # and ret_15m_bps, which may be missing

PATH_STAT_DTYPES = {
    "symbol": "str",
    "open_time_ms": "int64",
    "side": "str",
    "horizon_minutes": "int64",
    "target_hit": "int8",
    "stop_hit": "int8",
    "timeout_hit": "int8",
    "ambiguous_hit": "int8",
    "time_to_target_ms": "int64",
    "time_to_stop_ms": "int64",
    "gross_edge_bps": "float64",
    "future_return_bps": "float64",
    "mfe_bps": "float64",
    "mae_bps": "float64",
    "future_spread_p80": "float64",
    "future_realized_vol_bps": "float64",
}

ENTRY_PATH_COLUMNS = [
    "target_hit",
    "stop_hit",
    "timeout_hit",
    "ambiguous_hit",
    "time_to_target_ms",
    "time_to_stop_ms",
    "gross_edge_bps",
    "future_return_bps",
    "mfe_bps",
    "mae_bps",
]

CHOICES = {
    "entry_label_method": ("MAX_FUTURE_EDGE_V1", "path_exit_v1"),
    "liquidity_deterioration_basis": ("current_spread_rank", "future_spread"),
    "market_risk_mode": ("either_side", "directional"),
    "entry_price": ("close", "next_open"),
    "cost_mode": ("fixed", "fixed_plus_spread"),
}


@dataclass(frozen=True)
class Settings:
    """Label settings: the reference's defaults, then its corrections, all of them off."""

    direction_horizon_minutes: int = 45
    direction_long_threshold_bps: float = 5.0
    direction_short_threshold_bps: float = -5.0
    entry_max_hold_minutes: int = 45
    entry_target_bps: float = 12.0
    entry_stop_bps: float = 8.0
    entry_min_expected_net_edge_bps: float = 3.0
    continue_horizon_minutes: int = 30
    continue_min_expected_edge_bps: float = 2.0
    exit_horizon_minutes: int = 30
    exit_adverse_move_bps: float = 8.0
    exit_stagnation_abs_return_bps: float = 2.0
    risk_horizon_minutes: int = 30
    risk_market_drawdown_bps: float = 12.0
    risk_vol_expansion_ratio: float = 1.6
    risk_spike_bps: float = 20.0
    liquidity_spread_rank_threshold_pct: float = 0.90  # a fraction, as the rank itself is
    cost_fee_bps: float = 4.0
    cost_slippage_bps: float = 2.0
    cost_funding_bps: float = 0.5

    entry_label_method: str = "MAX_FUTURE_EDGE_V1"
    own_exit_risk_horizons: bool = False
    liquidity_deterioration_basis: str = "current_spread_rank"
    liquidity_deterioration_ratio: float = 1.5
    market_risk_mode: str = "either_side"
    entry_price: str = "close"
    cost_mode: str = "fixed"
    label_quality_filter: bool = False
    reversal_requires_history: bool = False
    direction_requires_contiguity: bool = False

    def __post_init__(self):
        for name, allowed in CHOICES.items():
            _check_choice(name, getattr(self, name), allowed)


# Path statistics ------------------------------------------------------------------------------


def path_stats_windows(
    bars: pd.DataFrame,
    horizon_minutes: int,
    target_bps: float,
    stop_bps: float,
    *,
    entry_price: str = "close",
    sides: Sequence[str] = ("LONG", "SHORT"),
    row_quantile: Callable[[np.ndarray, float], np.ndarray] | None = None,
) -> pd.DataFrame:
    """What the next h bars do to a position opened at each bar, by numpy windows.

    Bar i has a row per side when bars i .. i+h follow each other minute by minute and both the
    entry and close[i+h] are finite. The entry is close[i], or open[i+1] for "next_open"; the window
    is bars i+1 .. i+h either way. `sides` and `row_quantile` (of each row of a window array) let
    the benchmark compute as the reference system does: side by side, with `np.nanquantile`.

    Returns the columns of `PATH_STAT_DTYPES`, sorted by symbol, open_time_ms, side.
    Raises ValueError on missing columns, a repeated (symbol, open_time_ms), a horizon below one.
    """
    _check_path_stats_input(bars, horizon_minutes, entry_price)
    ordered = bars.sort_values(["symbol", "open_time_ms"])
    parts = [
        part
        for symbol, market in ordered.groupby("symbol", sort=False)
        if len(market) > horizon_minutes
        for part in _windows_of_one_symbol(
            symbol,
            market,
            horizon_minutes,
            target_bps,
            stop_bps,
            entry_price,
            sides,
            row_quantile or _row_quantile,
        )
    ]
    return _path_stats_frame(pd.concat(parts) if parts else None)


def _windows_of_one_symbol(
    symbol, market, h, target_bps, stop_bps, entry_price, sides, row_quantile
):
    """A frame per side of one symbol's bars, which come sorted by time."""
    time = market["open_time_ms"].to_numpy(dtype="int64")
    high, low = _floats(market, "high"), _floats(market, "low")
    close, spread = _floats(market, "close"), _floats(market, "spread_bps")

    entries = len(market) - h
    entry = close[:entries] if entry_price == "close" else _floats(market, "open")[1 : entries + 1]
    last = close[h:]

    gap = np.diff(time) != MINUTE_MS
    unbroken = ~sliding_window_view(gap, h).any(axis=1)
    has_row = unbroken & np.isfinite(entry) & np.isfinite(last)

    future_high = sliding_window_view(high[1:], h)
    future_low = sliding_window_view(low[1:], h)
    future_spread = sliding_window_view(spread[1:], h)

    # An all-NaN window gives NaN, which is the answer wanted and not worth a warning.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        highest = np.nanmax(future_high, axis=1)
        lowest = np.nanmin(future_low, axis=1)
        spread_p80 = row_quantile(future_spread, 0.8)
        realized_vol_bps = np.full(entries, np.nan)
        if h > 1:
            log_return = np.diff(np.log(np.maximum(close, PRICE_FLOOR)))
            # log_return[j] leads into bar j+1; the one into bar i+1 is left out
            future_return = sliding_window_view(log_return[1:], h - 1)
            realized_vol_bps = np.nanstd(future_return, axis=1, ddof=1) * 1e4

        up_bps = (highest / entry - 1.0) * 1e4
        down_bps = (entry / lowest - 1.0) * 1e4

    for side in sides:
        with np.errstate(all="ignore"):
            if side == "LONG":
                touches_target = future_high >= (entry * (1.0 + target_bps / 1e4))[:, None]
                touches_stop = future_low <= (entry * (1.0 - stop_bps / 1e4))[:, None]
                return_bps, mfe_bps, mae_bps = (last / entry - 1.0) * 1e4, up_bps, down_bps
            else:
                touches_target = future_low <= (entry * (1.0 - target_bps / 1e4))[:, None]
                touches_stop = future_high >= (entry * (1.0 + stop_bps / 1e4))[:, None]
                return_bps, mfe_bps, mae_bps = (entry / last - 1.0) * 1e4, down_bps, up_bps
        target_k, stop_k = _first_touch(touches_target), _first_touch(touches_stop)
        target_hit = target_k < stop_k
        stop_hit = (stop_k <= h) & (stop_k <= target_k)
        yield pd.DataFrame(
            {
                "symbol": symbol,
                "open_time_ms": time[:entries],
                "side": side,
                "horizon_minutes": h,
                "target_hit": target_hit,
                "stop_hit": stop_hit,
                "timeout_hit": ~target_hit & ~stop_hit,
                "ambiguous_hit": stop_hit & (stop_k == target_k),
                "time_to_target_ms": np.where(target_hit, target_k * MINUTE_MS, -1),
                "time_to_stop_ms": np.where(stop_hit, stop_k * MINUTE_MS, -1),
                "gross_edge_bps": np.where(
                    target_hit, target_bps, np.where(stop_hit, -stop_bps, return_bps)
                ),
                "future_return_bps": return_bps,
                "mfe_bps": mfe_bps,
                "mae_bps": mae_bps,
                "future_spread_p80": spread_p80,
                "future_realized_vol_bps": realized_vol_bps,
            }
        ).loc[has_row]


def _first_touch(touches: np.ndarray) -> np.ndarray:
    """First k in 1..h at which each row of (entries, h) is true, h + 1 where none is."""
    return np.where(touches.any(axis=1), touches.argmax(axis=1), touches.shape[1]) + 1


def _row_quantile(windows: np.ndarray, q: float) -> np.ndarray:
    """Linear quantile of each row, ignoring NaN.

    `np.nanquantile` calls Python once a row, so it is kept for the rows that hold a NaN; both give
    the same number elsewhere.
    """
    out = np.full(len(windows), np.nan)
    has_nan = np.isnan(windows).any(axis=1)
    if not has_nan.all():
        out[~has_nan] = np.quantile(windows[~has_nan], q, axis=1)
    if has_nan.any():
        out[has_nan] = np.nanquantile(windows[has_nan], q, axis=1)
    return out


def path_stats_by_hand(
    bars: pd.DataFrame,
    horizon_minutes: int,
    target_bps: float,
    stop_bps: float,
    *,
    entry_price: str = "close",
) -> pd.DataFrame:
    """The same table as `path_stats_windows`, one entry, one side and one bar at a time."""
    _check_path_stats_input(bars, horizon_minutes, entry_price)
    markets: dict[str, list[dict]] = {}
    for bar in bars[BAR_COLUMNS].to_dict("records"):
        numbers = {c: math.nan if pd.isna(bar[c]) else float(bar[c]) for c in BAR_COLUMNS[2:]}
        numbers["time"] = int(bar["open_time_ms"])
        markets.setdefault(bar["symbol"], []).append(numbers)

    rows = []
    for symbol in sorted(markets):
        market = sorted(markets[symbol], key=lambda bar: bar["time"])
        for i in range(len(market)):
            future = _unbroken_future(market, i, horizon_minutes)
            if future is None:
                continue
            entry = market[i]["close"] if entry_price == "close" else future[0]["open"]
            if not (math.isfinite(entry) and math.isfinite(future[-1]["close"])):
                continue
            for side in ("LONG", "SHORT"):
                outcome = _walk_forward(side, entry, future, target_bps, stop_bps)
                rows.append(
                    {
                        "symbol": symbol,
                        "open_time_ms": market[i]["time"],
                        "side": side,
                        "horizon_minutes": horizon_minutes,
                        **outcome,
                        "future_spread_p80": _quantile_80([bar["spread_bps"] for bar in future]),
                        "future_realized_vol_bps": _sample_vol_bps([b["close"] for b in future]),
                    }
                )
    return _path_stats_frame(pd.DataFrame(rows) if rows else None)


def _unbroken_future(market, i, h):
    """Bars i+1 .. i+h, or None when one is missing or not a minute after the bar before it."""
    future = []
    for k in range(1, h + 1):
        if i + k >= len(market):
            return None
        if market[i + k]["time"] != market[i + k - 1]["time"] + 60_000:
            return None
        future.append(market[i + k])
    return future


def _walk_forward(side, entry, future, target_bps, stop_bps):
    """Touches, returns and extremes of one position."""
    upper_bps, lower_bps = (target_bps, stop_bps) if side == "LONG" else (stop_bps, target_bps)
    upper_price = entry * (1.0 + upper_bps / 1e4)
    lower_price = entry * (1.0 - lower_bps / 1e4)
    upper_k = lower_k = None
    highest = lowest = math.nan
    for k, bar in enumerate(future, start=1):
        if upper_k is None and bar["high"] >= upper_price:
            upper_k = k
        if lower_k is None and bar["low"] <= lower_price:
            lower_k = k
        if math.isnan(highest) or bar["high"] > highest:
            highest = bar["high"]
        if math.isnan(lowest) or bar["low"] < lowest:
            lowest = bar["low"]

    exit_price = future[-1]["close"]
    rise_bps, fall_bps = _gain_bps(entry, highest), _gain_bps(lowest, entry)
    if side == "LONG":
        target_k, stop_k = upper_k, lower_k
        return_bps, mfe_bps, mae_bps = _gain_bps(entry, exit_price), rise_bps, fall_bps
    else:
        target_k, stop_k = lower_k, upper_k
        return_bps, mfe_bps, mae_bps = _gain_bps(exit_price, entry), fall_bps, rise_bps

    if target_k is not None and (stop_k is None or target_k < stop_k):
        end, gross_edge_bps = "target", target_bps
    elif stop_k is not None:
        end, gross_edge_bps = "stop", -stop_bps
    else:
        end, gross_edge_bps = "timeout", return_bps
    return {
        "target_hit": int(end == "target"),
        "stop_hit": int(end == "stop"),
        "timeout_hit": int(end == "timeout"),
        "ambiguous_hit": int(target_k is not None and target_k == stop_k),
        "time_to_target_ms": target_k * 60_000 if end == "target" else -1,
        "time_to_stop_ms": stop_k * 60_000 if end == "stop" else -1,
        "gross_edge_bps": gross_edge_bps,
        "future_return_bps": return_bps,
        "mfe_bps": mfe_bps,
        "mae_bps": mae_bps,
    }


def _gain_bps(before, after):
    """Relative gain from one price to another; a price of zero divides as IEEE numbers do."""
    with np.errstate(all="ignore"):
        return float((np.float64(after) / np.float64(before) - 1.0) * 1e4)


def _quantile_80(values):
    """0.8 quantile of the known values, linear between the two neighbours in order."""
    known = sorted(value for value in values if not math.isnan(value))
    if not known:
        return math.nan
    position = 0.8 * (len(known) - 1)
    below = int(position)
    above = min(below + 1, len(known) - 1)
    return known[below] + (known[above] - known[below]) * (position - below)


def _sample_vol_bps(closes):
    """Sample standard deviation of the log returns between these closes, skipping unknown ones."""
    returns = []
    for before, after in pairwise(closes):
        if not (math.isnan(before) or math.isnan(after)):
            returns.append(math.log(max(after, 1e-12)) - math.log(max(before, 1e-12)))
    if len(returns) < 2 or not all(math.isfinite(value) for value in returns):
        return math.nan
    mean = math.fsum(returns) / len(returns)
    variance = math.fsum((value - mean) ** 2 for value in returns) / (len(returns) - 1)
    return math.sqrt(variance) * 1e4


# Label sets -----------------------------------------------------------------------------------


def direction_labels(
    features: pd.DataFrame, bars: pd.DataFrame, settings: Settings, *, label_version: str = ""
) -> pd.DataFrame:
    """One row per feature row whose market has a close now and one exactly a horizon later.

    The later close is found by its time, across gaps, unless `direction_requires_contiguity`.
    """
    horizon = settings.direction_horizon_minutes
    _check_bars(bars)
    key = ["symbol", "open_time_ms"]
    market = bars.sort_values(key)[[*key, "close"]]
    market["close"] = _floats(market, "close")
    # bars of one run follow each other minute by minute
    market["run"] = market.groupby("symbol")["open_time_ms"].diff().ne(MINUTE_MS).cumsum()
    later = market.rename(columns={"close": "future_close", "run": "future_run"})
    later["open_time_ms"] -= horizon * MINUTE_MS

    rows = _labelled_features(features, settings).merge(market, on=key).merge(later, on=key)
    with np.errstate(all="ignore"):
        future_return_bps = (rows["future_close"] / rows["close"] - 1.0) * 1e4
    keep = future_return_bps.notna()
    if settings.direction_requires_contiguity:
        keep &= rows["run"] == rows["future_run"]
    rows, future_return_bps = rows[keep], future_return_bps[keep]

    label = np.select(
        [
            future_return_bps >= settings.direction_long_threshold_bps,
            future_return_bps <= settings.direction_short_threshold_bps,
        ],
        ["LONG", "SHORT"],
        default="NEUTRAL",
    )
    return _label_frame(
        rows,
        {
            "horizon_minutes": horizon,
            "future_return_bps": future_return_bps.to_numpy(),
            "direction_label": label,
            "long_target": _flag(label == "LONG"),
            "short_target": _flag(label == "SHORT"),
            "neutral_target": _flag(label == "NEUTRAL"),
        },
        label_version,
    )


def entry_labels(
    features: pd.DataFrame,
    bars: pd.DataFrame,
    settings: Settings,
    *,
    price_plan_id: str = "",
    price_plan_hash: str = "",
    label_version: str = "",
) -> pd.DataFrame:
    """One row per feature row and side, in feature order, LONG before SHORT.

    `max_achievable_*` price the best exit of the window, `path_exit_net_edge_bps` the first of
    target, stop and timeout; `entry_label_method` says which of them is expected and judged.
    """
    stats = _plan_path_stats(bars, settings.entry_max_hold_minutes, settings)
    rows = _labelled_features(features, settings).merge(stats, on=["symbol", "open_time_ms"])
    cost_bps = _cost_bps(rows, settings)
    best_net_bps = rows["mfe_bps"].to_numpy() - cost_bps
    path_net_bps = rows["gross_edge_bps"].to_numpy() - cost_bps
    by_best = settings.entry_label_method == "MAX_FUTURE_EDGE_V1"
    expected_bps = best_net_bps if by_best else path_net_bps
    return _label_frame(
        rows,
        {
            "side": rows["side"].to_numpy(),
            "price_plan_id": price_plan_id,
            "price_plan_hash": price_plan_hash,
            **{column: rows[column].to_numpy() for column in ENTRY_PATH_COLUMNS},
            "max_achievable_gross_edge_bps": rows["mfe_bps"].to_numpy(),
            "max_achievable_net_edge_bps": best_net_bps,
            "path_exit_net_edge_bps": path_net_bps,
            "cost_bps": cost_bps,
            "expected_net_edge_bps": expected_bps,
            "entry_target": _flag(expected_bps >= settings.entry_min_expected_net_edge_bps),
            "label_method": settings.entry_label_method,
        },
        label_version,
    )


def position_state_samples(
    features: pd.DataFrame,
    bars: pd.DataFrame,
    settings: Settings,
    *,
    price_plan_id: str = "",
    price_plan_hash: str = "",
    label_version: str = "",
) -> pd.DataFrame:
    """Entry labels worth an entry, as positions of age zero.

    Raises ValueError when there is no entry label at all; labels without a target give no rows.
    """
    entries = entry_labels(
        features,
        bars,
        settings,
        price_plan_id=price_plan_id,
        price_plan_hash=price_plan_hash,
        label_version=label_version,
    )
    if entries.empty:
        raise ValueError(
            "position samples need entry labels, found none: no feature row meets a bar with "
            f"{settings.entry_max_hold_minutes} unbroken minutes ahead of it"
        )
    samples = entries[entries["entry_target"] == 1].reset_index(drop=True)
    return samples.assign(
        position_age_minutes=np.zeros(len(samples), dtype="int64"),
        unrealized_pnl_bps=0.0,
        mfe_bps=samples["mfe_bps"].fillna(0.0).clip(lower=0.0),
        mae_bps=samples["mae_bps"].fillna(0.0).clip(lower=0.0),
    )


def continue_labels(
    features: pd.DataFrame, bars: pd.DataFrame, settings: Settings, *, label_version: str = ""
) -> pd.DataFrame:
    """One row per feature row: is each side worth holding on, without meeting the stop."""
    rows = _both_sides(features, bars, settings.continue_horizon_minutes, settings)
    cost_bps = _cost_bps(rows, settings)
    edge = {s: rows[f"{s}_future_return_bps"].to_numpy() - cost_bps for s in ("long", "short")}
    target = {
        s: (edge[s] >= settings.continue_min_expected_edge_bps)
        & (rows[f"{s}_mae_bps"].to_numpy() < settings.entry_stop_bps)
        for s in ("long", "short")
    }
    return _label_frame(
        rows,
        {
            "long_continue_target": _flag(target["long"]),
            "short_continue_target": _flag(target["short"]),
            "long_expected_continue_edge_bps": edge["long"],
            "short_expected_continue_edge_bps": edge["short"],
        },
        label_version,
    )


def exit_labels(
    features: pd.DataFrame, bars: pd.DataFrame, settings: Settings, *, label_version: str = ""
) -> pd.DataFrame:
    """One row per feature row: does either side end badly, turn round or stand still."""
    horizon = (
        settings.exit_horizon_minutes
        if settings.own_exit_risk_horizons
        else settings.continue_horizon_minutes
    )
    rows = _both_sides(features, bars, horizon, settings)
    long_mae, short_mae = rows["long_mae_bps"].to_numpy(), rows["short_mae_bps"].to_numpy()
    long_stopped, short_stopped = rows["long_stop_hit"] == 1, rows["short_stop_hit"] == 1
    long_return = rows["long_future_return_bps"].to_numpy()
    adverse = settings.exit_adverse_move_bps

    reversal = np.zeros(len(rows), dtype=bool)
    if "ret_15m_bps" in rows:
        past_return = _floats(rows, "ret_15m_bps")
        reversal = np.sign(long_return) != np.sign(past_return)  # true when either is NaN
        if settings.reversal_requires_history:
            reversal &= ~np.isnan(past_return)
    return _label_frame(
        rows,
        {
            "long_exit_target": _flag(long_stopped | (long_mae >= adverse)),
            "short_exit_target": _flag(short_stopped | (short_mae >= adverse)),
            "long_adverse_move_bps": long_mae,
            "short_adverse_move_bps": short_mae,
            "adverse_move_prob_label": _flag(np.maximum(long_mae, short_mae) >= adverse),
            "reversal_prob_label": _flag(reversal),
            "stop_hit_prob_label": _flag(long_stopped | short_stopped),
            "stagnation_prob_label": _flag(
                np.abs(long_return) <= settings.exit_stagnation_abs_return_bps
            ),
        },
        label_version,
    )


def risk_labels(
    features: pd.DataFrame, bars: pd.DataFrame, settings: Settings, *, label_version: str = ""
) -> pd.DataFrame:
    """One row per feature row: drawdown, volatility, spike and liquidity ahead."""
    horizon = (
        settings.risk_horizon_minutes
        if settings.own_exit_risk_horizons
        else settings.continue_horizon_minutes
    )
    rows = _both_sides(features, bars, horizon, settings)
    long_mae, short_mae = rows["long_mae_bps"].to_numpy(), rows["short_mae_bps"].to_numpy()
    path_risk = np.maximum(long_mae, short_mae)  # NaN when either is
    best_move = np.maximum(rows["long_mfe_bps"].to_numpy(), rows["short_mfe_bps"].to_numpy())
    max_path_move = np.maximum(best_move, path_risk)
    market_risk = long_mae if settings.market_risk_mode == "directional" else path_risk
    market_target = _flag(market_risk >= settings.risk_market_drawdown_bps)

    current_vol = np.maximum(np.nan_to_num(_floats(rows, "realized_vol_15m_bps"), nan=0.0), 1.0)
    future_vol = rows["long_future_realized_vol_bps"].fillna(0.0).to_numpy()

    if settings.liquidity_deterioration_basis == "current_spread_rank":
        rank = np.nan_to_num(_floats(rows, "spread_rank_24h_pct"), nan=0.0)
        thinner = rank >= settings.liquidity_spread_rank_threshold_pct
    else:
        current_spread = _floats(rows, "spread_bps")
        future_spread = rows["long_future_spread_p80"].to_numpy()
        thinner = future_spread >= settings.liquidity_deterioration_ratio * current_spread

    stop = settings.entry_stop_bps
    return _label_frame(
        rows,
        {
            "market_risk_target": market_target,
            "market_path_risk_bps": market_risk,
            "long_position_path_risk_bps": long_mae,
            "short_position_path_risk_bps": short_mae,
            "long_position_risk_target": _flag(long_mae >= stop),
            "short_position_risk_target": _flag(short_mae >= stop),
            "market_drawdown_prob_label": market_target,
            "volatility_expansion_prob_label": _flag(
                future_vol >= current_vol * settings.risk_vol_expansion_ratio
            ),
            "spike_prob_label": _flag(max_path_move >= settings.risk_spike_bps),
            "liquidity_deterioration_prob_label": _flag(thinner),
            "position_drawdown_prob_label": _flag(path_risk >= stop),
        },
        label_version,
    )


# Shared steps ---------------------------------------------------------------------------------


def _labelled_features(features, settings):
    """Feature rows that get labels: all of them, or those of good quality."""
    missing = [column for column in FEATURE_COLUMNS if column not in features]
    if missing:
        raise ValueError(f"features lack the columns {missing}, expected {FEATURE_COLUMNS}")
    rows = features[FEATURE_COLUMNS + [c for c in ["ret_15m_bps"] if c in features]]
    if settings.label_quality_filter:
        rows = rows[rows["data_quality_flag"].eq("OK").fillna(False).astype(bool)]
    return rows


def _plan_path_stats(bars, horizon, settings):
    """Path statistics with the price plan's target and stop."""
    return path_stats_windows(
        bars,
        horizon,
        settings.entry_target_bps,
        settings.entry_stop_bps,
        entry_price=settings.entry_price,
    )


def _both_sides(features, bars, horizon, settings):
    """Feature rows beside the statistics of both sides, as long_* and short_* columns."""
    stats = _plan_path_stats(bars, horizon, settings).set_index(["symbol", "open_time_ms"])
    rows = _labelled_features(features, settings)
    for side in ("LONG", "SHORT"):
        one_side = stats[stats["side"] == side].drop(columns="side")
        one_side = one_side.add_prefix(f"{side.lower()}_").reset_index()
        rows = rows.merge(one_side, on=["symbol", "open_time_ms"])
    return rows


def _cost_bps(rows, settings):
    """Round-trip cost of each row; NaN where the spread is part of it and unknown."""
    fixed = settings.cost_fee_bps + settings.cost_slippage_bps + settings.cost_funding_bps
    if settings.cost_mode == "fixed":
        return np.full(len(rows), fixed)
    return fixed + _floats(rows, "spread_bps")


def _label_frame(rows, columns, label_version):
    """Key columns, the set's own columns, then where the row belongs."""
    return pd.DataFrame(
        {
            "sample_id": rows["sample_id"].to_numpy(),
            "symbol": rows["symbol"].to_numpy(),
            "event_time": rows["event_time"].array,  # an array keeps its time zone
            **columns,
            "split_id": rows["split_id"].to_numpy(),
            "walk_forward_fold": rows["walk_forward_fold"].to_numpy(),
            "label_version": label_version,
        }
    )


def _path_stats_frame(rows):
    """Rows in their types and order; None is a table without rows."""
    out = pd.DataFrame(columns=list(PATH_STAT_DTYPES)) if rows is None else rows
    out = out[list(PATH_STAT_DTYPES)].astype(PATH_STAT_DTYPES)
    return out.sort_values(["symbol", "open_time_ms", "side"], ignore_index=True)


def _flag(condition):
    return np.asarray(condition, dtype="int8")


def _floats(frame, column):
    """A column as float64, whatever it used for unknown values."""
    return frame[column].to_numpy(dtype="float64", na_value=np.nan)


def _check_path_stats_input(bars, horizon_minutes, entry_price):
    _check_bars(bars)
    _check_choice("entry_price", entry_price, CHOICES["entry_price"])
    if horizon_minutes != int(horizon_minutes) or horizon_minutes < 1:
        raise ValueError(
            f"horizon_minutes is {horizon_minutes}, expected a whole number of at least 1"
        )


def _check_bars(bars):
    missing = [column for column in BAR_COLUMNS if column not in bars]
    if missing:
        raise ValueError(f"bars lack the columns {missing}, expected {BAR_COLUMNS}")
    repeated = int(bars.duplicated(["symbol", "open_time_ms"]).sum())
    if repeated:
        raise ValueError(
            f"{repeated} bars repeat a (symbol, open_time_ms), expected one each: deduplicate first"
        )


def _check_choice(name, found, allowed):
    if found not in allowed:
        raise ValueError(f"{name} is {found!r}, expected one of {', '.join(allowed)}")
