"""`wavehouse ingest tushare|baostock`: daily vendor tables into the files of the daily contract.

A file is told by its columns (`daily_shapes`), typed in SQL and written as parquet named by the
hash of its bytes, as minute bars are. Tables that mean something only together (name snapshots,
members month by month, adjustment factors beside the bars) are kept typed below `ingested/` and
made into the contract's files from all of them, whenever one was added (`daily_assembly`).
"""

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path

import duckdb

from wavehouse import ingest_formats as formats
from wavehouse.daily_shapes import KINDS, SHAPES, Shape
from wavehouse.ingest_formats import Column, IngestError, Options, quoted

VENDORS = ("tushare", "baostock")
REJECTS = "ingest_rejects_daily"
PARTS = "ingested"
OUT_DATES = ("first_day_out", "last_day", "last_listing")
REJECT_COLUMNS = "source_file, source_row, kind, ts_code, trade_date, column_name, reason, raw_row"
FIELD = re.compile(r"\{([^{}:]+)(?::(\w+))?\}")
SQL_TYPES = {"number": "double", "day": "date", "code": "varchar", "text": "varchar"} | {
    "flag": "boolean",
    "raw": "varchar",
}
FLOATS = ("DOUBLE", "FLOAT")
INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
FULL_WIDTH = "".join(chr(0xFF01 + i) for i in range(94))
HALF_WIDTH = "".join(chr(0x21 + i) for i in range(94))

MACROS = rf"""
create or replace temp macro plain_text(x) as
    case when not is_blank(x) then trim(x::varchar) end;
create or replace temp macro moment(x) as case
    when regexp_full_match(trim(x::varchar), '\d{{8}}(\.0+)?')
        then try_strptime(left(trim(x::varchar), 8), '%Y%m%d')
    else try_cast(replace(trim(x::varchar), '/', '-') as timestamp) end;
create or replace temp macro day_known(x) as
    moment(x)::date + case when moment(x)::time > time '15:00:00' then 1 else 0 end;
create or replace temp macro flag_of(x) as case
    when lower(trim(x::varchar)) in ('1', '1.0', 'true', 't', 'yes', 'y') then true
    when lower(trim(x::varchar)) in ('0', '0.0', 'false', 'f', 'no', 'n') then false end;
create or replace temp macro exchange_of(digits) as case
    when regexp_matches(digits, '^(4|8|92)') then 'BJ'
    when regexp_matches(digits, '^[569]') then 'SH' else 'SZ' end;
create or replace temp macro code_in(t) as case
    when regexp_full_match(t, '\w+\.(SH|SZ|BJ)') then t
    when regexp_full_match(t, '(SH|SZ|BJ)[._]?\d{{6}}') then right(t, 6) || '.' || left(t, 2)
    when regexp_full_match(t, '\d{{6}}\.(SS|XSHG)') then left(t, 6) || '.SH'
    when regexp_full_match(t, '\d{{6}}\.XSHE') then left(t, 6) || '.SZ'
    when regexp_full_match(t, '\d{{1,6}}(\.0)?')
        then lpad(split_part(t, '.', 1), 6, '0') || '.'
            || exchange_of(lpad(split_part(t, '.', 1), 6, '0'))
    when regexp_full_match(t, '[A-Z0-9_-]+\.[A-Z]+') then t end;
create or replace temp macro code_of(x) as code_in(upper(trim(x::varchar)));
create or replace temp macro security_class(code) as case
    when regexp_full_match(code, '(000\d{{3}}\.SH|399\d{{3}}\.SZ|899\d{{3}}\.BJ|98\d{{4}}\.SZ)')
        or regexp_full_match(code, '.*\.(CSI|SI|CI|MI|TI|SZI)') then 'index'
    when regexp_full_match(code, '((60|68)\d{{4}}|900\d{{3}}|T\d{{5}})\.SH')
        or regexp_full_match(code, '((00|30)\d{{4}}|20\d{{4}})\.SZ')
        or regexp_full_match(code, '(4\d{{5}}|8[0-8]\d{{4}}|92\d{{4}})\.BJ') then 'stock'
    else 'other' end;
create or replace temp macro plain_name(x) as
    upper(replace(replace(translate(x, '{FULL_WIDTH.replace("'", "''")}',
        '{HALF_WIDTH.replace("'", "''")}'), ' ', ''), '　', ''));
"""


