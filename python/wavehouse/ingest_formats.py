"""From a source file of any accepted shape to rows typed as the minute-bar contract, in SQL.

Every CSV line and every parquet row ends in the temp table `typed_rows`, either as a bar (`reason`
is NULL) or with the reason why it is none. CSV is read one physical line at a time and split in
SQL: DuckDB's own CSV reader skips what it cannot parse, and a skipped line has no row number.
"""

import codecs
import contextlib
import csv
import difflib
import gzip
import io
import re
import shutil
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO

import duckdb

PRICES = ("open", "high", "low", "close")
QUOTES = tuple(f"{side}_{price}" for side in ("bid", "ask") for price in PRICES)
CONTRACT = ("symbol", "open_time_ms", *PRICES, "volume", "spread_bps")
QUOTED_CLOSES = ("bid_close", "ask_close")
MAPPABLE = (*CONTRACT, *QUOTED_CLOSES)
KLINE_COLUMNS = (
    *("open_time", *PRICES, "volume", "close_time", "quote_volume", "trades"),
    *("taker_buy_base", "taker_buy_quote", "ignore"),
)
ALIASES = {
    "symbol": "symbol ticker instrument pair sym",
    "open_time_ms": "opentimems opentime timestamp datetime time date unix unixtime ts t gmttime",
    "open": "open o",
    "high": "high h",
    "low": "low l",
    "close": "close c",
    "volume": "volume vol v",
    "spread_bps": "spreadbps",
    "bid_close": "bidclose",
    "ask_close": "askclose",
}
KLINE_NAME = re.compile(r"^(?P<symbol>.+?)-(?P<interval>\d+(?:s|mo|m|h|d|w|M))(?=-|$)")
CSV_NAME = re.compile(r"\.(csv|tsv|txt)(\.gz)?$", re.IGNORECASE)
ARCHIVE_NAME = re.compile(r"\.zip$", re.IGNORECASE)
PARQUET_NAME = re.compile(r"\.(parquet|pq)$", re.IGNORECASE)
ACCEPTED_NAMES = (CSV_NAME, ARCHIVE_NAME, PARQUET_NAME)

# `number`: NULL unless finite. `plausible_unit`: the unit in which the number lies in 1980 to 2103,
# so that 20250501 or 202505010930, which are no epochs, are not taken for one.
MACROS = r"""
create or replace temp macro number(x) as
    case when isfinite(try_cast(x as double)) then try_cast(x as double) end;
create or replace temp macro is_blank(x) as
    coalesce(lower(trim(x::varchar)) in ('', 'nan', 'null', 'none', 'na', 'n/a'), true);
create or replace temp macro is_lost(x) as not is_blank(x) and number(x) is null;
create or replace temp macro unquoted(x) as
    case when starts_with(x, '"') then replace(x[2:-2], '""', '"') else x end;
create or replace temp macro spread_of(bid, ask) as
    (ask - bid) / nullif((ask + bid) / 2, 0) * 1e4;
create or replace temp macro epoch_number(x) as try_cast(x as decimal(28, 9));
create or replace temp macro plausible_unit(n) as case
    when n between 3.2e8 and 4.2e9 then 's' when n between 3.2e11 and 4.2e12 then 'ms'
    when n between 3.2e14 and 4.2e15 then 'us' when n between 3.2e17 and 4.2e18 then 'ns' end;
create or replace temp macro number_to_ms(n, unit) as case unit
    when 's' then try_cast(floor(n * 1000) as bigint)
    when 'ms' then try_cast(floor(n) as bigint)
    when 'us' then try_cast(floor(n) as bigint) // 1000
    when 'ns' then try_cast(floor(n) as bigint) // 1000000 end;
create or replace temp macro text_to_ms(x, zone) as try(epoch_ms(
    case when regexp_matches(x, ':\d\d(\.\d+)?\s*([+-]\d\d(:?\d\d)?|[A-Za-z][\w/+-]*)$')
        then try_cast(x as timestamptz) else timezone(zone, try_cast(x as timestamp)) end));
create or replace temp table typed_rows (
    source_file varchar, source_row bigint, symbol varchar, open_time_ms bigint,
    open double, high double, low double, close double, volume double, spread_bps double,
    time_unit varchar, spread_lost boolean, reason varchar, raw_row varchar);
"""


class IngestError(Exception):
    """A source that cannot be ingested: what was found, what was expected and what to do."""


