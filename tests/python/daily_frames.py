"""Generated daily markets as staging holds them: every board, status and kind of day, few rows.

A market is a dictionary of frames by relation. Its calendar strings together weeks around the days
on which the rules of the exchanges changed, so that a few dozen days meet all of them.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise

import duckdb
import numpy as np
import pandas as pd

from daily_sql import write_relation

ERAS = (
    (date(2020, 8, 5), date(2020, 9, 11)),  # ChiNext goes to 20 % on 08-24
    (date(2020, 12, 21), date(2021, 1, 15)),  # first day of a delisting period free from 12-31
    (date(2023, 3, 27), date(2023, 4, 28)),  # main-board listings of the new regime from 04-10
    (date(2026, 6, 22), date(2026, 7, 17)),  # ST of the main boards at 10 % from 07-06
)
BOARDS = {
    "MAIN_SH": ("60{:04d}.SH", ("0", "1", "3", "5")),
    "MAIN_SZ": ("00{:04d}.SZ", ("0", "1", "2", "3")),
    "CHINEXT": ("30{:04d}.SZ", ("0", "1", "2")),
    "STAR": ("68{:04d}.SH", ("8", "9")),
    "BSE": ("{:06d}.BJ", ("830000", "430000", "920000")),
    "B_SHARE_SH": ("900{:03d}.SH", ("",)),
    "B_SHARE_SZ": ("200{:03d}.SZ", ("",)),
    "OTHER": ("51{:04d}.SH", ("0",)),
}
STAGING_TYPES = {
    "staging.stg_daily_bars": {
        "ts_code": "varchar",
        "trade_date": "date",
        "open": "double",
        "high": "double",
        "low": "double",
        "close": "double",
        "pre_close": "double",
        "pct_chg": "double",
        "volume": "double",
        "amount": "double",
        "turnover": "double",
        "adj_factor": "double",
        "adj_factor_source": "varchar",
        "is_suspended": "boolean",
        "is_st": "boolean",
        "price_basis": "varchar",
        "data_quality_flag": "varchar",
        "duplicate_count": "integer",
        "source_file": "varchar",
    },
    "staging.stg_securities": {
        "ts_code": "varchar",
        "name": "varchar",
        "exchange": "varchar",
        "list_date": "date",
        "delist_date": "date",
    },
    "staging.stg_security_names": {
        "ts_code": "varchar",
        "name": "varchar",
        "start_date": "date",
        "end_date": "date",
        "is_st_name": "boolean",
        "is_delisting_name": "boolean",
    },
    "staging.stg_index_members": {
        "index_code": "varchar",
        "ts_code": "varchar",
        "in_date": "date",
        "out_date": "date",
    },
    "staging.stg_industry_members": {
        "ts_code": "varchar",
        "industry_code": "varchar",
        "l1_code": "varchar",
        "l1_name": "varchar",
        "l2_code": "varchar",
        "l2_name": "varchar",
        "l3_code": "varchar",
        "l3_name": "varchar",
        "in_date": "date",
        "out_date": "date",
    },
    "staging.stg_index_daily": {
        "ts_code": "varchar",
        "trade_date": "date",
        "open": "double",
        "high": "double",
        "low": "double",
        "close": "double",
        "volume": "double",
        "amount": "double",
        "pct_chg": "double",
    },
    "staging.stg_trading_calendar": {
        "trade_date": "date",
        "trading_day": "bigint",
        "previous_trade_date": "date",
        "next_trade_date": "date",
    },
}
INDUSTRIES = (
    ("801080", "电子"),
    ("801750", "计算机"),
    ("801780", "银行"),
    ("801730", "电气设备"),
)
Market = dict[str, pd.DataFrame]


def weekdays(first: date, last: date) -> list[date]:
    days = [first + timedelta(n) for n in range((last - first).days + 1)]
    return [day for day in days if day.weekday() < 5]


def calendar_frame(days: list[date]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "trade_date": days,
            "trading_day": range(1, len(days) + 1),
            "previous_trade_date": [None, *days[:-1]],
            "next_trade_date": [*days[1:], None],
        }
    )


def limit_ticks(reference: int, pct: float, sign: int) -> int:
    """Return the exchange's limit for a reference price in ticks."""
    exact = Decimal(reference) * (1 + sign * Decimal(str(pct)))
    rounded = int(exact.quantize(Decimal(1), ROUND_HALF_UP))
    return max(rounded, reference + 1) if sign > 0 else max(min(rounded, reference - 1), 1)