@dataclass(frozen=True)
class DailyOptions(Options):
    """What the user asked for; with the source's bytes it decides the rows, so it is hashed."""

    kind: str | None = None
    as_of: str | None = None
    out_date: str | None = None


@dataclass(frozen=True)
class Typed:
    """The rows of one source: how many were read, and what was written of them where."""

    shape: Shape
    rows_read: int
    left_out: int
    kinds: dict[str, int]
    notes: list[str]


def folder_of(kind: str) -> str:
    """Return the folder of a kind below the data folder: parts lie below `ingested/`."""
    return f"{PARTS}/{kind}" if KINDS[kind].assembled_into else kind


def folders() -> tuple[str, ...]:
    """Return every folder that daily ingest writes, below the data folder."""
    assembled = {name for kind in KINDS.values() for name in kind.assembled_into}
    return (*sorted({*map(folder_of, KINDS), *assembled}), REJECTS)


# ---- which shape ------------------------------------------------------------------------------


def fields(shape: Shape) -> set[tuple[str, str]]:
    """Return the fields of a shape's expressions: names as written, and type."""
    texts = [e for columns in shape.outputs.values() for e in columns.values()]
    texts += [shape.left_out[0]] if shape.left_out else []
    return {(name, kind or "number") for text in texts for name, kind in FIELD.findall(text)}


def found_names(name: str, names: set[str]) -> list[str]:
    """Return which of a field's alternatives (`a|b?`) are among a file's column names."""
    return [n for n in name.rstrip("?").split("|") if n in names]


def missing(shape: Shape, names: set[str]) -> list[str]:
    """Return the columns that a shape requires and `names` lacks."""
    needed = [name for name, _ in fields(shape) if not name.endswith("?")]
    return sorted({n for n in (*needed, *shape.signs) if not found_names(n, names)})


def tell_shape(columns: list[Column], options: DailyOptions) -> Shape:
    """Return the shape whose required columns a file has; of several, the one that uses most.

    Raises IngestError with the columns found and the shapes known when there is none.
    """
    names = {c.name.strip().lower() for c in columns}
    found = ", ".join(c.name for c in columns)
    wanted = [s for s in SHAPES if options.kind in (None, *s.outputs)]
    fitting = [s for s in wanted if not missing(s, names) and not names.intersection(s.absent)]
    here = [s for s in fitting if s.vendor in (options.format, "any")]
    if here:
        return max(
            here, key=lambda s: len({n for f, _ in fields(s) for n in found_names(f, names)})
        )
    if fitting:
        raise IngestError(
            f"these are the columns of {fitting[0].vendor}'s {fitting[0].name}. "
            f"Use `wavehouse ingest {fitting[0].vendor}`."
        )
    closest = sorted(wanted, key=lambda s: (len(missing(s, names)), SHAPES.index(s)))[:2]
    lacking = "; ".join(f"{s.name} lacks {', '.join(missing(s, names))}" for s in closest)
    known = ", ".join(s.name for s in wanted if s.vendor in (options.format, "any"))
    raise IngestError(
        f"no known shape has these columns: {found}. Closest: {lacking}. Known to "
        f"{options.format}: {known}. Rename the columns to one of these (see "
        "docs/bring_your_own_data.md), or write the contract's file yourself."
    )


# ---- typing -----------------------------------------------------------------------------------


def prepare(con: duckdb.DuckDBPyConnection) -> None:
    """Define the macros that typing and assembly use."""
    con.execute(formats.MACROS)
    con.execute(MACROS)


def field_sql(kind: str, column: Column | None) -> tuple[str, str]:
    """Return the SQL of a typed field and of "there is a value but it cannot be typed"."""
    if column is None:
        return f"null::{SQL_TYPES[kind]}", "false"
    at, source = column.sql, column.type
    if kind == "number" and source in FLOATS:
        return f"case when isfinite({at}) then {at}::double end", f"coalesce(isinf({at}), false)"
    if (kind == "number" and source in INTEGERS) or (kind, source) in (
        ("flag", "BOOLEAN"),
        ("day", "DATE"),
    ):
        return f"{at}::{SQL_TYPES[kind]}", "false"
    typed = {
        "number": f"number({at})",
        "day": f"moment({at})::date",
        "code": f"code_of({at})",
        "text": f"plain_text({at})",
        "flag": f"flag_of({at})",
        "raw": at,
    }[kind]
    lost = "false" if kind in ("text", "raw") else f"({typed} is null and not is_blank({at}))"
    return typed, lost


