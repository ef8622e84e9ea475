"""Small made-up markets for the tests: minute bars on a grid coarse enough for ties."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from hypothesis import strategies as st

START_MS = 1_736_121_600_000  # 2025-01-06 00:00 UTC
MINUTE_MS = 60_000


def random_bars(
    seed: int,
    symbols: int | Sequence[str] = 2,
    minutes: int = 240,
    gap_rate: float = 0.0,
    tick: float = 4.0,
    *,
    price: float = 10_000.0,
    move_bps: float = 9.0,
    band_bps: float = 120.0,
    null_spread_rate: float = 0.0,
    null_price_rate: float = 0.0,
    start_ms: int = START_MS,
) -> pd.DataFrame:
    """Valid bars on a grid of `tick`, sorted by symbol and time.

    The close walks in whole ticks, about `move_bps` a minute, and is folded back at `band_bps`
    either side of `price`, so that it keeps returning to the same levels. With the defaults a tick
    is 4 bps at `price`: a target of 12 and a stop of 8 bps lie on the grid there, and one bar often
    reaches both.

    Args:
        seed: decides everything below.
        symbols: names, or how many to make up (S00, S01, ...).
        minutes: minutes on the clock, before gaps.
        gap_rate: share of minutes without a bar.
        tick: grid of the prices, in price units.
        price: middle of the band, in price units.
        move_bps: standard deviation of a minute's move, and of the wicks.
        band_bps: half width of the band.
        null_spread_rate: share of NaN in spread_bps.
        null_price_rate: share of NaN in each of high, low and close.
        start_ms: time of the first minute, epoch milliseconds.

    Returns:
        symbol, open_time_ms, open, high, low, close, volume, spread_bps.
    """
    names = [f"S{j:02d}" for j in range(symbols)] if isinstance(symbols, int) else list(symbols)
    if start_ms % MINUTE_MS:
        raise ValueError(f"start_ms is {start_ms}, expected a whole minute")
    if band_bps >= 5_000:
        raise ValueError(f"band_bps is {band_bps}, expected less than 5000 to keep prices positive")
    rng = np.random.default_rng(seed)
    tick_bps = tick / price * 1e4
    move = move_bps / tick_bps
    band = max(1, round(band_bps / tick_bps))
    middle = round(price / tick)

    def whole_ticks(scale):
        return np.rint(rng.normal(0.0, scale, minutes)).astype("int64")

    parts = []
    for name in names:
        close = middle + _fold(np.cumsum(whole_ticks(move)), band)
        jump = np.where(rng.random(minutes) < 0.2, whole_ticks(move / 2), 0)
        open_ = np.concatenate(([middle], close[:-1])) + jump
        high = np.maximum(open_, close) + np.abs(whole_ticks(move / 2))
        low = np.minimum(open_, close) - np.abs(whole_ticks(move / 2))
        part = pd.DataFrame(
            {
                "symbol": name,
                "open_time_ms": start_ms + MINUTE_MS * np.arange(minutes),
                "open": open_ * tick,
                "high": high * tick,
                "low": low * tick,
                "close": close * tick,
                "volume": rng.integers(0, 1_000, minutes).astype("float64"),
                "spread_bps": rng.integers(2, 24, minutes) / 4.0,
            }
        )
        for column in ("high", "low", "close"):
            part.loc[rng.random(minutes) < null_price_rate, column] = np.nan
        part.loc[rng.random(minutes) < null_spread_rate, "spread_bps"] = np.nan
        parts.append(part[rng.random(minutes) >= gap_rate])
    return pd.concat(parts, ignore_index=True)


def _fold(level: np.ndarray, band: int) -> np.ndarray:
    """A walk reflected at -band and +band; no step grows."""
    return np.abs((level - band) % (4 * band) - 2 * band) - band


@st.composite
def bars_strategy(
    draw,
    max_symbols: int = 2,
    max_bars: int = 20,
    null_prices: bool = True,
    null_spreads: bool = True,
):
    """Small valid markets, rows in any order.

    Prices are whole ticks near 1024, where one tick is 2**-10 of the price (9.765625 bps), or
    near 10,000 in ticks of 4 (4 bps). About one bar in ten follows a gap. A bar may lack its high,
    low, close or spread (NaN).
    """
    middle, tick = draw(st.sampled_from([(1_024, 1.0), (2_500, 4.0)]))
    bar = st.tuples(
        st.sampled_from([1] * 18 + [2, 7]),  # minutes since the bar before
        st.integers(-3, 3),  # ticks from the last close to the open
        st.integers(-3, 3),  # ticks from the open to the close
        st.integers(0, 3),  # ticks of upper wick
        st.integers(0, 3),  # ticks of lower wick
        st.integers(0, 8),  # quarter bps of spread
        st.sampled_from([""] * 8 + ["high", "low", "close", "spread_bps", "high low", "all"]),
    )
    rows = []
    for name in ["AAA", "BBB", "CCC"][: draw(st.integers(1, max_symbols))]:
        minute, last = draw(st.integers(0, 3)), middle
        for step, jump, move, up, down, spread, unknown in draw(
            st.lists(bar, min_size=1, max_size=max_bars)
        ):
            minute += step
            # pulled back to the middle, so that prices stay positive and levels repeat
            open_ = (last + jump) if abs(last - middle) < 12 else middle
            last = open_ + move
            row = {
                "symbol": name,
                "open_time_ms": START_MS + minute * MINUTE_MS,
                "open": open_ * tick,
                "high": (max(open_, last) + up) * tick,
                "low": (min(open_, last) - down) * tick,
                "close": last * tick,
                "volume": float(up + down),
                "spread_bps": spread / 4.0,
            }
            if unknown == "all":
                unknown = "high low close spread_bps"
            for column in unknown.split():
                if null_spreads if column == "spread_bps" else null_prices:
                    row[column] = float("nan")
            rows.append(row)
    order = draw(st.permutations(range(len(rows)))) if draw(st.booleans()) else range(len(rows))
    return pd.DataFrame([rows[j] for j in order])
