"""The daily sample market: every event is in it, every rule of the exchanges holds in it.

Rules are written here from their definition, a row at a time, and know nothing of the generator:
board and limits follow from the code, the listing date, the name and the day.
"""

import datetime as dt
import hashlib
import itertools
import math
from collections import Counter, defaultdict
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from wavehouse.daily_sample import (
    CORE_STOCKS,
    DAILY_BARS,
    DAILY_DIRTY_COUNTS,
    DIRTY_CODE,
    FOLDERS,
    daily_dirty_rows,
    daily_tables,
    write_daily_sample,
)
from wavehouse.daily_sample_market import draw_moves
from wavehouse.daily_sample_plan import MAX_DAYS, DailyOptions, plan_stock, trading_days
from wavehouse.sample import sample_command

REAL_INDEX = Path(__file__).parents[3] / "shared/data/daily/index_daily_2010_2026.parquet"
SPANS = {
    "security_names": ("start_date", "end_date"),
    "index_members": ("in_date", "out_date"),
    "industry_members": ("in_date", "out_date"),
}
OPTIONS = DailyOptions()


@pytest.fixture(scope="module")
def tables():
    return daily_tables(OPTIONS)


@pytest.fixture(scope="module")
def long_tables():
    """To the end of 2024, for what happens late and for statistics."""
    return daily_tables(DailyOptions(stocks=100, trading_days=1_114))


@pytest.fixture(scope="module")
def bars(tables):
    return tables["daily_bars"].to_pandas()


@pytest.fixture(scope="module")
def facts(tables):
    return facts_of(tables)


# The rules, from their definition


def board_of(code):
    if code.endswith(".BJ"):
        return "BSE"
    if code.startswith("688"):
        return "STAR"
    if code[:2] == "30":
        return "CHINEXT"
    return "MAIN_SH" if code.endswith(".SH") else "MAIN_SZ"


def limits_of(board, list_date, date, since, name, delisting_day):
    """Limits up and down as decimals, None where the day has none."""
    main = board.startswith("MAIN")
    old = (main and list_date < dt.date(2023, 4, 10)) or (
        board == "CHINEXT" and list_date < dt.date(2020, 8, 24)
    )
    if old and since == 0:
        return Decimal("0.44"), Decimal("0.36")
    if not old and since is not None and since < (1 if board == "BSE" else 5):
        return None
    if "退" in name:
        if delisting_day == 0 and date >= dt.date(2020, 12, 31):
            return None
    elif "ST" in name and main:
        return Decimal("0.05"), Decimal("0.05")
    wide = {"BSE": "0.3", "STAR": "0.2"}.get(board, "0.1")
    if board == "CHINEXT" and date >= dt.date(2020, 8, 24):
        wide = "0.2"
    return Decimal(wide), Decimal(wide)


def limit_price(pre_close, factor):
    cents = Decimal("0.01")
    return (Decimal(str(pre_close)) * factor).quantize(cents, rounding=ROUND_HALF_UP)


def facts_of(tables):
    """A dict a bar: the row, its stock's board, name and listing, and the day's limits."""
    calendar = tables["trading_calendar"]["trade_date"].to_pylist()
    day_number = {date: number for number, date in enumerate(calendar)}
    securities = {row["ts_code"]: row for row in tables["securities"].to_pylist()}
    names = defaultdict(list)
    for row in tables["security_names"].to_pylist():
        names[row["ts_code"]].append(row)
    delisting_days, rows = Counter(), []
    for row in tables["daily_bars"].to_pylist():
        code, date = row["ts_code"], row["trade_date"]
        list_date, board = securities[code]["list_date"], board_of(code)
        borne = [
            span["name"]
            for span in names[code]
            if span["start_date"] <= date and (span["end_date"] is None or date < span["end_date"])
        ]
        assert len(borne) == 1, (code, date, borne)
        since = day_number[date] - day_number[list_date] if list_date in day_number else None
        limits = limits_of(board, list_date, date, since, borne[0], delisting_days[code])
        delisting_days[code] += "退" in borne[0]
        fact = row | {"board": board, "name": borne[0], "since": since, "day": day_number[date]}
        fact |= {"list_date": list_date, "delist_date": securities[code]["delist_date"]}
        fact |= {"up": None, "down": None, "pct": None}
        if limits and row["pre_close"] is not None:
            fact["up"] = float(limit_price(row["pre_close"], 1 + limits[0]))
            fact["down"] = float(limit_price(row["pre_close"], 1 - limits[1]))
            fact["pct"] = limits
        rows.append(fact)
    return rows


def traded(facts):
    return [fact for fact in facts if not fact["is_suspended"]]


def by_code(facts):
    stocks = defaultdict(list)
    for fact in facts:
        stocks[fact["ts_code"]].append(fact)
    return stocks


# The contract of the files


