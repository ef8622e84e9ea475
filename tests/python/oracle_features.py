"""Features of the minute track and its splits in time, evaluated from their written descriptions.

The descriptions are `models/factors/minute_features.yml`, `models/factors/split_boundaries.yml` and
`models/_terms.md`. Nothing here reads the warehouse's SQL: the warehouse is compared with these
functions, so they must be able to disagree with it.

A series is cut at every gap first, and a feature is then a function of the last n values of a run
(`over`): it cannot jump a gap or look ahead. The first bar of a run has no return, so that a
feature over n returns needs n + 1 bars without being told.

Units: bps is 1e4 times a ratio, times are epoch milliseconds. NaN is unknown. Volumes and spreads
may be unknown: such a bar is left out of a mean, a deviation, a share and a VWAP (`over_known`),
and makes a sum unknown; a z-score needs half its window known. A ratio whose denominator is zero
is unknown.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

MINUTE_MS = 60_000
DAY_MS = 1440 * MINUTE_MS
BPS = 1e4

CROSS_RANKED = [
    "ret_5m_bps",
    "ret_15m_bps",
    "ret_60m_bps",
    "realized_vol_15m_bps",
    "volume_zscore_60m",
]


def minute_features(
    bars: pd.DataFrame,
    boundaries: Mapping[str, Mapping],
    purge_minutes: int,
    embargo_minutes: int = 0,
) -> pd.DataFrame:
    """Every column of `factors.minute_features`, one row per bar, by symbol and time.

    Args:
        bars: staged bars: symbol, open_time_ms, open, high, low, close, volume, spread_bps and
            data_quality_flag, in any order.
        boundaries: what `split_boundaries` returns.
        purge_minutes: longest label horizon.
        embargo_minutes: rows dropped after each boundary.
    """
    bars = bars.sort_values(["symbol", "open_time_ms"], ignore_index=True)
    parts = []
    for _, symbol_bars in bars.groupby("symbol"):
        runs = (symbol_bars["open_time_ms"].diff() != MINUTE_MS).cumsum()
        part = pd.concat([_features_of_run(run) for _, run in symbol_bars.groupby(runs)])
        part["spread_rank_24h_pct"] = _rank_of_24_hours(part["open_time_ms"], part["spread_bps"])
        parts.append(part)
    features = pd.concat(parts, ignore_index=True)
    features = _add_market(_add_calendar(features))
    times = features["open_time_ms"]
    features["split_id"] = split_ids(times, boundaries["split"], purge_minutes, embargo_minutes)
    features["walk_forward_fold"] = walk_forward_folds(
        times,
        boundaries["walk_forward_fold"],
        boundaries["split"]["validation_locked"],
        purge_minutes,
        embargo_minutes,
    )
    return features


# ---- one unbroken run of one symbol


def over(n: int, function: Callable[..., float], *series: np.ndarray) -> np.ndarray:
    """`function` of the last n values of each series, at every place; NaN where one is missing."""
    result = np.full(len(series[0]), np.nan)
    for end in range(n, len(result) + 1):
        windows = [values[end - n : end] for values in series]
        if not any(np.isnan(window).any() for window in windows):
            result[end - 1] = function(*windows)
    return result


def over_known(n: int, function: Callable[..., float], *series: np.ndarray) -> np.ndarray:
    """As `over`, of the places of the last n where every series is known; NaN where none is."""
    result = np.full(len(series[0]), np.nan)
    for end in range(n, len(result) + 1):
        windows = np.array([values[end - n : end] for values in series])
        windows = windows[:, ~np.isnan(windows).any(axis=0)]
        if windows.shape[1]:
            result[end - 1] = function(*windows)
    return result


def back(n: int, values: np.ndarray) -> np.ndarray:
    """The value n places before, NaN for the first n."""
    return np.concatenate([np.full(min(n, len(values)), np.nan), values[: max(len(values) - n, 0)]])


def ratio(numerator, denominator):
    """The quotient, NaN where the denominator is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(denominator) == 0, np.nan, np.divide(numerator, denominator))


def change_bps(value, base):
    """Value over base, less one, bps."""
    return (value - base) / base * BPS


def deviation(values: np.ndarray) -> float:
    """Sample standard deviation; exactly 0 where all are the same, NaN of one value."""
    if len(values) < 2:
        return math.nan
    if values.min() == values.max():
        return 0.0
    distance = values - values.mean()
    return math.sqrt((distance**2).sum() / (len(values) - 1))


def zscore(n: int, values: np.ndarray) -> np.ndarray:
    """Each value less the mean of the last n, in their sample standard deviations.

    Unknown where fewer than half of the n are known.
    """
    known_share = over(n, np.mean, (~np.isnan(values)).astype(float))
    result = ratio(values - over_known(n, np.mean, values), over_known(n, deviation, values))
    return np.where(known_share >= 0.5, result, np.nan)


def correlation(left: np.ndarray, right: np.ndarray) -> float:
    """Pearson correlation, NaN where a side does not move."""
    if deviation(left) == 0 or deviation(right) == 0:
        return math.nan
    left, right = left - left.mean(), right - right.mean()
    return float((left * right).sum() / math.sqrt((left**2).sum() * (right**2).sum()))


