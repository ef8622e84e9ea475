"""`wavehouse sql`: queries, scripts and a small interactive shell over the warehouse, read-only."""

import contextlib
import dataclasses
import decimal
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import click
import duckdb
from rich import box
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from wavehouse import warehouse
from wavehouse.heads import udf

try:
    import readline
except ImportError:  # a Python without it: the shell then has no history and no completion
    readline = None

SUFFIXES = {
    **{".txt": "table", ".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"},
    **{".md": "markdown", ".parquet": "parquet", ".arrow": "arrow", ".feather": "arrow"},
}
ROW_STATEMENTS = {"SELECT", "EXPLAIN", "PRAGMA", "CALL", "EXECUTE", "MULTI"}  # MULTI is a pivot
TABLE_ROWS = 40  # rows that a table shows unless --limit says otherwise
COUNTED_ROWS = 10_000  # rows beyond those shown that are counted before giving up
WIDEST_TEXT = 24  # cells that a long text may claim when columns share a terminal's width
HELP = """\
.tables [TEXT]   relations (with TEXT in their name), rows as DuckDB estimates them
.schema NAME     columns of a relation, with types and descriptions
.functions       trained heads as functions of a row: select long_entry_prob(f) from ... as f
.expanded        one line a column instead of one a row; again to undo
.help  .quit     this; leave (also Ctrl-D)
A statement ends with a semicolon and may take several lines. Tab completes names, Ctrl-C stops."""


@dataclasses.dataclass
class Display:
    """How results are shown: the options of `wavehouse sql`."""

    format: str = "table"
    output: Path | None = None
    limit: int | None = None
    expanded: bool = False
    timing: bool = False


@click.command("sql")
@click.argument("query", required=False)
@click.option("--file", "-f", "script", type=click.File(), help="Read the query from a file.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "jsonl", "markdown", "parquet", "arrow"]),
    help="Default: what the suffix of --output says, else table.",
)
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file."
)
@click.option(
    "--limit",
    type=click.IntRange(min=0),
    help=f"Show so many rows, 0 for all. Default: {TABLE_ROWS} in a table, else all.",
)
@click.option("--expanded", "-x", is_flag=True, help="One line a column instead of one a row.")
@click.option(
    "--db", type=click.Path(), help="The DuckDB file; default $WAREHOUSE_DB, else warehouse.duckdb."
)
@click.option("--timing", is_flag=True, help="Tell the seconds that each statement took.")
def sql_command(
    query: str | None,
    script: TextIO | None,
    form: str | None,
    output: Path | None,
    limit: int | None,
    expanded: bool,
    db: str | None,
    timing: bool,
) -> None:
    """Query the warehouse, read-only; without a QUERY on a terminal, an interactive shell.

    \b
      wavehouse sql "from labels.label_distribution limit 5"
      wavehouse sql .tables                           relations and what a row of each is
      wavehouse sql ".schema labels.entry_labels"     columns, types, descriptions
      wavehouse sql .functions                        trained heads as functions of a row
      wavehouse sql -o bars.parquet "from staging.stg_minute_bars where symbol = 'BTCUSDT'"
      echo "show tables from labels" | wavehouse sql --format csv
      wavehouse sql "select sample_id, long_entry_prob(f) from factors.minute_features as f"

    Statements are separated by semicolons and run in order. Tables shorten floats; csv, json,
    jsonl, parquet and arrow keep every digit (NaN and infinity are null in json).
    """
    if query is not None and script is not None:
        raise click.UsageError("Give a QUERY or --file, not both.")
    if query is None and (script or not sys.stdin.isatty()):
        query = (script or click.get_text_stream("stdin")).read()
    suffixes = [suffix.lower() for suffix in Path(output or "-.txt").suffixes if suffix != ".gz"]
    form = form or SUFFIXES.get(suffixes[-1] if suffixes else "")
    if form is None:
        raise click.UsageError(f"{output}: no format is known by that suffix. Give --format.")
    if output is None and form in ("parquet", "arrow"):
        raise click.UsageError(f"--format {form} needs --output FILE.")
    if not (query or "").strip() and (query is not None or output):
        raise click.UsageError("No query: give a QUERY, a --file, or a query on standard input.")
    display = Display(form, output, limit, expanded, timing)
    try:
        with contextlib.closing(warehouse.connect(db)) as con:
            if query is None:
                interact(con, display)
            elif not run_text(con, query, display):
                raise SystemExit(1)
    except warehouse.WarehouseError as error:
        raise click.ClickException(str(error)) from error