def test_files_hold_the_contract(tables):
    assert set(tables) == set(FOLDERS)
    bars = tables["daily_bars"]
    assert bars.schema.equals(DAILY_BARS)
    for name, table in tables.items():
        assert len(table) > 0, name
        for column in table.columns:
            if pa.types.is_floating(column.type):
                values = column.drop_null().to_numpy()
                assert np.isfinite(values).all(), (name, "NaN or inf is stored")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("daily_bars", ("ts_code", "trade_date")),
        ("securities", ("ts_code",)),
        ("security_names", ("ts_code", "start_date")),
        ("index_daily", ("ts_code", "trade_date")),
        ("index_members", ("index_code", "ts_code", "in_date")),
        ("industry_members", ("ts_code", "in_date")),
        ("trading_calendar", ("trade_date",)),
        ("daily_basic", ("ts_code", "trade_date")),
        ("moneyflow", ("ts_code", "trade_date")),
        ("margin", ("ts_code", "trade_date")),
        ("cyq_perf", ("ts_code", "trade_date")),
        ("limit_list", ("ts_code", "trade_date", "limit_type")),
        ("holders", ("ts_code", "trade_date", "report_date")),
        ("hk_hold", ("ts_code", "trade_date")),
        ("northbound", ("trade_date",)),
        ("top_list", ("ts_code", "trade_date", "reason")),
        ("top_inst", ("ts_code", "trade_date", "seat_name", "side", "reason")),
        ("ths_hot", ("ts_code", "trade_date", "list_name", "rank_time")),
        ("market_margin", ("trade_date", "exchange")),
        ("market_moneyflow", ("trade_date",)),
        ("security_code_changes", ("old_ts_code",)),
    ],
)
def test_keys_are_unique_and_known(tables, name, key):
    frame = tables[name].to_pandas()
    assert not frame[list(key)].isna().any().any()
    assert not frame.duplicated(list(key)).any()


def test_calendar_is_that_of_the_exchanges():
    dates = trading_days(MAX_DAYS)
    assert str(dates[0]) == "2020-06-01"
    assert str(dates[-1]) == "2025-12-31"
    assert len(dates) == 1_358
    if not REAL_INDEX.exists():
        pytest.skip("no real index bars beside the checkout: ../shared/data")
    real = pq.read_table(REAL_INDEX).to_pandas()
    code = next(name for name in real.columns if real[name].astype(str).eq("000001.SH").any())
    day = next(name for name in real.columns if "date" in name)
    found = pd.to_datetime(real.loc[real[code] == "000001.SH", day].astype(str))
    found = found[(found >= "2020-06-01") & (found <= "2025-12-31")].sort_values()
    assert list(found.dt.date) == dates.tolist()


def test_every_board_is_there_and_no_b_share(tables):
    codes = tables["securities"]["ts_code"].to_pylist()
    boards = Counter(map(board_of, codes))
    assert set(boards) == {"MAIN_SH", "MAIN_SZ", "CHINEXT", "STAR", "BSE"}
    prefixes = {code[:3] for code in codes}
    assert {"600", "601", "603", "605", "000", "001", "002", "003", "300", "301", "688", "920"} <= (
        prefixes
    )
    assert any(code.startswith("8") for code in codes)
    assert not any(code[:3] in ("900", "200") for code in codes)
    ends = {".SH": "SSE", ".SZ": "SZSE", ".BJ": "BSE"}
    for row in tables["securities"].to_pylist():
        assert row["exchange"] == ends[row["ts_code"][-3:]]


def test_bars_lie_between_listing_and_delisting_on_trading_days(tables, facts):
    calendar = set(tables["trading_calendar"]["trade_date"].to_pylist())
    for fact in facts:
        assert fact["trade_date"] in calendar
        assert fact["list_date"] <= fact["trade_date"]
        assert fact["delist_date"] is None or fact["trade_date"] < fact["delist_date"]
    days = sorted(calendar)
    for code, rows in by_code(facts).items():
        if rows[0]["list_date"] in calendar:
            assert rows[0]["trade_date"] == rows[0]["list_date"], code
        if rows[0]["delist_date"]:
            last = days[days.index(rows[0]["delist_date"]) - 1]
            assert rows[-1]["trade_date"] == last, code


# Prices, limits, volume


def test_prices_lie_on_the_tick_within_the_limits(facts):
    for fact in traded(facts):
        prices = [fact[name] for name in ("open", "high", "low", "close", "pre_close")]
        assert all(price == round(price, 2) and price >= 1 for price in prices)
        assert fact["low"] <= min(fact["open"], fact["close"])
        assert fact["high"] >= max(fact["open"], fact["close"])
        if fact["up"] is not None:
            assert fact["down"] <= fact["low"] <= fact["high"] <= fact["up"], fact


def test_days_without_a_limit_go_beyond_the_usual_one(facts):
    free = [fact for fact in traded(facts) if fact["up"] is None]
    assert len(free) > 20
    assert {fact["board"] for fact in free} >= {"CHINEXT", "STAR", "BSE"}
    assert any(fact["close"] > 1.5 * fact["pre_close"] for fact in free)


def test_volume_amount_and_turnover_agree(facts):
    odd = 0
    for fact in traded(facts):
        assert fact["volume"] > 0
        assert fact["volume"] == round(fact["volume"])
        if fact["board"] == "STAR":
            odd += fact["volume"] % 100 != 0
        else:
            assert fact["volume"] % 100 == 0
        vwap = fact["amount"] / fact["volume"]
        assert fact["low"] - 1e-9 <= vwap <= fact["high"] + 1e-9
        assert 0 < fact["turnover"] < 0.65
        assert fact["pct_chg"] == pytest.approx(fact["close"] / fact["pre_close"] - 1, abs=1e-6)
    assert odd > 1_000


