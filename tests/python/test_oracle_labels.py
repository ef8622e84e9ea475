"""The oracle must be right before anything is compared with it: tables to be worked by hand.

T is 2**-10 in bps, one unit of price at 1024: 1024 * (1 + T/1e4) is 1025 to the last bit, and
1025/1024 - 1 is T/1e4 to the last bit. Ties below are therefore exact. Ratios the other way round
(1024/1023 - 1 = 9.775171... bps) are written as decimals and compared to 1e-12.
"""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from markets import MINUTE_MS, START_MS, bars_strategy, random_bars
from oracle_labels import (
    PATH_STAT_DTYPES,
    Settings,
    continue_labels,
    direction_labels,
    entry_labels,
    exit_labels,
    path_stats_by_hand,
    path_stats_windows,
    position_state_samples,
    risk_labels,
)

T = 9.765625
NAN = math.nan
ONE_SET_PER_SAMPLE = [direction_labels, continue_labels, exit_labels, risk_labels]

both_evaluators = pytest.mark.parametrize("path_stats", [path_stats_windows, path_stats_by_hand])


def bars(*rows, symbol="AAA"):
    """Rows are (minute, open, high, low, close, spread)."""
    frame = pd.DataFrame(rows, columns=["minute", "open", "high", "low", "close", "spread_bps"])
    frame = frame.astype("float64")
    frame.insert(0, "symbol", symbol)
    frame.insert(1, "open_time_ms", (START_MS + frame.pop("minute") * MINUTE_MS).astype("int64"))
    return frame.assign(volume=1.0)


def flat(*closes, spread=1.0):
    """Bars whose four prices are equal, one a minute from minute 0."""
    return bars(*((minute, c, c, c, c, spread) for minute, c in enumerate(closes)))


def features(*minutes, symbol="AAA", **columns):
    """One feature row a minute; a column is a value for all of them or a list."""
    times = [START_MS + minute * MINUTE_MS for minute in minutes]
    known = {
        "split_id": "fit",
        "walk_forward_fold": 1,
        "data_quality_flag": "OK",
        "spread_bps": 1.0,
        "spread_rank_24h_pct": 0.5,
        "ret_15m_bps": 4.0,
        "realized_vol_15m_bps": 5.0,
    }
    frame = pd.DataFrame(
        {
            "sample_id": [f"{symbol}-{minute}" for minute in minutes],
            "symbol": symbol,
            "event_time": pd.to_datetime(times, unit="ms", utc=True),
            "open_time_ms": times,
        }
    )
    return frame.assign(**known | columns)


def at(stats, minute, side, symbol="AAA"):
    """The one row of an entry, as a dict."""
    found = stats[
        (stats["symbol"] == symbol)
        & (stats["open_time_ms"] == START_MS + minute * MINUTE_MS)
        & (stats["side"] == side)
    ]
    assert len(found) == 1
    return found.iloc[0].to_dict()