@dataclass(frozen=True)
class Options:
    """What the user asked for; with the source's bytes it decides the rows, so it is hashed."""

    format: str
    symbol: str | None = None
    symbol_template: str = "{symbol}.{venue}.{asset_class}"
    price: str = "auto"
    map: dict[str, str] = field(default_factory=dict)
    set: dict[str, str] = field(default_factory=dict)
    time_unit: str = "auto"
    time_format: str | None = None
    timezone: str = "UTC"
    delimiter: str | None = None
    header: bool = True


@dataclass(frozen=True)
class Part:
    """One table of a source: a parquet file (`lines` is None) or a CSV copied to plain lines."""

    label: str
    name: str
    path: Path
    lines: int | None


@dataclass(frozen=True)
class Column:
    """A column of `source_rows`: the source's name for it, its SQL name there, its DuckDB type."""

    name: str
    sql: str
    type: str = "VARCHAR"


@dataclass(frozen=True)
class Bars:
    """SQL expressions over `source_rows` that give the contract's columns.

    `uses_trades` may be a window over `symbol`; the expressions after it may name both.
    """

    symbol: str
    open_time_ms: str
    prices: dict[str, str]
    volume: str = "null"
    spread_bps: str = "null"
    spread_sources: tuple[str, ...] = ()
    time_unit: str = "'ms'"
    missing: str = "null"
    uses_trades: str = "true"
    notes: tuple[str, ...] = ()


def quoted(text: str) -> str:
    """Return `text` as a SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def closest(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean ...?" with the known name most like `name`, or nothing."""
    close = difflib.get_close_matches(name, list(known), 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def name_stem(name: str) -> str:
    """Return a file's name without folder and data suffixes: `a/x.csv.gz` gives `x`."""
    name = Path(name).name
    for pattern in ACCEPTED_NAMES:
        name = pattern.sub("", name)
    return name


def open_parts(label: str, path: Path, scratch: Path) -> list[Part]:
    """Return the tables in the file at `path`; CSV is decompressed and copied to `scratch`.

    A zip gives one part for each CSV in it. Raises IngestError for an unknown suffix, a zip
    without CSV and an empty file.
    """
    if PARQUET_NAME.search(path.name):
        link = scratch / "0.parquet"  # DuckDB would take brackets in the real name for a glob
        link.symlink_to(path.resolve())
        return [Part(label, path.name, link, None)]
    if ARCHIVE_NAME.search(path.name):
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if is_csv_member(name)]
            if not members:
                raise IngestError(
                    f"no CSV in the archive; found: {', '.join(archive.namelist()) or 'nothing'}. "
                    "Expected members that end in .csv, .tsv or .txt."
                )
            labels = [label] if len(members) == 1 else [f"{label}::{name}" for name in members]
            return [
                copied_part(part_label, member, archive.open(member), scratch / f"{number}.csv")
                for number, (part_label, member) in enumerate(zip(labels, members, strict=True))
            ]
    if not CSV_NAME.search(path.name):
        raise IngestError(
            "cannot tell what this is from its name. Expected .csv, .tsv, .txt (each also with "
            ".gz), .zip, .parquet or .pq; rename the file."
        )
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    return [copied_part(label, path.name, opened(path, "rb"), scratch / "0.csv")]


def is_csv_member(name: str) -> bool:
    """Say whether a zip member is data: not a folder, a checksum or a macOS resource fork."""
    return bool(CSV_NAME.search(name)) and "__MACOSX" not in name and not name.endswith(".gz")


def copied_part(label: str, name: str, stream: IO[bytes], target: Path) -> Part:
    """Copy a byte stream to plain lines at `target` and describe the copy."""
    with stream:
        lines = copy_lines(stream, target)
    if lines == 0:
        raise IngestError(f"{name} is empty. Expected at least one line; fetch the file again.")
    return Part(label, Path(name).name, target, lines)


def copy_lines(stream: IO[bytes], target: Path) -> int:
    r"""Copy text to UTF-8 with one "\n" after each non-empty line; return the number of lines.

    Bytes that do not fit the text's encoding become "\xNN", so that a damaged line stays a line.
    Control characters 0 to 2 are escaped: the reader uses them as sentinels.
    """
    encoding = encoding_of(stream.peek(1 << 13))  # type: ignore[attr-defined]
    lines, last = 0, "\n"
    with (
        io.TextIOWrapper(stream, encoding, errors="backslashreplace") as text,
        target.open("w", encoding="utf-8", errors="backslashreplace", newline="") as copy,
    ):
        while chunk := text.read(1 << 20):
            for control in "\0\1\2":
                chunk = chunk.replace(control, f"\\x{ord(control):02x}")
            chunk = last + chunk
            if "\n\n" in chunk:
                chunk = re.sub("\n\n+", "\n", chunk)
            lines += chunk.count("\n", 1)
            last = chunk[-1]
            copy.write(chunk[1:])
        if last != "\n":
            lines += 1
            copy.write("\n")
    return lines