def slope(values: np.ndarray) -> float:
    """Least-squares slope over the place in the window."""
    place = np.arange(len(values)) - (len(values) - 1) / 2
    return float((place * (values - values.mean())).sum() / (place**2).sum())


def _features_of_run(run: pd.DataFrame) -> pd.DataFrame:
    open_, high, low, close, volume, spread = (
        run[name].to_numpy("float64")
        for name in ["open", "high", "low", "close", "volume", "spread_bps"]
    )
    log_return = np.log(close / back(1, close))
    log_return_bps = log_return * BPS
    out = {
        "sample_id": [f"{s}@{t}" for s, t in zip(run["symbol"], run["open_time_ms"], strict=True)],
        "symbol": run["symbol"].array,
        "open_time_ms": run["open_time_ms"].array,
        "data_quality_flag": run["data_quality_flag"].array,
        "contiguous_minutes": np.arange(1, len(run) + 1),
        "spread_bps": spread,
    }

    # returns and volatility
    for n in [1, 5, 15, 30, 60, 240]:
        out[f"ret_{n}m_bps"] = change_bps(close, back(n, close))
    parkinson = np.log(high / low) / math.sqrt(4 * math.log(2))
    out["realized_vol_1m_bps"] = parkinson * BPS
    for n in [5, 15, 30, 60, 240]:
        out[f"realized_vol_{n}m_bps"] = over(n, deviation, log_return_bps)
    for short, long in [(5, 60), (15, 240)]:
        out[f"realized_vol_ratio_{short}m_{long}m"] = ratio(
            out[f"realized_vol_{short}m_bps"], out[f"realized_vol_{long}m_bps"]
        )
    for n in [15, 60]:
        out[f"parkinson_vol_{n}m_bps"] = over(
            n, lambda vol: math.sqrt((vol**2).mean()) * BPS, parkinson
        )
    out["downside_variance_share_60m_pct"] = over(
        60, lambda r: ratio((r[r < 0] ** 2).sum(), (r**2).sum()), log_return
    )

    # shape of the bar and of the last bars
    out["range_1m_bps"] = change_bps(high, low)
    out["body_1m_bps"] = change_bps(close, open_)
    out["upper_shadow_1m_bps"] = change_bps(high, np.maximum(open_, close))
    out["lower_shadow_1m_bps"] = change_bps(np.minimum(open_, close), low)
    out["close_location_1m_pct"] = ratio(close - low, high - low)
    for n in [15, 60]:
        highest, lowest = over(n, np.max, high), over(n, np.min, low)
        out[f"range_{n}m_bps"] = change_bps(highest, lowest)
        out[f"close_location_{n}m_pct"] = ratio(close - lowest, highest - lowest)
    out["distance_to_high_240m_bps"] = change_bps(close, over(240, np.max, high))
    out["distance_to_low_240m_bps"] = change_bps(close, over(240, np.min, low))

    # volume
    for n in [15, 60, 240]:
        out[f"volume_zscore_{n}m"] = zscore(n, volume)
    out["volume_ratio_5m_60m"] = ratio(
        over_known(5, np.mean, volume), over_known(60, np.mean, volume)
    )
    out["traded_value_60m"] = over(60, np.sum, close * volume)
    out["zero_volume_share_60m_pct"] = over_known(60, lambda v: (v == 0).mean(), volume)
    out["amihud_illiquidity_60m_bps"] = ratio(
        over(60, lambda r: np.abs(r).sum(), log_return_bps), out["traded_value_60m"] / 1e6
    )
    typical = (high + low + close) / 3
    for n in [15, 60, 240]:
        vwap = over_known(n, lambda p, v: ratio((p * v).sum(), v.sum()), typical, volume)
        out[f"vwap_distance_{n}m_bps"] = change_bps(close, vwap)

    # trend
    for n in [15, 60]:
        out[f"momentum_{n}m_zscore"] = ratio(
            out[f"ret_{n}m_bps"], out[f"realized_vol_{n}m_bps"] * math.sqrt(n)
        )
    out["trend_slope_30m_bps"] = over(30, slope, np.log(close)) * BPS
    out["up_minute_share_30m_pct"] = over(30, lambda r: (r > 0).mean(), log_return)
    out["efficiency_ratio_60m"] = over(
        60, lambda r: ratio(abs(r.sum()), np.abs(r).sum()), log_return
    )
    for n in [30, 60]:
        out[f"close_zscore_{n}m"] = zscore(n, close)
    out["rsi_15m"] = over(15, lambda r: 100 * ratio(r[r > 0].sum(), np.abs(r).sum()), log_return)
    out["return_autocorrelation_60m"] = over(60, correlation, log_return, back(1, log_return))

    # spread
    out["spread_zscore_60m"] = zscore(60, spread)
    out["spread_to_vol_15m"] = ratio(spread, out["realized_vol_15m_bps"])
    return pd.DataFrame(out)


