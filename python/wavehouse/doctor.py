"""`wavehouse doctor`: what is installed, what data is there, what is built, and what to do next."""

import contextlib
import dataclasses
import datetime as dt
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import click
import duckdb
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from wavehouse import paths, warehouse

MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "problem": ("✗", "red")}
REQUIRED_COLUMNS = {"symbol", "open_time_ms", "open", "high", "low", "close", "volume"}
REQUIRED_DAILY_COLUMNS = {"ts_code", "trade_date", "open", "high", "low", "close", "pre_close",
                          "volume", "amount"}  # fmt: skip
DAILY_TABLES = (  # beside daily_bars, as models/staging/daily/_daily_sources.yml names them
    *("securities", "security_names", "index_daily", "index_members", "industry_members"),
    *("trading_calendar", "moneyflow", "top_list", "top_inst", "hk_hold", "margin", "cyq_perf"),
    *("daily_basic", "limit_list", "holders", "ths_hot", "northbound", "market_margin"),
    *("market_moneyflow", "security_code_changes"),
)
CGROUP_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of versions 2 and 1
GIB = 1024**3
LEAST_DISK_GIB = 5  # a build that spills has room in it
NAMED_RELATIONS = 5  # so many missing relations are named in the command that builds them


@dataclasses.dataclass(frozen=True)
class Check:
    """One finding: `status` is ok, warning or problem; `remedy` says what to do if not ok."""

    name: str
    status: str
    detail: str
    remedy: str = ""
    facts: dict = dataclasses.field(default_factory=dict)  # for --json


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def doctor_command(as_json: bool) -> None:
    """Check this machine, the data and the warehouse; say what to do where something is amiss.

    Changes nothing. Of the data it reads the footers of parquet files and their symbol column.
    Exit code: 1 when there is a problem, 0 when there are only warnings or none.
    """
    checks = examine()
    counts = {status: sum(check.status == status for check in checks) for status in MARKS}
    if as_json:
        report = {"counts": counts, "checks": list(map(dataclasses.asdict, checks))}
        click.echo(json.dumps(report, indent=2))
    else:
        margin = max(len(check.name) for check in checks)
        for check in checks:
            mark, color = MARKS[check.status]
            mark = click.style(mark, color) if sys.stdout.isatty() else f"{check.status:<7}"
            advice = f" -> {check.remedy}" if check.remedy else ""
            click.echo(f"{mark}  {check.name:<{margin}}  {check.detail}{advice}")
        click.echo(f"problems: {counts['problem']}, warnings: {counts['warning']}")
    raise SystemExit(1 if counts["problem"] else 0)


def examine() -> list[Check]:
    """Return every finding, in the order in which a person would set things right."""
    data = list(data_checks())
    bars = next((check.facts for check in data if check.name == "minute bars"), {})
    checks = [*software_checks(), *machine_checks(), *project_checks(), *data]
    checks += warehouse_checks(bars.get("newest_file"), bars.get("rows"))
    return [dataclasses.replace(c, remedy="") if c.status == "ok" else c for c in checks]


def software_checks() -> Iterator[Check]:
    """Python and packages against what wavehouse asks for; the lock is told where it differs."""
    wanted = Requirement(f"python{metadata.metadata('wavehouse')['Requires-Python']}").specifier
    status = "ok" if platform.python_version() in wanted else "problem"
    detail = f"{platform.python_version()} (wanted {wanted}) at {sys.executable}"
    yield Check("python", status, detail, f"make the environment anew with Python {wanted}")
    lines = re.findall(r"^\w.*==.*", _read("requirements.lock"), re.MULTILINE)
    locked = [each for each in map(Requirement, lines) if not each.marker or each.marker.evaluate()]
    lock = {each.name: str(each.specifier).removeprefix("==") for each in locked}
    for name, wanted in _requirements("wavehouse"):
        version = _version(name)
        status = "ok" if version and version in wanted else "problem"
        detail = f"{version or 'not installed'} (wanted {wanted})"
        if version and lock.get(name, version) != version:
            detail += f"; requirements.lock has {lock[name]}"
        facts = {"version": version, "wanted": str(wanted), "locked": lock.get(name)}
        yield Check(name, status, detail, f"`pip install '{name}{wanted}'`", facts)
    library = _rows("select version()")[0][0].removeprefix("v")
    asked = [wanted for name, wanted in _requirements("dbt-duckdb") if name == "duckdb"]
    fits = library == _version("duckdb") and all(library in wanted for wanted in asked)
    detail = f"{library}; dbt-duckdb asks for {', '.join(map(str, asked)) or 'any'}"
    remedy = f"`pip install --force-reinstall duckdb=={_version('duckdb')}`"
    yield Check("duckdb in dbt", "ok" if fits else "problem", detail, remedy)
    for name in ("lightgbm", "torch"):
        version = _version(name)
        status = "warning" if not version and any(Path("models/heads").glob("*.*")) else "ok"
        detail = version or "not installed: needed from the heads floor on"
        yield Check(name, status, detail, f"`pip install {name}`", {"version": version})


