"""`wavehouse ingest`: every format, every reject, idempotence; on tiny files and on real data."""

import csv
import gzip
import hashlib
import json
import math
import tempfile
import zipfile
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from wavehouse import ingest
from wavehouse.ingest import expand_paths, ingest_command
from wavehouse.ingest_formats import KLINE_COLUMNS, QUOTES

REAL = Path(__file__).parents[3] / "shared/data/minute"
real_data = pytest.mark.skipif(not REAL.is_dir(), reason=f"no real market data at {REAL}")
MS = 1746057600000  # 2025-05-01 00:00 UTC
KLINE = "{time},100,102,99,101,5.5,{time},555.5,10,2.5,250.5,0"
CONTRACT_TYPES = [
    ("symbol", "VARCHAR"),
    ("open_time_ms", "BIGINT"),
    *[(name, "DOUBLE") for name in ("open", "high", "low", "close", "volume", "spread_bps")],
]
REJECT_TYPES = [
    ("source_file", "VARCHAR"),
    ("source_row", "BIGINT"),
    ("symbol", "VARCHAR"),
    ("open_time_ms", "BIGINT"),
    ("reason", "VARCHAR"),
    ("raw_row", "VARCHAR"),
]


def run(market: Path | None, *args: object, code: int = 0, env: dict | None = None) -> Result:
    """Run the command on a data folder and insist on its exit code."""
    where = ["--data-dir", str(market)] if market else []
    result = CliRunner().invoke(
        ingest_command, [*map(str, args), *where], env={"WAREHOUSE_DATA": None, **(env or {})}
    )
    assert result.exit_code == code, (result.output, result.exception)
    return result


def files(market: Path, folder: str = "minute_bars") -> list[Path]:
    return sorted((market / folder).glob("*.parquet"))


def rows(market: Path, folder: str = "minute_bars", columns: str = "*") -> list[tuple]:
    if not files(market, folder):
        return []
    return duckdb.sql(f"select {columns} from '{market}/{folder}/*.parquet'").fetchall()


def reasons(market: Path) -> list[tuple[int, str]]:
    return sorted(rows(market, "ingest_rejects", "source_row, reason"))


def klines(count: int, start: int = MS, scale: int = 1) -> str:
    return "".join(KLINE.format(time=(start + 60_000 * i) * scale) + "\n" for i in range(count))


@pytest.fixture
def market(tmp_path: Path) -> Path:
    return tmp_path / "market"


@pytest.fixture
def source(tmp_path: Path):
    """Return a function that writes a source file and gives its path."""

    def write(name: str, text: str | bytes) -> Path:
        path = tmp_path / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text.encode() if isinstance(text, str) else text
        if name.endswith(".gz"):
            data = gzip.compress(data)
        path.write_bytes(data)
        return path

    return write


# ---- binance ----------------------------------------------------------------------------------


def test_binance_csv_gives_the_contract(market, source):
    result = run(market, "binance", source("BTCUSDT-1m-2025-05.csv", klines(3)))
    bar = ("BTCUSDT", MS, 100.0, 102.0, 99.0, 101.0, 5.5, None)
    assert rows(market)[0] == bar
    assert [row[1] for row in rows(market)] == [MS, MS + 60_000, MS + 120_000]
    described = duckdb.sql(f"describe from '{files(market)[0]}'").fetchall()
    assert [row[:2] for row in described] == CONTRACT_TYPES
    assert "2025-05-01 00:00" in result.stdout
    assert "2025-05-01 00:02" in result.stdout
    assert f"WAREHOUSE_DATA={market} dbt build" in result.stdout
    assert not files(market, "ingest_rejects")


@pytest.mark.parametrize("header", [",".join(KLINE_COLUMNS), '"Open time",b,c,d,e,f,g,h,i,j,k,l'])
def test_binance_header_is_no_row(market, source, header):
    path = source("BTCUSDT-1m-2025-05.csv", f"{header}\n{klines(2)}not,a,kline\n")
    run(market, "binance", path)
    assert len(rows(market)) == 2
    assert reasons(market) == [(3, "malformed_line")]


def test_binance_microseconds_are_told_and_give_the_same_bars(market, source, tmp_path):
    run(market, "binance", source("A-1m-2025-05.csv", klines(3)))
    result = run(tmp_path / "m2", "binance", source("us/A-1m-2025-05.csv", klines(3, scale=1000)))
    assert rows(market) == rows(tmp_path / "m2")
    assert "time read as us (3 rows)" in result.stdout


def test_binance_dumps_joined_across_the_change_of_unit(market, source):
    text = klines(2, MS) + klines(2, MS + 120_000, scale=1000)
    result = run(market, "binance", source("BTCUSDT-1m-2024.csv", text))
    assert [row[1] - MS for row in rows(market)] == [0, 60_000, 120_000, 180_000]
    assert "time read as ms (2 rows), us (2 rows)" in result.stdout