class Filler:
    """Fill the braces of a shape's expressions with SQL over the columns of `source_rows`."""

    def __init__(self, columns: list[Column], options: DailyOptions) -> None:
        self.columns = {c.name.strip().lower(): c for c in reversed(columns)}
        self.lost: dict[str, dict[str, str]] = {"day": {}, "number": {}, "flag": {}, "code": {}}
        self.options = options

    def __call__(self, text: str) -> str:
        """Return `text` with its fields as SQL, and remember what may be lost in typing."""
        as_of = f"{quoted(self.options.as_of)}::date" if self.options.as_of else "null::date"
        out_date = f"{quoted(self.options.out_date)}" if self.options.out_date else "null"
        filled = FIELD.sub(self.field, text)
        return filled.replace("$as_of", as_of).replace("$out_date", f"{out_date}::varchar")

    def field(self, match: re.Match) -> str:
        """Return the SQL of one field in braces."""
        name, kind = match[1], match[2] or "number"
        names = found_names(name, set(self.columns))
        column = self.columns[names[0]] if names else None
        typed, lost = field_sql(kind, column)
        if lost != "false":
            self.lost[kind][column.name] = lost
        return f"({typed})"

    def first_lost(self, kind: str) -> str:
        """Return SQL for the name of the first column of a type that could not be typed."""
        cases = "".join(
            f" when {lost} then {quoted(name)}" for name, lost in self.lost.get(kind, {}).items()
        )
        return f"case{cases} end" if cases else "null::varchar"


def type_source(
    con: duckdb.DuckDBPyConnection, label: str, path: Path, options: DailyOptions, scratch: Path
) -> Typed:
    """Fill `typed_rows` from a file; say which shape it has and how many rows go to each kind."""
    scratch.mkdir()
    try:
        parts = formats.open_parts(label, path, scratch)
        rows, notes, shape = 0, [], None
        for number, part in enumerate(parts):
            load = formats.load_parquet if part.lines is None else formats.load_csv
            columns, part_rows, part_notes = load(con, part, options)
            told = tell_shape(columns, options)
            if shape not in (None, told):
                raise IngestError(
                    f"{part.label} is {told.name}, an earlier member is {shape.name}. "
                    "Put tables of one shape into an archive."
                )
            shape = told
            type_rows(con, part.label, columns, shape, options, first=number == 0)
            rows += part_rows
            notes += [note for note in part_notes if note not in notes]
    finally:
        formats.shutil.rmtree(scratch, ignore_errors=True)
    if shape.refused:
        condition, words = shape.refused
        if con.execute(f"select count(*) from typed_rows where {condition}").fetchone()[0]:
            raise IngestError(words)
    kinds = {
        kind: con.execute(f"select count(*) {kept_rows(shape, options, kind)}").fetchone()[0]
        for kind in output_kinds(shape, options)
    }
    if any(kinds.values()):
        kinds = {kind: count for kind, count in kinds.items() if count}
    else:
        kinds = dict(list(kinds.items())[:1])  # rejects alone: so that the file is found again
    left_out = con.execute("select count(*) from typed_rows where left_out").fetchone()[0]
    notes.insert(0, f"read as {shape.name}")
    if left_out:
        notes.append(f"{left_out:,} rows left out: {shape.left_out[1]}")
    for words, condition in shape.checks.items():
        count = con.execute(
            f"select count(*) from typed_rows where reject_reason is null and ({condition})"
        ).fetchone()[0]
        notes += [f"{count:,} {words}, kept"] if count else []
    return Typed(shape, rows, left_out, kinds, notes)


def output_kinds(shape: Shape, options: DailyOptions) -> list[str]:
    """Return the kinds that a shape gives, or the one that --kind asks for."""
    return [options.kind] if options.kind else list(shape.outputs)


def kept_rows(shape: Shape, options: DailyOptions, kind: str) -> str:
    """Return the rest of a query, from `from` on, over the rows of `typed_rows` for a kind."""
    keep = "true" if options.kind else shape.keep.get(kind, "true")
    return f"from typed_rows where reject_reason is null and not left_out and ({keep})"


