"""`wavehouse ingest tushare|baostock`: each vendor's shape, the assembled files, the real data.

Spans are compared with slow evaluators that ask, day by day and stock by stock, what was known.
"""

import datetime as dt
import json
import random
from pathlib import Path

import duckdb
import pytest
from click.testing import CliRunner, Result

from wavehouse import ingest
from wavehouse.daily_shapes import KINDS, SHAPES, Shape
from wavehouse.ingest import ingest_command
from wavehouse.ingest_daily import fields, folder_of

REAL = Path(__file__).parents[3] / "shared/data"
real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real market data at {REAL}")
DAY = dt.date


def run(market: Path, vendor: str, *args: object, code: int = 0) -> Result:
    """Run the command on a data folder and insist on its exit code."""
    command = [vendor, *map(str, args), "--data-dir", str(market)]
    result = CliRunner().invoke(ingest_command, command, env={"WAREHOUSE_DATA": None})
    assert result.exit_code == code, (result.output, result.exception)
    return result


def files(market: Path, folder: str) -> list[Path]:
    return sorted((market / folder).glob("*.parquet"))


def rows(market: Path, folder: str, columns: str = "*", where: str = "true") -> list[tuple]:
    if not files(market, folder):
        return []
    source = f"read_parquet('{market}/{folder}/*.parquet')"
    return duckdb.sql(f"select {columns} from {source} where {where} order by all").fetchall()


@pytest.fixture
def market(tmp_path: Path) -> Path:
    return tmp_path / "market"


@pytest.fixture
def source(tmp_path: Path):
    """Return a function that writes a source file from header and lines and gives its path."""

    def write(name: str, *lines: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding=encoding)
        return path

    return write


# ---- the table of shapes -----------------------------------------------------------------------

PLAUSIBLE = {"number": "1", "day": "20240102", "code": "600000.SH", "text": "x", "flag": "1"}
PLAUSIBLE_COLUMNS = {
    "index_code": "000300.SH",
    "suspend_type": "S",
    "snapshot_month": "2024-01",
    "suspend_timing": "",
    "as_of": "20240103",
    "adjustflag": "3",
}
VENDOR = {"any": "tushare"}


def example(shape: Shape, optional: bool) -> dict[str, str]:
    """Return one row of a shape: its required columns, or these and every optional one."""
    row = {"as_of": "20240103"} if "as_of|list_date|list_status" in shape.signs else {}
    for name, kind in sorted(fields(shape)):
        if not name.endswith("?") or optional:
            column = name.rstrip("?").split("|")[0]
            row[column] = PLAUSIBLE_COLUMNS.get(column, PLAUSIBLE.get(kind, "20240102"))
    for sign in shape.signs:
        row.setdefault(sign.split("|")[0], PLAUSIBLE["day"])
    if shape.name == "index bars with volume in shares":
        row["ts_code"] = "000300.SH"
    return row