def rough_limit_pct(board: str, is_st: bool, day: date) -> float:
    """Return the limit that a generated day aims at: the daily rule without first days."""
    if board == "BSE":
        return 0.3
    if board == "STAR" or (board == "CHINEXT" and day >= date(2020, 8, 24)):
        return 0.2
    return 0.05 if is_st and day < date(2026, 7, 6) else 0.1


def traded_day(rng: np.random.Generator, pre: int, pct: float) -> tuple[int, int, int, int]:
    """Return open, high, low and close in ticks of one of the kinds of days."""
    up, down = limit_ticks(pre, pct, 1), limit_ticks(pre, pct, -1)
    kind = rng.choice(
        ["plain", "close_up", "close_down", "one_up", "one_down", "one_price", "near", "beyond"],
        p=[0.5, 0.09, 0.09, 0.07, 0.07, 0.05, 0.1, 0.03],
    )
    within = sorted(int(x) for x in rng.integers(down, up + 1, size=4))
    low, first, second, high = within
    match kind:
        case "close_up":
            return first, up, low, up
        case "close_down":
            return second, high, down, down
        case "one_up":
            return up, up, up, up
        case "one_down":
            return down, down, down, down
        case "one_price":
            return first, first, first, first
        case "near":  # one tick inside the limits, open at the upper one half of the time
            top, bottom = max(up - 1, pre), max(min(down + 1, pre), 1)
            opening = up if rng.random() < 0.5 else bottom
            return opening, max(opening, top), bottom, top
        case "beyond":
            return first, up + 2, max(down - 2, 1), second
    if rng.random() < 0.2:
        return down, high, down, second
    return (first, high, low, second) if rng.random() < 0.5 else (second, high, low, first)


def stock_codes(board: str, count: int) -> list[str]:
    pattern, heads = BOARDS[board]
    codes = []
    for n in range(count):
        head = heads[n % len(heads)]
        thousands = 1 if board == "BSE" else 1000
        codes.append(pattern.format(int(head or 0) * thousands + 11 + n))
    return codes


def generated_market(seed: int, stocks_per_board: int = 6) -> Market:
    """Return a market of every board; all its oddities are drawn from the seed."""
    rng = np.random.default_rng(seed)
    days = [day for era in ERAS for day in weekdays(*era)]
    before, after = weekdays(date(2020, 7, 20), date(2020, 8, 4)), [date(2026, 7, 20)]
    bars, securities, names, members, industries = [], [], [], [], []
    for board in BOARDS:
        for number, ts_code in enumerate(stock_codes(board, stocks_per_board)):
            stock = _stock(rng, ts_code, board, number, days)
            bars += stock["bars"]
            securities += stock["securities"]
            names += stock["names"]
            members += _index_spans(rng, ts_code, days)
            industries += _industry_spans(rng, ts_code, days)
    index_days = [*before, *days, *after]
    closes = 3000 * np.exp(np.cumsum(rng.normal(0, 0.01, len(index_days))))
    index = pd.DataFrame({"trade_date": index_days, "close": closes})
    index["ts_code"] = "000300.SH"
    index["open"] = index["high"] = index["low"] = index["close"]
    index["volume"] = index["amount"] = 1e9
    index["pct_chg"] = index["close"].pct_change()
    rows = {
        "staging.stg_daily_bars": bars,
        "staging.stg_securities": securities,
        "staging.stg_security_names": names,
        "staging.stg_index_members": members,
        "staging.stg_industry_members": industries,
    }
    market = {
        name: pd.DataFrame(found, columns=list(STAGING_TYPES[name])) for name, found in rows.items()
    }
    market["staging.stg_index_daily"] = index
    market["staging.stg_trading_calendar"] = calendar_frame(index_days)
    return market