def encoding_of(sample: bytes) -> str:
    """Tell UTF-16 by its mark, and GB18030, as Chinese vendors write it, where UTF-8 fails."""
    if sample[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    for encoding in ("utf-8", "gb18030"):
        with contextlib.suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder(encoding)().decode(sample)
            return "utf-8-sig" if encoding == "utf-8" else encoding
    return "utf-8-sig"


def type_source(
    con: duckdb.DuckDBPyConnection, label: str, path: Path, options: Options, scratch: Path
) -> tuple[int, list[str]]:
    """Fill `typed_rows` from a source; return the rows read and notes on what was assumed.

    Rows read are counted outside the typing: from the copied lines or the parquet footer.
    """
    con.execute(MACROS)
    rows, notes = 0, []
    scratch.mkdir()
    try:
        for part in open_parts(label, path, scratch):
            load = load_parquet if part.lines is None else load_csv
            columns, part_rows, part_notes = load(con, part, options)
            bars = FORMATS[options.format](part, columns, options)
            type_rows(con, part, columns, bars)
            rows += part_rows
            notes += [note for note in (*part_notes, *bars.notes) if note not in notes]
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return rows, notes + observed_notes(con)


def observed_notes(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Return what the typed rows themselves tell: units of time, spreads that were no numbers."""
    units = con.execute(
        "select time_unit, count(*), count(*) filter (where spread_lost) from typed_rows "
        "where reason is null group by time_unit order by time_unit"
    ).fetchall()
    notes, lost = [], sum(spreads for _, _, spreads in units)
    if any(unit != "ms" for unit, _, _ in units):
        counts = ", ".join(f"{unit} ({rows:,} rows)" for unit, rows, _ in units)
        notes.append(f"time read as {counts}")
    return [*notes, f"{lost:,} unparsable spreads set to NULL"] if lost else notes


def load_parquet(
    con: duckdb.DuckDBPyConnection, part: Part, options: Options
) -> tuple[list[Column], int, list[str]]:
    """Create the view `source_rows` over a parquet file; return its columns and row count."""
    file = quoted(str(part.path))
    described = con.execute(f"describe from read_parquet({file})").fetchall()
    columns = [Column(row[0], f"c{i}", row[1]) for i, row in enumerate(described)]
    names = ", ".join(f'"{c.name.replace(chr(34), chr(34) * 2)}" as {c.sql}' for c in columns)
    con.execute(f"""
        create or replace temp view source_rows as
        select file_row_number + 1 as source_row, null::varchar as line, false as malformed, {names}
        from read_parquet({file}, file_row_number = true)
    """)
    metadata = f"select num_rows from parquet_file_metadata({file})"
    return columns, con.execute(metadata).fetchone()[0], []


def load_csv(
    con: duckdb.DuckDBPyConnection, part: Part, options: Options
) -> tuple[list[Column], int, list[str]]:
    """Create the view `source_rows` over plain lines; return its columns and row count.

    A line is malformed when its quotes do not close or it has not as many fields as the header.
    """
    with part.path.open(encoding="utf-8") as lines:
        first = lines.readline().rstrip("\n")
    delimiter = options.delimiter or (max(",;\t|", key=first.count) if first else ",")
    names = [name.strip() for name in next(csv.reader([first], delimiter=delimiter))]
    has_header, notes = options.header, []
    if options.format == "binance":
        has_header = re.sub(r"\W|_", "", names[0]).lower() == "opentime"
        names = list(KLINE_COLUMNS)
    elif not has_header:
        names = [f"c{i + 1}" for i in range(len(names))]
    if delimiter != "," and options.delimiter is None:
        notes.append(f"delimiter read as {delimiter!r}")
    columns = [Column(name, f"c{i}") for i, name in enumerate(names)]
    fields = ", ".join(f"unquoted(fields[{i + 1}]) as c{i}" for i in range(len(names)))
    cut = quoted(delimiter)
    code = f"\\x{{{ord(delimiter):x}}}"
    field_pattern = quoted(f'{code}("(?:[^"]|"")*"|[^"{code}]*)')
    con.execute(f"""
        create or replace temp view source_rows as
        with lines as (
            select row_number() over () - {int(has_header)} as source_row, line
            from read_csv(
                {quoted(str(part.path))}, columns = {{'line': 'varchar'}}, auto_detect = false,
                header = false, delim = '\x01', nullstr = '\x02', quote = '', escape = '',
                comment = '', new_line = '\\n')
        ),
        split_lines as (
            select source_row, line, contains(line, '"') as has_quotes,
                case when has_quotes then regexp_extract_all({cut} || line, {field_pattern}, 1)
                    else string_split(line, {cut}) end as fields
            from lines where source_row > 0
        )
        select source_row, line,
            len(fields) <> {len(names)}
                or (has_quotes and array_to_string(fields, {cut}) <> line) as malformed, {fields}
        from split_lines
    """)
    return columns, part.lines - int(has_header), notes


def type_rows(
    con: duckdb.DuckDBPyConnection, part: Part, columns: list[Column], bars: Bars
) -> None:
    """Append every row of `source_rows` to `typed_rows`, with a reason where it is no bar."""
    raw_row = ", ".join(f"{quoted(c.name)}, {json_value(c)}" for c in columns)
    prices = ", ".join(f"{sql} as {price}" for price, sql in bars.prices.items())
    lost = " or ".join(f"is_lost({sql})" for sql in bars.spread_sources) or "false"
    con.execute(f"""
        insert into typed_rows
        with named as (select source_rows.*, nullif(trim(({bars.symbol})::varchar), '') as symbol
            from source_rows),
        traded as (select *, {bars.uses_trades} as uses_trades from named),
        typed as (
            select source_row, line, malformed, symbol, {bars.open_time_ms} as open_time_ms,
                {prices},
                number({bars.volume}) as volume, is_lost({bars.volume}) as volume_lost,
                number({bars.spread_bps}) as spread_bps, {lost} as spread_lost,
                {bars.time_unit} as time_unit, {bars.missing} as missing,
                columns('^c[0-9]+$')
            from traded
        ),
        judged as (
            select *, case
                when malformed then 'malformed_line'
                when symbol is null then 'null_or_unparsable_symbol'
                when open_time_ms is null then 'null_or_unparsable_time'
                when missing is not null then missing
                when open is null or high is null or low is null or close is null
                    then 'null_or_unparsable_price'
                when volume_lost then 'unparsable_volume'
            end as reason
            from typed
        )
        select {quoted(part.label)}, source_row, symbol, open_time_ms, open, high, low, close,
            volume, spread_bps, time_unit, spread_lost, reason,
            case when malformed then json_object('line', line)
                when reason is not null then json_object({raw_row}) end
        from judged
    """)


def json_value(column: Column) -> str:
    """Return the SQL that writes a column into JSON, which has no NaN and no infinity."""
    if column.type in ("DOUBLE", "FLOAT"):
        return (
            f"case when isfinite({column.sql}) then to_json({column.sql}) "
            f"else to_json({column.sql}::varchar) end"
        )
    return column.sql


def time_sql(column: str, options: Options) -> tuple[str, str]:
    """Return SQL for epoch milliseconds of a column and for the name of the unit it was in."""
    number, unit, form = f"epoch_number({column})", options.time_unit, options.time_format
    text, zone = f"trim({column}::varchar)", quoted(options.timezone)
    if form:
        parsed = f"try_strptime({text}, {quoted(form)})"
        parsed = parsed if "%z" in form.lower() else f"timezone({zone}, {parsed})"
        return f"epoch_ms({parsed})", quoted(f"'{form}'")
    if unit == "iso":
        return f"text_to_ms({text}, {zone})", "'iso'"
    if unit != "auto":
        return f"number_to_ms({number}, '{unit}')", f"'{unit}'"
    unit = f"case when {number} is null then 'iso' else plausible_unit({number}) end"
    iso = f"case when {number} is null then text_to_ms({text}, {zone}) end"
    return f"coalesce(number_to_ms({number}, plausible_unit({number})), {iso})", unit


def find_column(columns: list[Column], name: str, remedy: str) -> Column:
    """Return the column called `name` (case does not matter); raise IngestError otherwise."""
    matches = [c for c in columns if c.name == name] or [
        c for c in columns if c.name.lower() == name.lower()
    ]
    if len(matches) == 1:
        return matches[0]
    found = ", ".join(c.name or "(no name)" for c in columns)
    if matches:
        raise IngestError(f"column {name!r} occurs {len(matches)} times; found: {found}. {remedy}")
    hint = closest(name, [c.name for c in columns])
    raise IngestError(f"no column {name!r}; found: {found}.{hint} {remedy}")


def required(columns: list[Column], names: tuple[str, ...], shape: str) -> dict[str, str]:
    """Return the SQL names of the columns `names`; raise IngestError when one is not there."""
    remedy = (
        f"Expected for {shape}: {', '.join(names)}. "
        "For other columns use the format `table` with --map CONTRACT_COLUMN=SOURCE_COLUMN."
    )
    return {name: find_column(columns, name, remedy).sql for name in names}


def kline_symbol(part: Part, options: Options) -> str | None:
    """Return the symbol a kline file's name tells; raise IngestError when it is not 1 minute."""
    archive = part.label.split("::")[0]
    match = KLINE_NAME.match(name_stem(part.name)) or KLINE_NAME.match(name_stem(archive))
    if match and match["interval"] != "1m":
        raise IngestError(
            f"{part.name} holds {match['interval']} bars by its name. Expected 1m; "
            "leave this file out and fetch the 1m dump."
        )
    return options.symbol or (match and match["symbol"])


def binance_bars(part: Part, columns: list[Column], options: Options) -> Bars:
    """Type Binance klines: a dump's 12 columns, or parquet with symbol, open_time_ms and OHLCV."""
    named = kline_symbol(part, options)
    if part.lines is None:
        names = ("open_time_ms", *PRICES, "volume", *(() if options.symbol else ("symbol",)))
        at, time = required(columns, names, "binance parquet"), "open_time_ms"
        symbol = quoted(options.symbol) if options.symbol else at["symbol"]
    elif named is None:
        raise IngestError(
            f"{part.name} does not name a symbol. Expected a name like BTCUSDT-1m-2025-05.csv; "
            "rename the file or give --symbol."
        )
    else:
        at, symbol, time = {c.name: c.sql for c in columns}, quoted(named), "open_time"
    number = f"epoch_number({at[time]})"
    unit = f"case when abs({number}) < 1e14 then 'ms' else 'us' end"
    prices = {price: f"number({at[price]})" for price in PRICES}
    time_ms = f"number_to_ms({number}, {unit})"
    return Bars(symbol, time_ms, prices, at["volume"], time_unit=unit)


def quote_bars(part: Part, columns: list[Column], options: Options) -> Bars:
    """Type bars with bid and ask OHLC: `lean` (with trades) and `fxcm` (quotes alone, mid)."""
    lean = options.format == "lean"
    names = ("symbol", "open_time_ms", *QUOTES, *((*PRICES, "volume") if lean else ()))
    at = required(columns, names, options.format)
    symbol = template_sql(columns, options.symbol_template) if lean else at["symbol"]
    mids = {p: f"(number({at[f'bid_{p}']}) + number({at[f'ask_{p}']})) / 2" for p in PRICES}
    sides = [" and ".join(f"is_blank({at[f'{s}_{p}']})" for p in PRICES) for s in ("bid", "ask")]
    no_quote = f"case when ({sides[0]}) or ({sides[1]}) then 'no_quote' end"
    quotes = tuple(at[key] for key in QUOTED_CLOSES)
    common = {
        "symbol": symbol,
        "open_time_ms": f"number_to_ms(epoch_number({at['open_time_ms']}), 'ms')",
        "spread_bps": f"spread_of(number({quotes[0]}), number({quotes[1]}))",
        "spread_sources": quotes,
    }
    if not lean:
        return Bars(**common, prices=mids, missing=no_quote)
    no_trade = " and ".join(f"is_blank({at[p]})" for p in PRICES)
    ever = f"bool_or(not is_blank({at['close']})) over (partition by symbol)"
    either = {p: f"case when uses_trades then number({at[p]}) else {mids[p]} end" for p in PRICES}
    return Bars(
        **common,
        prices=either,
        volume=f"(case when uses_trades then {at['volume']} end)",
        missing=f"case when not uses_trades then {no_quote} when {no_trade} then 'no_trade' end",
        uses_trades={"trade": "true", "mid": "false", "auto": ever}[options.price],
    )


def template_sql(columns: list[Column], template: str) -> str:
    """Return the SQL of a symbol template such as `{symbol}.{venue}`; NULL where a part is NULL."""
    remedy = f"--symbol-template {template!r} takes column names in braces."
    filled = "nullif(trim({}::varchar), '')"
    return " || ".join(
        quoted(text) if text else filled.format(find_column(columns, name, remedy).sql)
        for text, name in re.findall(r"([^{}]+)|\{([^{}]*)\}", template)
    )


def table_bars(part: Part, columns: list[Column], options: Options) -> Bars:
    """Type any table by --map and --set; columns that neither names are found by common names."""
    mapped, auto = resolve_mapping(columns, options)
    sql = {key: source_sql(columns, key, name) for key, name in mapped.items()}
    sql |= {key: quoted(value) for key, value in options.set.items()}
    spread = sql.get("spread_bps", "null")
    sources, quotes = (spread,), tuple(sql[key] for key in QUOTED_CLOSES if key in sql)
    if len(quotes) == 1 and any(key in options.map for key in QUOTED_CLOSES):
        raise IngestError("a spread needs both bid_close and ask_close; map the other one too.")
    if len(quotes) == 2 and "spread_bps" not in sql:
        spread, sources = f"spread_of(number({quotes[0]}), number({quotes[1]}))", quotes
    if mapped.get("open_time_ms", "").lower() == "open_time_ms" and options.time_unit == "auto":
        options = replace(options, time_unit="ms")
    time_ms, unit = time_sql(sql["open_time_ms"], options)
    notes = ["found by name: " + ", ".join(f"{k}={v}" for k, v in auto.items())] if auto else []
    notes += ["no volume column: volume is NULL"] if "volume" not in sql else []
    return Bars(
        symbol=sql["symbol"],
        open_time_ms=time_ms,
        prices={price: f"number({sql[price]})" for price in PRICES},
        volume=sql.get("volume", "null"),
        spread_bps=spread,
        spread_sources=sources,
        time_unit=unit,
        notes=tuple(notes),
    )


def resolve_mapping(
    columns: list[Column], options: Options
) -> tuple[dict[str, str], dict[str, str]]:
    """Return contract column to source column for all, and for those found by name alone."""
    auto = {}
    for key in MAPPABLE:
        if key in options.map or key in options.set:
            continue
        plain = {c.name: re.sub(r"[\W_]", "", c.name).lower() for c in columns}
        names = [name for name, short in plain.items() if short in ALIASES[key].split()]
        exact = [name for name in names if plain[name] == key.replace("_", "")]
        if len(exact or names) == 1:
            auto[key] = (exact or names)[0]
        elif names or key not in ("volume", "spread_bps", *QUOTED_CLOSES):
            raise IngestError(mapping_problem(columns, key, names))
    return {**options.map, **auto}, auto


def mapping_problem(columns: list[Column], key: str, names: list[str]) -> str:
    """Say that no column, or more than one, looks like the contract's `key`, and what to do."""
    found = [c.name for c in columns]
    close = difflib.get_close_matches(key, [name.lower() for name in found], 1, 0.5)
    guess = next((n for n in found if close and n.lower() == close[0]), "COLUMN")
    remedies = [f"--map {key}={name}" for name in names or [guess]]
    if key == "symbol":
        remedies.append("--set symbol=NAME")
    if key == "open_time_ms" and len(names) > 1:
        remedies.append(f"--map {key}={names[0]}+{names[1]} (date and time in two columns)")
    return (
        f"{'several columns look' if names else 'no column looks'} like {key}; "
        f"found: {', '.join(found)}. Expected: symbol, open_time_ms, open, high, low, close and, "
        f"if known, volume and spread_bps. Give {' or '.join(remedies)}"
        + ("." if names else ", or --no-header when the first line is data already.")
    )


def source_sql(columns: list[Column], key: str, name: str) -> str:
    """Return the SQL of a mapped source column; for the time also of two joined by `+`."""
    remedy = f"Correct --map {key}={name}."
    parts = [part.strip() for part in name.split("+")]
    if key == "open_time_ms" and len(parts) > 1 and name not in [c.name for c in columns]:
        joined = ", ".join(f"{find_column(columns, part, remedy).sql}::varchar" for part in parts)
        return f"concat_ws(' ', {joined})"
    return find_column(columns, name, remedy).sql


FORMATS = {"binance": binance_bars, "lean": quote_bars, "fxcm": quote_bars, "table": table_bars}