@pytest.mark.parametrize("optional", [False, True], ids=["required", "all"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape.vendor}:{shape.name}")
def test_every_shape_is_told_by_its_columns(market, source, shape, optional):
    row = example(shape, optional)
    path = source("x.csv", ",".join(row), ",".join(row.values()))
    args = ["--as-of", "2024-01-03"] if "as_of" not in row else []
    result = run(market, VENDOR.get(shape.vendor, shape.vendor), path, *args, "--strict")
    assert f"read as {shape.name}\n" in result.stdout
    written = [kind for kind in KINDS if files(market, folder_of(kind))]
    assert set(written) == {next(iter(shape.outputs)), *written} & set(shape.outputs)
    for kind in written:
        described = duckdb.sql(f"describe from '{files(market, folder_of(kind))[0]}'").fetchall()
        assert {row[0]: row[1].lower() for row in described} == KINDS[kind].columns
        assert len(rows(market, folder_of(kind))) == 1


def test_shapes_write_only_known_columns():
    for shape in SHAPES:
        for kind, columns in shape.outputs.items():
            assert columns.keys() <= KINDS[kind].columns.keys(), shape.name
            assert set(KINDS[kind].key) <= columns.keys(), shape.name


VALUES = [  # vendor, header, line, folder, what the contract's row must hold
    (
        "tushare",
        "ts_code,trade_date,open,high,low,close,pre_close,change,pct_chg,vol,amount",
        "600000.SH,20240102,10,11,9,10.5,10,0.5,5.0,12.34,129.57",
        "daily_bars",
        {"volume": 1234.0, "amount": 129570.0, "pct_chg": 0.05, "price_basis": "unadjusted"}
        | {"trade_date": DAY(2024, 1, 2), "adj_factor": None, "is_suspended": None, "is_st": None},
    ),
    (
        "tushare",
        "ts_code,trade_date,open,high,low,close,pre_close,change,pct_chg,vol,amount",
        "000001.SH,2024-01-02,10,11,9,10.5,10,0.5,-5.0,12.34,129.57",
        "index_daily",
        {"ts_code": "000001.SH", "volume": 1234.0, "amount": 129570.0, "pct_chg": -0.05},
    ),
    (
        "baostock",
        "date,code,open,high,low,close,preclose,volume,amount,adjustflag,turn,tradestatus,pctChg,isST",
        "2024-01-02,sh.600000,10,11,9,10.5,10,1234,129570.5,3,0.25,1,5.0,1",
        "daily_bars",
        {"ts_code": "600000.SH", "volume": 1234.0, "amount": 129570.5, "turnover": 0.0025}
        | {"pct_chg": 0.05, "is_suspended": False, "is_st": True, "price_basis": "unadjusted"},
    ),
    (
        "baostock",
        "date,code,open,high,low,close,preclose,volume,amount,adjustflag,turn,tradestatus,pctChg,isST",
        "2024-01-02,sz.000001,10,10,10,10,10,,,2,,0,,0",
        "daily_bars",
        {"volume": None, "amount": None, "turnover": None, "pct_chg": None, "is_st": False}
        | {"is_suspended": True, "price_basis": "forward_adjusted", "close": 10.0},
    ),
    (
        "tushare",
        "ts_code,trade_date,turnover_rate,total_share,float_share,total_mv,circ_mv,dv_ratio",
        "600000.SH,20240102,0.5,100,80,2000.5,1600,3",
        "daily_basic",
        {"turnover": 0.005, "total_shares": 1e6, "float_shares": 8e5, "dividend_yield": 0.03}
        | {"market_cap_cny": 20_005_000.0, "float_market_cap_cny": 1.6e7, "pe": None},
    ),
    (
        "tushare",
        "ts_code,trade_date,"
        + ",".join(
            f"{s}_{z}_{w}"
            for z in ("sm", "md", "lg", "elg")
            for s in ("buy", "sell")
            for w in ("vol", "amount")
        )
        + ",net_mf_vol,net_mf_amount",
        "600000.SH,20240102,1,10,2,20,3,30,4,40,5,50,6,65,7,70,8,88,9,12.5",
        "moneyflow",
        {"net_small_amount_cny": -1e5, "net_medium_amount_cny": -1e5}
        | {"net_large_amount_cny": -1.5e5, "net_extra_large_amount_cny": -1.8e5}
        | {"net_main_amount_cny": -3.3e5, "buy_large_volume_shares": 500.0}
        | {"sell_extra_large_amount_cny": 8.8e5, "net_amount_cny": 1.25e5}
        | {"net_volume_shares": 900.0, "net_main_ratio": None},
    ),
    (
        "tushare",
        "trade_date,ggt_ss,ggt_sz,hgt,sgt,north_money,south_money",
        "20240102,1,2,3,4.5,7.5,3",
        "northbound",
        {"northbound_amount_cny": 7.5e6, "northbound_shenzhen_amount_cny": 4.5e6}
        | {"northbound_shanghai_amount_cny": 3e6, "southbound_shanghai_amount_cny": 1e6},
    ),
    (
        "tushare",
        "code,trade_date,ts_code,name,vol,ratio,exchange",
        "90000,20240102,600000.SH,x,1234,5.5,SH",
        "hk_hold",
        {"holding_shares": 1234.0, "holding_ratio": 0.055},
    ),
    (
        "tushare",
        "ts_code,ann_date,end_date,holder_num",
        "600000.SH,20240430,20240331,1000",
        "holders",
        {"trade_date": DAY(2024, 4, 30), "report_date": DAY(2024, 3, 31), "holder_count": 1000.0},
    ),
    (
        "tushare",
        "trade_date,ts_code,exalter,buy,buy_rate,sell,sell_rate,net_buy,side,reason",
        "20240102,600000.SH,机构专用,10,1.5,4,0.5,6,1,x",
        "top_inst",
        {"seat_name": "机构专用", "side": "sell", "buy_ratio": 0.015, "net_amount_cny": 6.0},
    ),
]


@pytest.mark.parametrize(
    ("vendor", "header", "line", "folder", "expected"), VALUES, ids=lambda v: str(v)[:12]
)
def test_units_become_shares_cny_and_decimals(
    market, source, vendor, header, line, folder, expected
):
    run(market, vendor, source("x.csv", header, line), "--strict")
    (found,) = rows(market, folder, ", ".join(expected))
    for name, value in zip(expected, found, strict=True):
        is_number = isinstance(expected[name], float)
        assert value == (pytest.approx(expected[name]) if is_number else expected[name]), name


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("600000.SH", "600000.SH"),
        ("sh.600000", "600000.SH"),
        ("SZ000001", "000001.SZ"),
        ("600000.SS", "600000.SH"),
        ("000001.XSHE", "000001.SZ"),
        ("600000", "600000.SH"),
        ("1", "000001.SZ"),
        ("300750", "300750.SZ"),
        ("430047", "430047.BJ"),
        ("920002", "920002.BJ"),
        ("900901", "900901.SH"),
        ("T00018.SH", "T00018.SH"),
    ],
)
def test_codes(market, source, text, code):
    run(market, "tushare", source("f.csv", "ts_code,trade_date,adj_factor", f"{text},20240102,1"))
    assert rows(market, "ingested/adjustment_factors", "ts_code") == [(code,)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("600000.SH,20240102,1", None),
        ("600000.SH,20240102,", None),
        ("600000.SH,20240102.0,nan", None),
        ("600000.SH,2024/01/02,1", None),
        (",20240102,1", "null_or_unparsable_code: ts_code"),
        ("0700.HK.SZ,20240102,1", "null_or_unparsable_code: ts_code"),
        ("000001.SH,20240102,1", "not_an_a_share: ts_code"),
        ("510300.SH,20240102,1", "not_an_a_share: ts_code"),
        ("0700.HK,20240102,1", "not_an_a_share: ts_code"),
        ("600000.SH,,1", "null_or_unparsable_date: trade_date"),
        ("600000.SH,20241302,1", "null_or_unparsable_date: trade_date"),
        ("600000.SH,20240102,many", "unparsable_number: adj_factor"),
        ("600000.SH,20240102,inf", "unparsable_number: adj_factor"),
        ("600000.SH,20240102", "malformed_line: "),
    ],
)
def test_what_cannot_be_typed_is_kept_with_its_reason(market, source, line, reason):
    path = source("f.csv", "ts_code,trade_date,adj_factor", line)
    result = run(market, "tushare", path, "--strict", code=2 if reason else 0)
    found = rows(market, "ingest_rejects_daily", "reason, column_name, source_row, raw_row")
    assert [f"{r[0]}: {r[1] or ''}" for r in found] == ([reason] if reason else [])
    assert len(rows(market, "ingested/adjustment_factors")) == (reason is None)
    if reason and reason != "malformed_line: ":
        assert list(json.loads(found[0][3])) == ["ts_code", "trade_date", "adj_factor"]
        assert f"{path}, data row 1" in result.stdout