def _stock(rng, ts_code: str, board: str, number: int, days: list[date]) -> dict[str, list]:
    last = len(days) - 1
    birth = int(rng.integers(0, last - 10)) if rng.random() < 0.5 else 0
    death = int(rng.integers(birth + 8, last + 1)) if rng.random() < 0.35 else last + 1
    list_date = days[birth] if birth else date(2010, 1, 4) + timedelta(int(rng.integers(0, 900)))
    if not birth and rng.random() < 0.3:
        list_date = date(2020, 7, 1) + timedelta(int(rng.integers(0, 36)))  # before the data begin
    if rng.random() < 0.05 and birth:
        list_date = days[birth] + timedelta(2)  # bars before the listing date
    delist_date = days[death] if death <= last and rng.random() < 0.7 else None
    securities = [
        {
            "ts_code": ts_code,
            "name": "ST now" if rng.random() < 0.2 else "plain",
            "exchange": ts_code[-2:],
            "list_date": None if rng.random() < 0.2 else list_date,
            "delist_date": delist_date,
        }
    ]
    spans = _status_spans(rng, days, birth, death)
    names = [
        {
            "ts_code": ts_code,
            "name": status,
            "start_date": (
                days[first] - timedelta(int(rng.integers(0, 2))) if first else date(2015, 1, 5)
            ),
            "end_date": days[end] if end <= last else None,
            "is_st_name": status == "ST",
            "is_delisting_name": status == "delisting",
        }
        for status, first, end in spans
    ]
    source = rng.choice(["bars", "names", "both", "none"])
    adjusted = rng.random() < 0.2
    factor = 1.0 if not adjusted else float(rng.uniform(0.2, 0.9))
    tick = 0.001 if board == "B_SHARE_SH" else 0.01
    close = int(rng.integers(3, 40)) if number % 3 == 2 else int(rng.integers(200, 4000))
    adj_factor, bars = 1.0, []
    silent_until = -1
    keeps_trading = 3 if delist_date and rng.random() < 0.5 else 0  # bars after delisting
    for n in range(birth, min(death + keeps_trading, last + 1)):
        day = days[n]
        if n < silent_until:
            continue
        if rng.random() < 0.03 and n > birth:
            silent_until = n + int(rng.integers(1, 18))
            continue
        status = next((s for s, first, end in spans if first <= n < end), "plain")
        pre = close
        if rng.random() < 0.02 and close > 10:
            pre = int(close * float(rng.choice([0.5, 0.77, 0.98])))
            adj_factor *= close / pre
        bar = {
            "ts_code": ts_code,
            "trade_date": day,
            "pre_close": pre * tick * factor,
            "is_st": {"bars": status == "ST", "both": status == "ST"}.get(source),
            "adj_factor": adj_factor,
            "adj_factor_source": "given",
            "price_basis": "forward_adjusted" if adjusted else "unadjusted",
            "data_quality_flag": "OK",
            "duplicate_count": 0,
            "source_file": "generated",
            "is_suspended": False,
        }
        if source == "bars" and rng.random() < 0.1:
            bar["is_st"] = None
        kind = rng.random()
        if kind < 0.04 and n > birth:  # a suspended day delivered, with or without prices
            price = pre * tick * factor if rng.random() < 0.5 else None
            bar |= dict.fromkeys(("open", "high", "low", "close"), price)
            bar |= {"volume": rng.choice([0.0, np.nan]), "amount": 0.0, "is_suspended": True}
            bar["pre_close"] = bar["pre_close"] if rng.random() < 0.8 else None
            bars.append(bar)
            close = pre
            continue
        pct = rough_limit_pct(board, status == "ST", day)
        opening, high, low, close = traded_day(rng, pre, pct)
        prices = {"open": opening, "high": high, "low": low, "close": close}
        bar |= {name: ticks * tick * factor for name, ticks in prices.items()}
        if adjusted:
            bar |= {name: round(bar[name], 8) for name in (*prices, "pre_close")}
        bar["volume"] = float(rng.integers(1, 10_000) * 100)
        bar["amount"] = bar["volume"] * float(rng.uniform(low, high)) * tick
        bar["pct_chg"] = close / pre - 1
        bar["turnover"] = float(rng.uniform(0, 0.1))
        if rng.random() < 0.03:
            bar["amount"] = None
        if rng.random() < 0.02 and n > birth:
            bar[rng.choice(["pre_close", "open", "high"])] = None
        if rng.random() < 0.01 and n > birth:
            bar["volume"] = 0.0  # no trade on a day that is not marked suspended
        bars.append(bar)
    keep_names = source in ("names", "both")
    return {
        "bars": bars,
        "securities": securities if rng.random() < 0.95 else [],
        "names": names if keep_names else [],
    }