def type_rows(
    con: duckdb.DuckDBPyConnection,
    label: str,
    columns: list[Column],
    shape: Shape,
    options: DailyOptions,
    first: bool,
) -> None:
    """Put every row of `source_rows` into `typed_rows`, with a reason where it cannot be typed."""
    fill = Filler(columns, options)
    texts = [text for columns_of in shape.outputs.values() for text in columns_of.values()]
    if any("$as_of" in t for t in texts) and not (options.as_of or "as_of" in fill.columns):
        raise IngestError(
            "this list of stocks does not say of which day it is. Give --as-of YYYY-MM-DD, the day "
            "it was fetched: its names count from that day on, never before."
        )
    kinds = output_kinds(shape, options)
    expressions = {name: fill(t) for of in shape.outputs.values() for name, t in of.items()}
    left_out = fill(shape.left_out[0]) if shape.left_out else "false"
    types = {name: KINDS[kind].columns[name] for kind, of in shape.outputs.items() for name in of}
    typed = ",\n".join(f"({sql})::{types[name]} as {name}" for name, sql in expressions.items())
    extra = "".join(f",\n{Filler(columns, options)(t)} as {n}" for n, t in shape.extra.items())
    key = KINDS[kinds[0]].key
    code = "ts_code" if "ts_code" in expressions else "null::varchar"
    day = next((n for n in ("trade_date", "as_of", "in_date") if n in expressions), "null::date")
    no_key = [f"when {n} is null then {quoted(n)}" for n in key if types[n] == "date"]
    classes = ", ".join(map(quoted, shape.securities))
    wrong_class = f"security_class({code}) not in ({classes})"
    if options.kind or code != "ts_code":
        wrong_class = "false"
    no_code = [f"when {n} is null then {quoted(n)}" for n in key if n in ("ts_code", "index_code")]
    raw_row = ", ".join(f"{quoted(c.name)}, {formats.json_value(c)}" for c in columns)
    con.execute(f"""
        {"create or replace temp table typed_rows as" if first else "insert into typed_rows"}
        with typed as (
            select source_row, line, malformed, coalesce({left_out}, false) as left_out,
                {typed}{extra},
                {fill.first_lost("day")} as lost_day, {fill.first_lost("number")} as lost_number,
                {fill.first_lost("flag")} as lost_flag,
                columns('^c[0-9]+$')
            from source_rows
        ),
        judged as (
            select *,
                case {" ".join(no_code) or "when false then ''"} end as no_code,
                case {" ".join(no_key) or "when false then ''"} end as no_day,
                case
                    when malformed then 'malformed_line'
                    when no_code is not null then 'null_or_unparsable_code'
                    when {wrong_class} then 'not_an_a_share'
                    when left_out then null
                    when no_day is not null then 'null_or_unparsable_date'
                    when lost_day is not null then 'unparsable_date'
                    when lost_number is not null then 'unparsable_number'
                    when lost_flag is not null then 'unparsable_flag'
                end as reject_reason
            from typed
        )
        select {quoted(label)} as source_file, source_row, {quoted(kinds[0])} as kind,
            left_out and reject_reason is null as left_out, reject_reason,
            case reject_reason
                when 'null_or_unparsable_code' then no_code
                when 'not_an_a_share' then 'ts_code'
                when 'null_or_unparsable_date' then no_day
                when 'unparsable_date' then lost_day
                when 'unparsable_number' then lost_number
                when 'unparsable_flag' then lost_flag
            end as column_name,
            case when malformed then json_object('line', line)
                when reject_reason is not null then json_object({raw_row}) end::varchar as raw_row,
            {code} as row_code, {day} as row_day,
            {", ".join([*expressions, *shape.extra])}
        from judged
    """)


def kind_query(shape: Shape, options: DailyOptions, kind: str) -> str:
    """Return the query of a kind's rows: all its columns, typed, sorted by key."""
    given = shape.outputs[kind]
    columns = ", ".join(
        name if name in given else f"null::{type} as {name}"
        for name, type in KINDS[kind].columns.items()
    )
    key = ", ".join(KINDS[kind].key)
    return f"select {columns} {kept_rows(shape, options, kind)} order by {key}, source_row"


def view_rejects(con: duckdb.DuckDBPyConnection) -> None:
    """Show the refused rows of `typed_rows` as the view `rejects`, in the order of the source."""
    con.execute("""
        create or replace temp view rejects as
        select source_file, source_row, kind, row_code as ts_code, row_day as trade_date,
            column_name, reject_reason as reason, raw_row
        from typed_rows where reject_reason is not null order by source_file, source_row
    """)


def options_text(options: DailyOptions, version: int) -> str:
    """Return everything besides the bytes that decides the rows, as canonical JSON."""
    return json.dumps({"version": version, **dataclasses.asdict(options)}, sort_keys=True)