# ---- what is told ------------------------------------------------------------------------------


def test_an_unknown_shape_names_the_columns_and_the_shapes(market, source):
    result = run(market, "tushare", source("x.csv", "ts_code,trade_date,foo", "a,b,1"), code=1)
    for words in ("ts_code, trade_date, foo", "adj_factor lacks adj_factor", "moneyflow_hsgt"):
        assert words in result.stderr
    assert not market.exists()


def test_the_other_vendors_columns_are_told(market, source):
    path = source("x.csv", "date,code,open,high,low,close,preclose,volume,amount", "")
    assert "Use `wavehouse ingest baostock`" in run(market, "tushare", path, code=1).stderr


def test_kind_overrides(market, source):
    header = "ts_code,trade_date,open,high,low,close,pre_close,vol,amount"
    path = source("etf.csv", header, "510300.SH,20240102,1,1,1,1,1,1,1")
    run(market, "tushare", path, "--strict", code=2)
    assert rows(market, "daily_bars") == []
    assert "replaced" in run(market, "tushare", path, "--kind", "daily_bars", "--strict").stdout
    assert rows(market, "daily_bars", "ts_code") == [("510300.SH",)]
    assert files(market, "ingest_rejects_daily") == []
    run(market, "tushare", path, "--kind", "moneyflow", code=1)
    header = "date,code,open,high,low,close,preclose,volume,amount,adjustflag,turn,peTTM,pbMRQ"
    path = source("k.csv", header, "2024-01-02,sh.600000,1,1,1,1,1,1,1,2.0,5,7,8")
    run(market, "baostock", path, "--kind", "daily_basic")
    assert rows(market, "daily_basic", "turnover, pe_ttm") == [(0.05, 7.0)]
    run(market, "baostock", path)
    assert rows(market, "daily_bars", "price_basis", "ts_code like '6%'") == [("forward_adjusted",)]


def test_options_of_one_format_are_refused_by_the_other(market, source):
    result = run(market, "binance", source("x.csv", "a"), "--kind", "margin", code=2)
    assert "--kind is for tushare and baostock; binance does not use it" in result.stderr
    result = run(market, "tushare", source("x.csv", "a"), "--map", "close=x", code=2)
    assert "--map is for table; tushare does not use it" in result.stderr


def test_backward_adjusted_prices_are_refused(market, source):
    header = "date,code,open,high,low,close,preclose,volume,amount,adjustflag"
    path = source("x.csv", header, "2024-01-02,sh.600000,1,1,1,1,1,1,1,1")
    assert "adjustflag 1" in run(market, "baostock", path, code=1).stderr


def test_chinese_encoding(market, source):
    lines = ["ts_code,name,list_date", "000002.SZ,万科Ａ,19910129"]
    path = source("basic.csv", *lines, encoding="gb18030")
    run(market, "tushare", path, "--as-of", "2024-01-02")
    assert rows(market, "security_names") == [("000002.SZ", "万科Ａ", DAY(2024, 1, 2), None)]


def test_a_list_of_stocks_needs_its_day(market, source):
    path = source("basic.csv", "ts_code,name,list_date", "000002.SZ,万科Ａ,19910129")
    assert "Give --as-of YYYY-MM-DD" in run(market, "tushare", path, code=1).stderr


def test_help_teaches():
    text = CliRunner().invoke(ingest_command, ["--help"]).output
    for words in (
        "tushare",
        "baostock",
        "stock_basic",
        "--as-of",
        "--out-date",
        "--kind",
        "suspend_d",
    ):
        assert words in text


# ---- running it again --------------------------------------------------------------------------

BARS = "ts_code,trade_date,open,high,low,close,pre_close,vol,amount"


def bar(code: str, day: str, close: float = 10.0) -> str:
    return f"{code},{day},{close},{close},{close},{close},{close},1,1"