def test_limits_are_reached_in_every_way(facts):
    found = Counter()
    for fact in traded(facts):
        if fact["up"] is None:
            continue
        board = fact["board"][:4]
        found["one price up", board] += fact["low"] == fact["up"]
        found["one price down", board] += fact["high"] == fact["down"]
        found["closed up", board] += fact["low"] < fact["close"] == fact["up"]
        found["closed down", board] += fact["high"] > fact["close"] == fact["down"]
        found["touched up"] += fact["high"] == fact["up"] > fact["close"]
        found["touched down"] += fact["low"] == fact["down"] < fact["close"]
        found["st at 5 %"] += fact["pct"][0] == Decimal("0.05") and fact["close"] == fact["up"]
        found["st at 20 %"] += "ST" in fact["name"] and fact["pct"][0] == Decimal("0.2")
    for way in ("one price up", "one price down", "closed up", "closed down"):
        assert found[way, "MAIN"] >= 3, found
    for board in ("CHIN", "STAR", "BSE"):
        assert found["one price up", board] + found["one price down", board] >= 2, found
    for way in ("touched up", "touched down", "st at 5 %", "st at 20 %"):
        assert found[way] >= 5, found


def test_chinext_changes_its_limit_on_24_august_2020(facts):
    size = {"before": 0.0, "after": 0.0}
    for fact in traded(facts):
        if fact["board"] == "CHINEXT" and (fact["since"] is None or fact["since"] > 5):
            key = "before" if fact["trade_date"] < dt.date(2020, 8, 24) else "after"
            size[key] = max(size[key], abs(fact["pct_chg"]))
    assert size["before"] < 0.102
    assert size["after"] > 0.15


# Names, listings, delistings, suspensions


def test_st_is_put_on_and_taken_off_with_the_name(tables, facts):
    for fact in facts:
        assert fact["is_st"] == ("ST" in fact["name"]), fact
    histories = defaultdict(list)
    for row in tables["security_names"].to_pylist():
        mark = "*ST" if "*ST" in row["name"] else "ST" if "ST" in row["name"] else "plain"
        histories[row["ts_code"]].append("delisting" if "退" in row["name"] else mark)
    kinds = {tuple(marks) for marks in histories.values()}
    assert ("plain", "*ST", "ST", "plain") in kinds
    assert ("plain", "ST") in kinds
    assert ("plain", "*ST", "delisting") in kinds
    assert ("plain", "plain") in kinds  # a new name without a mark
    first = tables["trading_calendar"]["trade_date"][0].as_py()
    marked_before = [
        row
        for row in tables["security_names"].to_pylist()
        if "ST" in row["name"] and row["start_date"] < first and row["end_date"] is not None
    ]
    assert marked_before


@pytest.mark.parametrize("name", SPANS)
def test_spans_follow_one_another(tables, name):
    start, end = SPANS[name]
    spans = defaultdict(list)
    for row in tables[name].to_pylist():
        spans[row.get("index_code"), row["ts_code"]].append((row[start], row[end]))
    last = tables["trading_calendar"]["trade_date"][-1].as_py()
    for stays in spans.values():
        for one, following in zip(stays, [*stays[1:], None], strict=True):
            assert one[0] <= last
            if following is None:
                assert one[1] is None or one[0] < one[1] <= last
            elif name == "index_members":
                assert one[1] <= following[0]
            else:
                assert one[1] == following[0]


def test_listings_follow_the_rules_of_their_time(facts):
    kinds = Counter()
    for rows in by_code(facts).values():
        first = rows[0]
        if first["since"] != 0 or not traded(rows):
            continue
        if first["pct"]:
            assert first["pct"] == (Decimal("0.44"), Decimal("0.36"))
            assert first["close"] == first["up"]
            assert first["open"] == float(limit_price(first["pre_close"], Decimal("1.2")))
            assert first["low"] == first["open"]
            streak = 0
            while streak + 1 < len(rows) and rows[streak + 1]["low"] == rows[streak + 1]["up"]:
                streak += 1
            assert streak >= min(2, len(rows) - 1)
            kinds[first["board"], "44 %"] += 1
        else:
            free = [row["up"] is None for row in rows[:6]]
            days = 1 if first["board"] == "BSE" else 5
            assert free == [True] * min(days, len(rows)) + [False] * max(len(free) - days, 0)
            kinds[first["board"], "free"] += 1
        assert first["adj_factor"] == 1
    assert set(kinds) == {
        ("MAIN_SH", "44 %"), ("MAIN_SZ", "44 %"), ("CHINEXT", "44 %"),
        ("CHINEXT", "free"), ("STAR", "free"), ("BSE", "free"),
    }  # fmt: skip


def test_the_main_board_has_five_free_days_from_april_2023(long_tables):
    late = [
        rows
        for rows in by_code(facts_of(long_tables)).values()
        if rows[0]["since"] == 0
        and rows[0]["board"].startswith("MAIN")
        and rows[0]["list_date"] >= dt.date(2023, 4, 10)
    ]
    assert late
    for rows in late:
        assert [row["up"] is None for row in rows[:6]] == [True] * 5 + [False]
        assert max(abs(row["pct_chg"]) for row in rows[:5]) > 0.11


def test_delistings_old_new_and_by_merger(tables, facts):
    kinds = Counter()
    for rows in by_code(facts).values():
        date = rows[0]["delist_date"]
        if date is None:
            continue
        period = [row for row in rows if "退" in row["name"]]
        if not period:
            kinds["merger"] += 1
        elif date < dt.date(2020, 12, 31):
            assert len(period) == 30
            assert all(row["pct"][0] == Decimal("0.1") for row in period)
            kinds["old"] += 1
        else:
            assert len(period) == 15
            assert period[0]["up"] is None
            assert period[0]["pct_chg"] < -0.2
            assert all(row["pct"][0] == Decimal("0.1") for row in period[1:])
            kinds["new"] += 1
        if period:
            before = rows[rows.index(period[0]) - 1]
            idle = before["is_suspended"] or period[0]["day"] - before["day"] > 10
            assert idle, "suspended before the delisting period"
            assert "*ST" in before["name"]
    assert min(kinds["old"], kinds["new"], kinds["merger"]) >= 1