def test_binance_zip_with_several_members(market, tmp_path):
    path = tmp_path / "BTCUSDT-1m-2025-05.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("BTCUSDT-1m-2025-05-01.csv", klines(2))
        archive.writestr("ETHUSDT-1m-2025-05-01.csv", klines(1) + "broken\n")
        archive.writestr("part.csv", klines(1, MS + 600_000, scale=1000))
        archive.writestr("__MACOSX/x.csv", "junk")
        archive.writestr("CHECKSUM", "junk")
    run(market, "binance", path)
    assert rows(market, columns="symbol, open_time_ms") == [
        ("BTCUSDT", MS),
        ("BTCUSDT", MS + 60_000),
        ("BTCUSDT", MS + 600_000),
        ("ETHUSDT", MS),
    ]
    found = rows(market, "ingest_rejects", "source_file, source_row, symbol, reason, raw_row")
    label = f"{path}::ETHUSDT-1m-2025-05-01.csv"
    assert found == [(label, 2, "ETHUSDT", "malformed_line", '{"line":"broken"}')]


def test_binance_zip_with_one_member_is_called_by_the_zip(market, tmp_path):
    path = tmp_path / "BTCUSDT-1m-2025-05-04.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("BTCUSDT-1m-2025-05-04.csv", "broken\n")
    run(market, "binance", path)
    assert rows(market, "ingest_rejects", "source_file") == [(str(path),)]
    assert rows(market) == []
    assert len(files(market)) == 1, "a source of rejects alone is found again"
    assert "unchanged" in run(market, "binance", path).stdout


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BTCUSDT_250627-1m-2025-05.csv", "BTCUSDT_250627"),
        ("BTCUSD_PERP-1m-2025-05-04.csv", "BTCUSD_PERP"),
        ("币安人生USDT-1m-2025-10.csv.gz", "币安人生USDT"),
    ],
)
def test_binance_symbol_by_name(market, source, name, symbol):
    run(market, "binance", source(name, klines(1)))
    assert rows(market, columns="symbol") == [(symbol,)]


def test_binance_symbol_option(market, source):
    run(market, "binance", source("whatever.csv", klines(1)), "--symbol", "O'X")
    assert rows(market, columns="symbol") == [("O'X",)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("BTCUSDT-5m-2025-05.csv", klines(1), "holds 5m bars"),
        ("BTCUSDT-1mo-2025-05.csv", klines(1), "holds 1mo bars"),
        ("whatever.csv", klines(1), "--symbol"),
        ("BTCUSDT-1m-2025-05.csv", "", "is empty"),
        ("BTCUSDT-1m-2025-05.zip", "no zip", "could not be read"),
        ("BTCUSDT-1m-2025-05.parquet", "no parquet", "could not be read"),
        ("BTCUSDT-1m-2025-05.bin", klines(1), "rename the file"),
        ("BTCUSDT-1m-2025-05.csv", "x" * 3_000_000, "could not be read"),
    ],
)
def test_unreadable_file_is_named_and_the_others_are_done(market, source, name, text, message):
    bad, good = source(f"bad/{name}", text), source("ETHUSDT-1m-2025-05.csv", klines(2))
    result = run(market, "binance", bad, good, code=1)
    assert f"Error: {bad}: " in result.stderr
    assert message in result.stderr
    assert len(rows(market)) == 2
    assert not list(market.rglob("*.tmp"))


def test_binance_parquet_shape(market, tmp_path):
    path = tmp_path / "klines [1].parquet"  # brackets are no glob here
    frame = pd.DataFrame(
        {"symbol": ["B", None], "open_time_ms": [MS, MS], "open": 1.0, "high": 2.0, "low": 1.0}
    ).assign(close=[1.5, 1.5], volume=[3.0, 3.0], extra=[math.nan, math.inf])
    frame.to_parquet(path)
    run(market, "binance", path)
    assert rows(market) == [("B", MS, 1.0, 2.0, 1.0, 1.5, 3.0, None)]
    assert reasons(market) == [(2, "null_or_unparsable_symbol")]
    assert json.loads(rows(market, "ingest_rejects", "raw_row")[0][0])["extra"] == "inf"
    short = tmp_path / "short.parquet"
    frame.drop(columns="close").rename(columns={"high": "hihg"}).to_parquet(short)
    assert "no column 'high'" in run(market, "binance", short, code=1).stderr


# ---- rejects ----------------------------------------------------------------------------------