def run_text(con: duckdb.DuckDBPyConnection, text: str, display: Display) -> bool:
    """Run statements, or one meta command, until one fails; return whether none did."""
    try:
        if text.lstrip().startswith("."):
            run_meta(con, text.strip().rstrip("; "), display)
            return True
        statements = con.extract_statements(text)
        if display.output and sum(s.type.name in ROW_STATEMENTS for s in statements) != 1:
            raise click.UsageError("--output takes one statement that gives rows.")
        for statement in statements:
            started = time.perf_counter()
            with warehouse.interruptible(con):
                run_statement(con, statement, display)
            if display.timing:
                click.echo(f"{time.perf_counter() - started:.3f} s", err=True)
    except BrokenPipeError:
        raise  # click ends quietly: the reader, such as `head`, has seen enough
    except (duckdb.Error, OSError) as error:
        click.echo(warehouse.explain_error(con, str(error)), err=True)
        return False
    return True


def run_statement(
    con: duckdb.DuckDBPyConnection, statement: duckdb.Statement, display: Display
) -> None:
    """Run one statement and write what it gives in the format of `display`."""
    gives_rows = statement.type.name in ROW_STATEMENTS
    if gives_rows and display.format not in ("table", "markdown"):
        rel = con.sql(warehouse.bare_statement(statement.query))
        if rel.columns != ["Success"]:  # what a pragma gives that only sets something
            rel = rel.limit(display.limit) if display.limit else rel
            warehouse.export(con, rel, display.output, display.format)
        return
    try:
        con.execute(statement)
        names = [column[0] for column in con.description]
        default = TABLE_ROWS if display.format == "table" else 0
        limit = default if display.limit is None else display.limit
        rows = con.fetchmany(limit + 1) if limit else con.fetchall()
        if names == ["Count"] and not gives_rows:
            click.echo(f"changed rows: {rows[0][0]:,}", err=True)
        if names == ["Success"] or not gives_rows:
            return
        with contextlib.ExitStack() as stack:
            stream = sys.stdout
            if display.output:
                path = stack.enter_context(warehouse.whole_file(display.output))
                stream = stack.enter_context(open(path, "w", encoding="utf-8"))
            if names == ["explain_key", "explain_value"]:
                click.echo("".join(plan for _, plan in rows), file=stream, nl=False)
                return
            show = show_markdown if display.format == "markdown" else show_table
            show(names, rows[: limit or None], stream, display.expanded)
        if limit and len(rows) > limit:
            more = 1
            while more <= COUNTED_ROWS and (batch := con.fetchmany(2_048)):
                more += len(batch)
            count = f"more than {COUNTED_ROWS:,}" if more > COUNTED_ROWS else f"{more:,}"
            click.echo(f"{limit:,} rows shown, {count} more: --limit 0 shows all", err=True)
        elif not rows or sys.stdout.isatty():
            click.echo(f"{len(rows):,} row{'s' * (len(rows) != 1)}", err=True)
    finally:
        con.abort()  # an unread rest would block the next statement