def machine_checks() -> Iterator[Check]:
    """GPU, cores, memory and free disk."""
    yield Check("gpu", "ok", _gpu() or "none: heads would train on the processor")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory, limit = _memory_bytes(), os.environ.get("WAREHOUSE_MEMORY_LIMIT") or "8GB"
    try:
        allowed = _rows("select parse_formatted_bytes(?)", limit)[0][0]
        status = "warning" if memory < allowed else "ok"
    except duckdb.Error:
        status = "problem"
    detail = f"{memory / GIB:.1f} GiB, {cores} cores; a build may use {limit} of memory"
    remedy = "set WAREHOUSE_MEMORY_LIMIT to less than the machine has, such as 4GB"
    yield Check("memory", status, detail, remedy, {"bytes": memory, "cores": cores})
    warehouse_folder = paths.warehouse_file().absolute().parent
    for name, folder in {"warehouse": warehouse_folder, "temp": tempfile.gettempdir()}.items():
        there = next(each for each in (Path(folder), *Path(folder).parents) if each.exists())
        free = shutil.disk_usage(there).free / GIB
        status = "ok" if free >= LEAST_DISK_GIB else "warning"
        remedy = f"make room: a build that spills may want {LEAST_DISK_GIB} GiB"
        yield Check(f"{name} disk", status, f"{free:.1f} GiB free at {folder}", remedy)


def project_checks() -> Iterator[Check]:
    """The files that dbt needs, looked for where dbt looks."""
    here = Path("dbt_project.yml").exists()
    detail = f"dbt_project.yml is {'' if here else 'not '}in {Path.cwd()}"
    yield Check("project", "ok" if here else "problem", detail, "cd to the wavehouse folder")
    folders = (os.environ.get("DBT_PROFILES_DIR") or Path.cwd(), Path.home() / ".dbt")
    found = next((folder for folder in folders if Path(folder, "profiles.yml").exists()), None)
    detail = f"profiles.yml is in {found or 'neither {} nor {}'.format(*folders)}"
    yield Check("profile", "ok" if found else "problem", detail, "cd to the wavehouse folder")


def data_checks() -> Iterator[Check]:
    """The data folder, and what lies in it."""
    folder, origin = data_folder()
    facts = {"folder": str(folder), "origin": origin}
    if not folder.is_dir():
        remedy = "`wavehouse sample`" if folder == paths.SAMPLE_DATA_DIR else "`wavehouse ingest`"
        detail = f"there is no folder {folder} ({origin})"
        yield Check("data folder", "problem", detail, f"{remedy}, then `dbt build`", facts)
        return
    yield Check("data folder", "ok", f"{folder} ({origin})", facts=facts)
    found = source_files(folder)
    files, daily = found["minute_bars"], found["daily_bars"]
    rejects = found["ingest_rejects"] + found["ingest_rejects_daily"]
    newest = max((os.path.getmtime(file) for each in found.values() for file in each), default=None)
    facts = {"files": files, "newest_file": newest}
    daily_facts = {"files": daily, "tables": [name for name in DAILY_TABLES if found[name]]}
    try:
        yield daily_bars_check(daily_facts)
    except duckdb.Error as error:
        detail = f"a file cannot be read: {str(error).splitlines()[0]}"
        yield Check("daily bars", "problem", detail, "deliver it anew or move it away", daily_facts)
    try:
        if daily and not files:
            detail = "none: `dbt build --select +tag:daily` builds what the daily bars are for"
            yield Check("minute bars", "ok", detail, facts=facts)
        else:
            yield minute_bars_check(folder, facts)
        query = "select sum(num_rows) from parquet_file_metadata(?)"
        rows = _rows(query, rejects)[0][0] if rejects else 0
        detail = f"{rows:,} rows that `wavehouse ingest` could not type"
        remedy = "after a build they are in staging.rejected_rows, with the reasons"
        yield Check("ingest rejects", "warning" if rows else "ok", detail, remedy, {"rows": rows})
    except duckdb.Error as error:
        detail = f"a file cannot be read: {str(error).splitlines()[0]}"
        yield Check("minute bars", "problem", detail, "deliver it anew or move it away", facts)