DIRTY = [  # a kline, and the reason for which it is rejected
    (f"{MS},1,1,1,1,1,1,1,1,1,1,0", None),
    (f" {MS} , 1 ,1,1,1,,1,1,1,1,1,0", None),
    (f"{MS}.75,1e0,1,1,1,nan,1,1,1,1,1,0", None),
    (f"{MS + 1},-1,0,5,1,-7,1,1,1,1,1,0", None),
    ("0,1,1,1,1,1,1,1,1,1,1,0", None),
    (f'"{MS}","1","1",1,1,1,1,1,1,1,1,"a,""b"" c"', None),
    ("open_time,open,high,low,close,volume,a,b,c,d,e,f", "null_or_unparsable_time"),
    (",1,1,1,1,1,1,1,1,1,1,0", "null_or_unparsable_time"),
    ("1e99,1,1,1,1,1,1,1,1,1,1,0", "null_or_unparsable_time"),
    (f"{MS},,1,1,1,1,1,1,1,1,1,0", "null_or_unparsable_price"),
    (f"{MS},1,NaN,1,1,1,1,1,1,1,1,0", "null_or_unparsable_price"),
    (f"{MS},1,1,inf,1,1,1,1,1,1,1,0", "null_or_unparsable_price"),
    (f"{MS},1,1,1,1.2.3,1,1,1,1,1,1,0", "null_or_unparsable_price"),
    (f"{MS},1,1,1,1,many,1,1,1,1,1,0", "unparsable_volume"),
    (f"{MS},1,1,1,1,inf,1,1,1,1,1,0", "unparsable_volume"),
    (f"{MS},1,1,1,1,1", "malformed_line"),
    (f"{MS},1,1,1,1,1,1,1,1,1,1,0,0", "malformed_line"),
    (f'{MS},1,1,1,1,1,1,1,1,1,1,"0', "malformed_line"),
    ("   ", "malformed_line"),
    ("\x00\x01\x02", "malformed_line"),
]


def test_each_bad_line_has_its_reason_row_and_text(market, source):
    path = source("BTCUSDT-1m-2025-05.csv", "\n".join(line for line, _ in DIRTY))
    result = run(market, "binance", path)
    expected = [(row, reason) for row, (_, reason) in enumerate(DIRTY, 1) if reason]
    assert reasons(market) == expected
    assert len(rows(market)) == len(DIRTY) - len(expected)
    described = duckdb.sql(f"describe from '{files(market, 'ingest_rejects')[0]}'").fetchall()
    assert [row[:2] for row in described] == REJECT_TYPES
    by_row = dict(rows(market, "ingest_rejects", "source_row, raw_row"))
    assert json.loads(by_row[14])["volume"] == "many"
    assert json.loads(by_row[16]) == {"line": DIRTY[15][0]}
    assert f"{len(expected):,} rejected rows are kept" in result.stdout
    assert f"{path}, data row 16" in result.stdout


def test_typing_keeps_odd_values_for_staging(market, source):
    run(market, "binance", source("X-1m-1.csv", "\n".join(line for line, _ in DIRTY)))
    found = rows(market, columns="open_time_ms, open, low, volume")
    assert (MS + 1, -1.0, 5.0, -7.0) in found
    assert found.count((MS, 1.0, 1.0, None)) == 2


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (klines(2).replace("\n", "\r\n").encode(), 2),
        (klines(2).replace("\n", "\r").encode(), 2),
        (klines(2).replace("\n", "\n\n\r\n").encode(), 2),
        (klines(2).rstrip("\n").encode(), 2),
        (b"\xef\xbb\xbf" + klines(2).encode(), 2),
        (klines(2).encode("utf-16"), 2),
        (klines(2).encode() + b"\xff\xfe\xfa\n" + klines(1).encode(), 3),
    ],
    ids=["crlf", "cr", "blank lines", "no end", "bom", "utf-16", "bytes that are no text"],
)
def test_line_ends_and_encodings(market, source, data, count):
    run(market, "binance", source("X-1m-1.csv", data))
    assert len(rows(market)) == count
    assert len(reasons(market)) == (1 if b"\xfa" in data else 0)


def test_rows_keep_their_numbers_in_a_long_file(market, source):
    lines = [KLINE.format(time=MS + 60_000 * i) for i in range(40_000)]
    lines[9_999::10_000] = ["broken"] * 4
    text = "\n".join(line + "\n" * (i % 4) for i, line in enumerate(lines))
    run(market, "binance", source("X-1m-1.csv", "\n\n" + text))
    assert rows(market, columns="count(*), count(distinct open_time_ms)") == [(39_996, 39_996)]
    assert [row for row, _ in reasons(market)] == [10_000, 20_000, 30_000, 40_000]


def test_strict_makes_rejects_a_failure_also_when_unchanged(market, source):
    path = source("X-1m-1.csv", klines(1) + "broken\n")
    run(market, "binance", path)
    run(market, "binance", path, "--strict", code=2)
    run(market, "binance", source("Y-1m-1.csv", klines(1)), "--strict")


CELLS = st.one_of(
    st.sampled_from(["", "1", "1.5", "nan", "x", '"', '"1"', " 2", "1e400", "-3", "NULL", "é"]),
    st.integers(MS, MS + 10**9).map(str),
    st.integers(MS * 1000, MS * 1000 + 10**9).map(str),
    st.text(max_size=4),
)
LINES = st.one_of(
    st.lists(CELLS, max_size=14).map(",".join),
    st.lists(st.sampled_from(["1", "", "x"]), min_size=11, max_size=11).map(
        lambda cells: ",".join([str(MS), *cells])
    ),
)