def test_suspensions_are_rows_or_missing(facts):
    kinds, longest = Counter(), 0
    for rows in by_code(facts).values():
        idle_run = 0
        for before, row in zip([None, *rows[:-1]], rows, strict=True):
            if row["is_suspended"]:
                idle_run += 1
                longest = max(longest, idle_run)
                assert row["volume"] == row["amount"] == row["turnover"] == 0
                if row["close"] is None:
                    assert row["open"] is row["high"] is row["pre_close"] is None
                    kinds["row without prices"] += 1
                else:
                    assert {row[name] for name in ("open", "high", "low", "pre_close")} == {
                        row["close"]
                    }
                    assert row["close"] == before["close"]
                    kinds["row with the last close"] += 1
                assert row["adj_factor"] == before["adj_factor"]
            else:
                idle_run = 0
            if before and row["day"] - before["day"] > 1:
                kinds["missing"] += 1
    assert min(kinds.values()) >= 10
    assert len(kinds) == 3
    assert longest == 65


# Ex-right days


def test_reference_price_and_factor_agree_on_every_day(facts):
    moved = Counter()
    for rows in by_code(traded(facts)).values():
        for before, row in itertools.pairwise(rows):
            step = row["adj_factor"] / before["adj_factor"]
            assert step == pytest.approx(before["close"] / row["pre_close"], rel=1e-12)
            assert step >= 1 - 1e-12
            if step > 1 + 1e-12:
                moved["split" if step > 1.15 else "dividend"] += 1
                moved["after a gap"] += row["day"] - before["day"] > 1
            else:
                assert row["pre_close"] == before["close"]
    assert moved["split"] >= 5
    assert moved["dividend"] >= 50


def test_splits_add_shares_and_dividends_do_not(tables):
    basic = tables["daily_basic"].to_pandas()
    bars = tables["daily_bars"].to_pandas()
    both = basic.merge(bars, on=["ts_code", "trade_date"], suffixes=("", "_bar"))
    assert len(both) == len(basic) == (~bars.is_suspended).sum()
    assert (both.close == both.close_bar).all()
    assert (both.turnover == both.turnover_bar).all()
    assert (both.free_float_shares <= both.float_shares).all()
    assert (both.float_shares <= both.total_shares).all()
    grouped = both.groupby("ts_code")
    growth = both.total_shares / grouped.total_shares.shift()
    step = both.adj_factor / grouped.adj_factor.shift()
    gave = growth > 1.01
    assert gave.sum() >= 5
    assert (step[gave] > 1.15).all()
    assert (growth[step < 1.1] == 1).all()
    # what a holder has is worth the same on both sides of a split, up to its dividend and the tick
    value = growth * both.pre_close / grouped.close.shift()
    assert value[gave].between(0.95, 1.01).all()


# Indices and industries


def test_index_members_change_at_the_reshuffles_and_are_fit(tables):
    members = tables["index_members"].to_pandas()
    assert set(members.index_code) == {"000300.SH", "000905.SH", "000852.SH"}
    changes = Counter(members.in_date)
    for date in ("2020-06-15", "2020-12-14", "2021-06-15", "2021-12-13"):
        assert changes[dt.date.fromisoformat(date)] >= 2, changes
    assert set(map(str, changes)) == {
        "2019-12-16", "2020-06-15", "2020-12-14", "2021-06-15", "2021-12-13",
    }  # fmt: skip
    reshuffles = set(changes)
    marks = {
        (row["ts_code"], row["start_date"])
        for row in tables["security_names"].to_pylist()
        if "ST" in row["name"]
    }
    gone = {(row["ts_code"], row["delist_date"]) for row in tables["securities"].to_pylist()}
    for row in members.dropna(subset="out_date").itertuples():
        key = (row.ts_code, row.out_date)
        assert row.out_date in reshuffles or key in marks or key in gone
    marked = defaultdict(list)
    for row in tables["security_names"].to_pylist():
        if "ST" in row["name"] or "退" in row["name"]:
            marked[row["ts_code"]].append((row["start_date"], row["end_date"] or dt.date.max))
    ends = {code: date for code, date in gone if date}
    for row in members.fillna({"out_date": dt.date.max}).itertuples():
        assert not any(a < row.out_date and row.in_date < b for a, b in marked[row.ts_code]), row
        assert row.out_date <= ends.get(row.ts_code, dt.date.max), row
    first = members[members.in_date <= dt.date(2019, 12, 16)]
    assert dict(Counter(first.index_code)) == {"000300.SH": 20, "000905.SH": 20, "000852.SH": 20}
    assert not any(code.endswith(".BJ") for code in members.ts_code)