def _status_spans(rng, days: list[date], birth: int, death: int) -> list[tuple[str, int, int]]:
    """Return (status, first day, end) with days counted in the market's list."""
    cuts = sorted({birth, *rng.integers(birth, death + 1, size=3).tolist(), death})
    statuses = ["plain", "ST", "plain"] if rng.random() < 0.7 else ["ST", "plain", "ST"]
    spans = [
        (statuses[n % 3], first, end)
        for n, (first, end) in enumerate(pairwise(cuts))
        if first < end
    ]
    if death <= len(days) and spans and rng.random() < 0.6:
        spans[-1] = ("delisting", spans[-1][1], spans[-1][2])
    return spans


def _index_spans(rng, ts_code: str, days: list[date]) -> list[dict]:
    spans = []
    for index_code in ("000300.SH", "000905.SH", "000852.SH"):
        if rng.random() < 0.4:
            first = int(rng.integers(0, len(days) - 1))
            out = days[int(rng.integers(first + 1, len(days)))] if rng.random() < 0.6 else None
            came = days[first] if rng.random() < 0.7 else date(2015, 1, 5)
            spans.append((index_code, came, out))
            if out and rng.random() < 0.4:  # a second span that touches or overlaps the first
                spans.append((index_code, out - timedelta(int(rng.integers(0, 5))), None))
    names = ("index_code", "in_date", "out_date")
    return [{"ts_code": ts_code} | dict(zip(names, span, strict=True)) for span in spans]


def _industry_spans(rng, ts_code: str, days: list[date]) -> list[dict]:
    first, second = rng.choice(len(INDUSTRIES), size=2, replace=False)
    change = days[int(rng.integers(1, len(days)))]
    spans = [(first, date(2014, 2, 21), change), (second, change, None)]
    return [
        {
            "ts_code": ts_code,
            "industry_code": INDUSTRIES[n][0],
            "l1_code": INDUSTRIES[n][0],
            "l1_name": INDUSTRIES[n][1],
            "l2_code": INDUSTRIES[n][0] + "2",
            "l2_name": INDUSTRIES[n][1] + "2",
            "l3_code": INDUSTRIES[n][0] + "3",
            "l3_name": INDUSTRIES[n][1] + "3",
            "in_date": came,
            "out_date": out,
        }
        for n, came, out in spans[: 1 + int(rng.random() < 0.7)]
    ]


def known_at(market: Mapping[str, pd.DataFrame], last: date) -> Market:
    """Return what the market's relations held on the evening of a day."""
    known = dict(market)
    for relation in ("daily_bars", "index_daily"):
        frame = known[f"staging.stg_{relation}"]
        known[f"staging.stg_{relation}"] = frame[frame["trade_date"] <= last]
    days = [day for day in market["staging.stg_trading_calendar"]["trade_date"] if day <= last]
    known["staging.stg_trading_calendar"] = calendar_frame(days)
    securities = known["staging.stg_securities"].copy()  # a listing is announced, a delisting not
    securities["delist_date"] = [
        None if pd.isna(day) or day > last else day for day in securities["delist_date"]
    ]
    known["staging.stg_securities"] = securities
    for relation, start, end in (
        ("security_names", "start_date", "end_date"),
        ("index_members", "in_date", "out_date"),
        ("industry_members", "in_date", "out_date"),
    ):
        frame = known[f"staging.stg_{relation}"]
        begun = [day <= last for day in frame[start]]
        frame = frame[begun].copy()
        frame[end] = [None if pd.isna(day) or day > last else day for day in frame[end]]
        known[f"staging.stg_{relation}"] = frame
    return known


def write_market(connection: duckdb.DuckDBPyConnection, market: Mapping[str, pd.DataFrame]) -> None:
    """Create the staging relations of a market, ordered as staging orders them."""
    for name, types in STAGING_TYPES.items():
        frame = market[name]
        keys = [key for key in ("ts_code", "trade_date") if key in types]
        write_relation(connection, name, frame.sort_values(keys, ignore_index=True), types)