@settings(max_examples=60, deadline=None)
@given(lines=st.lists(LINES, max_size=12), end=st.sampled_from(["\n", "\r\n"]), tail=st.booleans())
def test_rows_read_are_rows_written_and_rejected(lines, end, tail):
    text = end.join(lines) + (end if tail else "")
    data = text.encode("utf-8", "surrogatepass")
    plain = text.replace("\r\n", "\n").replace("\r", "\n").removeprefix("\ufeff")
    expected = [line for line in plain.split("\n") if line]
    with tempfile.TemporaryDirectory() as folder:
        path, market = Path(folder) / "X-1m-2025.csv", Path(folder) / "market"
        path.write_bytes(data)
        if not expected:
            run(market, "binance", path, code=1)
            return
        run(market, "binance", path)
        good, bad = rows(market), rows(market, "ingest_rejects")
        assert len(good) + len(bad) == len(expected)
        assert len({row[1] for row in bad}) == len(bad), "a reject was told twice"
        wrong_count = [i for i, line in enumerate(expected, 1) if line.count(",") < 11]
        assert {row[1] for row in bad} >= set(wrong_count)
        for row in bad:
            read = json.loads(row[5])
            if row[4] == "malformed_line" and expected[row[1] - 1].isprintable():
                assert read == {"line": expected[row[1] - 1]}


# ---- table: mapping ----------------------------------------------------------------------------

AAPL = (
    "Ticker,Date,Time,Op,Hi,Lo,Last,Shares,Bid,Ask\n"
    "AAPL,2025-05-01,09:30:00,10,12,9,11,100,10,10.02\n"
    "AAPL,2025-05-01,09:31:00,11,12,10,11,,x,10.02\n"
)
AAPL_MAP = {
    "open_time_ms": "Date+Time",
    "open": "op",
    "high": "Hi",
    "low": "Lo",
    "close": "Last",
    "volume": "Shares",
    "bid_close": "Bid",
    "ask_close": "Ask",
}
AAPL_BAR = ("AAPL", MS + 13.5 * 3_600_000, 10.0, 12.0, 9.0, 11.0, 100.0)


def as_flags(flag: str, pairs: dict[str, str]) -> list[str]:
    return [word for key, value in pairs.items() for word in (flag, f"{key}={value}")]


def test_table_by_command_line(market, source):
    path = source("a.csv", AAPL)
    zone = ["--timezone", "America/New_York"]
    result = run(market, "table", path, *as_flags("--map", AAPL_MAP), *zone)
    first, second = rows(market)
    assert first[:7] == AAPL_BAR
    assert first[7] == pytest.approx(0.02 / 10.01 * 1e4)
    assert second[6:] == (None, None)
    assert "1 unparsable spreads set to NULL" in result.stdout
    assert "found by name: symbol=Ticker" in result.stdout


def test_table_by_yaml_and_the_command_line_wins(market, source, tmp_path):
    mapping = source(
        "vendor.yml",
        "timezone: America/New_York\ntime_unit: iso\ndelimiter: ','\nset: {volume: 7}\nmap:\n"
        + "".join(f"  {k}: {v}\n" for k, v in AAPL_MAP.items() if k != "volume")
        + "  symbol: Ticker\n",
    )
    path = source("a.csv", AAPL)
    run(market, "table", path, "--mapping", mapping)
    assert rows(market)[0][:7] == (*AAPL_BAR[:6], 7.0)
    other = tmp_path / "other"
    flags = ["--set", "symbol={stem}!", "--map", "volume=Shares", "--timezone", "UTC"]
    run(other, "table", path, "--mapping", mapping, *flags)
    assert rows(other)[0][:7] == ("a!", MS + 9.5 * 3_600_000, *AAPL_BAR[2:])


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("symbol,open_time_ms,open,high,low,close,volume,spread_bps", f"B,{MS},1,2,1,1.5,3,4"),
        ("spread_bps,VOLUME,Close,Low,High,Open,Timestamp,Ticker", f"4,3,1.5,1,2,1,{MS // 1000},B"),
        ("sym;o;h;l;c;v;t;Spread_bps", "B;1;2;1;1.5;3;2025-05-01T08:00:00+08:00;4"),
        ("pair\ttime\topen\thigh\tlow\tclose\tvol\tspread bps", f"B\t{MS}000\t1\t2\t1\t1.5\t3\t4"),
        ("<SYM>|<DATE>|<O>|<H>|<L>|<C>|<VOL>|spread_bps", f"B|{MS}000000|1|2|1|1.5|3|4"),
    ],
)
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet"])
def test_table_finds_common_names(market, source, tmp_path, header, values, suffix):
    path = source(f"x{suffix}", f"{header}\n{values}\n")
    if suffix == ".parquet":
        plain = source("x.csv", f"{header}\n{values}\n")
        duckdb.sql(f"from read_csv('{plain}')").write_parquet(str(path))
    result = run(market, "table", path)
    assert rows(market) == [("B", MS, 1.0, 2.0, 1.0, 1.5, 3.0, 4.0)]
    assert "found by name" in result.stdout