def state(market: Path) -> dict[str, tuple[int, bytes]]:
    found = (path for path in market.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def test_again_changes_nothing(market, source):
    mixed = source("d.csv", BARS, bar("600000.SH", "20240102"), bar("000300.SH", "20240102"), "x")
    names = source("n.csv", "ts_code,name,as_of", "600000.SH,x,20240101")
    factors = source("f.csv", "ts_code,trade_date,adj_factor", "600000.SH,20240102,2")
    first = run(market, "tushare", mixed, names, factors)
    before = state(market)
    again = run(market, "tushare", mixed, names, factors)
    assert state(market) == before
    assert again.stdout.count("unchanged") == 3
    assert "malformed_line" in first.stdout
    assert "malformed_line" in again.stdout
    assert len(rows(market, "daily_bars")) == len(rows(market, "index_daily")) == 1


def test_dry_run_writes_nothing(market, source):
    path = source("d.csv", BARS, bar("600000.SH", "20240102"), "x")
    result = run(market, "tushare", path, "--dry-run")
    assert "Dry run" in result.stdout
    assert "malformed_line" in result.stdout
    assert not market.exists()


@pytest.mark.parametrize("broken_write", [1, 2, 3])
def test_an_interruption_loses_nothing(market, source, monkeypatch, broken_write):
    path = source("d.csv", BARS, bar("600000.SH", "20240102"), bar("000300.SH", "20240102"), "x")
    writes, real_replace = [], ingest.os.replace

    def replace(temporary, target):
        writes.append(target)
        if len(writes) == broken_write:
            raise OSError("power cut")
        real_replace(temporary, target)

    monkeypatch.setattr(ingest.os, "replace", replace)
    assert "power cut" in run(market, "tushare", path, code=1).stderr
    monkeypatch.undo()
    assert "unchanged" not in run(market, "tushare", path).stdout
    for folder in ("daily_bars", "index_daily", "ingest_rejects_daily"):
        assert len(rows(market, folder)) == 1
    assert not list(market.rglob("*.tmp"))


def test_footer_tells_the_source(market, source):
    path = source("d.csv", BARS, bar("600000.SH", "20240102"))
    run(market, "tushare", path)
    (output,) = files(market, "daily_bars")
    found = duckdb.sql(f"select decode(key), decode(value) from parquet_kv_metadata('{output}')")
    footer = dict(found.fetchall())
    assert footer["wavehouse.source"] == str(path)
    assert json.loads(footer["wavehouse.options"])["format"] == "tushare"
    assert len(footer["wavehouse.source_sha256"]) == 64


# ---- bars with factors and suspended days ------------------------------------------------------


@pytest.mark.parametrize("order", ["together", "factors first", "factors last"])
def test_factors_are_joined_in_any_order(market, source, order):
    days = ["20240102", "20240103", "20240104"]
    bars = source("d.csv", BARS, *(bar("600000.SH", day) for day in days))
    factors = source(
        "f.csv", "ts_code,trade_date,adj_factor", "600000.SH,20240102,2", "600000.SH,20240104,3"
    )
    steps = {"together": [(bars, factors)], "factors first": [(factors,), (bars,)]}
    for step in steps.get(order, [(bars,), (factors,)]):
        result = run(market, "tushare", *step)
    assert [r[0] for r in rows(market, "daily_bars", "adj_factor, trade_date")] == [2, 3, None]
    assert "1 bars have no adj_factor" in result.stdout
    before = state(market)
    run(market, "tushare", bars, factors)
    assert state(market) == before


def test_only_bars_of_the_factors_days_are_written_again(market, source):
    early = source("early.csv", BARS, bar("600000.SH", "20230103"))
    late = source("late.csv", BARS, bar("600000.SH", "20240102"))
    run(market, "tushare", early, late)
    before = state(market)
    factors = source("f.csv", "ts_code,trade_date,adj_factor", "600000.SH,20240102,2")
    run(market, "tushare", factors)
    changed = [path for path, was in before.items() if state(market)[path] != was]
    assert [Path(path).name.split("-")[1] for path in changed] == ["late"]
    assert rows(market, "daily_bars", "trade_date, adj_factor") == [
        (DAY(2023, 1, 3), None),
        (DAY(2024, 1, 2), 2.0),
    ]


def test_suspended_days_become_bars_where_there_is_none(market, source):
    bars = source("d.csv", BARS, bar("600000.SH", "20240102"), bar("600000.SH", "20240104"))
    suspended = source(
        "s.csv",
        "ts_code,trade_date,suspend_timing,suspend_type",
        "600000.SH,20240103,,S",
        "600000.SH,20240102,,S",
        "600000.SH,20240104,09:30-10:00,S",
        "600000.SH,20240104,,R",
    )
    result = run(market, "tushare", suspended, bars)
    assert "2 rows left out: resumptions and halts within a day" in result.stdout
    columns = "trade_date, close, volume, is_suspended"
    assert rows(market, "daily_bars", columns) == [
        (DAY(2024, 1, 2), 10.0, 100.0, None),
        (DAY(2024, 1, 3), None, 0.0, True),
        (DAY(2024, 1, 4), 10.0, 100.0, None),
    ]
    run(market, "tushare", source("d2.csv", BARS, bar("600000.SH", "20240103")))
    assert rows(market, "daily_bars", columns)[1] == (DAY(2024, 1, 3), 10.0, 100.0, None)
    assert len(rows(market, "daily_bars")) == 3


# ---- names and listings ------------------------------------------------------------------------

BASIC = "as_of,ts_code,name,list_status,list_date,delist_date"


def test_names_hold_from_the_day_they_were_seen(market, source):
    run(
        market,
        "tushare",
        source(
            "a.csv",
            BASIC,
            "20200101,000002.SZ,万  科Ａ,L,19910129,",
            "20210101,000002.SZ,万科A,L,19910129,",
            "20220101,000002.SZ,ST万科,L,19910129,",
            "20210101,000858.SZ,*ＳＴ五粮,L,19980427,",
        ),
    )
    assert rows(market, "security_names") == [
        ("000002.SZ", "ST万科", DAY(2022, 1, 1), None),
        ("000002.SZ", "万  科Ａ", DAY(2020, 1, 1), DAY(2022, 1, 1)),
        ("000858.SZ", "*ＳＴ五粮", DAY(2021, 1, 1), None),
    ]


def test_dated_name_changes_come_before_snapshots(market, source):
    changes = source(
        "c.csv",
        "ts_code,name,start_date,end_date,ann_date,change_reason",
        "600000.SH,浦发银行,19991110,20200103,19991110,其他",
        "600000.SH,浦发银行,19991110,20200103,19991110,其他",
        "600000.SH,ST浦发,20200104,,20200102,ST",
    )
    basic = source("b.csv", BASIC, "20210101,600000.SH,浦发,L,19991110,")
    run(market, "tushare", basic, changes)
    assert rows(market, "security_names") == [
        ("600000.SH", "ST浦发", DAY(2020, 1, 4), None),
        ("600000.SH", "浦发银行", DAY(1999, 11, 10), DAY(2020, 1, 4)),
    ]


def random_snapshots(seed: int) -> list[tuple[dt.date, str, str]]:
    dice = random.Random(seed)
    days = sorted(dice.sample(range(1000), 8))
    names = ["甲", "甲Ａ", "甲A", "甲 A", "ST甲", "ＳＴ甲"]
    return [
        (DAY(2020, 1, 1) + dt.timedelta(day), f"60000{stock}.SH", dice.choice(names))
        for day in days
        for stock in range(6)
        if dice.random() < 0.7
    ]


def plain(name: str) -> str:
    half = "".join(chr(ord(c) - 0xFEE0) if 0xFF01 <= ord(c) <= 0xFF5E else c for c in name)
    return half.replace(" ", "").upper()


def known_name(snapshots: list, stock: str, day: dt.date) -> str | None:
    """Return the latest name seen by `day`, as a person who keeps the lists would find it."""
    seen = [(as_of, name) for as_of, code, name in snapshots if code == stock and as_of <= day]
    return plain(max(seen)[1]) if seen else None


@pytest.mark.parametrize("seed", range(3))
def test_names_equal_the_evaluator_and_learn_nothing_from_later_lists(tmp_path, source, seed):
    snapshots = random_snapshots(seed)
    days = sorted({as_of for as_of, _, _ in snapshots})
    paths = [
        source(
            f"{day}.csv",
            "as_of,ts_code,name",
            *(f"{d},{c},{n}" for d, c, n in snapshots if d == day),
        )
        for day in days
    ]
    random.Random(seed).shuffle(paths)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(whole, "tushare", *paths)
    run(cut, "tushare", *(path for path in paths if path.stem <= str(days[4])))
    for market, known in ((whole, days), (cut, days[:5])):
        spans = rows(market, "security_names")
        for stock in {code for _, code, _ in snapshots}:
            for offset in range(-1, (known[-1] - days[0]).days + 1):
                day = days[0] + dt.timedelta(offset)
                found = [
                    plain(name)
                    for code, name, start, end in spans
                    if code == stock and start <= day and (end is None or day < end)
                ]
                name = known_name(snapshots, stock, day)
                assert found == ([name] if name else []), (stock, day)


def test_listings(market, source):
    basic = source(
        "b.csv",
        BASIC,
        "20210101,000004.SZ,a,L,19910114,",
        "20230101,000004.SZ,a,L,19910114,",
        "20260101,000004.SZ,a,L,19901201,",
        "20210101,600001.SH,b(退),D,19980101,20091229",
        "20210101,600002.SH,c,P,19980101,20200602",
        "20210101,600003.SH,d,D,19980101,20200602",
        "20260101,600003.SH,d,L,19980101,",
        "20260101,000001.SH,沪市,,,",
    )
    new = source(
        "n.csv",
        "ts_code,sub_code,name,ipo_date,issue_date",
        "688001.SH,787001,e,20190627,20190722",
        "688688.SH,787688,f,20201029,",
    )
    result = run(market, "tushare", basic, new)
    assert rows(market, "securities", "ts_code, exchange, list_date, delist_date") == [
        ("000004.SZ", "SZSE", DAY(1991, 1, 14), None),
        ("600001.SH", "SSE", DAY(1998, 1, 1), DAY(2009, 12, 29)),
        ("600002.SH", "SSE", DAY(1998, 1, 1), DAY(2020, 6, 2)),
        ("600003.SH", "SSE", DAY(1998, 1, 1), None),
        ("688001.SH", "SSE", DAY(2019, 7, 22), None),
    ]
    for words in (
        "000004.SZ has several list dates: 1991-01-14 (2), 1990-12-01 (1); 1991-01-14 taken",
        "1 delist dates not taken: a later list calls them listed",
        "1 delist dates on a status other than D, kept",
        "1 rows left out: issues without a listing date",
        "not_an_a_share",
    ):
        assert words in result.stdout


def test_renumbered_beijing_codes_are_both_kept_and_paired(market, source):
    basic = source(
        "b.csv",
        BASIC,
        "20230101,430047.BJ,诺思兰德,L,20201124,",
        "20260101,920047.BJ,诺思兰德,L,,",
        "20260101,920048.BJ,别的,L,20240101,",
        "20230101,430049.BJ,旧的,L,20200101,",
    )
    result = run(market, "tushare", basic)
    assert rows(market, "security_code_changes") == [
        ("430047.BJ", "920047.BJ", "诺思兰德", DAY(2026, 1, 1))
    ]
    assert rows(market, "securities", "ts_code, list_date")[2] == ("920047.BJ", DAY(2020, 11, 24))
    assert "1 old Beijing codes without a 920 code" in result.stdout


def test_the_next_command_builds_what_the_folder_holds(market, source):
    days = source("days.csv", "cal_date,is_open", "20240102,1")
    assert (
        f"WAREHOUSE_DATA={market} dbt build --select +tag:daily\n"
        in run(market, "tushare", days).stdout
    )
    (market / "minute_bars").mkdir()
    days = source("days.csv", "cal_date,is_open", "20240103,1")
    assert f"WAREHOUSE_DATA={market} dbt build\n" in run(market, "tushare", days).stdout


def test_a_source_is_taken_out_by_deleting_its_part(market, source):
    header = "as_of,ts_code,name"
    run(market, "tushare", source("a.csv", header, "20230101,600000.SH,a"))
    run(market, "tushare", source("b.csv", header, "20240101,600000.SH,ST a"))
    assert len(rows(market, "security_names")) == 2
    part = next(p for p in files(market, "ingested/security_snapshots") if "-b-" in p.name)
    part.unlink()
    days = source("days.csv", "cal_date,is_open", "20240102,1", "20240103,0")
    run(market, "tushare", days)
    assert rows(market, "security_names", "name") == [("a",)]
    files(market, "ingested/security_snapshots")[0].unlink()
    run(market, "tushare", days)
    assert not files(market, "security_names")
    assert rows(market, "trading_calendar") == [(DAY(2024, 1, 2),)]


# ---- index members -----------------------------------------------------------------------------


def test_members_of_baostock_need_the_index_they_are_of(market, source):
    listings = {"2023-06-12": ["sh.600000", "sz.000001"], "2023-12-11": ["sz.000001", "sh.688981"]}
    lines = [f"{day},{code},name" for day, codes in listings.items() for code in codes]
    header = "updateDate,code,code_name"
    result = run(market, "baostock", source("bare.csv", header, *lines), code=1)
    assert "query_sz50_stocks with index_code lacks index_code" in result.output
    named = [f"{line},sh.000300" for line in lines]
    run(market, "baostock", source("named.csv", f"{header},index_code", *named), "--strict")
    assert rows(market, "index_members") == [
        ("000300.SH", "000001.SZ", DAY(2023, 6, 12), None),
        ("000300.SH", "600000.SH", DAY(2023, 6, 12), DAY(2023, 12, 11)),
        ("000300.SH", "688981.SH", DAY(2023, 12, 11), None),
    ]


def random_listings(seed: int) -> dict[dt.date, set[str]]:
    """Return listings of twelve members each: some leave, as many enter, some come back."""
    dice = random.Random(seed)
    stocks = [f"6000{number:02}.SH" for number in range(30)]
    members, listings = set(dice.sample(stocks, 12)), {}
    for number in range(8):
        listings[DAY(2020, 1, 6) + dt.timedelta(28 * number)] = set(members)
        leaving = set(dice.sample(sorted(members), dice.choice([0, 1, 2, 3])))
        members = members - leaving
        members |= set(dice.sample(sorted(set(stocks) - members - leaving), len(leaving)))
    return listings


def members_on(listings: dict[dt.date, set[str]], day: dt.date) -> set[str]:
    past = [listing for listing in listings if listing <= day]
    return listings[max(past)] if past else set()


def found_members(spans: list[tuple], day: dt.date) -> list[str]:
    return [code for _, code, start, out in spans if start <= day and (not out or day < out)]


@pytest.mark.parametrize("seed", range(3))
def test_snapshots_equal_the_evaluator_and_learn_nothing_later(tmp_path, source, seed):
    listings = random_listings(seed)
    paths = [
        source(
            f"{day}.csv",
            "index_code,con_code,trade_date,weight",
            *(f"000300.SH,{code},{day:%Y%m%d},0.5" for code in sorted(members)),
        )
        for day, members in listings.items()
    ]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    run(whole, "tushare", *reversed(paths))
    run(cut, "tushare", *paths[:5])
    whole, cut = rows(whole, "index_members"), rows(cut, "index_members")
    first, *_, last = listings
    fifth = list(listings)[4]
    for offset in range(-1, (last - first).days + 30):
        day = first + dt.timedelta(offset)
        assert found_members(whole, day) == sorted(members_on(listings, day)), day
        if day <= fifth:
            assert found_members(cut, day) == found_members(whole, day)


def spans(
    listings: dict[dt.date, set[str]], means: str
) -> list[tuple[str, dt.date, dt.date | None]]:
    """Write membership as spans, with out_date in one of its three meanings."""
    days, found = list(listings), []
    for code in sorted(set().union(*listings.values())):
        start = None
        for i, day in enumerate(days):
            is_in = code in listings[day]
            if is_in and start is None:
                start = day
            if start and (not is_in or i == len(days) - 1):
                out = {"first_day_out": day, "last_day": day - dt.timedelta(1)}.get(means)
                out = out or days[i - 1]
                if is_in:
                    out = day if means == "last_listing" else None
                found.append((code, start, out))
                start = None
    return found


@pytest.mark.parametrize("means", ["first_day_out", "last_day", "last_listing"])
@pytest.mark.parametrize("seed", range(3))
def test_the_meaning_of_out_date_is_told_by_counting_members(market, source, seed, means):
    listings = random_listings(seed)
    lines = [f"000300.SH,{c},{i},{o or ''}" for c, i, o in spans(listings, means)]
    path = source("spans.csv", "index_code,con_code,in_date,out_date", *lines)
    result = run(market, "tushare", path)
    assert f"out_date read as {means}, 12 to 12 members a day" in result.stdout
    members = rows(market, "index_members")
    for offset in range(28 * 8):
        day = min(listings) + dt.timedelta(offset)
        assert found_members(members, day) == sorted(members_on(listings, day)), day


def test_out_date_may_be_told(market, source):
    path = source(
        "s.csv",
        "index_code,con_code,in_date,out_date",
        "000300.SH,600000.SH,20200101,20200201",
        "000300.SH,600001.SH,20200201,",
    )
    run(market, "tushare", path)
    assert rows(market, "index_members", "out_date")[0] == (DAY(2020, 2, 1),)
    run(market, "tushare", path, "--out-date", "last_day")
    assert rows(market, "index_members", "out_date")[0] == (DAY(2020, 2, 2),)


def test_spans_come_before_monthly_listings(market, source):
    monthly = source("m.csv", "index_code,snapshot_month,con_code", "000300.SH,2023-07,600001.SH")
    whole = source("s.csv", "index_code,con_code,in_date,out_date", "000300.SH,600000.SH,20200101,")
    result = run(market, "tushare", monthly)
    assert rows(market, "index_members", "ts_code, in_date") == [("600001.SH", DAY(2023, 7, 31))]
    result = run(market, "tushare", whole)
    assert rows(market, "index_members", "ts_code, in_date") == [("600000.SH", DAY(2020, 1, 1))]
    assert "000300.SH: spans are used, its monthly listings are not" in result.stdout


# ---- industries --------------------------------------------------------------------------------


def test_industry_changes_become_spans(market, source):
    history = source(
        "h.csv",
        "symbol,in_date,sw_code,update_time",
        "000001,1991-04-03 00:00:00,440101,2015-10-27 15:29:00",
        "000001,2014-02-21 00:00:00,480101,2024-09-27 09:08:00",
        "000001,2021-07-30 14:58:00,480301,2021-07-30 14:58:00",
        "000001,2025-08-11 17:30:00,480300,2025-08-11 17:30:00",
        "000001,2025-09-01 00:00:00,480300,2025-09-01 00:00:00",
        "000001,2025-10-01 00:00:00,480000,2025-10-01 00:00:00",
    )
    classes = source(
        "c.csv",
        "sw_code,l1_name,l2_name,l3_name",
        "480000,银行,,",
        "480300,银行,股份制银行Ⅱ,",
        "480301,银行,股份制银行Ⅱ,股份制银行Ⅲ",
    )
    result = run(market, "tushare", history, classes)
    columns = "in_date, out_date, l1_code, l1_name, l2_code, l2_name, l3_code, l3_name"
    assert rows(market, "industry_members", columns) == [
        (DAY(1991, 4, 3), DAY(2014, 2, 21), "440000", None, "440100", None, "440101", None),
        (DAY(2014, 2, 21), DAY(2021, 7, 30), "480000", "银行", "480100", None, "480101", None),
        (
            DAY(2021, 7, 30),
            DAY(2025, 8, 12),
            "480000",
            "银行",
            "480300",
            "股份制银行Ⅱ",
            "480301",
            "股份制银行Ⅲ",
        ),
        (DAY(2025, 8, 12), DAY(2025, 10, 1), "480000", "银行", "480300", "股份制银行Ⅱ", None, None),
        (DAY(2025, 10, 1), None, "480000", "银行", None, None, None, None),
    ]
    assert "2 changes stamped with a clock time, kept" in result.stdout
    assert "2 of 5 spans have a code that the table of classes lacks" in result.stdout


# ---- real data ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> tuple[Path, str]:
    """Ingest everything real into one folder; return it and what the command said."""
    market = tmp_path_factory.mktemp("real") / "market"
    tables = [
        REAL / "daily/tushare_szmain_2024.parquet",
        REAL / "daily/index_daily_2010_2026.parquet",
    ]
    tables += sorted((REAL / "reference").glob("*.parquet"))
    tables += [p for p in sorted((REAL / "feeds").glob("*.parquet")) if "daily_3" not in p.name]
    told = run(market, "tushare", *(p for p in tables if p.name != "tushare_index_daily.parquet"))
    return market, told.stdout


@real_data
def test_real_tushare_bars(real):
    path = REAL / "daily/tushare_szmain_2024.parquet"
    source = duckdb.sql(f"from '{path}' order by ts_code, trade_date").df()
    found = duckdb.sql(f"from '{real[0]}/daily_bars/*.parquet' order by ts_code, trade_date").df()
    assert len(found) == len(source) == 237_144
    for name in ("open", "high", "low", "close", "pre_close", "adj_factor"):
        assert (found[name] == source[name]).all()
    assert (found.volume == source.vol * 100).all()
    assert (found.amount == source.amount * 1000).all()
    assert (found.pct_chg == source.pct_chg / 100).all()
    assert found.pct_chg.max() == 17.389463
    vwap = found.amount / found.volume
    assert ((vwap > found.low - 0.01) & (vwap < found.high + 0.01)).all()


@real_data
@pytest.mark.parametrize(
    ("name", "count", "suspended", "st", "basis"),
    [
        ("baostock_st_suspended_2019_2020", 254_403, 6_495, 56_943, "forward_adjusted"),
        ("baostock_hs300_2020_2025", 369_338, 712, 1_036, "unadjusted"),
    ],
)
def test_real_baostock_bars(market, name, count, suspended, st, basis):
    run(market, "baostock", REAL / f"daily/{name}.parquet", "--strict")
    columns = (
        "count(*), count_if(is_suspended), count_if(is_st), min(price_basis), max(turnover) < 1"
    )
    assert rows(market, "daily_bars", columns) == [(count, suspended, st, basis, True)]
    basic = rows(market, "daily_basic", "count(*), count(pe_ttm) > 0")
    assert basic == ([(count - suspended, True)] if basis == "unadjusted" else [])


@real_data
def test_real_csi300_has_300_members_on_every_day(real):
    market, told = real
    assert "000300.SH: out_date read as last_listing, 300 to 300 members a day" in told
    members = rows(market, "index_members", "*", "index_code = '000300.SH'")
    assert (len(members), sum(out is None for *_, out in members)) == (960, 300)
    day = DAY(2010, 1, 4)
    while day < DAY(2026, 5, 9):
        held = [code for _, code, start, end in members if start <= day and (not end or day < end)]
        assert len(held) == len(set(held)) == 300, day
        day += dt.timedelta(7)


@real_data
def test_real_members_month_by_month(real):
    market, told = real
    path = REAL / "reference/csi_index_members_monthly.parquet"
    source = duckdb.sql(f"select index_code, snapshot_month, con_code from '{path}'").fetchall()
    months: dict[str, set[str]] = {}
    for index, month, code in source:
        if index == "000852.SH":
            months.setdefault(month, set()).add(code)
    members = rows(market, "index_members", "*", "index_code = '000852.SH'")
    for month, codes in months.items():
        year, number = map(int, month.split("-"))
        day = DAY(year + number // 12, number % 12 + 1, 1)
        held = {code for _, code, start, end in members if start < day and (not end or day <= end)}
        assert held == codes, month
    reasons = rows(market, "ingest_rejects_daily", "reason", "raw_row like '%snapshot_month%'")
    assert len(reasons) == 2_509
    assert "000905.SH: the listing of 2025-04-30 has 419 members, the one before 500" in told


@real_data
def test_real_names_and_listings(real):
    market, told = real
    assert rows(market, "securities", "count(*), count(list_date), count(delist_date)") == [
        (6_050, 6_050, 126)
    ]
    assert len(rows(market, "security_code_changes")) == 247
    path = REAL / "reference/stock_names_snapshots.parquet"
    source = duckdb.sql(f"select as_of, ts_code, name from '{path}' order by all").fetchall()
    names: dict[str, list] = {}
    for code, name, start, end in rows(market, "security_names"):
        names.setdefault(code, []).append((name, start, end))
    for as_of, code, name in source:
        if code == "000001.SH":
            assert code not in names
            continue
        held = [n for n, start, end in names[code] if start <= as_of and (not end or as_of < end)]
        assert [plain(n) for n in held] == [plain(name)], (code, as_of)
    for words in (
        "000004.SZ has several list dates: 1991-01-14 (3), 1990-12-01 (1); 1991-01-14 taken",
        "7 delist dates on a status other than D, kept",
        "10 rows left out: issues without a listing date",
    ):
        assert words in told


@real_data
def test_real_delist_dates_are_the_day_after_the_last_bar(real):
    """The bars of one stock of twenty end before the two days that opened the year of the rat."""
    delisted = rows(real[0], "securities", "ts_code, delist_date", "delist_date is not null")
    path = REAL / "daily/baostock_st_suspended_2019_2020.parquet"
    last = dict(duckdb.sql(f"select ts_code, max(trade_date) from '{path}' group by 1").fetchall())
    days = [
        r[0] for r in duckdb.sql(f"select distinct trade_date from '{path}' order by 1").fetchall()
    ]
    checked = [(last[code], day) for code, day in delisted if code in last and day <= days[-1]]
    assert len(checked) == 20
    before = [(last_bar, max(day for day in days if day < out)) for last_bar, out in checked]
    assert [pair for pair in before if pair[0] != pair[1]] == [(DAY(2020, 1, 23), DAY(2020, 2, 4))]


@real_data
def test_real_industries(real):
    market, told = real
    spans = rows(market, "industry_members", "ts_code, in_date, out_date, l1_name, l3_name")
    assert len(spans) == 12_790
    assert all(end is None or start < end for _, start, end, _, _ in spans)
    today = [span for span in spans if span[2] is None]
    assert len(today) == 5_872
    assert sum(l1 is None for *_, l1, _ in today) < 300, "delisted before 2021"
    assert "2,190 changes stamped with a clock time" in told


@real_data
def test_real_feeds(real):
    market, told = real
    counts = {"moneyflow": 69_999, "margin": 1_500, "cyq_perf": 1_500, "daily_basic": 1_500}
    counts |= {"northbound": 209, "trading_calendar": 500, "index_daily": 27_663}
    counts |= {"market_margin": 1_500, "market_moneyflow": 500}
    assert {folder: len(rows(market, folder)) for folder in counts} == counts
    assert "3,667 rows that do not balance" in told
    assert "431 rows of the years before the file's main year, kept" in told
    assert "243 rows without prices, kept" in told
    assert rows(market, "cyq_perf", "max(winner_ratio)") == [(0.9981,)]
    cap = "market_cap_cny / total_shares / close"
    assert rows(market, "daily_basic", f"max(abs({cap} - 1)) < 1e-6") == [(True,)]
    pct = "max(abs(pct_chg)) < 0.2, min(volume) > 1e7"
    assert rows(market, "index_daily", pct, "close is not null") == [(True, True)]


@real_data
def test_real_tushare_feeds_of_bars_route_stocks_indices_and_funds(market):
    paths = [REAL / f"feeds/tushare_{name}.parquet" for name in ("daily_3stocks", "index_daily")]
    run(market, "tushare", *paths)
    assert rows(market, "daily_bars", "count(*), count(distinct ts_code)") == [(1_500, 3)]
    assert rows(market, "index_daily", "count(*), count(distinct ts_code)") == [(1_000, 2)]
    assert rows(market, "ingest_rejects_daily", "distinct reason, ts_code") == [
        ("not_an_a_share", "510300.SH"),
        ("not_an_a_share", "510500.SH"),
    ]
