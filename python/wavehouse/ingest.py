"""`wavehouse ingest`: what people really have, turned into the minute-bar contract's parquet."""

import csv
import dataclasses
import glob
import hashlib
import json
import os
import re
import shlex
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import click
import duckdb
import yaml
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from wavehouse import daily_assembly as assembly
from wavehouse import ingest_daily as daily
from wavehouse import ingest_formats as formats
from wavehouse.ingest_formats import IngestError, Options, closest, name_stem, quoted
from wavehouse.warehouse import SETTINGS

INGEST_VERSION = 1  # part of every hash: raise it when the same source would give other rows
MAPPING_KEYS = ("map", "set", "time_unit", "time_format", "timezone", "delimiter", "header")
OPTION_FORMAT = (
    {"symbol": ("binance",), "symbol_template": ("lean",), "price": ("lean",)}
    | dict.fromkeys(("mapping", *MAPPING_KEYS), ("table",))
    | dict.fromkeys(("kind", "as_of", "out_date"), daily.VENDORS)
)
FORMATS = (*formats.FORMATS, *daily.VENDORS)
MINUTE_FOLDERS = ("minute_bars", "ingest_rejects")
TIME_UNITS = ("auto", "s", "ms", "us", "ns", "iso")
UNREADABLE = (
    *(duckdb.Error, OSError, EOFError, RuntimeError, ValueError, csv.Error),
    *(zipfile.BadZipFile, zlib.error),
)
BAR_COLUMNS = ", ".join(formats.CONTRACT)
REJECT_COLUMNS = "source_file, source_row, symbol, open_time_ms, reason, raw_row"


@dataclass(frozen=True)
class Output:
    """A parquet file written by an earlier ingest, with what its footer says of its source."""

    path: Path
    source: str
    sha256: str
    options: str
    footer: dict[str, str] = field(default_factory=dict)