def format_cell(value: object) -> str:
    """Return a value as a table shows it: on one line, floats to 4 decimals or 5 digits."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:.4f}".rstrip("0").rstrip(".") if 1 <= abs(value) < 1e15 else f"{value:.5g}"
        return "0" if short == "-0" else short
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in str(value))


def is_numeric(rows: Sequence[tuple], index: int) -> bool:
    """Whether a column of rows holds numbers, to be aligned to the right."""
    return {type(row[index]) for row in rows} <= {int, float, decimal.Decimal, type(None)}


def show_table(
    names: Sequence[str], rows: Sequence[tuple], stream: TextIO, expanded: bool = False
) -> None:
    """Print rows: folded to a terminal's width, or aligned text of any width for a file or pipe.

    Columns that do not fit a terminal go on below, each block begun by the first column; one row
    that does not fit, and rows with `expanded`, are printed with one line a column.
    """
    cells = [[format_cell(value) for value in row] for row in rows]
    longest = [max(map(cell_len, column)) for column in zip(names, *cells, strict=True)]
    numeric = [is_numeric(rows, index) for index in range(len(names))]
    console = Console(file=stream, markup=False, highlight=False, emoji=False)
    claims = [
        3 + (width if number else min(width, max(cell_len(name), WIDEST_TEXT)))
        for name, width, number in zip(names, longest, numeric, strict=True)
    ]
    if expanded or (console.is_terminal and len(rows) == 1 and sum(claims) > console.width):
        margin = max(map(cell_len, names))
        for number, row in enumerate(cells, 1):
            click.echo(f"-- row {number}", file=stream)
            for name, cell in zip(names, row, strict=True):
                click.echo(f"{set_cell_size(name, margin)}  {cell}", file=stream)
    elif console.is_terminal:
        for block in fold_columns(claims, console.width):
            table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False)
            for index in block:
                side = "right" if numeric[index] else "left"
                table.add_column(
                    Text(names[index]), justify=side, no_wrap=numeric[index], overflow="fold"
                )
            for row in cells:
                shown = [row[index] for index in block]
                table.add_row(*(Text(cell, "dim" if cell == "NULL" else "") for cell in shown))
            console.print(table)
    else:
        for line in (names, ["-" * width for width in longest], *cells):
            padded = [
                " " * (width - cell_len(cell)) + cell if number else set_cell_size(cell, width)
                for cell, width, number in zip(line, longest, numeric, strict=True)
            ]
            click.echo("  ".join(padded).rstrip(), file=stream)


def show_markdown(names: Sequence[str], rows: Sequence[tuple], stream: TextIO, _: bool) -> None:
    """Print rows as a GitHub table, the cells as in a plain table."""
    rules = ["---:" if is_numeric(rows, index) else "---" for index in range(len(names))]
    for line in (names, rules, *(map(format_cell, row) for row in rows)):
        click.echo("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |", file=stream)


def fold_columns(widths: Sequence[int], width: int) -> list[list[int]]:
    """Share columns out over blocks that fit `width`, each begun by the first column."""
    blocks, used = [[0]], widths[0]
    for index in range(1, len(widths)):
        if used + widths[index] > width and len(blocks[-1]) > 1:
            blocks.append([0])
            used = widths[0]
        blocks[-1].append(index)
        used += widths[index]
    return blocks


def run_meta(con: duckdb.DuckDBPyConnection, line: str, display: Display) -> None:
    """Run a line that begins with a dot."""
    command, _, name = line.partition(" ")
    name = name.strip().lower()
    found = {f"{row[0]}.{row[1]}": row for row in warehouse.relations(con)}
    if command == ".tables":
        rows = [row for full, row in found.items() if name in full.lower()]
        names = ("schema", "relation", "kind", "rows", "description")
        show_table(names, rows, sys.stdout, display.expanded)
    elif command == ".schema" and name:
        wanted = [full for full in found if name in (full.lower(), full.lower().split(".", 1)[1])]
        if not wanted:
            raise duckdb.CatalogException(f"Table with name {name} does not exist!")
        for full in wanted:
            click.echo(f"{full}: {found[full][-1] or 'no description'}")
            show_table(("column", "type", "description"), warehouse.columns(con, full), sys.stdout)
    elif command == ".functions":
        rows = [row for row in udf.described(con) if name in row[0]]
        show_table(("function", "type", "gives"), rows, sys.stdout, display.expanded)
        if not rows and not name:
            click.echo("No head is trained yet: `dbt build --select head_samples+`.", err=True)
    elif command == ".expanded":
        display.expanded = not display.expanded
    elif command == ".help":
        click.echo(HELP)
    else:
        expected = ".tables, .schema NAME, .functions, .expanded, .help or .quit"
        click.echo(f"{line}: expected {expected}", err=True)


def interact(con: duckdb.DuckDBPyConnection, display: Display) -> None:
    """Read statements from a terminal until `.quit` or the end of input."""
    history = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".cache", "wavehouse/history")
    if readline:
        names = {
            name for row in warehouse.relations(con) for name in (f"{row[0]}.{row[1]}", row[1])
        }
        names |= {name for name, _, _ in warehouse.columns(con)}
        names |= {call.partition("(")[0] for call, _, _ in udf.described(con)}
        names |= {".tables", ".schema", ".functions", ".expanded"}

        def complete(text: str, turn: int) -> str | None:
            return dict(enumerate(n for n in names if n.lower().startswith(text.lower()))).get(turn)

        libedit = "libedit" in (readline.__doc__ or "")
        readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
        readline.set_completer_delims(" \t\n()[]{},;:=<>+-*/%|&!?'\"")  # not the dot
        readline.set_completer(complete)
        with contextlib.suppress(OSError):
            readline.read_history_file(history)
    click.echo("The warehouse, read-only; `dbt build` must wait until you leave. `.help`, `.quit`")
    pending = ""
    while True:
        try:
            pending += input("      ...> " if pending else "wavehouse> ") + "\n"
            if pending.strip().rstrip(";") in (".quit", ".exit"):
                break
            if not pending.strip() or is_complete(pending):
                text, pending = pending, ""
                run_text(con, text, display)
        except KeyboardInterrupt:
            pending = ""
            click.echo("\nstopped", err=True)
        except EOFError:
            click.echo()
            break
    if readline:
        with contextlib.suppress(OSError):
            history.parent.mkdir(parents=True, exist_ok=True)
            readline.set_history_length(1_000)
            readline.write_history_file(history)


def is_complete(text: str) -> bool:
    """Whether `text` is a meta command, or ends with the semicolon of a statement."""
    code = warehouse.NOT_CODE.sub(" ", text).strip()
    has_ended = code.endswith(";") and not re.search(r"'|\"|/\*|\$\w*\$", code)
    return has_ended or text.lstrip().startswith(".")