def data_folder() -> tuple[Path, str]:
    """Return the data folder that a build would read, and what decided that."""
    try:
        chosen = yaml.safe_load(_read("dbt_project.yml"))["vars"]["data_dir"]
    except (yaml.YAMLError, KeyError, TypeError):
        chosen = None
    if chosen:
        return Path(chosen), "the var data_dir in dbt_project.yml"
    if os.environ.get("WAREHOUSE_DATA"):
        return paths.data_dir(), "$WAREHOUSE_DATA"
    return paths.data_dir(), "the sample's folder: WAREHOUSE_DATA is not set"


def source_files(folder: Path) -> dict[str, list[str]]:
    """Return the files that staging reads, by source, as macros/market_files.sql lists them."""
    sources = ("minute_bars", "daily_bars", *DAILY_TABLES, "ingest_rejects", "ingest_rejects_daily")
    endings = (".parquet", ".csv", ".csv.gz")
    patterns = [
        f"{folder / source}{middle}{end}"
        for source in sources for middle in ("", "/**/*") for end in endings
    ]  # fmt: skip
    found = {source: [] for source in sources}
    for (file,) in _rows("select distinct file from glob(?) order by file", patterns):
        found[Path(file).relative_to(folder).parts[0].split(".")[0]].append(file)
    return found


def minute_bars_check(folder: Path, facts: dict) -> Check:
    """Judge the files of minute bars and fill `facts`; raises duckdb.Error at an unreadable one."""
    parquet = [file for file in facts["files"] if file.endswith(".parquet")]
    others = [file for file in facts["files"] if file not in parquet]
    if not facts["files"]:
        detail = f"no .parquet, .csv or .csv.gz in {folder / 'minute_bars'}"
        remedy = "`wavehouse sample`, or `wavehouse ingest` with files of your own"
        return Check("minute bars", "problem", detail, remedy, facts)
    if fault := missing_column(parquet, REQUIRED_COLUMNS):
        return Check("minute bars", "problem", *fault, facts)
    if others:
        return Check("minute bars", "ok", _csv_size(parquet, others), facts=facts)
    query = """
        select sum(row_group_num_rows) filter (column_id = 0),
            min(try_cast(stats_min_value as bigint)) filter (name = 'open_time_ms'),
            max(try_cast(stats_max_value as bigint)) filter (name = 'open_time_ms'),
            sum(num_values - coalesce(stats_null_count, 0)) filter (name = 'spread_bps')
        from (select *, lower(path_in_schema) as name from parquet_metadata(?))
    """
    rows, first, last, quoted = _rows(query, parquet)[0]
    # partition folders aside: DuckDB refuses to read files in them together with others
    by_folder = set(re.findall("/symbol=([^/]+)/", "".join(parquet)))
    own = [file for file in parquet if "/symbol=" not in file]
    scan = "select distinct symbol::varchar from read_parquet(?, union_by_name = true)"
    symbols = len(by_folder.union(*_rows(scan, own) if own else ()) - {None})
    facts |= {"rows": rows or 0, "symbols": symbols, "first_ms": first, "last_ms": last}
    facts["rows_with_spread"] = quoted or 0
    detail = f"files {len(parquet)}, rows {rows or 0:,}, symbols {symbols}, {_utc(first)} to "
    detail += f"{_utc(last)}, " + (f"with spread {quoted:,}" if quoted else "without spread")
    return Check("minute bars", "ok" if rows else "problem", detail, "deliver rows", facts)