@dataclass
class Report:
    """What became of one source."""

    source: str
    status: str
    rows_read: int = 0
    rows_written: int = 0
    rows_rejected: int = 0
    symbols: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    rejects: list[tuple[str, int, str, int]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def connect(scratch: Path) -> duckdb.DuckDBPyConnection:
    """Return an in-memory connection that works in UTC and spills to `scratch`."""
    con = duckdb.connect(config={"temp_directory": str(scratch / "spill")})
    for name, value in SETTINGS.items():
        con.execute(f"set {name} = '{value}'")
    return con


def expand_paths(patterns: tuple[str, ...], data_dir: Path) -> tuple[list[str], list[str]]:
    """Return the files that files, folders and globs stand for, each once, and what is wrong.

    Folders and globs leave out what ingest itself wrote below `data_dir`.
    """
    files, problems = {}, []
    own = (*MINUTE_FOLDERS, *daily.folders())
    written = [(data_dir / name).resolve() for name in own]
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_file():
            files.setdefault(path.resolve(), str(path))
            continue
        at = path / "**" / "*" if path.is_dir() else path
        found = [
            name
            for name in sorted(glob.glob(str(at), recursive=True))
            if any(known.search(name) for known in formats.ACCEPTED_NAMES)
            and os.path.isfile(name)
            and not any(Path(name).resolve().is_relative_to(folder) for folder in written)
        ]
        if not found:
            problems.append(
                f"{pattern}: nothing to ingest there. Expected a file, a folder or a glob with "
                ".csv, .tsv, .txt (also .gz), .zip, .parquet or .pq files."
            )
        for name in found:
            files.setdefault(Path(name).resolve(), name)
    return list(files.values()), problems


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def options_text(options: Options, path: Path) -> str:
    """Return everything besides the bytes that decides the rows, as canonical JSON."""
    values = dataclasses.asdict(options)
    kline = formats.KLINE_NAME.match(name_stem(path.name)) if options.format == "binance" else None
    values["symbol"] = options.symbol or (kline and kline["symbol"])
    return json.dumps({"version": INGEST_VERSION, **values}, sort_keys=True)


def output_stem(path: Path, sha256: str, options: str) -> str:
    """Return the name that source bytes and options give to the output, without suffix."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name_stem(path.name))[:100]
    digest = hashlib.sha256(f"{sha256}\n{options}".encode()).hexdigest()
    return f"{json.loads(options)['format']}-{name}-{digest[:16]}"


def find_outputs(con: duckdb.DuckDBPyConnection, folder: Path) -> list[Output]:
    """Read the footers of the files in `folder` that an ingest wrote."""
    files = [
        str(p) for p in sorted(folder.glob("*.parquet")) if re.search(r"-[0-9a-f]{16}$", p.stem)
    ]
    if not files:
        return []
    try:
        rows = con.execute(
            "select file_name, decode(key), decode(value) from parquet_kv_metadata(?)", [files]
        ).fetchall()
    except duckdb.Error as error:
        raise click.ClickException(
            f"{folder}: an earlier output cannot be read ({error}). Delete that file and run again."
        ) from error
    footers: dict[str, dict[str, str]] = {}
    for file, key, value in rows:
        footers.setdefault(file, {})[key.removeprefix("wavehouse.")] = value
    return [
        Output(Path(file), footer["source"], footer["source_sha256"], footer["options"], footer)
        for file, footer in footers.items()
        if footer.keys() >= {"source", "source_sha256", "options"}
    ]


def write_parquet(
    con: duckdb.DuckDBPyConnection, query: str, rows: int, target: Path, footer: dict[str, str]
) -> None:
    """Write a query's rows to `target` in one step: under another name first, then renamed.

    Raises IngestError, and leaves `target` alone, unless exactly `rows` rows were written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    pairs = ", ".join(f"'wavehouse.{key}': {quoted(value)}" for key, value in footer.items())
    try:
        written = con.execute(
            f"copy ({query}) to {quoted(str(temporary))} "
            f"(format parquet, compression zstd, kv_metadata {{{pairs}}})"
        ).fetchone()[0]
        check_count(written, rows)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def check_count(found: int, expected: int) -> None:
    """Raise IngestError when rows were lost or invented on the way."""
    if found != expected:
        raise IngestError(
            f"rows do not add up: expected {expected:,}, found {found:,}. Nothing was written; "
            "please report this file as a defect of wavehouse."
        )


def ingest_source(
    con: duckdb.DuckDBPyConnection,
    source: str,
    options: Options,
    data_dir: Path,
    outputs: list[Output],
    scratch: Path,
    dry_run: bool = False,
) -> Report:
    """Ingest one file unless its bytes were ingested with these options; report what became of it.

    Rejects are written before the bars, and earlier outputs of the same source are removed last:
    an interruption leaves a state that the next run completes. `outputs` is brought up to date.
    """
    path = Path(source)
    options = dataclasses.replace(
        options, set={k: v.replace("{stem}", name_stem(source)) for k, v in options.set.items()}
    )
    sha256, text = file_sha256(path), options_text(options, path)
    bars_dir, rejects_dir = data_dir / "minute_bars", data_dir / "ingest_rejects"
    bars_written = [o for o in outputs if o.path.parent == bars_dir]
    done = next((o.path for o in bars_written if (o.sha256, o.options) == (sha256, text)), None)
    stale = stale_outputs(outputs, path, sha256, text)
    if done:
        report = Report(source, "unchanged")
        rejects = rejects_dir / done.name
        view_outputs(con, done, rejects if rejects.exists() else None)
    else:
        report = Report(source, "replaced" if stale else "added")
        report.rows_read, report.notes = formats.type_source(
            con, source, path, options, scratch / "part"
        )
        view_typed_rows(con)
    summarise(con, report)
    if done:
        report.rows_read = report.rows_written + report.rows_rejected
    check_count(report.rows_written + report.rows_rejected, report.rows_read)
    report.notes += earlier_notes(bars_written, source, sha256)
    if dry_run:
        return report
    tables = {bars_dir: ("from bars", report.rows_written)}
    if report.rows_rejected:
        tables = {rejects_dir: ("from rejects", report.rows_rejected), **tables}
    footer = {"source": source, "source_sha256": sha256, "options": text}
    settle(con, path, footer, {} if done else tables, outputs, stale)
    return report


def stale_outputs(outputs: list[Output], path: Path, sha256: str, options: str) -> list[Output]:
    """Return the outputs of the same bytes and file name under other options."""
    same = [o for o in outputs if (o.sha256, Path(o.source).name) == (sha256, path.name)]
    return [o for o in same if o.options != options]


def earlier_notes(outputs: list[Output], source: str, sha256: str) -> list[str]:
    """Say which outputs hold other bytes of the same source."""
    return [
        f"{o.path.name} holds an earlier state of this file: delete it if this one replaces it"
        for o in outputs
        if o.source == source and o.sha256 != sha256
    ]


def settle(
    con: duckdb.DuckDBPyConnection,
    path: Path,
    footer: dict[str, str],
    tables: dict[Path, tuple[str, int]],
    outputs: list[Output],
    stale: list[Output],
) -> None:
    """Write a source's tables (folder to query and row count) in order, then remove stale ones."""
    sha256, text = footer["source_sha256"], footer["options"]
    name = output_stem(path, sha256, text) + ".parquet"
    for folder, (query, rows) in tables.items():
        write_parquet(con, query, rows, folder / name, footer)
        outputs.append(Output(folder / name, footer["source"], sha256, text, footer))
    for output in stale:
        output.path.unlink(missing_ok=True)
        outputs.remove(output)


def ingest_daily_source(
    con: duckdb.DuckDBPyConnection,
    source: str,
    options: daily.DailyOptions,
    data_dir: Path,
    outputs: list[Output],
    scratch: Path,
    dry_run: bool = False,
) -> Report:
    """Ingest one daily table as `ingest_source` does bars; one source may give several kinds.

    The footer of each output says which folders the source was written to and what was counted, so
    a source is done when all of them are there, and is reported without reading it again.
    """
    path = Path(source)
    sha256, text = file_sha256(path), daily.options_text(options, INGEST_VERSION)
    same = [o for o in outputs if (o.sha256, o.options) == (sha256, text)]
    kept = {str(o.path.parent.relative_to(data_dir)): o for o in same}
    done = next(iter(same), None)
    if done and not set(json.loads(done.footer["folders"])) <= kept.keys():
        done = None
    stale = stale_outputs(outputs, path, sha256, text)
    status = "unchanged" if done else "replaced" if stale else "added"
    notes = earlier_notes([o for o in outputs if o not in same], source, sha256)
    if done:
        report = Report(source, status, **json.loads(done.footer["counts"]))
        report.notes += sorted(set(notes))
        if not dry_run:
            settle(con, path, done.footer, {}, outputs, stale)
        return report
    typed = daily.type_source(con, source, path, options, scratch / "part")
    daily.view_rejects(con)
    report = Report(source, status, typed.rows_read, notes=[*typed.notes, *sorted(set(notes))])
    summarise_daily(con, report, list(typed.kinds))
    check_count(report.rows_written + report.rows_rejected + typed.left_out, typed.rows_read)
    if dry_run:
        return report
    tables = {
        data_dir / daily.folder_of(kind): (daily.kind_query(typed.shape, options, kind), rows)
        for kind, rows in typed.kinds.items()
    }
    if report.rows_rejected:
        rejects = ("from rejects", report.rows_rejected)
        tables = {data_dir / daily.REJECTS: rejects, **tables}
    counts = dataclasses.asdict(report)
    counts = {key: counts[key] for key in counts if key not in ("source", "status")}
    names = [str(folder.relative_to(data_dir)) for folder in tables]
    footer = {"source": source, "source_sha256": sha256, "options": text}
    footer |= {"folders": json.dumps(names), "counts": json.dumps(counts)}
    settle(con, path, footer, tables, outputs, stale)
    return report


def summarise_daily(con: duckdb.DuckDBPyConnection, report: Report, kinds: list[str]) -> None:
    """Fill a report's counts from `typed_rows`."""
    report.rows_written, report.symbols, report.first_ms, report.last_ms = con.execute("""
        select count(*), count(distinct row_code), epoch_ms(min(row_day)), epoch_ms(max(row_day))
        from typed_rows where reject_reason is null and not left_out
    """).fetchone()
    report.rejects = con.execute("""
        select concat_ws(': ', reason, column_name), count(*),
            arg_min(source_file, (source_file, source_row)),
            arg_min(source_row, (source_file, source_row))
        from rejects group by 1 order by 1
    """).fetchall()
    report.rows_rejected = sum(count for _, count, _, _ in report.rejects)
    report.notes.insert(0, f"written to {', '.join(map(daily.folder_of, kinds))}")


def view_typed_rows(con: duckdb.DuckDBPyConnection) -> None:
    """Show `typed_rows` as the views `bars` and `rejects`, sorted with every tie broken."""
    con.execute(f"""
        create or replace temp view bars as select {BAR_COLUMNS} from typed_rows
        where reason is null order by symbol, open_time_ms, source_file, source_row;
        create or replace temp view rejects as select {REJECT_COLUMNS} from typed_rows
        where reason is not null order by source_file, source_row
    """)


def view_outputs(con: duckdb.DuckDBPyConnection, bars: Path, rejects: Path | None) -> None:
    """Show written files as the views `bars` and `rejects`."""
    con.execute(f"create or replace temp view bars as from read_parquet({quoted(str(bars))})")
    rows = "select '' as source_file, 0::bigint as source_row, '' as reason where false"
    if rejects:
        rows = f"from read_parquet({quoted(str(rejects))})"
    con.execute(f"create or replace temp view rejects as {rows}")


def summarise(con: duckdb.DuckDBPyConnection, report: Report) -> None:
    """Fill a report's counts from the views `bars` and `rejects`."""
    report.rows_written, report.symbols, report.first_ms, report.last_ms = con.execute(
        "select count(*), count(distinct symbol), min(open_time_ms), max(open_time_ms) from bars"
    ).fetchone()
    report.rejects = con.execute("""
        select reason, count(*), arg_min(source_file, (source_file, source_row)),
            arg_min(source_row, (source_file, source_row))
        from rejects group by reason order by reason
    """).fetchall()
    report.rows_rejected = sum(count for _, count, _, _ in report.rejects)


def ingest_all(
    sources: list[str], options: Options, data_dir: Path, dry_run: bool = False
) -> Iterator[tuple[str, Report | str]]:
    """Ingest the sources one by one; give for each its report, or the message why it failed."""
    with tempfile.TemporaryDirectory(prefix="wavehouse-ingest-") as folder:
        scratch = Path(folder)
        with connect(scratch) as con:
            check_timezone(con, options.timezone)
            is_daily = options.format in daily.VENDORS
            ingest_one = ingest_daily_source if is_daily else ingest_source
            if is_daily:
                daily.prepare(con)
            outputs = [
                output
                for name in (daily.folders() if is_daily else MINUTE_FOLDERS)
                for output in find_outputs(con, data_dir / name)
            ]
            for source in sources:
                try:
                    yield (
                        source,
                        ingest_one(con, source, options, data_dir, outputs, scratch, dry_run),
                    )
                except IngestError as error:
                    yield source, f"{source}: {error}"
                except UNREADABLE as error:
                    cause = f"{type(error).__name__}: {error}".splitlines()[0]
                    yield (
                        source,
                        f"{source}: could not be read or written ({cause}). "
                        "Check that the file is whole and fits the format, then run again.",
                    )
            if not is_daily or dry_run:
                return
            try:
                for name, report in assembly.assemble(con, data_dir):
                    yield name, Report(name, **report)
            except UNREADABLE as error:
                yield (
                    "assembly",
                    f"{data_dir}: the tables were kept, but what is made from them together "
                    f"could not be written ({error}). Delete the file it names and run again.",
                )


def check_timezone(con: duckdb.DuckDBPyConnection, name: str) -> None:
    """Raise UsageError when `name` is no time zone that DuckDB knows."""
    known = [row[0] for row in con.execute("select name from pg_timezone_names()").fetchall()]
    if name not in known:
        raise click.UsageError(
            f"no time zone {name!r}; expected a name like Asia/Tokyo.{closest(name, known)}"
        )


def parse_pairs(
    ctx: click.Context, param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    """Turn repeated KEY=VALUE into a dictionary (a click callback)."""
    pairs = {}
    for value in values:
        key, equals, right = value.partition("=")
        if not equals or not right:
            raise click.BadParameter(f"{value!r} is not of the form CONTRACT_COLUMN=VALUE")
        pairs[key.strip()] = right
    check_keys(pairs, formats.MAPPABLE, param.opts[0])
    return pairs


def check_keys(found: dict, expected: tuple[str, ...], where: str) -> None:
    """Raise UsageError for a key that is not among the expected ones, with the closest that is."""
    for key in found:
        if key not in expected:
            raise click.UsageError(
                f"{where}: unknown key {key!r}; expected {', '.join(expected)}."
                f"{closest(str(key), expected)}"
            )


def read_mapping(file: Path) -> dict:
    """Read a mapping YAML; raise UsageError when it is not a mapping of the known keys."""
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        raise click.UsageError(f"{file}: cannot be read as YAML: {error}") from error
    if not isinstance(values, dict):
        raise click.UsageError(f"{file}: expected keys such as `map:` and `set:`.")
    check_keys(values, MAPPING_KEYS, str(file))
    for key in ("map", "set"):
        pairs = values.get(key) or {}
        if not isinstance(pairs, dict):
            raise click.UsageError(f"{file}: under {key}: expected lines `contract_column: value`.")
        check_keys(pairs, formats.MAPPABLE, f"{file}, {key}")
        values[key] = {name: str(value) for name, value in pairs.items()}
    texts = values.keys() - {"map", "set", "header"}
    return values | {key: str(values[key]) for key in texts}


def make_options(source_format: str, given: dict) -> Options:
    """Merge the command line over the mapping file; raise UsageError where they make no sense."""
    for name, users in OPTION_FORMAT.items():
        if given.get(name) not in (None, {}) and source_format not in users:
            flag = {"header": "no-header"}.get(name, name.replace("_", "-"))
            raise click.UsageError(
                f"--{flag} is for {' and '.join(users)}; {source_format} does not use it."
            )
    cli = {key: value for key, value in given.items() if value not in (None, {})}
    file = read_mapping(cli.pop("mapping")) if "mapping" in cli else {"map": {}, "set": {}}
    values = {**file, **cli}
    for key, other in (("map", "set"), ("set", "map")):
        overruled = cli.get(other, {})
        kept = {k: v for k, v in file[key].items() if k not in overruled}
        values[key] = {**kept, **cli.get(key, {})}
    both = values["map"].keys() & values["set"].keys()
    if both:
        raise click.UsageError(f"{', '.join(sorted(both))}: both mapped and set; give one.")
    delimiter = values.get("delimiter")
    if delimiter is not None:
        values["delimiter"] = {"\\t": "\t", "tab": "\t"}.get(delimiter, delimiter)
        if len(values["delimiter"]) != 1 or values["delimiter"] in '"\n':
            raise click.UsageError(f"--delimiter {delimiter!r}: expected one character or `tab`.")
    if values.get("time_unit", "auto") not in TIME_UNITS:
        raise click.UsageError(f"time_unit: expected one of {', '.join(TIME_UNITS)}.")
    if source_format in daily.VENDORS:
        return daily.DailyOptions(source_format, **values)
    return Options(source_format, **values)


def minute_text(epoch_ms: int | None) -> str:
    """Return epoch milliseconds as a UTC minute; the number itself outside the years 1 to 9999."""
    if epoch_ms is None:
        return ""
    try:
        return f"{datetime(1970, 1, 1) + timedelta(milliseconds=epoch_ms):%Y-%m-%d %H:%M}"
    except OverflowError:
        return f"{epoch_ms} ms"


def print_reports(
    reports: list[Report], console: Console, title: str, by_day: bool = False
) -> None:
    """Print one line a source, then the rejects by reason with a first example, then the notes."""
    table = Table(title=title, title_justify="left")
    table.add_column("file", overflow="fold")
    table.add_column("status")
    for name in ("rows read", "written", "rejected", "symbols"):
        table.add_column(name, justify="right")
    for end in ("first", "last"):
        table.add_column(f"{end} {'day' if by_day else 'minute (UTC)'}", no_wrap=True)
    for r in reports:
        counts = (r.rows_read, r.rows_written, r.rows_rejected, r.symbols)
        first_last = (
            minute_text(ms).split(" ")[0] if by_day else minute_text(ms)
            for ms in (r.first_ms, r.last_ms)
        )
        table.add_row(escape(r.source), r.status, *(f"{n:,}" for n in counts), *first_last)
    console.print(table)
    by_reason: dict[str, list[tuple[str, int, str, int]]] = {}
    for reject in (reject for r in reports for reject in r.rejects):
        by_reason.setdefault(reject[0], []).append(reject)
    if by_reason:
        table = Table(title="Rejected rows", title_justify="left")
        for name in ("reason", "rows", "first example"):
            table.add_column(name, justify="right" if name == "rows" else "left", overflow="fold")
        for reason, rejects in sorted(by_reason.items()):
            _, _, file, row = rejects[0]
            count = sum(reject[1] for reject in rejects)
            table.add_row(reason, f"{count:,}", escape(f"{file}, data row {row}"))
        console.print(table)
    for report in reports:
        for note in report.notes:
            console.print(f"{report.source}: {note}", markup=False, soft_wrap=True)


@click.command("ingest")
@click.argument("source_format", metavar="FORMAT", type=click.Choice(FORMATS))
@click.argument("paths", metavar="PATHS...", nargs=-1, required=True)
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="WAREHOUSE_DATA",
    help="Folder of market data to add to.  [default: $WAREHOUSE_DATA]",
)
@click.option("--symbol", help="binance: the symbol, whatever the file name says.")
@click.option(
    "--symbol-template",
    metavar="TEXT",
    help="lean: symbol from columns in braces.  [default: {symbol}.{venue}.{asset_class}]",
)
@click.option(
    "--price",
    type=click.Choice(["trade", "mid", "auto"]),
    help="lean: trade prices, mid of bid and ask, or (auto, the default) trade prices for a "
    "symbol that ever trades in the file and mid for one that never does.",
)
@click.option(
    "--map",
    metavar="COLUMN=SOURCE",
    multiple=True,
    callback=parse_pairs,
    help="table: contract column from source column. Two joined for the time: DATE+TIME.",
)
@click.option(
    "--set",
    metavar="COLUMN=VALUE",
    multiple=True,
    callback=parse_pairs,
    help="table: contract column from a constant; {stem} in it is the file's name.",
)
@click.option(
    "--time-unit",
    type=click.Choice(TIME_UNITS),
    help="table: unit of a numeric time, or iso for text.  [default: auto, by magnitude]",
)
@click.option("--time-format", metavar="STRPTIME", help="table: such as '%d/%m/%Y %H:%M'.")
@click.option("--timezone", metavar="IANA", help="table: zone of local times.  [default: UTC]")
@click.option("--delimiter", help="table: one character or `tab`.  [default: by the first line]")
@click.option(
    "--no-header",
    "header",
    flag_value=False,
    default=None,
    type=bool,
    help="table: the first line is data; columns are c1, c2, ...",
)
@click.option(
    "--mapping",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="table: YAML file with map, set, time_unit, time_format, timezone, delimiter, header.",
)
@click.option(
    "--kind",
    metavar="KIND",
    type=click.Choice(list(daily.KINDS)),
    help="tushare, baostock: what the files hold, such as daily_bars, index_daily, moneyflow or "
    "security_snapshots.  [default: told from the columns]",
)
@click.option(
    "--as-of",
    metavar="YYYY-MM-DD",
    type=click.DateTime(["%Y-%m-%d", "%Y%m%d"]),
    callback=lambda _context, _option, value: value and f"{value:%Y-%m-%d}",
    help="tushare, baostock: day on which a list of stocks (stock_basic) was fetched, when it "
    "has no as_of column. Its names count from that day on.",
)
@click.option(
    "--out-date",
    type=click.Choice(daily.OUT_DATES),
    help="tushare, baostock: what out_date means in index member spans: the first day out, the "
    "last day in, or the last listing that held the member.  [default: the reading under which "
    "the number of members varies least]",
)
@click.option("--dry-run", is_flag=True, help="Show the summary; write nothing.")
@click.option("--strict", is_flag=True, help="Exit with 2 when any row is rejected.")
def ingest_command(
    source_format: str,
    paths: tuple[str, ...],
    data_dir: Path | None,
    dry_run: bool,
    strict: bool,
    **given: object,
) -> None:
    """Add market data of your own, as minute bars or daily tables, to a data folder.

    \b
    FORMAT is one of, for minute bars,
      binance   kline dumps (.csv, .zip; milli- or microseconds), or parquet of the same
      lean      trade OHLCV with bid and ask OHLC, asset class and venue
      fxcm      bid and ask OHLC without trades: mid prices and their spread
      table     any CSV or parquet, by column names (--map, --set, --mapping)
    and, for daily bars of China's A-shares and what belongs to them,
      tushare   tables by their API names: daily, adj_factor, suspend_d, stock_basic,
                namechange, new_share, index_daily, index_weight, index_member_all,
                daily_basic, moneyflow, margin_detail, cyq_perf, limit_list_d, top_list,
                top_inst, hk_hold, moneyflow_hsgt, stk_holdernumber, ths_hot, trade_cal,
                margin, moneyflow_mkt_dc
      baostock  query_history_k_data_plus, query_stock_basic, query_trade_dates, and, with a
                column index_code added, query_hs300_stocks, query_zz500_stocks, query_sz50_stocks

    Which daily table a file is, is told from its columns; several may lie in one folder. Units
    become shares, CNY and decimals (0.1 = 10 %). Lists of stocks, name changes, index members and
    industries are put together from everything that was ever added.

    PATHS are files, folders (searched to the bottom) or quoted globs. Running again adds what
    is new and leaves the rest alone. Rows that cannot be typed go to ingest_rejects (daily:
    ingest_rejects_daily), with the reason and the row as it was read.

    \b
    Examples:
      wavehouse ingest binance BTCUSDT-1m-2025-05.zip --data-dir ~/market
      wavehouse ingest binance klines/ --data-dir ~/market --dry-run
      wavehouse ingest lean minute.parquet --price auto --data-dir ~/market
      wavehouse ingest table AAPL.csv MSFT.csv --set symbol={stem} \\
          --timezone America/New_York --data-dir ~/market
      wavehouse ingest table eurusd.txt --no-header --delimiter ';' \\
          --map open_time_ms=c1 --time-format '%Y%m%d %H%M%S' --map open=c2 \\
          --map high=c3 --map low=c4 --map close=c5 --set symbol=EURUSD --data-dir ~/market
      wavehouse ingest table bars/ --mapping vendor.yml --data-dir ~/market
      wavehouse ingest tushare tushare_dump/ --data-dir ~/ashares
      wavehouse ingest tushare stock_basic.csv --as-of 2026-01-05 --data-dir ~/ashares
      wavehouse ingest baostock 'k_data/*.csv' --data-dir ~/ashares --dry-run

    \b
    Exit code: 0 done (rejected rows are told in the summary), 1 a file could not be
    ingested (the others were), 2 wrong usage, or a rejected row under --strict.
    """
    if data_dir is None:
        raise click.UsageError(
            "no data folder. Give --data-dir DIR or set WAREHOUSE_DATA; the sample's folder is "
            "not written to."
        )
    data_dir = data_dir.expanduser()
    options = make_options(source_format, given)
    sources, problems = expand_paths(paths, data_dir)
    reports = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("ingest", total=len(sources))
        for source, result in ingest_all(sources, options, data_dir, dry_run):
            (reports if isinstance(result, Report) else problems).append(result)
            progress.update(task, advance=1, description=escape(Path(source).name))
    console = Console() if sys.stdout.isatty() else Console(width=160)
    if reports:
        title = "Dry run: nothing was written" if dry_run else "Ingested"
        print_reports(reports, console, title, by_day=source_format in daily.VENDORS)
    rejected = sum(report.rows_rejected for report in reports)
    if rejected and not dry_run:
        rejects = daily.REJECTS if source_format in daily.VENDORS else "ingest_rejects"
        click.echo(f"{rejected:,} rejected rows are kept in {data_dir / rejects}.")
    if reports and not dry_run:
        only_daily = source_format in daily.VENDORS and not any(data_dir.glob("minute_bars*"))
        build = "dbt build --select +tag:daily" if only_daily else "dbt build"
        click.echo(f"Next: WAREHOUSE_DATA={shlex.quote(str(data_dir.absolute()))} {build}")
    for problem in problems:
        click.echo(f"Error: {problem}", err=True)
    if problems or (strict and rejected):
        sys.exit(1 if problems else 2)