def test_table_without_header(market, source):
    text = "20250501 093000;1.3066;1.3067;1.3065;1.3066;0\n20250501 093100;1;1;1;1;0\n"
    mapping = {"open_time_ms": "c1", "open": "c2", "high": "c3", "low": "c4", "close": "c5"}
    flags = ["--no-header", "--time-format", "%Y%m%d %H%M%S", "--set", "symbol=GBPUSD"]
    path = source("DAT_ASCII_GBPUSD.csv", text)
    run(market, "table", path, *as_flags("--map", mapping), *flags)
    assert len(rows(market)) == 2
    assert rows(market)[0][:3] == ("GBPUSD", MS + 9.5 * 3_600_000, 1.3066)


@pytest.mark.parametrize(
    ("value", "flags", "expected"),
    [
        ("1746057600", [], MS),
        ("1746057600.5", [], MS + 500),
        ("1746057600999999", [], MS + 999),
        ("1746057659999999999", [], MS + 59_999),
        ("1.7460576e12", [], MS),
        ("5", ["--time-unit", "s"], 5000),
        ("5", ["--time-unit", "ms"], 5),
        ("1746057600000", ["--time-unit", "us"], MS // 1000),
        ("2025-05-01", [], MS),
        ("2025-05-01 00:00:00.25", [], MS + 250),
        ("2025-05-01T00:00:00Z", ["--timezone", "Asia/Tokyo"], MS),
        ("2025-05-01 09:00", ["--timezone", "Asia/Tokyo"], MS),
        ("2025-05-01 09:00+0900", ["--timezone", "America/New_York"], MS),
        ("2025-05-01 09:00:00 Asia/Tokyo", [], MS),
        ("01/05/2025 09:00", ["--time-format", "%d/%m/%Y %H:%M", "--timezone", "Asia/Tokyo"], MS),
        ("01/05/2025 09:00 +0900", ["--time-format", "%d/%m/%Y %H:%M %z"], MS),
        ("20250501", ["--time-unit", "iso"], None),
        ("20250501", [], None),
        ("202505010930", [], None),
        ("20250501093000", [], None),
        ("infinity", [], None),
        ("2025-05-01", ["--time-unit", "ms"], None),
        ("1746057600", ["--time-unit", "iso"], None),
    ],
)
def test_table_times(market, source, value, flags, expected):
    path = source("x.csv", f"symbol,time,open,high,low,close\nB,{value},1,1,1,1\n")
    run(market, "table", path, *flags)
    if expected is None:
        assert reasons(market) == [(1, "null_or_unparsable_time")]
    else:
        assert rows(market, columns="open_time_ms") == [(expected,)]


@pytest.mark.parametrize(
    ("sql_type", "zone", "expected"),
    [
        ("timestamp", "Asia/Tokyo", MS),
        ("timestamp_ns", "Asia/Tokyo", MS),
        ("timestamptz", "Asia/Tokyo", MS + 9 * 3_600_000),
        ("date", "UTC", MS),
    ],
)
def test_table_parquet_times_by_type(market, tmp_path, sql_type, zone, expected):
    path = tmp_path / "x.parquet"
    con = duckdb.connect()
    con.execute("set TimeZone = 'UTC'")
    con.sql(
        f"select 600000 as symbol, '2025-05-01 09:00'::{sql_type} as date, 1 as o, "
        "2.5::decimal(9, 2) as h, 1::float as l, '1' as c, 7::hugeint as v"
    ).write_parquet(str(path))
    run(market, "table", path, "--timezone", zone)
    assert rows(market) == [("600000", expected, 1.0, 2.5, 1.0, 1.0, 7.0, None)]


@pytest.mark.parametrize(
    ("header", "flags", "messages"),
    [
        ("symbol,time,open,high,low,clsoe", [], ["like close", "found: symbol", "close=clsoe"]),
        ("symbol,date,time,open,high,low,close", [], ["several columns", "open_time_ms=date+time"]),
        ("symbol,time,open,high,low,close,Close", [], ["several columns", "--map close=Close"]),
        ("symbol,time,open,high,low,close,close", [], ["occurs 2 times"]),
        ("time,open,high,low,close", [], ["like symbol", "--set symbol=NAME"]),
        ("1,2,3,4,5,6", [], ["--no-header"]),
        ("symbol,time,open,high,low,close", ["--map", "close=clos"], ["Did you mean 'close'"]),
        ("symbol,time,open,high,low,close,b", ["--map", "bid_close=b"], ["both bid_close and"]),
    ],
)
def test_table_mapping_errors(market, source, header, flags, messages):
    path = source("x.csv", f"{header}\n" + ",".join("1" for _ in header.split(",")) + "\n")
    result = run(market, "table", path, *flags, code=1)
    for message in [str(path), *messages]:
        assert message in result.stderr
    assert not files(market)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--map", "clos=x"], "Did you mean 'close'"),
        (["--map", "close"], "CONTRACT_COLUMN=VALUE"),
        (["--map", "close=x", "--set", "close=1"], "both mapped and set"),
        (["--timezone", "Asia/Tokio"], "Did you mean 'Asia/Tokyo'"),
        (["--delimiter", "ab"], "one character"),
        (["--price", "mid"], "--price is for lean"),
        (["--symbol", "X"], "--symbol is for binance"),
    ],
)
def test_usage_errors(market, source, flags, message):
    assert message in run(market, "table", source("x.csv", AAPL), *flags, code=2).stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("maps: {}", "Did you mean 'map'"),
        ("map: {clos: x}", "Did you mean 'close'"),
        ("map: [close]", "expected lines"),
        ("- map", "expected keys"),
        ("map: {", "cannot be read as YAML"),
        ("time_unit: hours", "expected one of auto, s"),
    ],
)
def test_mapping_file_errors(market, source, text, message):
    flags = ["--mapping", source("m.yml", text)]
    assert message in run(market, "table", source("x.csv", AAPL), *flags, code=2).stderr