def daily_bars_check(facts: dict) -> Check:
    """Judge the files of daily bars and fill `facts`; raises duckdb.Error at an unreadable one."""
    tables = facts["tables"]
    if not facts["files"]:
        detail = f"{', '.join(tables)}, but no daily_bars: the daily relations stay empty"
        remedy = "`wavehouse ingest tushare` or `baostock` with files of daily bars"
        none = Check("daily bars", "ok", "none: no daily track", facts=facts)
        return Check("daily bars", "warning", detail, remedy, facts) if tables else none
    parquet = [file for file in facts["files"] if file.endswith(".parquet")]
    others = [file for file in facts["files"] if file not in parquet]
    if fault := missing_column(parquet, REQUIRED_DAILY_COLUMNS):
        return Check("daily bars", "problem", *fault, facts)
    absent = [name for name in DAILY_TABLES if name not in tables]
    beside = f"; with {', '.join(tables) or 'no other table'}"
    beside += f"; without {', '.join(absent)}" if absent else ""
    if others:
        return Check("daily bars", "ok", _csv_size(parquet, others) + beside, facts=facts)
    query = """
        select count(*), count(distinct ts_code), min(trade_date)::varchar, max(trade_date)::varchar
        from read_parquet(?, union_by_name = true)
    """
    rows, stocks, first, last = _rows(query, parquet)[0]
    facts |= {"rows": rows, "stocks": stocks, "first_date": first, "last_date": last}
    detail = f"files {len(parquet)}, rows {rows:,}, stocks {stocks:,}, {first} to {last}{beside}"
    return Check("daily bars", "ok" if rows else "problem", detail, "deliver rows", facts)


def missing_column(files: list[str], required: set[str]) -> tuple[str, str] | None:
    """Return what is wrong with the first Parquet file that lacks a column, and the remedy."""
    query = "select file_name, list(lower(name)) from parquet_schema(?) group by all order by 1"
    for file, columns in _rows(query, files) if files else ():
        folders = re.findall("/([^/=]+)=[^/]*(?=/)", file.lower())  # such as symbol=BTCUSDT/
        missing = required.difference(columns, folders)
        if missing:
            detail = f"{file} has no column {', '.join(sorted(missing))}"
            return detail, "rename the column, or bring the file in with `wavehouse ingest`"
    return None


def warehouse_checks(newest_file: float | None, rows: int | None) -> Iterator[Check]:
    """The warehouse file, its relations, refused rows, and whether it is older than the data.

    `newest_file` is when the newest data file was written, `rows` the number of rows in all.
    """
    path = paths.warehouse_file()
    facts = {"path": str(path), "state": "not locked"}
    try:
        con = warehouse.connect(path)
    except warehouse.WarehouseError as error:
        facts["state"] = error.reason
        status = "warning" if error.reason in ("missing", "locked") else "problem"
        yield Check("warehouse", status, str(error), facts=facts)  # which says what to do
        return
    with contextlib.closing(con):
        query = "select tags['storage_version'] from duckdb_databases() where path is not null"
        facts |= {"storage": con.execute(query).fetchall()[0][0], "bytes": path.stat().st_size}
        detail = f"{path}, {facts['bytes'] / 1e6:.1f} MB, storage {facts['storage']}"
        yield Check("warehouse", "ok", f"{detail}, not locked", facts=facts)
        built = {f"{row[0]}.{row[1]}" for row in warehouse.relations(con)}
        yield relations_check(built)
        try:
            if "staging.rejected_rows" in built:
                yield rejects_check(con)
            if "staging.load_audit" in built:
                yield freshness_check(con, path.stat().st_mtime, newest_file, rows)
        except duckdb.Error as error:
            detail = f"not as this version builds it: {str(error).splitlines()[0]}"
            yield Check("staging", "warning", detail, "`dbt build`")


