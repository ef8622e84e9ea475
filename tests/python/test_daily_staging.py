"""Daily staging: rows staged, collapsed or refused; factors derived; calendars, names and feeds."""

import json
import math
import random
from datetime import date, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from warehouse import BEYOND_STAGING, REAL_DAILY_DATA, Warehouse, new_warehouse, parse_cache

MONDAY = date(2024, 1, 1)
OPEN_DAYS = [MONDAY + timedelta(day) for day in range(200) if day % 7 < 5]
SPARE_DAYS = [OPEN_DAYS[-1] + timedelta(day) for day in range(1, 60)]  # after the calendar's end
GOOD = {"open": 10, "high": 11, "low": 9, "close": 10.5, "pre_close": 10, "volume": 1000}
GOOD |= {"amount": 10000, "pct_chg": 0.05, "adj_factor": 2, "turnover": 0.01}
GOOD |= {"is_suspended": 0, "is_st": 0, "price_basis": None}


def bar(code="600001.SH", day=0, **changes) -> dict:
    """One sound bar with some fields changed."""
    return {"ts_code": code, "trade_date": SPARE_DAYS[day], **GOOD, **changes}


REFUSED = [
    (bar(None), "null_or_unparsable_key"),
    (bar("  "), "null_or_unparsable_key"),
    (bar(trade_date=None), "null_or_unparsable_key"),
    (bar(trade_date="tomorrow"), "null_or_unparsable_key"),
    (bar("600001"), "malformed_ts_code"),
    (bar("sh.600001"), "malformed_ts_code"),
    (bar("600001.SS"), "malformed_ts_code"),
    (bar(trade_date="1970-01-01"), "date_out_of_range"),
    (bar(trade_date="21000104"), "date_out_of_range"),
    (bar(trade_date="2024-01-06"), "not_a_trading_day"),
    (bar(price_basis="adjusted"), "unknown_price_basis"),
    (bar(is_suspended="perhaps"), "unparsable_flag"),
    (bar(is_st="ST"), "unparsable_flag"),
    (bar(volume="many"), "unparsable_volume"),
    (bar(volume="nan"), "non_finite_volume"),
    (bar(volume=-1), "negative_volume"),
    (bar(amount="much"), "unparsable_amount"),
    (bar(amount="inf"), "non_finite_amount"),
    (bar(amount=-1), "negative_amount"),
    (bar(open=None), "null_or_unparsable_price"),
    (bar(close="ten"), "null_or_unparsable_price"),
    (bar(high="inf"), "non_finite_price"),
    (bar(low="nan"), "non_finite_price"),
    (bar(low=0), "non_positive_price"),
    (bar(open=-1, low=-1), "non_positive_price"),
    (bar(high=8), "high_below_low"),
    (bar(open=12), "open_or_close_outside_range"),
    (bar(close=8.9), "open_or_close_outside_range"),
    (bar(close=12, volume=0), "open_or_close_outside_range"),
    (bar(turnover="low"), "unparsable_value"),
    (bar(adj_factor="inf"), "unparsable_value"),
    (bar(adj_factor=0), "non_positive_adj_factor"),
    (bar(pct_chg=-1), "value_out_of_range"),
    (bar(turnover=-0.1), "value_out_of_range"),
    (bar(pct_chg=5), "pct_chg_in_percent"),
    (bar("600002.SH"), "conflicting_duplicate_key"),
    (bar("600002.SH", is_st=1), "conflicting_duplicate_key"),
]
# a sound row, what became of its columns, and its flag
KEPT = [
    (bar(day=1), {"is_suspended": False, "is_st": False, "adj_factor": 2.0}, "OK"),
    (bar(day=2, trade_date=SPARE_DAYS[2].strftime("%Y%m%d")), {"adj_factor": 2.0}, "OK"),
    (bar(day=3, pct_chg=None), {"pct_chg": 10.5 / 10 - 1}, "OK"),
    (bar(day=4, pct_chg="nan", turnover="NaN"), {"turnover": None}, "OK"),
    (bar(day=5, is_st=None, is_suspended=None), {"is_st": None, "is_suspended": False}, "OK"),
    (bar(day=6, is_st="true"), {"is_st": True}, "OK"),
    (bar(day=7, volume=0, amount=0), {"is_suspended": True, "close": 10.5}, "SUSPENDED"),
    (bar(day=8, volume=None, amount=None, open=0, high=0, low="nan", close=10),
     {"is_suspended": True, "open": None, "low": None, "close": 10}, "SUSPENDED"),
    (bar(day=9, is_suspended=1), {"is_suspended": True}, "SUSPENDED_WITH_TRADES"),
    (bar(day=10, volume=0), {"is_suspended": True}, "SUSPENDED_WITH_TRADES"),
    (bar(day=11, pre_close=0, pct_chg=None), {"pre_close": None, "pct_chg": None},
     "PRE_CLOSE_UNKNOWN"),
    (bar(day=12, pct_chg=0.06), {"pct_chg": 0.06}, "PCT_CHG_DISAGREES"),
    (bar(day=13, amount=None), {"amount": None}, "AMOUNT_UNKNOWN"),
    (bar(day=14, amount=12000), {}, "VWAP_OUTSIDE_RANGE"),
    (bar(day=15, amount=11009), {}, "OK"),
    (bar("600003.SH", 1, price_basis="forward_adjusted", amount=90000),
     {"adj_factor": 1.0, "adj_factor_source": "none"}, "OK"),
    (bar("600003.SH", 2, price_basis="forward_adjusted", open=0.12, high=0.123, low=0.1199,
         close=0.1234 - 0.0005, pre_close=0.1229, pct_chg=0), {"open": 0.12}, "OK"),
]  # fmt: skip
REPEATED = bar("600004.SH", 1)  # delivered three times, once as other text