# ---- lean and fxcm ----------------------------------------------------------------------------

QUOTE = [1.0, 1.2, 0.8, 1.0, 1.1, 1.3, 0.9, 1.2]  # bid OHLC, ask OHLC
NO_QUOTE = [None] * 8
LEAN = [  # symbol, venue, asset class, OHLCV, quotes
    ("AAPL", "usa", "equity", [1, 1, 1, 1, 5], QUOTE),
    ("AAPL", "usa", "equity", [None] * 5, QUOTE),
    ("AAPL", "usa", "equity", [1, None, 1, 1, 5], QUOTE),
    ("AAPL", "usa", "equity", [1, 1, 1, 1, None], NO_QUOTE),
    ("EURUSD", "oanda", "forex", [None] * 5, QUOTE),
    ("EURUSD", "oanda", "forex", [None] * 5, [*QUOTE[:4], *[None] * 4]),
    ("EURUSD", "oanda", "forex", [None] * 5, [None, *QUOTE[1:]]),
    ("EURUSD", "fxcm", "forex", [None] * 5, [*QUOTE[4:], *QUOTE[:4]]),
    (None, "fxcm", "forex", [None] * 5, QUOTE),
]


@pytest.fixture(params=[".parquet", ".csv"])
def lean_file(request, tmp_path) -> Path:
    names = ["symbol", "venue", "asset_class", "open", "high", "low", "close", "volume", *QUOTES]
    frame = pd.DataFrame([(*row[:3], *row[3], *row[4]) for row in LEAN], columns=names)
    frame[names[3:]] = frame[names[3:]].astype(float)
    frame["open_time_ms"] = [MS + 60_000 * i for i in range(len(LEAN))]
    path = tmp_path / f"lean{request.param}"
    if request.param == ".csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


