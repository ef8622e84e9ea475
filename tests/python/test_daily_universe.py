"""Gates, members, price limits and eligibility against the evaluator of their definitions."""

import functools
from collections.abc import Mapping
from datetime import date

import duckdb
import pandas as pd
import pytest

import oracle_daily_universe as oracle
from daily_frames import (
    STAGING_TYPES,
    Market,
    calendar_frame,
    generated_market,
    known_at,
    write_market,
)
from daily_incremental_models import SEEDS
from daily_sql import load_seed, model_sql, rendering_context, write_relation
from warehouse import REAL_DAILY_DATA, memory_connection

MODELS = ("daily_gates", "universe_members", "price_limits", "entry_eligibility")
# shorter than the defaults: the generated markets are weeks long
SHORT = {"daily_min_listed_days": 20, "daily_absent_days_kept": 8}


def build(
    market: Mapping, settings: Mapping | None = None, change: tuple[str, str, str] | None = None
) -> duckdb.DuckDBPyConnection:
    """Build the four relations on a market; `change` is (model, text, other text)."""
    connection = memory_connection()
    for seed in SEEDS:
        load_seed(connection, seed)
    write_market(connection, market)
    run(connection, settings, change)
    return connection


def run(connection, settings: Mapping | None = None, change=None, models=MODELS) -> None:
    connection.execute("create schema if not exists universe")
    for model in models:
        sql = model_sql(model, {**SHORT, **(settings or {})})
        if change and change[0] == model:
            assert change[1] in sql, change
            sql = sql.replace(change[1], change[2])
        connection.execute(f"create or replace table universe.{model} as {sql}")


def rows_of(connection, relation: str) -> dict[tuple, dict]:
    """Return a relation's rows by (ts_code, trade_date)."""
    rows = connection.sql(f"from universe.{relation}").to_arrow_table().to_pylist()
    keyed = {(row.pop("ts_code"), row.pop("trade_date")): row for row in rows}
    assert len(keyed) == len(rows), "a key is doubled"
    return keyed


def members_of(connection) -> set[tuple]:
    rows = connection.sql("from universe.universe_members").fetchall()
    assert len(set(rows)) == len(rows), "a member is listed twice"
    return set(rows)


def assert_same(found: Mapping, expected: Mapping) -> None:
    """Compare rows by key, numbers to 1e-9; name the first differing cells."""
    assert found.keys() == expected.keys(), sorted(found.keys() ^ expected.keys())[:5]
    wrong = [
        (key, name, found[key][name], value)
        for key, row in expected.items()
        for name, value in row.items()
        if not same(found[key][name], value)
    ]
    assert not wrong, (len(wrong), wrong[:5])
    assert not {name for row in found.values() for name in row} - {*next(iter(expected.values()))}


def same(one, other) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) < 1e-9
    return one == other and (one is None) == (other is None)


@functools.cache
def market_of(seed: int) -> Market:
    return generated_market(seed)


@functools.cache
def built(seed: int) -> duckdb.DuckDBPyConnection:
    return build(market_of(seed))


@functools.cache
def oracle_rows(seed: int) -> tuple[dict, dict]:
    gates = oracle.gates(market_of(seed), SHORT)
    return gates, oracle.limits(market_of(seed), gates, SHORT)


RANDOM_MARKETS = pytest.mark.parametrize("seed", [1, 2, 3])


@RANDOM_MARKETS
def test_gates_are_those_of_the_definition(seed):
    expected, _ = oracle_rows(seed)
    assert_same(rows_of(built(seed), "daily_gates"), expected)
    for gate in oracle.GATES:  # both answers of every gate occur
        assert {row[gate] for row in expected.values()} == {True, False}


@RANDOM_MARKETS
def test_limits_are_those_of_the_definition(seed):
    _, expected = oracle_rows(seed)
    assert_same(rows_of(built(seed), "price_limits"), expected)
    for flag in (*oracle.LIMIT_FLAGS, "is_one_price_limit_up", "is_one_price_limit_down"):
        assert {True, False} <= {row[flag] for row in expected.values()}, flag


@RANDOM_MARKETS
def test_eligibility_is_that_of_the_definition(seed):
    gates, limits = oracle_rows(seed)
    expected = oracle.eligibility(market_of(seed), gates, limits)
    assert_same(rows_of(built(seed), "entry_eligibility"), expected)