def test_index_bars_are_their_members(tables):
    """The day's return, its members weighted by float capitalization before the day, row by row."""
    bars = tables["daily_bars"].to_pandas()
    basic = tables["daily_basic"].to_pandas()[["ts_code", "trade_date", "float_shares"]]
    bars = bars.merge(
        basic, on=["ts_code", "trade_date"]
    )  # suspended days fall out: they stand still
    bars["weight"] = bars.float_shares * bars.pre_close
    day_rows = {date: frame.set_index("ts_code") for date, frame in bars.groupby("trade_date")}
    index = tables["index_daily"].to_pandas()
    same_sign, days = 0, 0
    members = tables["index_members"].to_pandas()
    for code, levels in index.groupby("ts_code"):
        stays = members[members.index_code == code]
        before = None
        for row in levels.itertuples():
            assert row.low <= min(row.open, row.close) <= max(row.open, row.close) <= row.high
            inside = stays[
                (stays.in_date <= row.trade_date)
                & (stays.out_date.isna() | (stays.out_date > row.trade_date))
            ].ts_code
            rows = day_rows[row.trade_date]
            rows = rows[rows.index.isin(inside)]
            if len(rows) == len(inside):  # nobody is suspended
                mean = (rows.weight * (rows.close / rows.pre_close - 1)).sum() / rows.weight.sum()
                assert row.pct_chg == pytest.approx(mean, abs=2e-6)
                assert row.volume == rows.volume.sum()
                assert row.amount == pytest.approx(rows.amount.sum())
                days += 1
            simple = (rows.close / rows.pre_close - 1).mean()
            same_sign += np.sign(simple) == np.sign(row.pct_chg)
            if before is not None:
                assert row.pct_chg == pytest.approx(row.close / before - 1, abs=1e-6)
            before = row.close
    assert days > 0.3 * len(index)
    assert same_sign > 0.85 * len(index)


def test_industries_change_for_some(tables):
    rows = tables["industry_members"].to_pylist()
    stays = Counter(row["ts_code"] for row in rows)
    assert set(stays) == set(tables["securities"]["ts_code"].to_pylist())
    assert sum(count == 2 for count in stays.values()) >= 3
    for row in rows:
        assert row["industry_code"] == row["l3_code"]
        assert row["l1_code"][:3] == row["l2_code"][:3] == row["l3_code"][:3]
        assert row["l2_code"][:4] == row["l3_code"][:4]
    parents = {(row["l3_code"], row["l2_code"], row["l1_code"]) for row in rows}
    assert len({code for code, _, _ in parents}) == len(parents) > 20


# Feeds


def test_moneyflow_balances(tables):
    flow = tables["moneyflow"].to_pandas()
    bars = tables["daily_bars"].to_pandas()
    flow = flow.merge(bars, on=["ts_code", "trade_date"])
    sizes = ("small", "medium", "large", "extra_large")
    for side in ("buy", "sell"):
        amount = sum(flow[f"{side}_{size}_amount_cny"] for size in sizes)
        volume = sum(flow[f"{side}_{size}_volume_shares"] for size in sizes)
        assert np.abs(amount - flow.amount).max() < 0.05
        assert (volume == flow.volume).all()
    for size in sizes:
        net = flow[f"buy_{size}_amount_cny"] - flow[f"sell_{size}_amount_cny"]
        assert np.abs(net - flow[f"net_{size}_amount_cny"]).max() < 0.02
    main = flow.net_large_amount_cny + flow.net_extra_large_amount_cny
    assert np.abs(main - flow.net_main_amount_cny).max() < 0.02


def test_margin_balances_follow_from_their_flows(tables):
    for _, rows in tables["margin"].to_pandas().groupby("ts_code"):
        step = rows.financing_balance_cny.diff().iloc[1:]
        flow = (rows.financing_buy_cny - rows.financing_repayment_cny).iloc[1:]
        assert (step == flow).mean() > 0.98  # the flows of days without a row are not shown
        assert (rows.financing_balance_cny >= 0).all()
        assert (rows.short_balance_shares >= 0).all()
        total = rows.financing_balance_cny + rows.short_balance_cny
        assert np.allclose(total, rows.margin_balance_cny)


def test_chips_are_ordered_and_inside_the_history(tables):
    chips = tables["cyq_perf"].to_pandas()
    columns = [f"cost_{percent}pct_price" for percent in (5, 15, 50, 85, 95)]
    ladder = chips[["historical_low_price", *columns, "historical_high_price"]].to_numpy()
    assert (np.diff(ladder, axis=1) >= 0).all()
    assert chips.winner_ratio.between(0, 1).all()


def test_limit_list_is_what_the_bars_say(tables, facts):
    expected = {}
    for fact in traded(facts):
        if fact["up"] is None:
            continue
        key = (fact["ts_code"], fact["trade_date"])
        if fact["close"] == fact["up"]:
            expected[key] = "U"
        elif fact["close"] == fact["down"]:
            expected[key] = "D"
        elif fact["high"] == fact["up"]:
            expected[key] = "Z"
    rows = tables["limit_list"].to_pylist()
    assert {(row["ts_code"], row["trade_date"]): row["limit_type"] for row in rows} == expected
    assert max(row["consecutive_limit_days"] or 0 for row in rows) >= 4
    assert all((row["sealed_amount_cny"] is None) == (row["limit_type"] == "Z") for row in rows)
    names = {(fact["ts_code"], fact["trade_date"]): fact["name"] for fact in facts}
    assert all(row["name"] == names[row["ts_code"], row["trade_date"]] for row in rows)