def test_lean_auto(market, lean_file):
    run(market, "lean", lean_file)
    spread = (1.2 - 1.0) / ((1.2 + 1.0) / 2) * 1e4
    found = [(row[0], (row[1] - MS) // 60_000, *row[2:]) for row in rows(market)]
    mid = [pytest.approx(value) for value in (1.05, 1.25, 0.85, 1.1)]
    assert found == [
        ("AAPL.usa.equity", 0, 1.0, 1.0, 1.0, 1.0, 5.0, spread),
        ("AAPL.usa.equity", 3, 1.0, 1.0, 1.0, 1.0, None, None),
        ("EURUSD.fxcm.forex", 7, *mid, None, -spread),
        ("EURUSD.oanda.forex", 4, *mid, None, spread),
    ]
    assert reasons(market) == [
        (2, "no_trade"),
        (3, "null_or_unparsable_price"),
        (6, "no_quote"),
        (7, "null_or_unparsable_price"),
        (9, "null_or_unparsable_symbol"),
    ]


def test_lean_trade_mid_and_template(market, lean_file, tmp_path):
    run(market, "lean", lean_file, "--price", "trade", "--symbol-template", "{venue}:{symbol}")
    assert {row[0] for row in rows(market)} == {"usa:AAPL"}
    assert [reason for _, reason in reasons(market)].count("no_trade") == 5
    run(tmp_path / "mid", "lean", lean_file, "--price", "mid")
    assert all(row[6] is None for row in rows(tmp_path / "mid"))
    assert [row for row, reason in reasons(tmp_path / "mid") if reason == "no_quote"] == [4, 6]
    bad = ["--symbol-template", "{venu}"]
    assert "Did you mean 'venue'" in run(market, "lean", lean_file, *bad, code=1).stderr


def test_fxcm_is_mid_and_spread(market, lean_file):
    run(market, "fxcm", lean_file)
    assert {row[0] for row in rows(market)} == {"AAPL", "EURUSD"}
    assert all(row[6] is None for row in rows(market))
    assert "no_quote" in {reason for _, reason in reasons(market)}


# ---- paths, re-running, replacing ----------------------------------------------------------------


def state(market: Path) -> dict[str, tuple[int, str]]:
    return {
        str(path): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in market.rglob("*")
        if path.is_file()
    }


def test_again_changes_nothing_and_new_files_add(market, source):
    text = klines(3) + "broken\n"
    first = source("BTCUSDT-1m-2025-05.csv", text)
    run(market, "binance", first)
    before = state(market)
    assert len(before) == 2
    result = run(market, "binance", first)
    assert state(market) == before
    assert "unchanged" in result.stdout
    assert "broken" not in result.stdout
    assert "malformed_line" in result.stdout
    run(market, "binance", first, source("ETHUSDT-1m-2025-05.csv", klines(2)))
    after = state(market)
    assert len(after) == 3
    assert before.items() <= after.items()
    assert len(rows(market)) == 5


def test_name_and_footer_tell_where_a_file_comes_from(market, source):
    path = source("BTC USDT-1m-2025-05.csv", klines(1))
    run(market, "binance", path)
    (output,) = files(market)
    assert output.stem.startswith("binance-BTC_USDT-1m-2025-05-")
    assert len(output.stem.rsplit("-", 1)[1]) == 16
    footer = duckdb.sql(f"select decode(key), decode(value) from parquet_kv_metadata('{output}')")
    told = dict(footer.fetchall())
    assert told["wavehouse.source"] == str(path)
    assert told["wavehouse.source_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert json.loads(told["wavehouse.options"])["symbol"] == "BTC USDT"


def test_ingest_is_deterministic(source, tmp_path):
    path = source("X-1m-1.csv", klines(5) * 3 + "broken\n")
    for name in ("a", "b"):
        run(tmp_path / name, "binance", path)
    a, b = ([file.read_bytes() for file in sorted((tmp_path / n).rglob("*.parquet"))] for n in "ab")
    assert a == b


def test_other_options_replace(market, source):
    path = source("BTCUSDT-1m-2025-05.csv", klines(2) + "broken\n")
    other = source("ETHUSDT-1m-2025-05.csv", klines(1))
    run(market, "binance", path, other)
    old = set(files(market)) | set(files(market, "ingest_rejects"))
    result = run(market, "binance", path, "--symbol", "XBT")
    assert "replaced" in result.stdout
    assert sorted({row[0] for row in rows(market)}) == ["ETHUSDT", "XBT"]
    assert len(files(market)) == 2
    assert len(files(market, "ingest_rejects")) == 1
    new = set(files(market)) | set(files(market, "ingest_rejects"))
    assert len(old & new) == 1


def test_same_bytes_under_another_name(market, source):
    run(market, "binance", source("BTCUSDT-1m-2025-05.csv", klines(2)))
    result = run(market, "binance", source("BTCUSDT-1m-copy.csv", klines(2)))
    assert "unchanged" in result.stdout
    result = run(market, "binance", source("ETHUSDT-1m-2025-05.csv", klines(2)))
    assert "added" in result.stdout
    assert sorted(row[0] for row in rows(market)) == ["BTCUSDT"] * 2 + ["ETHUSDT"] * 2


def test_a_file_that_grew_is_added_and_told(market, source):
    run(market, "binance", source("BTCUSDT-1m-2025-05.csv", klines(2)))
    result = run(market, "binance", source("BTCUSDT-1m-2025-05.csv", klines(3)))
    assert "holds an earlier state of this file" in result.stdout
    assert len(rows(market)) == 5


@pytest.mark.parametrize("broken_write", [1, 2])
def test_an_interruption_loses_nothing(market, source, monkeypatch, broken_write):
    path = source("BTCUSDT-1m-2025-05.csv", klines(2) + "broken\n")
    writes, real_replace = [], ingest.os.replace

    def replace(temporary, target):
        writes.append(target)
        if len(writes) == broken_write:
            raise OSError("power cut")
        real_replace(temporary, target)

    monkeypatch.setattr(ingest.os, "replace", replace)
    assert "power cut" in run(market, "binance", path, code=1).stderr
    monkeypatch.undo()
    assert not files(market), "bars are written last"
    assert "added" in run(market, "binance", path).stdout
    assert (len(rows(market)), len(reasons(market))) == (2, 1)
    assert not list(market.rglob("*.tmp"))


def test_an_interruption_before_the_old_output_is_removed(market, source, monkeypatch):
    path = source("BTCUSDT-1m-2025-05.csv", klines(2) + "broken\n")
    run(market, "binance", path)

    def unlink(path, missing_ok=False):
        if path.suffix == ".parquet":
            raise OSError("power cut")

    monkeypatch.setattr(ingest.Path, "unlink", unlink)
    run(market, "binance", path, "--symbol", "XBT", code=1)
    monkeypatch.undo()
    assert "unchanged" in run(market, "binance", path, "--symbol", "XBT").stdout
    assert {row[0] for row in rows(market)} == {"XBT"}
    assert len(files(market, "ingest_rejects")) == 1


def test_dry_run_writes_nothing(market, source):
    result = run(market, "binance", source("X-1m-1.csv", klines(2) + "broken\n"), "--dry-run")
    assert "Dry run: nothing was written" in result.stdout
    assert "malformed_line" in result.stdout
    assert not market.exists()


def test_data_dir_is_asked_for(market, source):
    path = source("X-1m-1.csv", klines(1))
    result = run(None, "binance", path, code=2)
    assert "Give --data-dir DIR or set WAREHOUSE_DATA" in result.stderr
    run(None, "binance", path, env={"WAREHOUSE_DATA": ""}, code=2)
    run(None, "binance", path, env={"WAREHOUSE_DATA": str(market)})
    assert len(rows(market)) == 1


def test_paths_are_files_folders_and_globs(tmp_path, market):
    for name in ("a/1.csv", "a/b/2.zip", "a/b/3.parquet", "a/4.md", "a/.5.csv", "6.csv.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    own = tmp_path / "minute_bars" / "x.parquet"
    own.parent.mkdir()
    own.touch()

    def found(*patterns: str) -> list[str]:
        sources, problems = expand_paths(tuple(str(tmp_path / p) for p in patterns), tmp_path)
        return [str(Path(s).relative_to(tmp_path)) for s in sources] + ["?"] * len(problems)

    assert found("a") == ["a/1.csv", "a/b/2.zip", "a/b/3.parquet"]
    assert found("") == ["6.csv.gz", "a/1.csv", "a/b/2.zip", "a/b/3.parquet"]
    assert found("a/*.csv", "a/1.csv", "a") == ["a/1.csv", "a/b/2.zip", "a/b/3.parquet"]
    assert found("**/*.zip") == ["a/b/2.zip"]
    assert found("a/4.md", "nowhere", "none/*") == ["a/4.md", "?", "?"]


def test_nothing_found_is_an_error(market, tmp_path):
    assert "nothing to ingest there" in run(market, "binance", tmp_path, code=1).stderr


def test_help_shows_the_formats_and_examples():
    text = CliRunner().invoke(ingest_command, ["--help"]).output
    for words in (
        "binance",
        "lean",
        "fxcm",
        "table",
        "--mapping",
        "Exit code",
        "  wavehouse ingest",
    ):
        assert words in text


# ---- real data ----------------------------------------------------------------------------------


@real_data
def test_real_perpetuals_come_out_as_they_went_in(market):
    path = REAL / "binance_um_perp_1m_2025.parquet"
    run(market, "binance", path, "--strict")
    assert rows(market, columns="count(*), count(spread_bps)") == [(708_180, 0)]
    before, after = f"from '{path}'", f"select * exclude (spread_bps) from '{files(market)[0]}'"
    assert duckdb.sql(f"{before} except all {after}").fetchall() == []
    assert duckdb.sql(f"{after} except all {before}").fetchall() == []


@real_data
def test_real_klines_as_csv_equal_the_parquet(market, tmp_path):
    path, dump = REAL / "binance_um_perp_1m_2025.parquet", tmp_path / "BTCUSDT-1m-2025-05.csv"
    btc = f"select * from '{path}' where symbol = 'BTCUSDT' order by open_time_ms"
    frame = duckdb.sql(btc).df()
    with dump.open("w", newline="") as stream:
        writer = csv.writer(stream)
        for bar in frame.itertuples(index=False):
            values = [f"{value!r}" for value in bar[2:]]
            writer.writerow([bar.open_time_ms * 1000, *values, 0, 0, 0, 0, 0, 0])
    run(market, "binance", dump, "--strict")
    assert rows(market, columns="* exclude (spread_bps)") == duckdb.sql(btc).fetchall()


@real_data
def test_real_lean_equals_pandas(market):
    path = REAL / "lean_minute_trade_bidask.parquet"
    run(market, "lean", path)
    frame = pd.read_parquet(path)
    frame["key"] = frame.symbol + "." + frame.venue + "." + frame.asset_class
    trades = frame.groupby("key").close.transform("count") > 0
    expected = frame[~trades | frame.close.notna()].copy()
    bid, ask = expected.bid_close, expected.ask_close
    expected["spread_bps"] = (ask - bid) / ((ask + bid) / 2) * 1e4
    for price in ("open", "high", "low", "close"):
        mid = (expected[f"bid_{price}"] + expected[f"ask_{price}"]) / 2
        expected[price] = expected[price].where(trades[expected.index], mid)
    expected["symbol"] = expected.key
    expected = expected.sort_values(["symbol", "open_time_ms"])[[c for c, _ in CONTRACT_TYPES]]
    found = duckdb.sql(f"from '{files(market)[0]}'").df()
    pd.testing.assert_frame_equal(
        found, expected.reset_index(drop=True), check_dtype=False, check_exact=True
    )
    assert found.symbol.nunique() == 27
    assert len(found) == 145_224
    assert (found.spread_bps < 0).sum() == 436 + 78
    assert {reason for _, reason in reasons(market)} == {"no_trade"}
    assert len(reasons(market)) == 151_021 - 145_224


@real_data
def test_real_fxcm_equals_pandas(market):
    path = REAL / "fxcm_m1_bidask.parquet"
    run(market, "fxcm", path, "--strict")
    frame = pd.read_parquet(path).sort_values(["symbol", "open_time_ms"], ignore_index=True)
    found = duckdb.sql(f"from '{files(market)[0]}'").df()
    assert found.volume.isna().all()
    for price in ("open", "high", "low", "close"):
        assert (found[price] == (frame[f"bid_{price}"] + frame[f"ask_{price}"]) / 2).all()
    bid, ask = frame.bid_close, frame.ask_close
    assert (found.spread_bps == (ask - bid) / ((ask + bid) / 2) * 1e4).all()
    assert found.groupby("symbol").size().to_dict() == {"GBPUSD": 30_117, "USDJPY": 28_761}
