"""The warehouse file from Python: open it, list what is and should be in it, export from it."""

import contextlib
import difflib
import json
import os
import re
import shutil
import signal
import struct
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb
import pyarrow as pa

from wavehouse.heads import udf
from wavehouse.paths import model_store_dir, warehouse_file

PROFILE_SETTINGS = {"disabled_optimizers": "column_lifetime", "TimeZone": "UTC"}  # profiles.yml
# With asynchronous writes a COPY whose query fails may hang (seen in 2.0.0; like duckdb #23885).
SETTINGS = PROFILE_SETTINGS | {"async_threads": "0"}
HEADER = struct.Struct("<8x4sQ32x32s")  # checksum, magic, storage version, flags, library version
COPY_OPTIONS = {
    "csv": "format csv, header true",
    "json": "format json, array true",
    "jsonl": "format json, array false",
    "parquet": "format parquet, compression zstd",
}
ON_ONE_LINE = r"trim(regexp_replace(comment, '\s+', ' ', 'g'))"

# strings, quoted names and comments: where a semicolon ends nothing
NOT_CODE = re.compile(
    r"\b[eE]'(?:\\.|''|[^'\\])*'|(?<!\b[eE])'(?:''|[^'])*'|\"(?:\"\"|[^\"])*\""
    r"|--[^\n]*|/\*.*?\*/|(\$\w*\$).*?\1",
    re.DOTALL,
)