def minutes_of(stats):
    """Minutes that have a row; every one must have both sides."""
    by_side = {
        side: [(t - START_MS) // MINUTE_MS for t in part["open_time_ms"]]
        for side, part in stats.groupby("side")
    }
    assert by_side.get("LONG") == by_side.get("SHORT")
    return by_side.get("LONG", [])


def assert_holds(row, **expected):
    """Each named value: whole numbers and text exactly, floats to 1e-12, NaN equal to NaN."""
    for name, value in expected.items():
        if isinstance(value, float):
            assert row[name] == pytest.approx(value, rel=1e-12, abs=1e-12, nan_ok=True), name
        else:
            assert row[name] == value, name


def only(labels):
    """The one row of a label frame, as a dict."""
    assert len(labels) == 1
    return labels.iloc[0].to_dict()


# Path statistics: touches -------------------------------------------------------------------


@both_evaluators
@pytest.mark.parametrize(
    ("side", "column", "at_threshold", "just_short"),
    [  # target T, stop 2T around an entry of 1024; (high, low) of the one bar ahead
        ("LONG", "target_hit", (1025, 1024), (math.nextafter(1025, 0), 1024)),
        ("LONG", "stop_hit", (1024, 1022), (1024, math.nextafter(1022, 2000))),
        ("SHORT", "target_hit", (1024, 1023), (1024, math.nextafter(1023, 2000))),
        ("SHORT", "stop_hit", (1026, 1024), (math.nextafter(1026, 0), 1024)),
    ],
)
def test_touch_includes_the_threshold(path_stats, side, column, at_threshold, just_short):
    for (high, low), hit in [(at_threshold, 1), (just_short, 0)]:
        market = bars((0, 1024, 1024, 1024, 1024, 1), (1, 1024, high, low, 1024, 1))
        row = at(path_stats(market, 1, T, 2 * T), 0, side)
        assert_holds(row, **{column: hit}, timeout_hit=1 - hit, ambiguous_hit=0)


@both_evaluators
def test_stop_wins_when_one_bar_touches_both(path_stats):
    market = bars((0, 1024, 1024, 1024, 1024, 1), (1, 1024, 1025, 1022, 1024, 1))
    stats = path_stats(market, 1, T, 2 * T)
    assert_holds(
        at(stats, 0, "LONG"),
        **{"target_hit": 0, "stop_hit": 1, "timeout_hit": 0, "ambiguous_hit": 1},
        **{"time_to_target_ms": -1, "time_to_stop_ms": 60_000, "gross_edge_bps": -2 * T},
    )
    # SHORT: 1022 is beyond its target 1023, 1025 short of its stop 1026
    assert_holds(
        at(stats, 0, "SHORT"),
        **{"target_hit": 1, "stop_hit": 0, "timeout_hit": 0, "ambiguous_hit": 0},
        **{"time_to_target_ms": 60_000, "time_to_stop_ms": -1, "gross_edge_bps": T},
    )


@both_evaluators
@pytest.mark.parametrize(
    ("ahead", "target_hit", "stop_hit", "ambiguous_hit", "time_to_target_ms", "time_to_stop_ms"),
    [  # LONG, (high, low) of bars 1..4, target 1025, stop 1022
        ([(1024, 1023), (1025, 1023), (1024, 1022), (1024, 1024)], 1, 0, 0, 120_000, -1),
        ([(1024, 1023), (1024, 1022), (1025, 1023), (1024, 1024)], 0, 1, 0, -1, 120_000),
        # the bar that touches both comes after the stop, and then after the target
        ([(1024, 1022), (1024, 1023), (1025, 1022), (1024, 1024)], 0, 1, 0, -1, 60_000),
        ([(1025, 1023), (1024, 1023), (1025, 1022), (1024, 1024)], 1, 0, 0, 60_000, -1),
        ([(1024, 1023), (1024, 1023), (1024, 1023), (1030, 1020)], 0, 1, 1, -1, 240_000),
        ([(1024, 1023), (1024, 1023), (1024, 1023), (1024, 1023)], 0, 0, 0, -1, -1),
        # an unknown high or low touches nothing
        ([(NAN, 1023), (NAN, NAN), (1025, NAN), (1024, 1022)], 1, 0, 0, 180_000, -1),
    ],
)
def test_first_touch(
    path_stats, ahead, target_hit, stop_hit, ambiguous_hit, time_to_target_ms, time_to_stop_ms
):
    market = bars(
        (0, 1024, 1040, 1000, 1024, 1),  # the entry bar's own range does not count
        *((minute, 1024, high, low, 1024.5, 1) for minute, (high, low) in enumerate(ahead, 1)),
    )
    timeout_return_bps = T / 2
    assert_holds(
        at(path_stats(market, 4, T, 2 * T), 0, "LONG"),
        target_hit=target_hit,
        stop_hit=stop_hit,
        timeout_hit=1 - target_hit - stop_hit,
        ambiguous_hit=ambiguous_hit,
        time_to_target_ms=time_to_target_ms,
        time_to_stop_ms=time_to_stop_ms,
        gross_edge_bps=T if target_hit else -2 * T if stop_hit else timeout_return_bps,
    )


@both_evaluators
def test_touch_after_the_window_does_not_count(path_stats):
    market = flat(1024, 1024, 1024, 1100)
    assert_holds(at(path_stats(market, 2, T, T), 0, "LONG"), timeout_hit=1, gross_edge_bps=0.0)
    assert_holds(at(path_stats(market, 3, T, T), 0, "LONG"), target_hit=1, time_to_target_ms=180000)


# Path statistics: numbers -------------------------------------------------------------------


@both_evaluators
def test_whole_row_of_both_sides(path_stats):
    market = bars(
        (0, 1024, 1024, 1024, 1024, 99),
        (1, 1024, 1026, 1023, 1025, 1),
        (2, 1025, 1028, 1024, 1024, 4),
        (3, 1024, 1024, 1020, 1022, 2),
    )
    stats = path_stats(market, 3, 50.0, 4 * T)  # stop of LONG at 1020, of SHORT at 1028
    assert list(stats.columns) == list(PATH_STAT_DTYPES)
    assert dict(stats.dtypes.astype(str)) == PATH_STAT_DTYPES
    assert len(stats) == 2
    shared = {
        "symbol": "AAA",
        "open_time_ms": START_MS,
        "horizon_minutes": 3,
        "target_hit": 0,
        "stop_hit": 1,
        "timeout_hit": 0,
        "ambiguous_hit": 0,
        "time_to_target_ms": -1,
        "gross_edge_bps": -39.0625,
        "future_spread_p80": 3.2,  # 1, 2, 4: position 1.6
    }
    long, short = at(stats, 0, "LONG"), at(stats, 0, "SHORT")
    # of ln(1024/1025) = -9.7608597306e-4 and ln(1022/1024) = -1.9550348358e-3
    vol_bps = pytest.approx(6.92221379283893, rel=1e-10)
    assert long["future_realized_vol_bps"] == short["future_realized_vol_bps"] == vol_bps
    assert_holds(
        long,
        **shared,
        side="LONG",
        time_to_stop_ms=180_000,
        future_return_bps=-19.53125,  # 1022/1024
        mfe_bps=39.0625,  # 1028/1024
        mae_bps=39.21568627450980,  # 1024/1020 = 1 + 1/255
    )
    assert_holds(
        short,
        **shared,
        side="SHORT",
        time_to_stop_ms=120_000,
        future_return_bps=19.56947162426614,  # 1024/1022 = 1 + 1/511
        mfe_bps=39.21568627450980,
        mae_bps=39.0625,
    )


@both_evaluators
def test_excursions_are_negative_when_price_never_went_there(path_stats):
    falling = path_stats(flat(1024, 1022, 1020), 2, 500.0, 500.0)
    assert_holds(at(falling, 0, "LONG"), mfe_bps=-19.53125, mae_bps=39.21568627450980)
    assert_holds(at(falling, 0, "SHORT"), mfe_bps=39.21568627450980, mae_bps=-19.53125)
    rising = path_stats(flat(1024, 1026, 1028), 2, 500.0, 500.0)
    assert_holds(at(rising, 0, "LONG"), mfe_bps=39.0625, mae_bps=-19.49317738791423)  # 1024/1026
    assert_holds(at(rising, 0, "SHORT"), mfe_bps=-19.49317738791423, mae_bps=39.0625)


@both_evaluators
def test_adverse_move_reaches_the_distance_a_little_before_the_stop_does(path_stats):
    # mae is entry / low - 1: 1025/1024 is T away, while the stop lies at 1025 * (1 - T/1e4) < 1024
    market = bars((0, 1025, 1025, 1025, 1025, 1), (1, 1025, 1025, 1024, 1025, 1))
    assert_holds(at(path_stats(market, 1, T, T), 0, "LONG"), mae_bps=T, stop_hit=0, timeout_hit=1)


@both_evaluators
def test_sides_mirror_each_other(path_stats):
    stats = path_stats(random_bars(3, 2, 90, 0.02, null_price_rate=0.05), 5, 12.0, 8.0)
    long = stats[stats["side"] == "LONG"].reset_index()
    short = stats[stats["side"] == "SHORT"].reset_index()
    assert len(long) > 50
    for mine, other in [("mfe_bps", "mae_bps"), ("mae_bps", "mfe_bps")]:
        np.testing.assert_array_equal(long[mine], short[other])
    for column in ("future_spread_p80", "future_realized_vol_bps"):
        np.testing.assert_array_equal(long[column], short[column])
    product = (1 + long["future_return_bps"] / 1e4) * (1 + short["future_return_bps"] / 1e4)
    np.testing.assert_allclose(product, 1.0, rtol=1e-14)


@both_evaluators
@pytest.mark.parametrize(
    ("spreads", "p80"),
    [
        ([5, 1, 4, 2, 3], 4.2),  # position 3.2 of five
        ([1, 2, 3, 4, 5, 6], 5.0),  # position 4 of six: no interpolation
        ([8, 16], 14.4),
        ([1, NAN, 3, NAN, 2], 2.6),  # position 1.6 of the three known
        ([NAN, 7, NAN], 7.0),
        ([NAN, NAN, NAN], NAN),
        ([2, 2, 2, 2], 2.0),
    ],
)
def test_spread_quantile_is_linear_and_skips_unknown(path_stats, spreads, p80):
    market = bars(
        (0, 8, 8, 8, 8, 1_000),  # the present spread is outside the window
        *((minute, 8, 8, 8, 8, spread) for minute, spread in enumerate(spreads, 1)),
    )
    stats = path_stats(market, len(spreads), T, T)
    assert_holds(at(stats, 0, "LONG"), future_spread_p80=float(p80))
    assert_holds(at(stats, 0, "SHORT"), future_spread_p80=float(p80))


@both_evaluators
@pytest.mark.parametrize(
    ("closes", "vol_bps"),
    [
        ([1024, 8], NAN),  # h = 1: no return inside the window
        ([1024, 8, 16], NAN),  # h = 2: one return has no spread
        # the return into bar 1 is left out: ln 2 and -ln 2, sd = sqrt(2) ln 2
        ([1024, 8, 16, 8], 9802.581434685472),
        # ln 2, ln 2, -ln 2: mean ln2 / 3, sd = sqrt(4 / 3) ln 2
        ([1024, 8, 16, 32, 16], 8003.774225686291),
        # an unknown close takes both its returns: ln 2 is left alone
        ([1024, 8, 16, NAN, 16], NAN),
        # ... and here ln 2 and -ln 2 are left
        ([1024, 8, 16, NAN, 16, 8], 9802.581434685472),
        ([1024, 8, 8, 8], 0.0),
        ([1024, 8, math.inf, 8, 16], NAN),
        # a close of zero counts as 1e-12: ln(1e-12) and -ln(1e-12)
        ([1024, 1, 0, 1], 390761.6480436352),
    ],
)
def test_realized_vol_is_of_the_returns_inside_the_window(path_stats, closes, vol_bps):
    market = bars(*((minute, 1, 1, 1, c, 1) for minute, c in enumerate(closes)))
    row = at(path_stats(market, len(closes) - 1, T, T), 0, "LONG")
    assert_holds(row, future_realized_vol_bps=vol_bps)


@both_evaluators
def test_window_without_any_high_or_low_keeps_its_row(path_stats):
    market = bars(
        (0, 1024, 1024, 1024, 1024, 1),
        (1, 1024, NAN, NAN, 1030, NAN),
        (2, 1024, NAN, NAN, 1025, NAN),
    )
    assert_holds(
        at(path_stats(market, 2, T, T), 0, "LONG"),
        **{"target_hit": 0, "stop_hit": 0, "timeout_hit": 1, "ambiguous_hit": 0},
        **{"time_to_target_ms": -1, "time_to_stop_ms": -1},
        **{"gross_edge_bps": T, "future_return_bps": T, "mfe_bps": NAN, "mae_bps": NAN},
        future_spread_p80=NAN,
    )


@both_evaluators
def test_known_highs_and_lows_are_enough_for_the_extremes(path_stats):
    market = bars(
        (0, 1024, 1024, 1024, 1024, 1),
        (1, 1024, NAN, 1023, 1024, 1),
        (2, 1024, 1025, NAN, 1024, 1),
    )
    row = at(path_stats(market, 2, 500.0, 500.0), 0, "LONG")
    assert_holds(row, mfe_bps=T, mae_bps=9.775171065493646)  # 1024/1023 = 1 + 1/1023


# Path statistics: which rows exist ----------------------------------------------------------


@both_evaluators
def test_no_row_jumps_a_gap(path_stats):
    minutes = [0, 1, 2, 3, 5, 6, 7, 8, 9]  # minute 4 is missing
    market = bars(*((minute, 1024, 1024, 1024, 1024, 1) for minute in minutes))
    assert minutes_of(path_stats(market, 1, T, T)) == [0, 1, 2, 5, 6, 7, 8]
    assert minutes_of(path_stats(market, 3, T, T)) == [0, 5, 6]
    assert minutes_of(path_stats(market, 4, T, T)) == [5]
    assert minutes_of(path_stats(market, 5, T, T)) == []


@both_evaluators
def test_a_short_step_and_a_long_one_do_not_cancel(path_stats):
    market = flat(1024, 1024, 1024, 1024, 1024)
    market.loc[2, "open_time_ms"] -= 30_000  # steps 60, 30, 90, 60 seconds
    assert minutes_of(path_stats(market, 1, T, T)) == [0, 3]
    assert minutes_of(path_stats(market, 2, T, T)) == []
    assert minutes_of(path_stats(market, 4, T, T)) == []


@both_evaluators
def test_horizon_bars_are_one_too_few(path_stats):
    assert minutes_of(path_stats(flat(1024, 1024, 1024), 3, T, T)) == []
    assert minutes_of(path_stats(flat(1024, 1024, 1024, 1024), 3, T, T)) == [0]
    empty = path_stats(flat(1024), 3, T, T)
    assert dict(empty.dtypes.astype(str)) == PATH_STAT_DTYPES


@both_evaluators
def test_entry_and_exit_must_be_finite_but_nothing_between(path_stats):
    market = bars(*((m, 1024, 1024, 1024, 1024, 1) for m in range(8)))
    market.loc[2, "close"] = NAN
    market.loc[5, "close"] = math.inf
    # h = 2: entries 2 and 5 and exits 2 and 5 (entries 0 and 3) are not finite
    assert minutes_of(path_stats(market, 2, T, T)) == [1, 4]


@both_evaluators
def test_symbols_do_not_meet(path_stats):
    market = pd.concat([flat(1024, 1024), flat(2048, 2048).assign(symbol="BBB")])
    market.loc[market["symbol"] == "BBB", "open_time_ms"] += 2 * MINUTE_MS
    stats = path_stats(market, 1, T, T)
    assert list(zip(stats["symbol"], stats["side"], strict=True)) == [
        ("AAA", "LONG"),
        ("AAA", "SHORT"),
        ("BBB", "LONG"),
        ("BBB", "SHORT"),
    ]
    assert stats["future_return_bps"].eq(0.0).all()


@both_evaluators
def test_next_open_moves_the_entry_and_not_the_window(path_stats):
    market = bars(
        (0, 1000, 1000, 1000, NAN, 1),  # this close is not needed
        (1, 1024, 1025, 1024, 1030, 1),
        (2, 1030, 1026, 1024, 1026, 1),
        (3, NAN, 1026, 1026, 1026, 1),
    )
    stats = path_stats(market, 2, T, T, entry_price="next_open")
    assert minutes_of(stats) == [0, 1]
    assert_holds(
        at(stats, 0, "LONG"),  # entry 1024
        **{"target_hit": 1, "time_to_target_ms": 60_000, "gross_edge_bps": T},
        **{"future_return_bps": 2 * T, "mfe_bps": 2 * T, "mae_bps": 0.0},
    )
    assert minutes_of(path_stats(market, 1, T, T, entry_price="next_open")) == [0, 1]
    assert minutes_of(path_stats(market, 1, T, T)) == [1, 2]


@both_evaluators
def test_bad_input_is_refused(path_stats):
    market = flat(1024, 1024, 1024)
    with pytest.raises(ValueError, match="repeat"):
        path_stats(pd.concat([market, market.tail(1)]), 1, T, T)
    with pytest.raises(ValueError, match="spread_bps"):
        path_stats(market.drop(columns="spread_bps"), 1, T, T)
    with pytest.raises(ValueError, match="at least 1"):
        path_stats(market, 0, T, T)
    with pytest.raises(ValueError, match="next_open"):
        path_stats(market, 1, T, T, entry_price="mid")


# Path statistics: the two evaluators --------------------------------------------------------


def assert_same_stats(left, right):
    """Whole numbers exactly; floats to 1e-12 of their size.

    A log return is the difference of two logs near 9, each known to about 2e-15, so the volatility
    is only known to about 4e-11 bps, however small it is.
    """
    assert list(left.columns) == list(right.columns)
    for column, dtype in PATH_STAT_DTYPES.items():
        assert left[column].dtype == right[column].dtype == dtype
        if dtype != "float64":
            assert left[column].tolist() == right[column].tolist(), column
        else:
            slack = 1e-10 if column == "future_realized_vol_bps" else 0.0
            np.testing.assert_allclose(
                left[column], right[column], rtol=1e-12, atol=slack, err_msg=column
            )


distances_bps = st.sampled_from([T / 2, T, 2 * T, 4.0, 8.0, 12.0, 20.0])
entry_prices = st.sampled_from(["close", "next_open"])


@hypothesis_settings(max_examples=150, deadline=None)
@given(bars_strategy(), st.integers(1, 12), distances_bps, distances_bps, entry_prices)
def test_windows_equal_hand_on_small_markets(market, horizon, target_bps, stop_bps, entry_price):
    plan = (horizon, target_bps, stop_bps)
    assert_same_stats(
        path_stats_windows(market, *plan, entry_price=entry_price),
        path_stats_by_hand(market, *plan, entry_price=entry_price),
    )


@pytest.mark.parametrize("horizon", [1, 2, 12, 45])
@pytest.mark.parametrize(
    ("gap_rate", "null_price_rate", "move_bps"), [(0.0, 0.0, 3.0), (0.01, 0.03, 9.0)]
)
def test_windows_equal_hand_on_longer_markets(horizon, gap_rate, null_price_rate, move_bps):
    market = random_bars(
        horizon,
        minutes=300,
        gap_rate=gap_rate,
        tick=1.0,
        move_bps=move_bps,
        null_price_rate=null_price_rate,
        null_spread_rate=null_price_rate,
    )
    stats = path_stats_windows(market, horizon, 12.0, 8.0)
    assert len(stats) > 100
    assert_same_stats(stats, path_stats_by_hand(market, horizon, 12.0, 8.0))


def test_order_of_bars_does_not_matter_and_input_is_left_alone():
    market = random_bars(5, 3, 120, 0.02, null_spread_rate=0.1)
    shuffled = market.sample(frac=1.0, random_state=5)
    before = shuffled.copy()
    pd.testing.assert_frame_equal(
        path_stats_windows(market, 7, 12.0, 8.0), path_stats_windows(shuffled, 7, 12.0, 8.0)
    )
    pd.testing.assert_frame_equal(shuffled, before)


def test_a_row_needs_its_window_and_nothing_later():
    market = random_bars(6, 2, 80)
    whole = path_stats_windows(market, 10, 12.0, 8.0)
    cut_ms = START_MS + 50 * MINUTE_MS
    cut = path_stats_windows(market[market["open_time_ms"] <= cut_ms], 10, 12.0, 8.0)
    known = whole[whole["open_time_ms"] <= cut_ms - 10 * MINUTE_MS].reset_index(drop=True)
    pd.testing.assert_frame_equal(cut, known)


# Direction labels ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("future_close", "label"),
    [
        (1025, "LONG"),
        (math.nextafter(1025, 0), "NEUTRAL"),
        (1024, "NEUTRAL"),
        (math.nextafter(1023, 2000), "NEUTRAL"),
        (1023, "SHORT"),
    ],
)
def test_direction_thresholds_are_inclusive(future_close, label):
    settings = Settings(
        direction_horizon_minutes=2,
        direction_long_threshold_bps=T,
        direction_short_threshold_bps=-T,
    )
    row = only(
        direction_labels(features(0), flat(1024, 900, future_close), settings, label_version="v1")
    )
    assert row == {
        "sample_id": "AAA-0",
        "symbol": "AAA",
        "event_time": pd.Timestamp(START_MS, unit="ms", tz="UTC"),
        "horizon_minutes": 2,
        "future_return_bps": (future_close / 1024 - 1) * 1e4,
        "direction_label": label,
        "long_target": int(label == "LONG"),
        "short_target": int(label == "SHORT"),
        "neutral_target": int(label == "NEUTRAL"),
        "split_id": "fit",
        "walk_forward_fold": 1,
        "label_version": "v1",
    }