def relations_check(built: set[str]) -> Check:
    """Compare the relations in the warehouse with those that models and seeds declare."""
    declared = warehouse.declared_relations()
    missing = [name for name in declared if name not in built]
    few = len(missing) <= NAMED_RELATIONS
    detail = f"{len(declared) - len(missing)} of {len(declared)} built"
    if missing:
        detail += f", without {', '.join(missing[:NAMED_RELATIONS])}{'' if few else ', ...'}"
    named = " --select " + " ".join("+" + name.split(".")[1] for name in missing) if few else ""
    facts = {"declared": declared, "missing": missing}
    return Check("relations", "warning" if missing else "ok", detail, f"`dbt build{named}`", facts)


def rejects_check(con: duckdb.DuckDBPyConnection) -> Check:
    """Count the rows that staging refused, by reason."""
    query = "select reason, count(*) from staging.rejected_rows group by all order by 2 desc, 1"
    reasons = dict(con.execute(query).fetchall())
    listed = "".join(f", {reason} {count:,}" for reason, count in reasons.items())
    remedy = '`wavehouse sql "from staging.rejected_rows join seeds.reject_reasons using (reason)"`'
    detail = f"{sum(reasons.values()):,} rows{listed}"
    return Check("rejected rows", "warning" if reasons else "ok", detail, remedy, reasons)


def freshness_check(
    con: duckdb.DuckDBPyConnection, built: float, newest_file: float | None, rows: int | None
) -> Check:
    """Compare the last build with the data, by time and by number of rows."""
    query = "select sum(rows_read) from staging.load_audit where source_name = 'minute_bars'"
    rows_read = con.execute(query).fetchall()[0][0] or 0
    detail = f"{_utc(built * 1000)} from {rows_read:,} rows"
    if newest_file is not None:
        detail += f", newest data file {_utc(newest_file * 1000)}"
    if is_other := rows not in (None, rows_read):
        detail += f", {rows:,} rows in the data folder"
    is_stale = is_other or (newest_file or 0) > built
    facts = {"built": built, "newest_file": newest_file, "rows_read": rows_read}
    return Check("last build", "warning" if is_stale else "ok", detail, "stale: `dbt build`", facts)


def _csv_size(parquet: list[str], others: list[str]) -> str:
    size = sum(map(os.path.getsize, others)) / 1e6
    counts = f"{len(parquet)} parquet and {len(others)} CSV files, {size:.1f} MB of CSV"
    return f"{counts}, whose rows a build counts"


def _rows(query: str, parameter: object = None) -> list[tuple]:
    """Ask DuckDB something that needs no warehouse."""
    with contextlib.closing(duckdb.connect()) as con:
        return con.execute(query, None if parameter is None else [parameter]).fetchall()


def _read(name: str) -> str:
    """Return a text file's content, empty when there is none."""
    path = Path(name)
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _version(package: str) -> str | None:
    with contextlib.suppress(metadata.PackageNotFoundError):
        return metadata.version(package)
    return None


def _requirements(package: str) -> list[tuple[str, SpecifierSet]]:
    """Return what an installed package asks for, by name, without its extras."""
    wanted = map(Requirement, metadata.requires(package) or ()) if _version(package) else ()
    return [(each.name, each.specifier) for each in wanted if not each.marker]


def _utc(ms: float | None) -> str:
    """Return epoch milliseconds as a UTC minute, or as they are when no calendar has them."""
    try:
        return f"{dt.datetime.fromtimestamp(ms / 1000, dt.UTC):%Y-%m-%d %H:%M} UTC"
    except (TypeError, ValueError, OverflowError, OSError):
        return f"open_time_ms {ms}"


def _gpu() -> str | None:
    """Name the GPUs that torch sees, or without torch those that nvidia-smi lists."""
    if _version("torch"):
        with contextlib.suppress(Exception):  # a torch that does not load says so when used
            import torch

            return ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return "; ".join(done.stdout.strip().splitlines())
    return None


def _memory_bytes() -> int:
    """Return the memory that this process may use: the machine's, or less in a container."""
    groups = [_read(f"/sys/fs/cgroup/{name}").strip() for name in CGROUP_LIMITS]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(machine, *(int(text) for text in groups if text.isdigit()), machine)