def test_other_feeds_join_their_bars(tables):
    keys = set(zip(*(tables["daily_bars"][name].to_pylist() for name in KEY), strict=True))
    calendar = set(tables["trading_calendar"]["trade_date"].to_pylist())
    for name in (
        "daily_basic",
        "moneyflow",
        "margin",
        "cyq_perf",
        "hk_hold",
        "top_list",
        "ths_hot",
    ):
        rows = set(zip(*(tables[name][column].to_pylist() for column in KEY), strict=True))
        if name == "hk_hold":  # a holding is held through a suspension
            rows = {row for row in rows if row in keys}
        assert rows
        assert rows <= keys, name
    assert tables["northbound"]["trade_date"].to_pylist() == sorted(calendar)
    flows = tables["northbound"].to_pandas()
    sides = flows.northbound_shanghai_amount_cny + flows.northbound_shenzhen_amount_cny
    assert (sides == flows.northbound_amount_cny).all()
    for row in tables["holders"].to_pylist():
        assert row["trade_date"] in calendar
        assert 15 < (row["trade_date"] - row["report_date"]).days < 125
    seats = tables["top_inst"].to_pandas().groupby(["ts_code", "trade_date"]).net_amount_cny.sum()
    whole = tables["top_list"].to_pandas().groupby(["ts_code", "trade_date"]).net_amount_cny.sum()
    assert set(seats.index) == set(whole.index)
    assert np.abs(seats - 0.5 * whole).max() < 0.05


def test_market_feeds_add_up_what_the_core_stocks_have(tables):
    core = {plan_stock(OPTIONS, number).ts_code for number in range(CORE_STOCKS)}
    assert len(core) == CORE_STOCKS < OPTIONS.stocks
    margin = tables["margin"].to_pandas().query("ts_code in @core")
    exchange = margin["ts_code"].str[-2:].map({"SH": "SSE", "SZ": "SZSE"})
    market = tables["market_margin"].to_pandas().set_index(["trade_date", "exchange"])
    sums = margin.groupby(["trade_date", exchange.rename("exchange")])[list(market)].sum()
    assert (market.loc[sums.index] - sums).abs().max().max() < 0.01
    assert market.drop(sums.index).sum().sum() == 0
    flow = tables["moneyflow"].to_pandas().query("ts_code in @core").groupby("trade_date")
    market = tables["market_moneyflow"].to_pandas().set_index("trade_date")
    amounts = [name for name in market if name.endswith("_amount_cny")]
    assert len(amounts) == 5
    assert (market[amounts] - flow[amounts].sum()).abs().max().max() < 0.01
    assert market.filter(like="_ratio").abs().max().max() < 1
    for place in ("shanghai", "shenzhen"):
        change = market[f"close_{place}"].pct_change().iloc[1:]
        assert (change - market[f"pct_chg_{place}"].iloc[1:]).abs().max() < 1e-4
        assert 0.003 < change.std() < 0.03


def test_each_920_code_has_an_old_code_without_bars(tables):
    changes = tables["security_code_changes"].to_pylist()
    bars = set(tables["daily_bars"]["ts_code"].to_pylist())
    assert len(changes) == sum(code.startswith("920") for code in bars) > 3
    names = {row["ts_code"]: row["name"] for row in tables["securities"].to_pylist()}
    for change in changes:
        assert change["old_ts_code"] == change["new_ts_code"].replace("920", "430", 1)
        assert change["old_ts_code"] not in bars
        assert names[change["new_ts_code"]] == change["name"]


KEY = ("ts_code", "trade_date")


def test_northbound_ends_when_the_exchanges_ended_it(long_tables):
    for name in ("northbound", "hk_hold"):
        assert max(long_tables[name]["trade_date"].to_pylist()) == dt.date(2024, 8, 16)


# What never changes


def cut(table, name, last):
    """Rows of a longer market that one ending on `last` would have, what came later unknown."""
    frame = table.to_pandas()
    if name in SPANS:
        start, end = SPANS[name]
        frame = frame[frame[start] <= last].copy()
        frame[end] = frame[end].where(frame[end].isna() | (frame[end] <= last), None)
    elif name == "securities":
        frame = frame[frame.list_date <= last].drop(columns=["name", "delist_date"])
    elif name == "security_code_changes":
        frame = frame[frame.first_seen_date <= last]
    else:
        frame = frame[frame.trade_date <= last]
    return frame.reset_index(drop=True)


# two days after a reshuffle, the end of a block of draws, any day, the last but one
@pytest.mark.parametrize("days", [13, 135, 256, 399])
def test_more_days_only_append(tables, days):
    last = trading_days(days)[-1].item()
    fewer = daily_tables(DailyOptions(trading_days=days))
    for name in FOLDERS:
        expected = cut(tables[name], name, last)
        found = cut(fewer[name], name, last)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_exact=True)


@pytest.mark.parametrize("stocks", [7, 101, 163])
def test_more_stocks_only_append(tables, stocks):
    other = daily_tables(DailyOptions(stocks=stocks))
    few, many = (other, tables) if stocks < OPTIONS.stocks else (tables, other)
    known = set(few["securities"]["ts_code"].to_pylist())
    for name in FOLDERS:
        frame = many[name].to_pandas()
        code = "new_ts_code" if name == "security_code_changes" else "ts_code"
        if code in frame and name != "index_daily":
            frame = frame[frame[code].isin(known)].reset_index(drop=True)
        found = few[name].to_pandas()
        if name == "top_inst":  # a batch writes one seat after the other
            order = [*KEY, "side"]
            frame = frame.sort_values(order, ignore_index=True)
            found = found.sort_values(order, ignore_index=True)
        pd.testing.assert_frame_equal(found, frame, check_dtype=False, check_exact=True)