@RANDOM_MARKETS
def test_members_are_those_of_the_definition(seed):
    gates, _ = oracle_rows(seed)
    expected = oracle.members(market_of(seed), gates)
    assert members_of(built(seed)) == expected
    assert len({universe for universe, _, _ in expected}) == 7


def test_generated_markets_meet_every_rule():
    met = {row["limit_rule_id"] for seed in (1, 2, 3) for row in oracle_rows(seed)[1].values()}
    never = {line["limit_rule_id"] for line in oracle.seed("price_limit_rules")} - met
    # listings before 2020 and those of B shares lie outside of the generated weeks
    assert never <= {
        "main_sh_listing_free",
        "main_sz_listing_free",
        "chinext_listing_free",
        "chinext_risk_warning_5",
        "chinext_delisting_10",
        "chinext_listing_44",
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"daily_gate_method": "latest_snapshot"},
        {"daily_unknown_st_passes": False},
        {"daily_absent_days_kept": 0, "daily_min_listed_days": 0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_change_the_gates_as_they_say(settings):
    connection = build(market_of(1), settings)
    expected = oracle.gates(market_of(1), SHORT | settings)
    assert_same(rows_of(connection, "daily_gates"), expected)
    assert expected != oracle_rows(1)[0]


@pytest.mark.parametrize("name", ["daily_gate_method", "daily_min_listed_days"])
def test_a_wrong_setting_is_refused_by_name(name):
    with pytest.raises(ValueError, match=name):
        model_sql("daily_gates", {name: "wrong"})


def test_user_universes_narrow_by_kind_and_date():
    codes = sorted({ts_code for ts_code, _ in oracle_rows(1)[0]})
    lines = [
        ("PICKED", "ts_code", codes[0], "2020-08-12", "2020-09-01"),
        ("PICKED", "ts_code", codes[0], "2020-08-20", None),
        ("PICKED", "ts_code", codes[7], None, None),
        ("BANKS_ABROAD", "industry_l1", "银行", None, "2023-04-05"),
        ("BANKS_ABROAD", "industry_l2", "8010802", None, None),
        ("BANKS_ABROAD", "industry_l2", "银行2", None, None),
        ("BANKS_ABROAD", "board", "B_SHARE_SH", None, None),
        ("BANKS_ABROAD", "board", "MAIN_SH", "2020-08-20", None),
        ("INDEX_AND_BOARD", "index", "000905.SH", None, None),
        ("INDEX_AND_BOARD", "board", "MAIN_SZ", None, None),
    ]
    columns = ["universe", "kind", "value", "valid_from", "valid_to"]
    connection = build(market_of(1))
    types = dict.fromkeys(columns, "varchar") | {"valid_from": "date", "valid_to": "date"}
    write_relation(connection, "seeds.user_universes", pd.DataFrame(lines, columns=columns), types)
    run(connection, models=["universe_members"])
    own = [dict(zip(columns, line, strict=True)) for line in lines]
    expected = oracle.members(market_of(1), oracle_rows(1)[0], oracle.seed("universes") + own)
    assert members_of(connection) == expected
    assert {line[0] for line in lines} <= {universe for universe, _, _ in expected}


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_looks_ahead(seed):
    """What is known of a day does not change with later rows; next_ columns look one day ahead."""
    whole = {name: rows_of(built(seed), name) for name in MODELS if name != "universe_members"}
    members = members_of(built(seed))
    days = sorted({day for _, day in whole["daily_gates"]})
    for last in (days[9], days[len(days) // 2], days[-12]):
        connection = build(known_at(market_of(seed), last))
        for name in ("daily_gates", "price_limits"):
            earlier = {key: row for key, row in whole[name].items() if key[1] <= last}
            assert_same(rows_of(connection, name), earlier)
        assert members_of(connection) == {row for row in members if row[2] <= last}
        eve = [day for day in days if day < last][-1]
        for key, row in rows_of(connection, "entry_eligibility").items():
            full = whole["entry_eligibility"][key]
            told = {k: v for k, v in row.items() if k != "first_sell_date"}
            if key[1] <= eve:
                assert told == {k: full[k] for k in told}, key
            else:
                assert row["may_buy_next_open"] is None
                assert row["may_buy_next_close"] is None
            first_sell = full["first_sell_date"]
            if key[1] <= eve and first_sell and first_sell <= last:
                assert row["first_sell_date"] == first_sell


def test_order_of_rows_does_not_matter_and_is_that_of_the_keys():
    shuffled = {name: frame.sample(frac=1, random_state=5) for name, frame in market_of(2).items()}
    connection = build(market_of(2))
    for name, types in STAGING_TYPES.items():
        write_relation(connection, name, shuffled[name], types)
    run(connection)
    for model in MODELS:
        query = f"select * from universe.{model}"
        rows = connection.sql(query).fetchall()
        assert rows == built(2).sql(query).fetchall(), model
        keys = 3 if model == "universe_members" else 2
        assert [row[:keys] for row in rows] == sorted(row[:keys] for row in rows), model


def small_market(rows: list[dict], securities: list[dict] = (), days: list[date] = ()) -> Market:
    """Return a market of the given bars alone, unadjusted and traded unless they say otherwise."""
    market = {name: pd.DataFrame(columns=list(types)) for name, types in STAGING_TYPES.items()}
    usual = {"price_basis": "unadjusted", "is_suspended": False, "volume": 100.0, "amount": 1e3}
    bars = [usual | dict.fromkeys(("open", "high", "low"), row["close"]) | row for row in rows]
    market["staging.stg_daily_bars"] = pd.DataFrame(
        bars, columns=list(STAGING_TYPES["staging.stg_daily_bars"])
    )
    market["staging.stg_securities"] = pd.DataFrame(
        securities, columns=list(STAGING_TYPES["staging.stg_securities"])
    )
    days = days or sorted({row["trade_date"] for row in rows})
    market["staging.stg_trading_calendar"] = calendar_frame(days)
    return market


@pytest.mark.parametrize(
    ("ts_code", "day", "is_st", "pre_close", "up", "down"),
    [
        ("600000.SH", "2024-03-01", False, 10.05, 11.06, 9.05),  # 11.055 and 9.045 round up
        ("600000.SH", "2024-03-01", True, 10.05, 10.55, 9.55),  # 10.5525, 9.5475
        ("600000.SH", "2026-07-03", True, 10.05, 10.55, 9.55),
        ("600000.SH", "2026-07-06", True, 10.05, 11.06, 9.05),
        ("600000.SH", "2024-03-01", True, 0.05, 0.06, 0.04),  # a tick at least
        ("600000.SH", "2024-03-01", False, 0.01, 0.02, 0.01),  # never below a tick
        ("600000.SH", "2024-03-01", False, 1.15, 1.27, 1.04),  # 1.265 and 1.035: exact halves
        ("300001.SZ", "2020-08-21", False, 10.05, 11.06, 9.05),
        ("300001.SZ", "2020-08-24", False, 10.05, 12.06, 8.04),
        ("300001.SZ", "2024-03-01", True, 10.05, 12.06, 8.04),
        ("688001.SH", "2024-03-01", True, 10.05, 12.06, 8.04),
        ("920001.BJ", "2024-03-01", True, 10.05, 13.07, 7.04),  # 13.065, 7.035
        ("900901.SH", "2024-03-01", False, 0.105, 0.116, 0.095),  # ticks of a tenth of a cent
        ("200011.SZ", "2024-03-01", False, 1.15, 1.27, 1.04),
        ("600000.SH", "1996-12-13", False, 10.05, None, None),  # before there were limits
        ("510300.SH", "2024-03-01", False, 10.05, None, None),
    ],
)
def test_limit_prices(ts_code, day, is_st, pre_close, up, down):
    bar = {"ts_code": ts_code, "trade_date": date.fromisoformat(day), "is_st": is_st}
    connection = build(small_market([bar | {"pre_close": pre_close, "close": pre_close}]))
    query = "select limit_up_price, limit_down_price from universe.price_limits"
    assert connection.sql(query).fetchall() == [(up, down)]


@pytest.mark.parametrize(
    ("ts_code", "day", "board"),
    [
        ("430047.BJ", "2020-07-24", "OTHER"),  # before there was a Select tier
        ("430047.BJ", "2020-07-27", "BSE"),
        ("430047.BJ", "2025-09-30", "BSE"),
        ("833171.BJ", "2021-11-12", "BSE"),
        ("873223.BJ", "2024-03-01", "BSE"),
        ("920047.BJ", "2020-07-27", "BSE"),  # the history of 430047 under its new code
        ("920047.BJ", "2025-10-09", "BSE"),
        ("920002.BJ", "2024-04-22", "BSE"),
        ("920047.SH", "2025-10-09", "OTHER"),
        ("900901.SH", "2024-03-01", "B_SHARE_SH"),
        ("201872.SZ", "2024-03-01", "B_SHARE_SZ"),
        ("605001.SH", "2024-03-01", "MAIN_SH"),
        ("003816.SZ", "2024-03-01", "MAIN_SZ"),
        ("302132.SZ", "2025-03-03", "CHINEXT"),
        ("689009.SH", "2020-10-29", "STAR"),
    ],
)
def test_boards(ts_code, day, board):
    bar = {"ts_code": ts_code, "trade_date": date.fromisoformat(day), "is_st": False}
    connection = build(small_market([bar | {"pre_close": 10.0, "close": 10.0}]))
    query = "select board, main_board from universe.daily_gates"
    assert connection.sql(query).fetchall() == [(board, board.startswith("MAIN_"))]


def test_old_and_new_codes_of_a_stock_are_two_stocks():
    """A vendor that renumbers from one day on: nothing joins the bars before to those after."""
    days = [d.date() for d in pd.bdate_range("2025-09-29", periods=6)]
    bars = [
        {"ts_code": code, "trade_date": day, "pre_close": 10.0, "close": 10.0}
        for code, span in (("430047.BJ", days[:3]), ("920047.BJ", days[3:]))
        for day in span
    ]
    connection = build(small_market(bars))
    query = (
        "select ts_code, count(*), min(board) from universe.daily_gates where data_ok group by 1"
    )
    assert sorted(connection.sql(query).fetchall()) == [
        ("430047.BJ", 3, "BSE"),
        ("920047.BJ", 3, "BSE"),
    ]


@pytest.mark.parametrize(
    ("ts_code", "list_date", "expected"),
    [
        ("600001.SH", "2023-04-04", ["44", "normal", "normal", "normal", "normal", "normal"]),
        ("600001.SH", "2023-04-10", ["registration"] * 5 + ["normal"]),
        ("300001.SZ", "2020-08-21", ["44", "20", "20", "20", "20", "20"]),
        ("301001.SZ", "2020-08-24", ["registration"] * 5 + ["20"]),
        ("688001.SH", "2020-03-02", ["listing"] * 5 + ["normal"]),
        ("830001.BJ", "2022-03-01", ["listing"] + ["normal"] * 5),
    ],
)
def test_listing_days(ts_code, list_date, expected):
    first = date.fromisoformat(list_date)
    days = [d.date() for d in pd.bdate_range(first, periods=6)]
    bars = [{"ts_code": ts_code, "trade_date": d, "pre_close": 10.0, "close": 10.0} for d in days]
    market = small_market(bars, [{"ts_code": ts_code, "list_date": first}])
    rules = build(market).sql("select limit_rule_id from universe.price_limits order by trade_date")
    assert [rule.rsplit("_", 1)[-1] for (rule,) in rules.fetchall()] == expected


@pytest.mark.parametrize("basis_points", [500, 1000, 2000, 3000, 4400])
def test_rounding_of_every_price_is_exact(basis_points):
    """Prices from 0.01 to 500.00 CNY, read from doubles, against whole-number arithmetic."""
    macros = rendering_context()
    ticks = macros["price_in_ticks"]("price", "100")
    up = macros["limit_in_ticks"]("+", "reference", str(basis_points))
    down = macros["limit_in_ticks"]("-", "reference", str(4400 - 800))
    found = duckdb.sql(
        f"with prices as (select n, n / 100 as price from range(1, 50001) as t (n)),"
        f" referred as (select n, {ticks} as reference from prices)"
        f" select n, reference, {up}, {down} from referred order by n"
    ).fetchall()
    for n, reference, above, below in found:
        assert reference == n
        assert above == max((2 * n * (10000 + basis_points) + 10000) // 20000, n + 1)
        assert below == max(min((2 * n * 6400 + 10000) // 20000, n - 1), 1)


def test_without_bars_everything_is_empty():
    empty = {name: frame.head(0) for name, frame in market_of(1).items()}
    connection = build(empty)
    for model in MODELS:
        assert connection.sql(f"from universe.{model}").fetchall() == []


def test_violations_name_what_traded_beyond_its_limit():
    """A stale ST mark and a price of half a tick: the first day only lies beyond."""
    first, second = date(2024, 3, 1), date(2024, 3, 4)
    bar = {"ts_code": "600000.SH", "pre_close": 10.0, "is_st": True}
    bars = [
        bar | {"trade_date": first, "close": 10.5, "high": 10.51},
        bar | {"trade_date": second, "close": 10.5, "low": 9.5},
    ]
    connection = build(small_market(bars))
    run(connection, models=["price_limit_violations"])
    query = "select trade_date, traded_above_limit_up, is_st from universe.price_limit_violations"
    assert connection.sql(query).fetchall() == [(first, True, True)]


FAULTS = [
    ("daily_gates", ">= 20\n    end as listed", "> 20\n    end as listed"),
    ("daily_gates", "days.trading_day >= stocks.list_trading_day", "true"),
    ("daily_gates", "lead(start_date) over per_stock", "null"),
    ("daily_gates", "last_value(is_st ignore nulls) over so_far", "is_st"),
    ("daily_gates", "trade_date < stocks.delist_date", "trade_date <= stocks.delist_date"),
    ("price_limits", "+ 5000) // 10000", "+ 4999) // 10000"),
    ("price_limits", "reference_ticks + 1", "reference_ticks"),
    ("price_limits", "when gates.is_delisting_period then 'delisting'", "when false then ''"),
    ("price_limits", "<= maybe_listing.last_unknown_day", "< maybe_listing.last_unknown_day"),
    ("price_limits", "< first_days.listed_to", "<= first_days.listed_to"),
    ("entry_eligibility", "between 2 following", "between 1 following"),
    ("entry_eligibility", "ahead.next_row_day = ahead.trading_day + 1", "true"),
    ("universe_members", "< spans.valid_to", "<= spans.valid_to"),
    ("universe_members", "valid_from > reached", "true"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault[1][:40])
def test_planted_faults_are_noticed(fault):
    """At least one of the markets tells a changed model from its definition."""
    for seed in (1, 2, 3):
        try:
            connection = build(market_of(seed), change=fault)
            gates, limits = oracle_rows(seed)
            assert_same(rows_of(connection, "daily_gates"), gates)
            assert_same(rows_of(connection, "price_limits"), limits)
            expected = oracle.eligibility(market_of(seed), gates, limits)
            assert_same(rows_of(connection, "entry_eligibility"), expected)
            assert members_of(connection) == oracle.members(market_of(seed), gates)
        except AssertionError:
            return
    pytest.fail("no market notices the fault")


SOURCES = {
    "hs300": """
        select
            ts_code, trade_date, open, high, low, close, pre_close, vol_shares as volume,
            amount_cny as amount, tradestatus = 0 as is_suspended, is_st = 1 as is_st,
            'unadjusted' as price_basis
        from '{data}/daily/baostock_hs300_2020_2025.parquet'""",
    "st_suspended": """
        select
            ts_code, trade_date, open_qfq as open, high_qfq as high, low_qfq as low,
            close_qfq as close, preclose_qfq as pre_close, vol_shares as volume,
            amount_cny as amount, tradestatus = 0 as is_suspended, is_st = 1 as is_st,
            'forward_adjusted' as price_basis
        from '{data}/daily/baostock_st_suspended_2019_2020.parquet'""",
    "szmain": """
        select
            ts_code, trade_date, open, high, low, close, pre_close, vol * 100 as volume,
            amount * 1000 as amount, false as is_suspended, null::boolean as is_st,
            'unadjusted' as price_basis
        from '{data}/daily/tushare_szmain_2024.parquet'""",
}


@functools.cache
def real(source: str) -> duckdb.DuckDBPyConnection:
    """Build the relations on real bars, with listing dates and index days, without names."""
    if not REAL_DAILY_DATA.exists():
        pytest.skip(f"no real data in {REAL_DAILY_DATA}")
    data = REAL_DAILY_DATA.parent
    connection = memory_connection()
    for seed in SEEDS:
        load_seed(connection, seed)
    for name, types in STAGING_TYPES.items():
        write_relation(connection, name, pd.DataFrame(columns=list(types)), types)
    connection.execute(
        f"insert into staging.stg_daily_bars by name"
        f" select * from ({SOURCES[source].format(data=data)}) order by ts_code, trade_date"
    )
    connection.execute(
        f"""insert into staging.stg_trading_calendar by name
        select trade_date, row_number() over (order by trade_date) as trading_day,
            lead(trade_date) over (order by trade_date) as next_trade_date
        from (
            select trade_date from '{data}/daily/index_daily_2010_2026.parquet'
            union select trade_date from staging.stg_daily_bars
        ) order by trade_date"""
    )
    connection.execute(
        f"""insert into staging.stg_securities by name
        select ts_code, arg_max(try_strptime(list_date, '%Y%m%d'), as_of)::date as list_date
        from '{data}/reference/stock_names_snapshots.parquet'
        where list_date is not null and ts_code <> '000001.SH' group by ts_code"""
    )
    run(connection, {"daily_min_listed_days": 60, "daily_absent_days_kept": 250})
    return connection


@pytest.mark.parametrize("source", ["hs300", "szmain", "st_suspended"])
def test_no_real_price_lies_beyond_its_limit(source):
    """Not one high or low of 860,000 days is outside of the limit of its day."""
    beyond = real(source).sql(
        "from universe.price_limits where traded_above_limit_up or traded_below_limit_down"
    )
    assert beyond.fetchall() == []


def test_real_one_price_days_are_limit_days():
    """Where ST is known, all but one of the days with a single price are at a limit."""
    counts = """
        select count(*), count(*) filter (where is_one_price_limit_up or is_one_price_limit_down)
        from universe.price_limits where is_one_price"""
    assert real("hs300").sql(counts).fetchall() == [(271, 271)]
    # 300216.SZ on 2020-08-24, in its delisting period, kept the 10 % of before that day
    assert real("st_suspended").sql(counts).fetchall() == [(3097, 3096)]


def test_limits_in_adjusted_prices_are_those_in_traded_prices():
    """Stocks that two sources hold, one adjusted: every flag of every day agrees."""
    flags = [*oracle.LIMIT_FLAGS[:6], "is_one_price_limit_up", "is_one_price_limit_down"]
    query = f"select ts_code, trade_date, {', '.join(flags)} from universe.price_limits"
    traded = real("hs300").sql(query).to_arrow_table()
    connection = real("st_suspended")
    connection.register("traded", traded)
    differing = " or ".join(f"traded.{flag} is distinct from adjusted.{flag}" for flag in flags)
    both, different, at_limit = connection.sql(
        f"select count(*), count(*) filter (where {differing}),"
        f" count(*) filter (where adjusted.is_limit_up_close)"
        f" from ({query}) as adjusted inner join traded using (ts_code, trade_date)"
    ).fetchall()[0]
    assert (both > 30_000, different, at_limit > 300) == (True, 0, True)


@pytest.mark.parametrize("source", ["hs300", "st_suspended"])
def test_real_stocks_are_as_the_definition_says(source):
    """A few stocks over all their years, among them ST, suspended, ChiNext and STAR ones."""
    connection = real(source)
    codes = connection.sql(
        "select ts_code from universe.daily_gates group by ts_code"
        " order by count(*) filter (where is_st) + count(*) filter (where not not_suspended) desc,"
        " ts_code limit 3"
    ).fetchall()
    codes += connection.sql(
        "select min(ts_code) from universe.daily_gates group by board order by board"
    ).fetchall()
    picked = ", ".join(f"'{code}'" for (code,) in codes)
    market = {
        name: connection.sql(
            f"from {name}" + (f" where ts_code in ({picked})" if "ts_code" in types else "")
        ).to_arrow_table()
        for name, types in STAGING_TYPES.items()
    }
    market = {
        name: pd.DataFrame(table.to_pylist(), columns=table.column_names, dtype=object)
        for name, table in market.items()
    }
    small = build(market, {"daily_min_listed_days": 60, "daily_absent_days_kept": 250})
    gates = oracle.gates(market)
    assert_same(rows_of(small, "daily_gates"), gates)
    assert_same(rows_of(small, "price_limits"), oracle.limits(market, gates))