def _rank_of_24_hours(times: pd.Series, spreads: pd.Series) -> list[float]:
    """Share of the other quoted bars, of the 1,440 minutes up to now, with a smaller spread."""
    times, spreads = times.to_numpy(), spreads.to_numpy()
    ranks = []
    for now, spread in zip(times, spreads, strict=True):
        window = spreads[(times > now - DAY_MS) & (times <= now)]
        others = np.count_nonzero(~np.isnan(window)) - 1
        smaller = np.count_nonzero(window < spread)
        ranks.append(math.nan if math.isnan(spread) or not others else smaller / others)
    return ranks


# ---- the calendar, and the symbols of one minute


def _add_calendar(features: pd.DataFrame) -> pd.DataFrame:
    time = pd.to_datetime(features["open_time_ms"], unit="ms").astype("datetime64[us]")
    minute = time.dt.hour * 60 + time.dt.minute
    angle = 2 * math.pi * minute / 1440
    return features.assign(
        event_time=time,
        known_at=time + pd.Timedelta(minutes=1),
        minute_of_day=minute,
        day_of_week=time.dt.isocalendar()["day"].astype("int64"),
        minute_of_day_sin=np.sin(angle),
        minute_of_day_cos=np.cos(angle),
        minute_of_week=time.dt.day_of_week * 1440 + minute,
    )


def _add_market(features: pd.DataFrame) -> pd.DataFrame:
    """Columns that compare a symbol with the symbols of its minute that have the value."""

    def rank(values: pd.Series) -> pd.Series:
        known = values.count()
        return (values.rank(method="min") - 1) / (known - 1) if known > 1 else values * math.nan

    minutes = features.groupby("open_time_ms")
    new = {
        f"{name.removesuffix('_bps')}_cross_rank_pct": minutes[name].transform(rank)
        for name in CROSS_RANKED
    }
    returns = minutes["ret_15m_bps"]
    new["market_ret_15m_bps"] = returns.transform("mean")
    new["market_breadth_15m_pct"] = returns.transform(
        lambda r: (r > 0).sum() / r.count() if r.count() else math.nan
    )
    new["ret_15m_less_market_bps"] = features["ret_15m_bps"] - new["market_ret_15m_bps"]
    new["ret_60m_less_market_bps"] = features["ret_60m_bps"] - minutes["ret_60m_bps"].transform(
        "mean"
    )
    return features.assign(**new)


# ---- splits


def longest_horizon(settings: Mapping) -> int:
    """Longest horizon of a label under these settings, minutes."""
    horizons = ["direction_horizon_minutes", "entry_max_hold_minutes", "continue_horizon_minutes"]
    if settings["own_exit_risk_horizons"]:
        horizons += ["exit_horizon_minutes", "risk_horizon_minutes"]
    return max(settings[name] for name in horizons)


def split_boundaries(bars: pd.DataFrame, settings: Mapping) -> dict[str, dict]:
    """First minute, epoch ms, of every split after `fit` and of every block after block 0.

    A fraction f is the first minute by which at least that share of the bars, this minute's
    included, has come. The bars before `validation_locked` are cut the same way into
    `walk_forward_folds` + 1 equal blocks.
    """
    times = np.sort(bars["open_time_ms"].to_numpy())

    def first_minute(fraction: float, times: np.ndarray) -> int:
        share = np.arange(1, len(times) + 1) / len(times)
        return int(times[share >= fraction][0])

    def start(value: float | str) -> int:
        if isinstance(value, str):
            return int(pd.Timestamp(value).timestamp() * 1000)
        return first_minute(value, times)

    splits = {
        "tune_inner": start(settings["split_tune_start"]),
        "validation_locked": start(settings["split_validation_start"]),
        "latest_stress": start(settings["split_stress_start"]),
    }
    before = times[times < splits["validation_locked"]]
    blocks = settings["walk_forward_folds"] + 1
    folds = {block: first_minute(block / blocks, before) for block in range(1, blocks)}
    return {"split": splits, "walk_forward_fold": folds}


def split_ids(times, starts: Mapping[str, int], purge_minutes: int, embargo_minutes: int) -> list:
    """Split of each time, `purged` where its longest label window or an embargo reaches across."""
    return [
        "purged"
        if _crosses(time, starts.values(), purge_minutes, embargo_minutes)
        else ["fit", *(name for name, start in starts.items() if start <= time)][-1]
        for time in times
    ]


def walk_forward_folds(
    times, starts: Mapping[int, int], end: int, purge_minutes: int, embargo_minutes: int
) -> list:
    """Block of each time, NaN from `end` on and where a window or an embargo reaches across."""
    return [
        math.nan
        if time >= end or _crosses(time, [*starts.values(), end], purge_minutes, embargo_minutes)
        else float(max([0, *(block for block, start in starts.items() if start <= time)]))
        for time in times
    ]


def _crosses(time: int, starts, purge_minutes: int, embargo_minutes: int) -> bool:
    """True where the window [time, time + purge] holds a start, or an embargo holds the time."""
    return any(
        time < start <= time + purge_minutes * MINUTE_MS
        or start <= time < start + embargo_minutes * MINUTE_MS
        for start in starts
    )