def random_bars(seed: int, given: bool = False) -> pd.DataFrame:
    """Bars of six stocks: listings, ends, suspensions as rows or absent, ex-right days, noise."""
    rng = random.Random(seed)
    rows = []
    for number in range(6):
        code = "900900.SH" if number == 5 else f"{number:06d}.SZ"
        tick = 0.001 if number == 5 else 0.01
        first, last = sorted(rng.sample(range(len(OPEN_DAYS)), 2))
        factor, close = rng.uniform(1, 50), rng.uniform(3, 30)
        starts_unknown, suspended_until = rng.random() < 0.3, -1
        for position in range(first, last + 1):
            if position > suspended_until and rng.random() < 0.03:
                suspended_until = position + rng.randrange(8)
                as_rows = rng.random() < 0.6
            if position <= suspended_until:
                if as_rows:
                    price = rng.choice([close, None, close / 2])
                    rows.append([code, OPEN_DAYS[position], *[price] * 5, rng.choice([0.0, None]),
                                 0.0, None, factor, rng.choice([True, None])])  # fmt: skip
                continue
            ratio = rng.uniform(1.01, 2) if rng.random() < 0.05 else 1.0
            pre_close = round(close / ratio / tick) * tick
            if ratio == 1:
                pre_close = close + rng.choice([0, 0, 1e-7, -0.4 * tick])
            else:
                factor *= close / pre_close
            shown = None if rng.random() < 0.02 else pre_close
            close = max(round(pre_close * rng.uniform(0.92, 1.09) / tick), 1) * tick
            low, high = min(close, pre_close) - tick / 2, max(close, pre_close) + tick / 2
            change = rng.choice([None, close / pre_close - 1, 0.013])
            volume = float(rng.randrange(1, 10**6))
            amount = volume * close * rng.choice([1, 1, 1, 1.3])
            rows.append([code, OPEN_DAYS[position], pre_close, high, low, close, shown, volume,
                         amount, change, factor, rng.choice([False, None])])  # fmt: skip
        if given and starts_unknown:
            rows[-(len(rows) - sum(row[0] != code for row in rows))][10] = None
    frame = pd.DataFrame(
        rows,
        columns=["ts_code", "trade_date", "open", "high", "low", "close", "pre_close", "volume",
                 "amount", "pct_chg", "adj_factor", "is_suspended"],
    )  # fmt: skip
    if not given:
        return frame.drop(columns="adj_factor")
    for _ in range(len(frame) // 5):
        frame.loc[rng.randrange(len(frame)), "adj_factor"] = None
    for _ in range(len(frame) // 8):  # wobbles, some back on the next row
        at = rng.randrange(len(frame))
        frame.loc[at, "adj_factor"] *= 1 + rng.choice([1e-4, -3e-4, 0.02])
    return frame


def known(value):
    """None for what pandas shows where SQL has NULL."""
    return None if value is None or value is pd.NaT or value != value else value


def records(frame: pd.DataFrame) -> list[dict]:
    return [{name: known(value) for name, value in row.items()} for row in frame.to_dict("records")]


def by_stock(rows: list[dict]) -> dict[str, list[dict]]:
    stocks = {}
    for row in sorted(rows, key=lambda row: (row["ts_code"], row["trade_date"])):
        stocks.setdefault(row["ts_code"], []).append(row)
    return stocks


def expected_bars(frame: pd.DataFrame, open_days: list[date]) -> list[dict]:
    """Staged bars of sound rows, row by row from the definitions."""
    number_of = {day: number for number, day in enumerate(open_days)}
    staged = []
    for rows in by_stock(records(frame)).values():
        factor = previous_close = previous_day = None
        uses_given = rows[0].get("adj_factor") is not None
        for row in rows:
            half_tick = 0.0005 if row["ts_code"].startswith("900") else 0.005
            suspended = bool(row["is_suspended"]) or not row["volume"]
            ratio = 1.0
            both = previous_close is not None and row["pre_close"] is not None
            if not suspended and both and abs(previous_close - row["pre_close"]) > half_tick:
                ratio = previous_close / row["pre_close"]
            is_given = uses_given and row["adj_factor"] is not None
            factor = row["adj_factor"] if is_given else (factor or 1.0) * ratio
            computed = None
            if row["close"] is not None and row["pre_close"] is not None:
                computed = row["close"] / row["pre_close"] - 1
            flag = "OK"
            if suspended:
                traded = (row["volume"] or 0) > 0 or (row["amount"] or 0) > 0
                flag = "SUSPENDED_WITH_TRADES" if traded else "SUSPENDED"
            elif row["pre_close"] is None:
                flag = "PRE_CLOSE_UNKNOWN"
            elif (
                not is_given
                and ratio != 1
                and previous_day is not None
                and number_of[row["trade_date"]] - number_of[previous_day] > 1
            ):
                flag = "STEP_AFTER_GAP"
            elif row["pct_chg"] is not None and abs(row["pct_chg"] - computed) > 0.001:
                flag = "PCT_CHG_DISAGREES"
            elif not row["amount"]:
                flag = "AMOUNT_UNKNOWN"
            else:
                paid = row["amount"] / row["volume"]
                if not row["low"] - 2 * half_tick <= paid <= row["high"] + 2 * half_tick:
                    flag = "VWAP_OUTSIDE_RANGE"
            staged.append(
                {
                    "ts_code": row["ts_code"],
                    "trade_date": row["trade_date"],
                    "pct_chg": computed if row["pct_chg"] is None else row["pct_chg"],
                    "adj_factor": factor,
                    "adj_factor_source": "given" if is_given else "derived",
                    "is_suspended": suspended,
                    "data_quality_flag": flag,
                }
            )
            previous_day = row["trade_date"]
            if not suspended:
                previous_close = row["close"] or previous_close
    return staged


def expected_wobbles(staged: list[dict], days: int, tolerance: float) -> list[tuple]:
    """(stock, day, has_returned) of given factors that move though nothing went ex-right."""
    found = []
    for code, rows in by_stock(staged).items():
        half_tick = 0.0005 if code.startswith("900") else 0.005
        moves, previous_close = [], None
        for position, row in enumerate(rows):
            change = 1.0
            both = previous_close is not None and row["pre_close"] is not None
            if both and abs(previous_close - row["pre_close"]) > half_tick:
                change = previous_close / row["pre_close"]
            before = rows[position - 1]["adj_factor"] if position else row["adj_factor"]
            if row["adj_factor"] != before and row["adj_factor_source"] == "given":
                moves.append((position, row, before, change))
            if not row["is_suspended"] and row["close"] is not None:
                previous_close = row["close"]
        came_back = False
        for number, (position, row, before, change) in enumerate(moves):
            later = moves[number + 1] if number + 1 < len(moves) else None
            returned = False
            if later is not None and later[0] - position <= days:
                slack = tolerance + (half_tick / later[1]["pre_close"] if later[3] != 1 else 0)
                returned = abs(later[1]["adj_factor"] / (before * later[3]) - 1) <= slack
            if change == 1 and not came_back:
                found.append((code, row["trade_date"], returned))
            came_back = returned and change == 1
    return found


def write_csv(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, dtype=object).to_csv(path, index=False)


MONEYFLOW = [
    {"ts_code": "000001.SZ", "trade_date": "20240102", "buy_small_amount_cny": 5,
     "sell_small_amount_cny": 7, "net_large_amount_cny": 1, "net_extra_large_amount_cny": 2},
    {"ts_code": "000001.SZ", "trade_date": "20240103", "net_small_amount_cny": "nan"},
    {"ts_code": "000001.SZ", "trade_date": "20240104", "net_small_amount_cny": "inf"},
    {"ts_code": "000001.SZ", "trade_date": "20240105", "net_small_amount_cny": "a lot"},
    {"ts_code": None, "trade_date": "20240105"},
    {"ts_code": "1.SZ", "trade_date": "20240105"},
    {"ts_code": "000001.SZ", "trade_date": "20240108", "net_small_amount_cny": 1},
    {"ts_code": "000001.SZ", "trade_date": "2024-01-08", "net_small_amount_cny": 2},
    {"ts_code": "000001.SZ", "trade_date": "20240109", "net_small_amount_cny": 3},
    {"ts_code": "000001.SZ", "trade_date": "2024-01-09", "net_small_amount_cny": "3.0"},
]  # fmt: skip
TOP_INST = [
    {"ts_code": "000001.SZ", "trade_date": "2024-01-02", "seat_name": seat, "buy_amount_cny": buy}
    for seat, buy in [("institution", 1), ("institution", 2), ("institution", 2), ("", 3)]
]
MEMBERS = [
    {"index_code": index, "ts_code": "000001.SZ", "in_date": first, "out_date": last}
    for index, first, last in [
        ("000300.SH", "2024-01-02", "2024-02-01"),
        ("000300.SH", "2024-02-01", "2024-03-01"),
        ("000300.SH", "2024-02-15", "2024-04-01"),
        ("000300.SH", "2024-05-01", None),
        ("000300.SH", "2025-05-01", None),
        ("000905.SH", "2024-02-15", "soon"),
        ("000905.SH", "2024-02-15", "2024-02-15"),
        ("000905.SH", "2024-02-16", "2024-03-01 08:30:00"),
    ]
]
MARKET_MARGIN = [
    {"trade_date": "20240102", "exchange": "SSE", "financing_balance_cny": 1},
    {"trade_date": "20240102", "exchange": "SZSE", "financing_balance_cny": 2},
    {"trade_date": "2024-01-02", "exchange": "SSE", "financing_balance_cny": "1.0"},
    {"trade_date": "20240103", "exchange": "SSE", "financing_balance_cny": "inf"},
    {"trade_date": "20240103", "exchange": " ", "financing_balance_cny": 3},
]
MARKET_MONEYFLOW = [
    {"trade_date": "20240102", "close_shenzhen": 9000.5, "pct_chg_shanghai": -0.011},
    {"trade_date": "20240103", "close_shenzhen": 9000.5, "pct_chg_shanghai": -1.1},
    {"trade_date": "20240104", "close_shenzhen": 0, "pct_chg_shanghai": 0.01},
]
CODE_CHANGES = [
    {"old_ts_code": old, "new_ts_code": new, "first_seen_date": "20251009"}
    for old, new in [
        ("430047.BJ", "920047.BJ"),
        ("430048.BJ", "920048"),
        ("430049.BJ", None),
        ("430050", "920050.BJ"),
        ("430051.BJ", "920051.BJ"),
        ("430051.BJ", "920052.BJ"),
    ]
]
NAMES = [("平安银行", False, False), ("*ST万科", True, False), ("Ｓ＊ＳＴ金田", True, False)]
NAMES += [("国农退", False, True), (None, None, None)]


@pytest.fixture(scope="module")
def panel() -> pd.DataFrame:
    return random_bars(1, given=True)


@pytest.fixture(scope="module")
def built(panel, tmp_path_factory) -> Warehouse:
    """A daily-only warehouse: a random panel in parquet, faults in CSV, sources with faults."""
    warehouse = new_warehouse(tmp_path_factory.mktemp("daily"))
    folder = warehouse.data_dir
    (folder / "daily_bars").mkdir()
    panel.to_parquet(folder / "daily_bars/panel.parquet", index=False)
    repeats = [REPEATED, REPEATED, {**REPEATED, "close": "10.50"}]
    faults = [row for row, _ in REFUSED] + [row for row, *_ in KEPT] + repeats
    write_csv(folder / "daily_bars/faults.csv", faults)
    write_csv(folder / "trading_calendar.csv", [{"trade_date": day} for day in OPEN_DAYS])
    write_csv(folder / "moneyflow.csv", MONEYFLOW)
    write_csv(folder / "top_inst.csv", TOP_INST)
    write_csv(folder / "index_members.csv", MEMBERS)
    write_csv(folder / "market_margin.csv", MARKET_MARGIN)
    write_csv(folder / "market_moneyflow.csv", MARKET_MONEYFLOW)
    write_csv(folder / "security_code_changes.csv", CODE_CHANGES)
    names = [
        {"ts_code": "000001.SZ", "start_date": day, "name": name, "end_date": day + timedelta(1)}
        for day, (name, *_) in zip(OPEN_DAYS, NAMES, strict=False)
    ]
    write_csv(folder / "security_names.csv", names)
    levels = {"ts_code": ["000300.SH"] * 3, "trade_date": OPEN_DAYS[:3], "close": [1.0, 2.0, 3.0]}
    index = pd.DataFrame(levels | {name: [1.0, None, 2.0] for name in ("open", "low", "amount")})
    index = index.assign(high=[1.0, 2.0, 1.0], volume=[1.0, -1.0, 1.0], pct_chg=[0.01, 0.5, 1.0])
    index.to_parquet(folder / "index_daily.parquet", index=False)
    selected = ["--select", "staging", "reject_reasons", "--exclude", *BEYOND_STAGING]
    warehouse.dbt("build", *selected)
    return warehouse


def compiled(warehouse: Warehouse, model: str) -> str:
    """A model's SQL as built, on relations of the connected database."""
    folder = warehouse.file.parent / "target/compiled/wavehouse/models/staging/daily"
    sql = (folder / f"{model}.sql").read_text().replace('"warehouse".', "")
    return sql.replace(str(parse_cache().folder / "data"), str(warehouse.data_dir))


def staged_by(
    warehouse: Warehouse, bars: pd.DataFrame, folder: Path, edit=lambda sql: sql
) -> duckdb.DuckDBPyConnection:
    """The daily bars' models as built, run on other files of the same columns."""
    bars.assign(adj_factor=bars.get("adj_factor", math.nan)).to_parquet(folder / "panel.parquet")
    header = (warehouse.data_dir / "daily_bars/faults.csv").read_text().split("\n")[0]
    (folder / "faults.csv").write_text(header + "\n")
    connection = duckdb.connect()
    connection.execute("create schema staging")
    calendar = f"from '{warehouse.data_dir}/trading_calendar.csv'"
    connection.execute(f"create table staging.base_trading_calendar as {calendar}")
    connection.execute(
        "create table staging.stg_index_daily as select null::date as trade_date where false"
    )
    for model in (
        *("base_daily_bars", "stg_trading_calendar", "adj_factor_steps", "stg_daily_bars"),
        "adj_factor_wobbles",
    ):
        sql = compiled(warehouse, model)
        for name in ("panel.parquet", "faults.csv"):
            sql = sql.replace(f"{warehouse.data_dir}/daily_bars/{name}", f"{folder}/{name}")
        connection.execute(f"create table staging.{model} as {edit(sql)}")
    return connection


def test_each_fault_has_its_reason_and_its_row(built):
    rejected = built.query("select * from staging.rejected_rows where source_name = 'daily_bars'")
    assert sorted(rejected["reason"]) == sorted(reason for _, reason in REFUSED)
    for row, reason in REFUSED:
        as_read = {name: str(known(value) or "").strip() for name, value in row.items()}
        found = [
            json.loads(text) for text in rejected.loc[rejected["reason"] == reason, "row_json"]
        ]
        assert any(
            all((one[name] or "").strip() == value for name, value in as_read.items())
            or all(
                (one[name] or "").strip() in {value, f"{value}.0", "0"}
                for name, value in as_read.items()
            )
            for one in found
        ), (reason, as_read, found)


def test_each_sound_row_is_kept_as_it_should_be(built):
    staged = built.query("from staging.stg_daily_bars where source_file like '%faults.csv'")
    assert len(staged) == len(KEPT) + 1
    rows = {(row["ts_code"], row["trade_date"].date()): row for row in records(staged)}
    for row, values, flag in KEPT:
        day = row["trade_date"]
        if isinstance(day, str):
            day = date(int(day[:4]), int(day[4:6]), int(day[6:]))
        found = rows[row["ts_code"], day]
        assert found["data_quality_flag"] == flag, row
        assert {name: found[name] for name in values} == values, row
    repeated = rows["600004.SH", REPEATED["trade_date"]]
    assert repeated["duplicate_count"] == 2
    assert sum(row["duplicate_count"] for row in rows.values()) == 2


def test_every_row_of_every_source_is_accounted_for(built, panel):
    audit = built.query("from staging.load_audit").set_index("source_name")
    files = audit[audit["source_file"].str.endswith("faults.csv")].iloc[0]
    assert files["rows_read"] == len(REFUSED) + len(KEPT) + 3
    assert files["rows_staged"] == len(KEPT) + 1
    assert files["rows_collapsed"] == 2
    assert files["rows_rejected"] == len(REFUSED)
    bars = audit[audit["source_file"].str.endswith("panel.parquet")].iloc[0]
    assert list(bars[["rows_read", "rows_staged"]]) == [len(panel), len(panel)]
    assert bars["symbols"] == panel["ts_code"].nunique()
    counts = {
        name: tuple(row[["rows_read", "rows_staged", "rows_collapsed", "rows_rejected"]])
        for name, row in audit.iterrows()
    }
    assert counts["moneyflow"] == (10, 3, 1, 6)
    assert counts["top_inst"] == (4, 2, 1, 1)
    assert counts["index_members"] == (8, 4, 0, 4)
    assert counts["index_daily"] == (3, 1, 0, 2)
    assert counts["market_margin"] == (5, 2, 1, 2)
    assert counts["market_moneyflow"] == (3, 1, 0, 2)
    assert counts["security_code_changes"] == (6, 1, 0, 5)
    assert counts["trading_calendar"] == (len(OPEN_DAYS), len(OPEN_DAYS), 0, 0)


def test_sources_refuse_what_has_no_place_in_them(built):
    rejected = built.query(
        "select source_name, reason, row_key from staging.rejected_rows"
        " where source_name <> 'daily_bars' order by all"
    )
    assert [tuple(known(value) for value in row) for row in rejected.to_numpy()] == [
        ("index_daily", "high_below_low", "000300.SH@2024-01-03"),
        ("index_daily", "negative_volume", "000300.SH@2024-01-02"),
        ("index_members", "overlapping_span", "000300.SH@000001.SZ@2024-02-15"),
        ("index_members", "overlapping_span", "000300.SH@000001.SZ@2025-05-01"),
        ("index_members", "span_not_positive", "000905.SH@000001.SZ@2024-02-15"),
        ("index_members", "unparsable_value", "000905.SH@000001.SZ@2024-02-15"),
        ("market_margin", "null_or_unparsable_key", "2024-01-03@"),
        ("market_margin", "unparsable_value", "2024-01-03@SSE"),
        ("market_moneyflow", "non_positive_price", "2024-01-04"),
        ("market_moneyflow", "pct_chg_in_percent", "2024-01-03"),
        ("moneyflow", "conflicting_duplicate_key", "000001.SZ@2024-01-08"),
        ("moneyflow", "conflicting_duplicate_key", "000001.SZ@2024-01-08"),
        ("moneyflow", "malformed_ts_code", "1.SZ@2024-01-05"),
        ("moneyflow", "null_or_unparsable_key", "@2024-01-05"),
        ("moneyflow", "unparsable_value", "000001.SZ@2024-01-04"),
        ("moneyflow", "unparsable_value", "000001.SZ@2024-01-05"),
        ("security_code_changes", "conflicting_duplicate_key", "430051.BJ"),
        ("security_code_changes", "conflicting_duplicate_key", "430051.BJ"),
        ("security_code_changes", "malformed_ts_code", "430048.BJ"),
        ("security_code_changes", "malformed_ts_code", "430050"),
        ("security_code_changes", "null_or_unparsable_key", "430049.BJ"),
        ("top_inst", "null_or_unparsable_key", "000001.SZ@2024-01-02@"),
    ]
    kept = built.query("from staging.stg_moneyflow order by trade_date")
    net = [known(value) for value in kept["net_small_amount_cny"]]
    assert net == [-2.0, None, 3.0]
    assert [known(value) for value in kept["net_main_amount_cny"]] == [3.0, None, None]
    spans = built.query("from staging.stg_index_members where index_code = '000905.SH'")
    assert [day.date() for day in spans["out_date"]] == [date(2024, 3, 1)]


def test_names_tell_marks_and_absent_feeds_are_empty_and_typed(built):
    names = records(built.query("from staging.stg_security_names order by start_date"))
    marks = [(row["name"], row["is_st_name"], row["is_delisting_name"]) for row in names]
    assert marks == NAMES
    types = built.query(
        "select table_name, column_name, data_type from information_schema.columns"
        " where table_schema = 'staging'"
    ).set_index(["table_name", "column_name"])["data_type"]
    for feed in ("hk_hold", "margin", "daily_basic", "northbound", "ths_hot", "holders"):
        assert built.query(f"select count(*) as n from staging.stg_{feed}")["n"].item() == 0
        assert types[f"stg_{feed}", "trade_date"] == "DATE"
    assert types["stg_daily_basic", "market_cap_cny"] == "DOUBLE"
    assert types["stg_hk_hold", "holding_ratio"] == "DOUBLE"
    assert types["stg_holders", "report_date"] == "DATE"
    assert types["stg_securities", "list_date"] == "DATE"


def test_the_calendar_is_the_file_and_later_bars(built):
    calendar = built.query("from staging.stg_trading_calendar order by trade_date")
    later = {
        row["trade_date"].date()
        for row in records(built.query("from staging.stg_daily_bars"))
        if row["trade_date"].date() > OPEN_DAYS[-1]
    }
    days = OPEN_DAYS + sorted(later)
    assert [day.date() for day in calendar["trade_date"]] == days
    assert list(calendar["trading_day"]) == list(range(1, len(days) + 1))
    assert [known(day) and day.date() for day in calendar["previous_trade_date"]] == [
        None,
        *days[:-1],
    ]
    assert [known(day) and day.date() for day in calendar["next_trade_date"]] == [*days[1:], None]


def assert_staged(connection, bars: pd.DataFrame) -> None:
    found = records(connection.execute("from staging.stg_daily_bars").df())
    expected = expected_bars(bars, OPEN_DAYS)
    assert len(found) == len(expected) > 0
    for one, wanted in zip(found, expected, strict=True):
        assert (one["ts_code"], one["trade_date"].date()) == (
            wanted["ts_code"],
            wanted["trade_date"],
        )
        for name in ("adj_factor_source", "is_suspended", "data_quality_flag"):
            assert one[name] == wanted[name], (name, one, wanted)
        assert math.isclose(one["adj_factor"], wanted["adj_factor"], rel_tol=1e-12), (one, wanted)
        assert (one["pct_chg"] is None) == (wanted["pct_chg"] is None), (one, wanted)
        if one["pct_chg"] is not None:
            assert math.isclose(one["pct_chg"], wanted["pct_chg"], rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize("given", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_bars_and_factors_are_those_of_the_definition(built, tmp_path, seed, given):
    bars = random_bars(seed, given)
    connection = staged_by(built, bars, tmp_path)
    assert_staged(connection, bars)
    staged = [
        {**row, "trade_date": row["trade_date"].date()}
        for row in records(connection.execute("from staging.stg_daily_bars").df())
    ]
    found = connection.execute(
        "select ts_code, trade_date, has_returned from staging.adj_factor_wobbles order by all"
    ).fetchall()
    wanted = expected_wobbles(staged, days=3, tolerance=0.001)
    assert found == wanted
    assert bool(found) == given


def test_a_factor_without_event_is_the_same_number(built, tmp_path):
    bars = random_bars(7)
    connection = staged_by(built, bars, tmp_path)
    changes = connection.execute("""
        select count(*) filter (adj_factor <> previous) as changes
        from (select *, lag(adj_factor) over (partition by ts_code order by trade_date) as previous
              from staging.stg_daily_bars)
    """).fetchone()[0]
    steps = connection.execute(
        "select count(*) from staging.adj_factor_steps where ratio <> 1"
    ).fetchone()[0]
    assert changes == steps > 10


@pytest.mark.parametrize("given", [True, False])
def test_nothing_known_on_a_day_changes_when_later_rows_are_cut(built, tmp_path, given):
    bars = random_bars(11, given)
    whole = staged_by(built, bars, tmp_path).execute("from staging.stg_daily_bars").df()
    for day in random.Random(1).sample(OPEN_DAYS[20:], 4):
        cut = staged_by(built, bars[bars["trade_date"] <= day], tmp_path)
        found = cut.execute("from staging.stg_daily_bars").df()
        pd.testing.assert_frame_equal(
            found, whole[whole["trade_date"] <= pd.Timestamp(day)].reset_index(drop=True)
        )


def test_order_of_rows_and_exact_repeats_change_nothing(built, tmp_path, panel):
    whole = staged_by(built, panel, tmp_path).execute("from staging.stg_daily_bars").df()
    mixed = pd.concat([panel, panel.iloc[::3]]).sample(frac=1, random_state=1)
    found = staged_by(built, mixed, tmp_path).execute("from staging.stg_daily_bars").df()
    assert found["duplicate_count"].sum() == len(panel.iloc[::3])
    pd.testing.assert_frame_equal(
        found.drop(columns="duplicate_count"), whole.drop(columns="duplicate_count")
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"volume": 0.01}, "Multiply volume by 100,"),
        ({"volume": 0.01, "amount": 0.001}, "Multiply volume by 100 and amount by 1000,"),
        ({"amount": 0.001}, "Multiply amount by 1000,"),
        ({"pct_chg": 100}, "Multiply pct_chg by 0.01,"),
    ],
)
def test_a_file_in_other_units_stops_the_build_and_says_what_to_do(
    built, tmp_path, panel, changes, said
):
    wrong = panel.assign(pct_chg=panel["close"] / panel["pre_close"] - 1)
    for column, factor in changes.items():
        wrong[column] *= factor
    with pytest.raises(duckdb.InvalidInputException, match=f"panel.parquet: .*{said}"):
        staged_by(built, wrong, tmp_path)
    forward = wrong.assign(price_basis="forward_adjusted", pct_chg=None)
    with_basis = lambda sql: sql.replace("null as price_basis", "price_basis")  # noqa: E731
    staged_by(built, forward, tmp_path, with_basis)


def test_without_minute_files_minutes_are_empty_and_a_whole_build_says_what_to_do(built):
    assert built.query("select count(*) as n from staging.stg_minute_bars")["n"].item() == 0
    done = built.dbt("build", check=False)
    assert done.returncode != 0
    assert f"daily_bars and no {built.data_dir}/minute_bars" in done.stdout
    assert "`dbt build --select +tag:daily`" in done.stdout
    assert "START sql" not in done.stdout


def test_without_daily_files_every_daily_relation_is_empty(random_warehouse, tmp_path):
    warehouse = Warehouse(random_warehouse.data_dir, tmp_path / "warehouse.duckdb")
    warehouse.dbt("run", "--select", "staging", "--exclude", *BEYOND_STAGING)
    tables = warehouse.query(
        "select table_name from information_schema.tables where table_schema = 'staging'"
    )["table_name"]
    daily = [name for name in tables if "minute" not in name]
    daily = sorted(set(daily) - {"rejected_rows", "load_audit"})
    assert len(daily) >= 20
    for name in daily:
        assert warehouse.query(f"select count(*) as n from staging.{name}")["n"].item() == 0
    audit = warehouse.query("select distinct source_name as name from staging.load_audit")
    assert list(audit["name"]) == ["minute_bars"]


@pytest.mark.skipif(not REAL_DAILY_DATA.exists(), reason="no real daily data beside the checkout")
def test_derived_factors_of_a_real_year_move_where_given_ones_do(built, tmp_path):
    source = REAL_DAILY_DATA / "tushare_szmain_2024.parquet"
    bars = duckdb.sql(f"""
        select ts_code, trade_date, open, high, low, close, pre_close, vol * 100 as volume,
            amount * 1000 as amount, pct_chg / 100 as pct_chg, adj_factor, false as is_suspended
        from '{source}'
    """).df()
    no_calendar = "(select null::date as trade_date where false)"

    def factors(frame):
        return staged_by(
            built,
            frame,
            tmp_path,
            lambda sql: sql.replace('"staging"."base_trading_calendar"', no_calendar),
        )

    given = factors(bars)
    flags = given.execute(
        "select data_quality_flag, count(*) from staging.stg_daily_bars group by 1"
    )
    assert flags.fetchall() == [("OK", 237144)]
    wobbles = given.execute(
        "select count(*) from staging.adj_factor_wobbles where trade_date = '2024-06-25'"
    )
    assert wobbles.fetchone()[0] == 857
    given_factor = given.execute(
        "select ts_code, trade_date, adj_factor from staging.stg_daily_bars"
    )
    given_factor = given_factor.df()
    derived = factors(bars.drop(columns="adj_factor")).execute(
        "select ts_code, adj_factor, pre_close from staging.stg_daily_bars"
    )
    frame = given_factor.assign(derived=derived.df()["adj_factor"])
    steps = frame.groupby("ts_code")[["adj_factor", "derived"]].pct_change()
    calm = ~frame["trade_date"].astype(str).isin(["2024-06-25", "2024-06-26"])
    moved = (steps["derived"] != 0) & steps["derived"].notna()
    assert moved.sum() == 778
    assert ((steps["adj_factor"] != 0) & steps["adj_factor"].notna() & calm & ~moved).sum() == 0
    assert (abs(steps["adj_factor"] - steps["derived"])[moved] < 5e-4).all()