class WarehouseError(Exception):
    """The warehouse file cannot be opened; the text says why and what to do.

    `reason` is `missing`, `locked`, `in_use` (by this process), `version` or `unreadable`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def connect(
    path: str | os.PathLike | None = None, read_only: bool = True, memory_limit: str | None = None
) -> duckdb.DuckDBPyConnection:
    """Open a warehouse that dbt built, with the settings of the house.

    Args:
        path: the DuckDB file; without it `$WAREHOUSE_DB`, else `warehouse.duckdb` here.
        read_only: many processes may read at once; a writer must be alone.
        memory_limit: such as "4GB"; without it DuckDB's own, 80% of the machine's memory.

    Returns a connection that works in UTC. Cursors of it (`con.cursor()`) inherit the settings.

    Raises WarehouseError when the file is missing, locked, of a storage version that this DuckDB
    cannot read, or no DuckDB file at all; duckdb.Error when `memory_limit` cannot be read.

    Where heads are trained, each of their outputs is a function of a row: see `heads.udf`. Models
    are read from `model_store(path)` when a query first asks them.

    In a notebook:

        import wavehouse

        con = wavehouse.connect()
        con.sql("from labels.label_distribution")                             # shown as a table
        con.sql("select * from labels.entry_labels limit 1000").to_arrow_table()
        con.sql("select sample_id, long_entry_prob(f) from factors.minute_features as f limit 9")
        con.close()   # an open reader makes `dbt build` stop with a lock error
    """
    path = Path(path).expanduser() if path else warehouse_file()
    if not path.exists():
        raise WarehouseError(
            "missing",
            f"There is no warehouse at {path} (seen from {Path.cwd()}). `dbt build` writes it; "
            "where it is elsewhere, set WAREHOUSE_DB or go to its folder.",
        )
    try:
        connection = duckdb.connect(str(path), read_only=read_only)
    except duckdb.Error as error:
        raise _explained(path, str(error), read_only) from error
    settings = SETTINGS | ({"memory_limit": memory_limit} if memory_limit else {})
    try:
        for name, value in settings.items():
            # not in connect(config=...): there a read-only connection knows no TimeZone
            connection.execute("set global {} = '{}'".format(name, value.replace("'", "''")))
        udf.register(connection, model_store(path))
    except duckdb.Error:
        connection.close()
        raise
    return connection


def model_store(path: Path) -> Path:
    """Return where the models of a warehouse are: `$WAREHOUSE_MODEL_STORE`, else beside it."""
    store = model_store_dir()
    return store if os.environ.get("WAREHOUSE_MODEL_STORE") else path.parent / store.name


def file_version(path: str | os.PathLike) -> tuple[int, str] | None:
    """Return (storage version, version of the DuckDB that wrote it); None for any other file.

    Reads the header alone, so a locked file can be asked too.
    """
    try:
        with open(path, "rb") as stream:
            magic, storage, library = HEADER.unpack(stream.read(HEADER.size))
    except (OSError, struct.error):
        return None
    if magic != b"DUCK":
        return None
    return storage, library.rstrip(b"\0").decode("ascii", "replace")


def relations(
    con: duckdb.DuckDBPyConnection,
) -> list[tuple[str, str, str, int | None, str | None]]:
    """Return (schema, relation, table or view, estimated rows, description) of each, by name.

    The estimate is DuckDB's, None for a view; descriptions are the comments that dbt persists.
    """
    return con.execute(f"""
        select schema_name, table_name, 'table', estimated_size, {ON_ONE_LINE}
        from duckdb_tables() where not internal
        union all
        select schema_name, view_name, 'view', null, {ON_ONE_LINE}
        from duckdb_views() where not internal
        order by 1, 2
    """).fetchall()


def declared_relations() -> list[str]:
    """Return `schema.name` of every model and seed: from dbt's manifest, else by file name.

    A manifest older than a model is not asked, for it may not know it.
    """
    patterns = ("models/*/**/*.sql", "models/*/**/*.py", "seeds/*.csv")
    files = [file for pattern in patterns for file in Path().glob(pattern)]
    manifest = Path("target/manifest.json")
    with contextlib.suppress(OSError, ValueError, KeyError):  # none, or half written by dbt
        if manifest.stat().st_mtime >= max(file.stat().st_mtime for file in files):
            nodes = json.loads(manifest.read_text(encoding="utf-8"))["nodes"].values()
            nodes = [node for node in nodes if node["resource_type"] in ("model", "seed")]
            nodes = [node for node in nodes if node["config"]["materialized"] != "ephemeral"]
            return sorted(f"{node['schema']}.{node['alias']}" for node in nodes)
    # models/labels/daily/forward_returns.sql is labels.forward_returns
    floors = {file: file.parts[1] if file.parts[0] == "models" else "seeds" for file in files}
    return sorted(f"{floor}.{file.stem}" for file, floor in floors.items())


def columns(
    con: duckdb.DuckDBPyConnection, relation: str | None = None
) -> list[tuple[str, str, str | None]]:
    """Return (column, type, description) of `schema.relation` in order, or of all relations."""
    return con.execute(
        f"""
        select column_name, data_type, {ON_ONE_LINE} from duckdb_columns()
        where not internal and coalesce(schema_name || '.' || table_name = $relation, true)
        order by schema_name, table_name, column_index
        """,
        {"relation": relation},
    ).fetchall()


def near_names(name: str, names: Sequence[str]) -> list[str]:
    """Return up to five of the `schema.relation` names that `name` may stand for, best first."""
    bare = name.rpartition(".")[2].lower()
    spelled = {full.rpartition(".")[2].lower(): full for full in names}
    spelled |= {full.lower(): full for full in names}
    close = difflib.get_close_matches(name.lower(), spelled, n=5)
    close += difflib.get_close_matches(bare, spelled, n=5)
    close += [text for text in spelled if len(bare) > 2 and bare in text]
    return list(dict.fromkeys(spelled[text] for text in close))[:5]


def explain_error(con: duckdb.DuckDBPyConnection, message: str) -> str:
    """Return DuckDB's message, and what to do about it where we know better."""
    if "read-only mode" in message:
        return (
            f"{message}\nThis shell is read-only: dbt alone writes the warehouse. Keep a result "
            "with --output FILE, or for the session with `create temp table`."
        )
    missing = re.search(r'Table with name "?(.+?)"? does not exist', message)
    if not missing:
        return message
    message = re.sub(r"\nDid you mean .*", "", message)
    near = []
    with contextlib.suppress(duckdb.Error):  # in a transaction that the error has ended
        near = near_names(missing[1], [f"{row[0]}.{row[1]}" for row in relations(con)])
    advice = f"Near names: {', '.join(near)}" if near else "No relation has a name near that."
    return f"{message}\n{advice} (`wavehouse sql .tables` lists them all)"


def bare_statement(text: str) -> str:
    """Return a statement without comments and its semicolon, so that it can be a subquery."""
    code = NOT_CODE.sub(lambda found: " " if found[0][0] in "-/" else found[0], text)
    return code.strip().rstrip("; \t\n")