def digests(folder):
    files = sorted(folder.rglob("*.parquet"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_equal_options_give_equal_bytes_and_another_seed_does_not(tmp_path):
    options = {"stocks": 20, "trading_days": 90}
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        write_daily_sample(tmp_path / name, DailyOptions(daily_seed=seed, **options), dirty=True)
    first, second, other = (digests(tmp_path / name) for name in "abc")
    assert len(first) == len(FOLDERS) + 1
    assert first == second
    same = {name for name in first if first[name] == other[name]}
    assert not same


def test_plan_of_a_stock_depends_on_its_number_and_the_seed_alone():
    assert plan_stock(DailyOptions(stocks=3, trading_days=5), 31) == plan_stock(OPTIONS, 31)
    assert plan_stock(DailyOptions(daily_seed=8), 31) != plan_stock(OPTIONS, 31)
    codes = [plan_stock(OPTIONS, number).ts_code for number in range(0, 5_000, 3)]
    assert len(set(codes)) == len(codes)
    assert DIRTY_CODE not in codes
    assert all(len(code) == 9 for code in codes)
    with pytest.raises(ValueError, match="stock number is -1"):
        plan_stock(OPTIONS, -1)


# What the market looks like


def returns_of(tables):
    """Close to reference price, a column a stock, on days when it trades, without its first 20."""
    bars = tables["daily_bars"].to_pandas()
    bars = bars[~bars.is_suspended]
    bars = bars[bars.groupby("ts_code").cumcount() >= 20]
    bars = bars.assign(move=bars.close / bars.pre_close - 1)
    return bars.pivot(index="trade_date", columns="ts_code", values="move")


@pytest.fixture(scope="module")
def long_returns(long_tables):
    return returns_of(long_tables)


def test_tails_are_fat_and_volatility_clusters(long_returns):
    main = long_returns[[code for code in long_returns if board_of(code) in ("MAIN_SH", "MAIN_SZ")]]
    assert 0.015 < main.std().median() < 0.035
    assert main.kurt().median() + 3 > 4.5  # cut at 10 %; a normal has 3
    size, moves = long_returns.abs(), long_returns
    sizes = [size.corrwith(size.shift(lag)).median() for lag in (1, 5, 20)]
    assert min(sizes[:2]) > 0.05
    assert sizes[0] > sizes[2]
    assert abs(moves.corrwith(moves.shift(1)).median()) < 0.03


def test_stocks_share_a_market_and_their_industry(long_tables, long_returns):
    members = long_tables["industry_members"].to_pandas()
    industry = members.groupby("ts_code").l1_code.agg(["first", "nunique"])
    own = industry[industry["nunique"] == 1]["first"]
    found = long_returns[[code for code in long_returns if code in own.index]]
    matrix = found.corr(min_periods=300)
    same, other = [], []
    for place, left in enumerate(matrix.columns):
        for right in matrix.columns[place + 1 :]:
            (same if own[left] == own[right] else other).append(matrix.loc[left, right])
    assert np.nanmean(other) > 0.15
    assert np.nanmean(same) > np.nanmean(other) + 0.05


def momentum_correlation(signal, seed=7):
    """Mean rank correlation of the last 20 days' excess return with the next day's."""
    options = DailyOptions(stocks=100, trading_days=700, daily_signal=signal, daily_seed=seed)
    moves = returns_of(daily_tables(options))
    excess = moves.sub(moves.mean(axis=1), axis=0).clip(-0.05, 0.05)
    past = excess.rolling(20, min_periods=15).sum()
    return past.corrwith(excess.shift(-1), axis=1, method="spearman").mean()


def test_nothing_predicts_without_the_signal_and_more_predicts_more():
    found = [momentum_correlation(signal) for signal in (0.0, 0.02, 0.2)]
    assert abs(found[0]) < 0.02
    assert found[0] + 0.04 < found[1] < found[2] - 0.1


def test_the_signal_is_made_of_shocks_before_the_day():
    """Each day's return is common + own; three signals tell the parts of one set of draws."""
    stocks = tuple(plan_stock(OPTIONS, number) for number in range(60))
    plain, half, whole = (
        draw_moves(DailyOptions(daily_signal=signal), stocks, 400)[0] for signal in (0.0, 0.5, 1.0)
    )
    root = math.sqrt(0.5)
    common = (half - root * (plain + whole)) / (1 - 2 * root)
    shocks, momentum = pd.DataFrame(plain - common), pd.DataFrame(whole - common)
    same_day = momentum.corrwith(shocks, method="spearman").mean()
    day_before = momentum.corrwith(shocks.shift(1), method="spearman").mean()
    too_old = momentum.corrwith(shocks.shift(21), method="spearman").mean()
    oldest = momentum.corrwith(shocks.shift(20), method="spearman").mean()
    assert abs(same_day) < 0.04
    assert abs(too_old) < 0.04
    assert min(day_before, oldest) > 0.12  # 1 / sqrt(20) without the volatility


# Options, faults, files, command


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("stocks", -1, "stocks is -1; allowed is 0 to 5,000"),
        ("trading_days", 0, "trading_days is 0; allowed is 1 to 1,358"),
        ("daily_seed", -1, "daily_seed is -1"),
        ("daily_signal", math.nan, "daily_signal is nan; allowed is 0 to 1"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(name, value, message):
    with pytest.raises(ValueError, match=message):
        DailyOptions(**{name: value})


def test_one_day_and_one_stock_are_a_market_too():
    tables = daily_tables(DailyOptions(stocks=1, trading_days=1))
    assert len(tables["daily_bars"]) == 1
    assert set(tables) == set(FOLDERS)
    with pytest.raises(ValueError, match="stocks is 0"):
        daily_tables(DailyOptions(stocks=0))


def test_dirty_rows_hold_each_fault_as_often_as_documented(tables):
    bad = daily_dirty_rows(tables["daily_bars"])
    assert bad.schema.equals(DAILY_BARS)
    rows = bad.to_pylist()
    keys = Counter((row["ts_code"], row["trade_date"]) for row in rows)
    clean = [tuple(row.values()) for row in tables["daily_bars"].slice(0, 200).to_pylist()]
    calendar = set(tables["trading_calendar"]["trade_date"].to_pylist())

    def kind_of(row):
        prices = [row[name] for name in ("open", "high", "low", "close")]
        stated = [price for price in prices if price is not None]
        positive = all(price > 0 for price in stated if not math.isnan(price))
        whole = positive and len(stated) == 4 and all(map(math.isfinite, stated))
        ordered = whole and row["low"] <= row["high"]
        checks = {
            "null code": row["ts_code"] is None,
            "null date": row["trade_date"] is None,
            "malformed code": len(row["ts_code"] or DIRTY_CODE) != 9,
            "not a trading day": row["trade_date"] is not None
            and row["trade_date"] not in calendar,
            "null price": len(stated) < 4,
            "zero price": 0 in stated,
            "negative price": any(price < 0 for price in stated),
            "nan price": any(map(math.isnan, stated)),
            "infinite price": any(map(math.isinf, stated)),
            "high below low": whole and not ordered,
            "close outside high-low": ordered and not row["low"] <= row["close"] <= row["high"],
            "negative volume": row["volume"] < 0,
            "nan volume": math.isnan(row["volume"]),
            "negative amount": row["amount"] < 0,
            "zero adjustment factor": row["adj_factor"] <= 0,
            "negative turnover": row["turnover"] < 0,
            "unknown price basis": row["price_basis"] != "unadjusted",
            "conflicting duplicate": keys[row["ts_code"], row["trade_date"]] == 2
            and None not in (row["ts_code"], row["trade_date"]),
            "exact duplicate of another file": tuple(row.values()) in clean,
        }
        kinds = [kind for kind, found in checks.items() if found]
        assert len(kinds) == 1, (kinds, row)
        return kinds[0]

    assert Counter(map(kind_of, rows)) == DAILY_DIRTY_COUNTS
    with pytest.raises(ValueError, match="bars have high above low; expected"):
        daily_dirty_rows(tables["daily_bars"].slice(0, 10))


def run(*arguments):
    return CliRunner().invoke(sample_command, [str(argument) for argument in arguments])


SMALL = ("--symbols", 1, "--days", 1, "--stocks", 3, "--trading-days", 80)


def test_command_writes_both_markets_and_sums_up(tmp_path):
    result = run("--data-dir", tmp_path, *SMALL, "--dirty")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"minute_bars", *FOLDERS}
    files = sorted(path.name for path in (tmp_path / "daily_bars").iterdir())
    assert files == ["sample-daily_bars.parquet", "sample-dirty.parquet"]
    for piece in ("stocks        3", "47 of them dirty", "2020-06-01", "2020-09-22"):
        assert piece in result.output, result.output
    again = run("--data-dir", tmp_path, *SMALL, "--daily-seed", 3)
    assert again.exit_code == 0, again.output
    assert [path.name for path in (tmp_path / "daily_bars").iterdir()] == files[:1]
    written = pq.read_table(tmp_path / "daily_bars" / files[0])
    options = DailyOptions(stocks=3, trading_days=80, daily_seed=3)
    assert written.equals(daily_tables(options)["daily_bars"])


def test_command_writes_no_daily_market_when_none_is_asked(tmp_path):
    assert run("--data-dir", tmp_path, *SMALL[:4], "--stocks", 0).exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["minute_bars"]


def test_command_writes_the_market_that_is_missing_and_keeps_the_other(tmp_path):
    assert run("--data-dir", tmp_path, *SMALL[:4], "--stocks", 0).exit_code == 0
    minutes = tmp_path / "minute_bars" / "sample-BTCUSDT.parquet"
    before = minutes.read_bytes()
    added = run("--data-dir", tmp_path, "--missing", *SMALL, "--seed", 9)
    assert added.exit_code == 0
    assert ("stocks        3" in added.output, "symbols" in added.output) == (True, False)
    assert minutes.read_bytes() == before
    days = (tmp_path / "daily_bars" / "sample-daily_bars.parquet").read_bytes()
    assert run("--data-dir", tmp_path, "--missing", *SMALL, "--daily-seed", 9).output == ""
    assert (tmp_path / "daily_bars" / "sample-daily_bars.parquet").read_bytes() == days
    minutes.unlink()
    assert "symbols       1" in run("--data-dir", tmp_path, "--missing", *SMALL).output
    assert minutes.read_bytes() == before


@pytest.mark.parametrize("name", ["minute_bars.csv", "minute_bars/mine.parquet", "margin/a.csv.gz"])
def test_command_adds_no_market_to_data_of_others(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    result = run("--data-dir", tmp_path, "--missing", *SMALL)
    assert (result.exit_code, len(list(tmp_path.rglob("*.*")))) == (0, 1)
    assert f"nothing written: {tmp_path / name} is not of" in result.output


def test_command_refuses_foreign_daily_data_before_it_writes(tmp_path):
    mine = tmp_path / "security_names" / "mine.csv"
    mine.parent.mkdir()
    mine.write_text("a,b\n")
    result = run("--data-dir", tmp_path, *SMALL)
    assert result.exit_code == 1
    assert "security_names holds data" in result.output
    assert not list(tmp_path.rglob("*.parquet"))
    assert run("--data-dir", tmp_path, *SMALL, "--force").exit_code == 0
    assert mine.read_text() == "a,b\n"