def test_direction_reaches_across_a_gap_unless_told_otherwise():
    minutes = [0, 1, 3, 4]  # minute 2 is missing
    market = bars(*((minute, 1024, 1024, 1024, 1024 + minute, 1) for minute in minutes))
    rows = direction_labels(features(0, 1, 2, 3), market, Settings(direction_horizon_minutes=3))
    # 0 -> 3 and 1 -> 4 exist; 2 has no bar; 3 -> 6 is beyond the end
    assert rows["sample_id"].tolist() == ["AAA-0", "AAA-1"]
    assert rows["future_return_bps"].tolist() == [3 * T, (1028 / 1025 - 1) * 1e4]
    strict = Settings(direction_horizon_minutes=3, direction_requires_contiguity=True)
    assert direction_labels(features(0, 1, 2, 3), market, strict).empty
    one = Settings(direction_horizon_minutes=1, direction_requires_contiguity=True)
    kept = direction_labels(features(0, 1, 2, 3), market, one)
    assert kept["sample_id"].tolist() == ["AAA-0", "AAA-3"]


def test_direction_contiguity_means_steps_of_exactly_one_minute():
    market = flat(1024, 1025, 1026)
    between = market.tail(1).assign(open_time_ms=START_MS + MINUTE_MS // 2)
    market = pd.concat([market, between])
    strict = Settings(direction_horizon_minutes=1, direction_requires_contiguity=True)
    assert direction_labels(features(0, 1), market, strict)["sample_id"].tolist() == ["AAA-1"]


def test_direction_drops_unknown_closes_and_keeps_infinite_returns():
    settings = Settings(direction_horizon_minutes=1)
    rows = direction_labels(features(0, 1, 2, 3), flat(1024, NAN, 1024, math.inf, 1024), settings)
    assert rows["sample_id"].tolist() == ["AAA-2", "AAA-3"]
    assert rows["future_return_bps"].tolist() == [math.inf, -10_000.0]
    assert rows["direction_label"].tolist() == ["LONG", "SHORT"]


def test_direction_ignores_high_low_and_the_other_symbols():
    market = pd.concat([flat(1024, 1030), flat(1024, 1024).assign(symbol="BBB")])
    wanted = pd.concat([features(0, symbol="BBB"), features(0), features(0, symbol="CCC")])
    rows = direction_labels(wanted, market, Settings(direction_horizon_minutes=1))
    assert rows["symbol"].tolist() == ["BBB", "AAA"]  # feature order
    assert rows["direction_label"].tolist() == ["NEUTRAL", "LONG"]


# Entry labels and position samples ----------------------------------------------------------

STOPPED_THEN_UP = bars(  # LONG: stop (1022) in bar 1, best price 1032 in bar 2
    (0, 1024, 1024, 1024, 1024, 1),
    (1, 1024, 1024, 1022, 1024, 1),
    (2, 1024, 1032, 1024, 1030, 1),
)
TWO_MINUTES = {"entry_max_hold_minutes": 2, "entry_target_bps": 4 * T, "entry_stop_bps": 2 * T}


def test_entry_label_is_the_best_price_less_cost():
    rows = entry_labels(
        features(0),
        STOPPED_THEN_UP,
        Settings(**TWO_MINUTES),
        price_plan_id="plan",
        price_plan_hash="hash",
        label_version="v1",
    )
    assert rows["side"].tolist() == ["LONG", "SHORT"]
    assert rows.iloc[0].to_dict() == {
        "sample_id": "AAA-0",
        "symbol": "AAA",
        "event_time": pd.Timestamp(START_MS, unit="ms", tz="UTC"),
        "side": "LONG",
        "price_plan_id": "plan",
        "price_plan_hash": "hash",
        "target_hit": 0,
        "stop_hit": 1,
        "timeout_hit": 0,
        "ambiguous_hit": 0,
        "time_to_target_ms": -1,
        "time_to_stop_ms": 60_000,
        "gross_edge_bps": -19.53125,
        "future_return_bps": 58.59375,
        "mfe_bps": 78.125,
        "mae_bps": pytest.approx(19.56947162426614, rel=1e-12),
        "max_achievable_gross_edge_bps": 78.125,
        "max_achievable_net_edge_bps": 71.625,  # cost 4 + 2 + 0.5
        "path_exit_net_edge_bps": -26.03125,
        "cost_bps": 6.5,
        "expected_net_edge_bps": 71.625,
        "entry_target": 1,
        "label_method": "MAX_FUTURE_EDGE_V1",
        "split_id": "fit",
        "walk_forward_fold": 1,
        "label_version": "v1",
    }


def test_entry_label_by_the_path_keeps_both_columns():
    settings = Settings(**TWO_MINUTES, entry_label_method="path_exit_v1")
    row = entry_labels(features(0), STOPPED_THEN_UP, settings).iloc[0].to_dict()
    assert_holds(
        row,
        **{"expected_net_edge_bps": -26.03125, "path_exit_net_edge_bps": -26.03125},
        **{
            "max_achievable_net_edge_bps": 71.625,
            "entry_target": 0,
            "label_method": "path_exit_v1",
        },
    )


@pytest.mark.parametrize("method", ["MAX_FUTURE_EDGE_V1", "path_exit_v1"])
def test_entry_target_includes_its_threshold(method):
    # mfe T and target T: both methods give T - 6.5 = 3.265625
    plan = {"entry_max_hold_minutes": 1, "entry_target_bps": T, "entry_label_method": method}
    for least, target in [(3.265625, 1), (math.nextafter(3.265625, 9), 0)]:
        settings = Settings(**plan, entry_min_expected_net_edge_bps=least)
        row = entry_labels(features(0), flat(1024, 1025), settings).iloc[0].to_dict()
        assert_holds(row, expected_net_edge_bps=3.265625, entry_target=target)


def test_entry_without_highs_and_lows_has_no_target():
    market = bars((0, 1024, 1024, 1024, 1024, 1), (1, 1024, NAN, NAN, 1040, 1))
    row = entry_labels(features(0), market, Settings(entry_max_hold_minutes=1)).iloc[0].to_dict()
    assert_holds(row, expected_net_edge_bps=NAN, entry_target=0, path_exit_net_edge_bps=149.75)


def test_entry_cost_may_include_the_spread():
    settings = Settings(entry_max_hold_minutes=1, cost_mode="fixed_plus_spread")
    wanted = features(0, 1, spread_bps=[1.5, NAN])
    rows = entry_labels(wanted, flat(1024, 1040, 1056.25, spread=77), settings)
    long = rows[rows["side"] == "LONG"].reset_index()
    # the feature row's spread, not the bar's; both bars gain 156.25
    assert_holds(
        long.loc[0],
        **{"cost_bps": 8.0, "max_achievable_net_edge_bps": 148.25, "entry_target": 1},
        path_exit_net_edge_bps=4.0,  # target 12
    )
    assert_holds(
        long.loc[1],
        **{"cost_bps": NAN, "max_achievable_net_edge_bps": NAN, "path_exit_net_edge_bps": NAN},
        **{"expected_net_edge_bps": NAN, "entry_target": 0},
    )


def test_entry_price_reaches_the_labels_but_not_the_direction():
    market = bars((0, 1024, 1024, 1024, 1024, 1), (1, 1025, 1025, 1025, 1025, 1))
    late = Settings(entry_max_hold_minutes=1, direction_horizon_minutes=1, entry_price="next_open")
    row = entry_labels(features(0), market, late).iloc[0].to_dict()
    assert_holds(row, mfe_bps=0.0, future_return_bps=0.0)
    assert_holds(only(direction_labels(features(0), market, late)), future_return_bps=T)


def test_entry_rows_follow_the_features_and_need_a_bar():
    wanted = features(2, 0, 7)
    rows = entry_labels(wanted, flat(1, 1, 1, 1), Settings(entry_max_hold_minutes=1))
    assert rows["sample_id"].tolist() == ["AAA-2", "AAA-2", "AAA-0", "AAA-0"]
    assert rows["side"].tolist() == ["LONG", "SHORT", "LONG", "SHORT"]


def test_position_samples_are_the_entries_with_a_target():
    # LONG gains 1040/1024; its low stays above the entry: mae -153.8 becomes 0
    settings = Settings(entry_max_hold_minutes=1)
    row = only(position_state_samples(features(0), flat(1024, 1040), settings))
    assert_holds(
        row,
        **{"side": "LONG", "entry_target": 1, "position_age_minutes": 0},
        **{"unrealized_pnl_bps": 0.0, "mfe_bps": 156.25, "mae_bps": 0.0},
    )
    assert list(row) == [
        *entry_labels(features(0), flat(1024, 1040), settings).columns,
        "position_age_minutes",
        "unrealized_pnl_bps",
    ]


def test_position_samples_fill_unknown_excursions_with_zero():
    market = bars((0, 1024, 1024, 1024, 1024, 1), (1, 1024, NAN, NAN, 1040, 1))
    settings = Settings(entry_max_hold_minutes=1, entry_label_method="path_exit_v1")
    row = only(position_state_samples(features(0), market, settings))
    assert_holds(row, side="LONG", mfe_bps=0.0, mae_bps=0.0, max_achievable_gross_edge_bps=NAN)


def test_position_samples_need_entry_rows_but_not_targets():
    settings = Settings(entry_max_hold_minutes=2)
    assert position_state_samples(features(0), flat(1024, 1024, 1024), settings).empty
    with pytest.raises(ValueError, match="found none"):
        position_state_samples(features(0), flat(1024, 1024), settings)


# Continue labels ----------------------------------------------------------------------------


@pytest.mark.parametrize(("least", "target"), [(3.265625, 1), (math.nextafter(3.265625, 9), 0)])
def test_continue_edge_includes_its_threshold(least, target):
    settings = Settings(continue_horizon_minutes=1, continue_min_expected_edge_bps=least)
    row = only(continue_labels(features(0), flat(1024, 1025), settings, label_version="v1"))
    assert row == {
        "sample_id": "AAA-0",
        "symbol": "AAA",
        "event_time": pd.Timestamp(START_MS, unit="ms", tz="UTC"),
        "long_continue_target": target,
        "short_continue_target": 0,
        "long_expected_continue_edge_bps": 3.265625,
        "short_expected_continue_edge_bps": pytest.approx(-16.256097560975611, rel=1e-12),
        "split_id": "fit",
        "walk_forward_fold": 1,
        "label_version": "v1",
    }


@pytest.mark.parametrize(("stop_bps", "target"), [(T, 0), (math.nextafter(T, 99), 1)])
def test_continue_asks_for_an_adverse_move_strictly_below_the_stop(stop_bps, target):
    settings = Settings(continue_horizon_minutes=1, entry_stop_bps=stop_bps)
    up = bars((0, 1025, 1025, 1025, 1025, 1), (1, 1025, 1040, 1024, 1040, 1))  # LONG mae T
    assert only(continue_labels(features(0), up, settings))["long_continue_target"] == target
    down = bars((0, 1024, 1024, 1024, 1024, 1), (1, 1024, 1025, 1000, 1000, 1))  # SHORT mae T
    assert only(continue_labels(features(0), down, settings))["short_continue_target"] == target


def test_continue_without_lows_or_cost_has_no_target():
    market = bars((0, 1024, 1024, 1024, 1024, 1), (1, 1024, NAN, NAN, 1040, 1))
    row = only(continue_labels(features(0), market, Settings(continue_horizon_minutes=1)))
    assert_holds(row, long_expected_continue_edge_bps=149.75, long_continue_target=0)
    with_spread = Settings(continue_horizon_minutes=1, cost_mode="fixed_plus_spread")
    for spread, edge, target in [(1.5, 148.25, 1), (NAN, NAN, 0)]:
        wanted = features(0, spread_bps=spread)
        row = only(continue_labels(wanted, flat(1024, 1040), with_spread))
        assert_holds(row, long_expected_continue_edge_bps=edge, long_continue_target=target)


# Exit labels --------------------------------------------------------------------------------


def test_exit_target_by_adverse_move_alone():
    # LONG mae is T, its stop at T is not touched (see above); SHORT never moves against
    market = bars((0, 1025, 1025, 1025, 1025, 1), (1, 1025, 1025, 1024, 1025, 1))
    plan = {"continue_horizon_minutes": 1, "entry_stop_bps": T, "entry_target_bps": 50.0}
    row = only(
        exit_labels(
            features(0), market, Settings(**plan, exit_adverse_move_bps=T), label_version="v1"
        )
    )
    assert row == {
        "sample_id": "AAA-0",
        "symbol": "AAA",
        "event_time": pd.Timestamp(START_MS, unit="ms", tz="UTC"),
        "long_exit_target": 1,
        "short_exit_target": 0,
        "long_adverse_move_bps": T,
        "short_adverse_move_bps": 0.0,
        "adverse_move_prob_label": 1,
        "reversal_prob_label": 1,  # return 0 after 4 bps
        "stop_hit_prob_label": 0,
        "stagnation_prob_label": 1,
        "split_id": "fit",
        "walk_forward_fold": 1,
        "label_version": "v1",
    }
    higher = Settings(**plan, exit_adverse_move_bps=math.nextafter(T, 99))
    row = only(exit_labels(features(0), market, higher))
    assert_holds(row, long_exit_target=0, adverse_move_prob_label=0)


def test_exit_target_by_stop_alone():
    plan = {"continue_horizon_minutes": 1, "entry_stop_bps": T, "exit_adverse_move_bps": 500.0}
    falls = only(exit_labels(features(0), flat(1024, 1023), Settings(**plan)))
    assert_holds(falls, long_exit_target=1, short_exit_target=0)
    assert_holds(falls, adverse_move_prob_label=0, stop_hit_prob_label=1)
    rises = only(exit_labels(features(0), flat(1024, 1025), Settings(**plan)))
    assert_holds(rises, long_exit_target=0, short_exit_target=1)
    assert_holds(rises, adverse_move_prob_label=0, stop_hit_prob_label=1)


def test_a_stop_after_the_target_is_no_stop():
    market = flat(1024, 1025, 1022)  # LONG takes T at 1025 before 1022
    plan = {"continue_horizon_minutes": 2, "entry_target_bps": T, "entry_stop_bps": 2 * T}
    row = only(exit_labels(features(0), market, Settings(**plan, exit_adverse_move_bps=500.0)))
    assert_holds(row, long_exit_target=0, short_exit_target=0, stop_hit_prob_label=0)


@pytest.mark.parametrize(
    ("future_close", "ret_15m_bps", "reversal", "with_history"),
    [
        (1025, 4.0, 0, 0),
        (1025, -4.0, 1, 1),
        (1023, -4.0, 0, 0),
        (1023, 4.0, 1, 1),
        (1024, 0.0, 0, 0),
        (1024, 4.0, 1, 1),
        (1025, 0.0, 1, 1),
        (1025, NAN, 1, 0),
        (1024, NAN, 1, 0),
    ],
)
def test_reversal_compares_signs(future_close, ret_15m_bps, reversal, with_history):
    wanted = features(0, ret_15m_bps=ret_15m_bps)
    for strict, expected in [(False, reversal), (True, with_history)]:
        settings = Settings(continue_horizon_minutes=1, reversal_requires_history=strict)
        row = only(exit_labels(wanted, flat(1024, future_close), settings))
        assert row["reversal_prob_label"] == expected


def test_reversal_without_the_feature_is_zero():
    wanted = features(0).drop(columns="ret_15m_bps")
    row = only(exit_labels(wanted, flat(1024, 1023), Settings(continue_horizon_minutes=1)))
    assert row["reversal_prob_label"] == 0


@pytest.mark.parametrize("future_close", [1025, 1023])
def test_stagnation_includes_its_threshold(future_close):
    for limit, expected in [(T, 1), (math.nextafter(T, 0), 0)]:
        settings = Settings(continue_horizon_minutes=1, exit_stagnation_abs_return_bps=limit)
        row = only(exit_labels(features(0), flat(1024, future_close), settings))
        assert row["stagnation_prob_label"] == expected


def test_unknown_extremes_give_no_exit_target():
    market = bars((0, 1024, 1024, 1024, 1024, 1), (1, 1024, NAN, 1000, 1024, 1))
    row = only(exit_labels(features(0), market, Settings(continue_horizon_minutes=1)))
    # LONG fell 240 bps; what SHORT risked is unknown, and so is the worse of the two
    assert_holds(row, long_exit_target=1, short_exit_target=0, adverse_move_prob_label=0)
    assert_holds(row, long_adverse_move_bps=240.0, short_adverse_move_bps=NAN)


# Risk labels --------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "flag"), [(T, 1), (math.nextafter(T, 99), 0)])
def test_risk_thresholds_are_inclusive(limit, flag):
    settings = Settings(
        continue_horizon_minutes=1,
        risk_market_drawdown_bps=limit,
        risk_spike_bps=limit,
        entry_stop_bps=limit,
    )
    falls = bars((0, 1025, 1025, 1025, 1025, 1), (1, 1025, 1025, 1024, 1025, 1))
    assert only(risk_labels(features(0), falls, settings, label_version="v1")) == {
        "sample_id": "AAA-0",
        "symbol": "AAA",
        "event_time": pd.Timestamp(START_MS, unit="ms", tz="UTC"),
        "market_risk_target": flag,
        "market_path_risk_bps": T,
        "long_position_path_risk_bps": T,
        "short_position_path_risk_bps": 0.0,
        "long_position_risk_target": flag,
        "short_position_risk_target": 0,
        "market_drawdown_prob_label": flag,
        "volatility_expansion_prob_label": 0,
        "spike_prob_label": flag,
        "liquidity_deterioration_prob_label": 0,
        "position_drawdown_prob_label": flag,
        "split_id": "fit",
        "walk_forward_fold": 1,
        "label_version": "v1",
    }
    rises = bars((0, 1024, 1024, 1024, 1024, 1), (1, 1024, 1025, 1024, 1024, 1))
    assert_holds(
        only(risk_labels(features(0), rises, settings)),
        **{"market_risk_target": flag, "market_path_risk_bps": T, "spike_prob_label": flag},
        **{"long_position_risk_target": 0, "short_position_risk_target": flag},
        **{"market_drawdown_prob_label": flag, "position_drawdown_prob_label": flag},
    )


def test_directional_market_risk_is_the_long_side():
    settings = Settings(continue_horizon_minutes=1, market_risk_mode="directional")
    rises = bars((0, 1024, 1024, 1024, 1024, 1), (1, 1024, 1040, 1024, 1040, 1))
    assert_holds(
        only(risk_labels(features(0), rises, settings)),
        **{"market_risk_target": 0, "market_path_risk_bps": 0.0, "market_drawdown_prob_label": 0},
        # what the other labels say stays as it was
        **{"long_position_risk_target": 0, "short_position_risk_target": 1},
        **{"short_position_path_risk_bps": 156.25},
        **{"spike_prob_label": 1, "position_drawdown_prob_label": 1},
    )
    falls = bars((0, 1024, 1024, 1024, 1024, 1), (1, 1024, 1024, 1000, 1000, 1))
    assert_holds(
        only(risk_labels(features(0), falls, settings)),
        **{"market_risk_target": 1, "market_path_risk_bps": 240.0, "market_drawdown_prob_label": 1},
    )


def test_unknown_extreme_makes_the_path_risk_unknown():
    market = bars((0, 1024, 1024, 1024, 1024, 1), (1, 1024, NAN, 1000, 1024, 1))
    row = only(risk_labels(features(0), market, Settings(continue_horizon_minutes=1)))
    assert_holds(
        row,
        **{"market_risk_target": 0, "market_path_risk_bps": NAN, "market_drawdown_prob_label": 0},
        **{"long_position_path_risk_bps": 240.0, "short_position_path_risk_bps": NAN},
        **{"long_position_risk_target": 1, "short_position_risk_target": 0},
        **{"spike_prob_label": 0, "position_drawdown_prob_label": 0},
    )
    directional = Settings(continue_horizon_minutes=1, market_risk_mode="directional")
    row = only(risk_labels(features(0), market, directional))
    assert_holds(row, market_risk_target=1, market_path_risk_bps=240.0)


def test_volatility_expansion_includes_its_threshold():
    market = flat(1024, 8, 16, 8)  # sqrt(2) ln 2 = 9802.58 bps
    vol = path_stats_windows(market, 3, 12.0, 8.0)["future_realized_vol_bps"].iloc[0]
    settings = Settings(continue_horizon_minutes=3, risk_vol_expansion_ratio=1.0)
    for current, flag in [(vol, 1), (math.nextafter(vol, 1e9), 0)]:
        wanted = features(0, realized_vol_15m_bps=current)
        row = only(risk_labels(wanted, market, settings))
        assert row["volatility_expansion_prob_label"] == flag


@pytest.mark.parametrize(
    ("current_vol", "ratio", "flag"),
    [  # future vol is 0.7071 bps: +0.5 and -0.5
        (0.1, 1.6, 0),  # lifted to 1.0: 0.71 < 1.6, though 0.71 >= 0.16
        (NAN, 1.6, 0),
        (NAN, 0.7, 1),  # unknown counts as 1.0
        (0.1, 0.7, 1),
        (1.1, 0.7, 0),
    ],
)
def test_current_volatility_is_at_least_one_bps(current_vol, ratio, flag):
    settings = Settings(continue_horizon_minutes=3, risk_vol_expansion_ratio=ratio)
    wanted = features(0, realized_vol_15m_bps=current_vol)
    row = only(risk_labels(wanted, flat(100_000, 100_000, 100_005, 100_000), settings))
    assert row["volatility_expansion_prob_label"] == flag


def test_unknown_future_volatility_is_no_expansion():
    settings = Settings(continue_horizon_minutes=1)
    row = only(risk_labels(features(0), flat(1024, 2048), settings))
    assert row["volatility_expansion_prob_label"] == 0


@pytest.mark.parametrize(
    ("rank", "flag"), [(0.90, 1), (math.nextafter(0.90, 0), 0), (1.0, 1), (NAN, 0)]
)
def test_liquidity_by_the_present_rank(rank, flag):
    wanted = features(0, spread_rank_24h_pct=rank)
    row = only(risk_labels(wanted, flat(1024, 1024), Settings(continue_horizon_minutes=1)))
    assert row["liquidity_deterioration_prob_label"] == flag


@pytest.mark.parametrize(
    ("future_spread", "current_spread", "flag"),
    [(3.0, 2.0, 1), (3.0, math.nextafter(2.0, 9), 0), (9.0, NAN, 0), (NAN, 2.0, 0), (0.0, 0.0, 1)],
)
def test_liquidity_by_the_spread_ahead(future_spread, current_spread, flag):
    settings = Settings(continue_horizon_minutes=2, liquidity_deterioration_basis="future_spread")
    wanted = features(0, spread_bps=current_spread, spread_rank_24h_pct=1.0 - flag)
    row = only(risk_labels(wanted, flat(1024, 1024, 1024, spread=future_spread), settings))
    assert row["liquidity_deterioration_prob_label"] == flag


# Settings that reach several label sets -----------------------------------------------------


def test_exit_and_risk_use_the_continue_horizon_unless_told_otherwise():
    market = flat(1024, 1024, 1000, 1100)
    horizons = {
        "continue_horizon_minutes": 1,
        "exit_horizon_minutes": 2,
        "risk_horizon_minutes": 3,
    }
    wanted = features(0, 1, 2)
    shared, own = Settings(**horizons), Settings(**horizons, own_exit_risk_horizons=True)
    for labels in (continue_labels, exit_labels, risk_labels):
        assert len(labels(wanted, market, shared)) == 3
    assert len(continue_labels(wanted, market, own)) == 3
    assert exit_labels(wanted, market, own)["sample_id"].tolist() == ["AAA-0", "AAA-1"]
    assert risk_labels(wanted, market, own)["sample_id"].tolist() == ["AAA-0"]

    first = features(0)
    assert_holds(only(exit_labels(first, market, shared)), long_adverse_move_bps=0.0)
    assert_holds(only(exit_labels(first, market, own)), long_adverse_move_bps=240.0)
    assert_holds(only(risk_labels(first, market, own)), short_position_path_risk_bps=742.1875)


@pytest.mark.parametrize("dtype", ["object", "string"])  # a missing flag is None, or pandas' NA
def test_quality_filter_holds_in_every_label_set(dtype):
    market = flat(1024, 1040, 1056.25, 1072.75, 1090)
    one_minute = {
        "direction_horizon_minutes": 1,
        "entry_max_hold_minutes": 1,
        "continue_horizon_minutes": 1,
    }
    flags = pd.Series(["OK", "STALE", None, "ok"], dtype=dtype)
    wanted = features(0, 1, 2, 3, data_quality_flag=flags)
    loose, strict = Settings(**one_minute), Settings(**one_minute, label_quality_filter=True)
    for labels in [*ONE_SET_PER_SAMPLE, entry_labels, position_state_samples]:
        assert labels(wanted, market, loose)["sample_id"].nunique() == 4
        assert labels(wanted, market, strict)["sample_id"].unique().tolist() == ["AAA-0"]


def test_extra_feature_columns_are_ignored():
    market = flat(1024, 1040)
    one_minute = Settings(
        direction_horizon_minutes=1, entry_max_hold_minutes=1, continue_horizon_minutes=1
    )
    crowded = features(0, close=5.0, run=1, side="LONG", mfe_bps=7.0, long_mae_bps=7.0)
    for labels in [*ONE_SET_PER_SAMPLE, entry_labels, position_state_samples]:
        pd.testing.assert_frame_equal(
            labels(crowded, market, one_minute), labels(features(0), market, one_minute)
        )


def test_label_frames_keep_their_types_without_rows():
    for labels in [*ONE_SET_PER_SAMPLE, entry_labels]:
        rows = labels(features(0), flat(1024), Settings())
        assert rows.empty
        assert {"sample_id", "symbol", "event_time", "split_id"} <= set(rows.columns)
        flags = [name for name in rows if name.endswith(("_target", "_prob_label"))]
        assert flags
        assert all(rows[name].dtype == "int8" for name in flags)


@pytest.mark.parametrize(
    "wrong",
    [
        {"entry_label_method": "max"},
        {"entry_price": "open"},
        {"cost_mode": "spread"},
        {"market_risk_mode": "long"},
        {"liquidity_deterioration_basis": "rank"},
    ],
)
def test_settings_refuse_unknown_choices(wrong):
    with pytest.raises(ValueError, match="expected one of"):
        Settings(**wrong)


# The made-up markets ------------------------------------------------------------------------


def assert_valid(market):
    assert not market.duplicated(["symbol", "open_time_ms"]).any()
    assert (market["open_time_ms"] % MINUTE_MS == 0).all()
    assert not (market[["open", "high", "low", "close"]] <= 0).any().any()
    assert not (market["high"] < market[["open", "close"]].max(axis=1)).any()
    assert not (market["low"] > market[["open", "close"]].min(axis=1)).any()


@hypothesis_settings(max_examples=30, deadline=None)
@given(bars_strategy(max_symbols=3))
def test_strategy_gives_valid_markets(market):
    assert_valid(market)


def test_random_markets_are_valid_coarse_and_repeatable():
    market = random_bars(1, 3, 2_000, 0.01, null_spread_rate=0.05)
    assert_valid(market)
    pd.testing.assert_frame_equal(market, random_bars(1, 3, 2_000, 0.01, null_spread_rate=0.05))
    assert (market[["open", "high", "low", "close"]] % 4 == 0).all().all()
    assert 0.98 < len(market) / 6_000 < 1.0
    assert 0.03 < market["spread_bps"].isna().mean() < 0.07
    move_bps = market.groupby("symbol")["close"].pct_change() * 1e4
    assert 5 < move_bps.std() < 15
    stats = path_stats_windows(market, 5, 12.0, 8.0)
    assert stats["ambiguous_hit"].mean() > 0.03
    assert stats["timeout_hit"].mean() > 0.001
    at_target = stats["mfe_bps"].round(9) == 12.0  # exact ties at the default plan
    assert at_target.sum() > 20