def export(
    con: duckdb.DuckDBPyConnection, rel: duckdb.DuckDBPyRelation, path: Path | None, form: str
) -> None:
    """Stream a relation of `con` as csv, json, jsonl, parquet or arrow, with every digit.

    It goes to the file `path`, without it to standard output (not parquet and arrow). NaN and
    infinity become null in JSON, which has no word for them.
    """
    with whole_file(path) if path else _stdout_path() as name:
        if form == "arrow":
            reader = rel.to_arrow_reader()
            with pa.ipc.new_file(name, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch)
            return
        query = rel.sql_query()
        floats = [
            '"{}"'.format(column.replace('"', '""'))
            for column, kind in zip(rel.columns, rel.types, strict=True)
            if str(kind) in ("DOUBLE", "FLOAT") and rel.columns.count(column) == 1
        ]
        if floats and form.startswith("json"):
            finite = (f"case when isfinite({each}) then {each} end as {each}" for each in floats)
            query = f"select * replace ({', '.join(finite)}) from ({query})"
        target = name.replace("'", "''")
        con.execute(f"copy ({query}) to '{target}' ({COPY_OPTIONS[form]})").fetchall()


@contextlib.contextmanager
def interruptible(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Let Ctrl-C stop the queries of `con` in a block at once; for the main thread only.

    By itself DuckDB 2.0.0 looks for signals between the tasks of the main thread, and one task may
    be the whole query. Raises KeyboardInterrupt at the end of the block where Ctrl-C was pressed.
    """
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    presses, done = [], threading.Event()

    def press(*_: object) -> None:
        presses.append(True)
        if len(presses) > 1:
            raise KeyboardInterrupt  # it was not a query that took so long

    def watch() -> None:
        with open(read_end, "rb", buffering=0) as signals:
            while (number := signals.read(1)) and number[0] != signal.SIGINT:
                pass
        while not done.wait(0.05):  # again, for a query that had not quite begun
            con.interrupt()

    watcher = threading.Thread(target=watch)
    watcher.start()
    old_end, old_handler = signal.set_wakeup_fd(write_end), signal.signal(signal.SIGINT, press)
    try:
        yield
    except duckdb.InterruptException:
        if not presses:
            raise
    finally:
        signal.set_wakeup_fd(old_end)
        signal.signal(signal.SIGINT, old_handler)
        done.set()
        os.close(write_end)
        watcher.join()
    if presses:
        raise KeyboardInterrupt


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[str]:
    """Yield a name to write to beside `path`, renamed to it when all went well."""
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield str(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _stdout_path() -> Iterator[str]:
    """Yield a path that DuckDB can write to and whose bytes go to standard output.

    Not /dev/stdout: opening that again would cut off what a redirected file already holds.
    """
    read_end, write_end = os.pipe()
    failures = []

    def pump() -> None:
        try:
            with open(read_end, "rb") as source:
                shutil.copyfileobj(source, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except OSError as error:
            failures.append(error)

    sys.stdout.flush()
    thread = threading.Thread(target=pump)
    thread.start()
    try:
        yield f"/dev/fd/{write_end}"
    except duckdb.Error:
        if not failures:
            raise  # else the reader of our output went first
    finally:
        os.close(write_end)
        thread.join()
    if failures:
        raise failures[0]


def _explained(path: Path, message: str, read_only: bool) -> WarehouseError:
    """Turn what DuckDB says when it cannot open `path` into what a person should do."""
    if "Could not set lock" in message:
        holder, is_dbt = _holder(message)
        use = "has it open, and a writer must be alone"
        if read_only:
            use = "is writing to it" if is_dbt else "is writing to it, most likely a dbt build"
        text = f"{path} is locked: {holder} {use}. Try again when that has ended."
        return WarehouseError("locked", text)
    if "different configuration" in message:
        return WarehouseError(
            "in_use",
            f"{path} is already open in this process with other settings (read_only among them). "
            "Close that connection first, or open both in the same way.",
        )
    if "storage version" in message:
        _, library = file_version(path) or (0, "")
        return WarehouseError(
            "version",
            f"{path} was written by DuckDB {library or 'of another version'}, whose storage "
            f"DuckDB {duckdb.__version__} cannot read. Delete it and run `dbt build`, or read it "
            f"with that version. {message.splitlines()[0]}",
        )
    return WarehouseError(
        "unreadable",
        f"{path} cannot be opened as a DuckDB file. Delete it and run `dbt build`, or name "
        f"another in WAREHOUSE_DB. {message}",
    )


def _holder(message: str) -> tuple[str, bool]:
    """Name the process that DuckDB says holds the lock, and whether its command line runs dbt."""
    found = re.search(r"\(PID (\d+)\)", message)
    if not found:
        return "another process", False
    try:
        words = Path("/proc", found[1], "cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        words = ""  # no /proc here, or the process has ended
    names = [Path(word).name for word in words.split("\0")]
    is_dbt = "dbt" in names or "dbt.cli.main" in names
    return f"{'dbt' if is_dbt else 'a process'} (PID {found[1]})", is_dbt
