"""From the parts below `ingested/` to contract files: a contract file is a function of all parts.

Names, listings, index members and industries arrive as snapshots, changes and spans in any number
of files. Each contract file is written from all of its parts in one query, under a name that
holds the hash of the parts' names (which hold the hashes of their bytes), so it is written again
only when a part was added or taken out.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import duckdb

from wavehouse import ingest_daily as daily
from wavehouse.daily_shapes import KINDS
from wavehouse.ingest_formats import quoted

ASSEMBLY_VERSION = 1  # raise it when the same parts would give other rows

SECURITIES = """
    with date_votes as (
        select ts_code, list_date, count(*) as votes
        from (
            select ts_code, list_date from security_snapshots where list_date is not null
            union all
            select ts_code, list_date from listing_dates where list_date is not null
        )
        group by all
    ),
    list_dates as (  -- the date most sources tell; the earliest of equals
        select ts_code, arg_min(list_date, (-votes, list_date)) as list_date
        from date_votes group by ts_code
    ),
    delistings as (
        select ts_code, arg_max(delist_date, (as_of, delist_date)) as delist_date
        from security_snapshots where delist_date is not null group by ts_code
    ),
    seen_listed as (
        select ts_code, max(as_of) as as_of from security_snapshots
        where list_status = 'L' group by ts_code
    ),
    names as (
        select ts_code, arg_max(name, (as_of, name)) as name
        from (
            select ts_code, name, as_of from security_snapshots where name is not null
            union all
            select ts_code, name, list_date from listing_dates where name is not null
        )
        group by ts_code
    ),
    codes as (
        select ts_code from security_snapshots union select ts_code from listing_dates
    ),
    renumbered as (  -- one listing, two codes
        select c.old_ts_code as ts_code, d.list_date
        from code_changes as c inner join list_dates as d on d.ts_code = c.new_ts_code
        union all
        select c.new_ts_code, d.list_date
        from code_changes as c inner join list_dates as d on d.ts_code = c.old_ts_code
    )
    select codes.ts_code, names.name,
        case split_part(codes.ts_code, '.', 2)
            when 'SH' then 'SSE' when 'SZ' then 'SZSE' when 'BJ' then 'BSE' end as exchange,
        coalesce(list_dates.list_date, renumbered.list_date) as list_date,
        -- a stock that a later list calls listed was not delisted
        case when seen_listed.as_of is null or seen_listed.as_of < delistings.delist_date
            then delistings.delist_date end as delist_date
    from codes
    left join names using (ts_code)
    left join list_dates using (ts_code)
    left join renumbered using (ts_code)
    left join delistings using (ts_code)
    left join seen_listed using (ts_code)
    order by ts_code
"""

# A snapshot's name holds from the day it was seen to the day another was; blanks and full-width
# letters make no other name. Stocks with dated name changes need no snapshots.
SECURITY_NAMES = """
    with changes as (
        select ts_code, start_date, max(name) as name, max(end_date) as end_date
        from name_changes group by ts_code, start_date
    ),
    change_spans as (
        select ts_code, name, start_date,
            nullif(least(coalesce(end_date, date '9999-01-01'),
                lead(start_date, 1, date '9999-01-01') over (
                    partition by ts_code order by start_date)), date '9999-01-01') as end_date
        from changes
    ),
    seen as (
        select ts_code, as_of, min(name) as name
        from security_snapshots
        where name is not null and ts_code not in (select ts_code from name_changes)
        group by ts_code, as_of
    ),
    first_seen as (
        select ts_code, as_of, name
        from seen
        qualify plain_name(name) is distinct from
            lag(plain_name(name)) over (partition by ts_code order by as_of)
    ),
    seen_spans as (
        select ts_code, name, as_of as start_date,
            lead(as_of) over (partition by ts_code order by as_of) as end_date
        from first_seen
    )
    select * from (
        select ts_code, name, start_date, end_date from change_spans
        union all
        select ts_code, name, start_date, end_date from seen_spans
    )
    order by ts_code, start_date
"""

# The Beijing exchange gave its stocks new codes (920xxx) in 2024 and 2025.
CODE_CHANGES = """
    create or replace temp view code_changes as
    with named as (
        select ts_code, plain_name(name) as plain, min(as_of) as as_of, any_value(name) as name
        from security_snapshots where ts_code like '%.BJ' and name is not null group by 1, 2
    ),
    pairs as (
        select old.ts_code as old_ts_code, new.ts_code as new_ts_code,
            min(new.as_of) as first_seen_date, arg_min(new.name, new.as_of) as name
        from named as old
        inner join named as new using (plain)
        where old.ts_code not like '920%' and new.ts_code like '920%'
        group by all
    )
    select old_ts_code, new_ts_code, name, first_seen_date
    from pairs
    qualify count(*) over (partition by old_ts_code) = 1
        and count(*) over (partition by new_ts_code) = 1
"""
SECURITY_CODE_CHANGES = "from code_changes order by old_ts_code"

# Each reading of out_date gives a number of members a day; the right one keeps it steady.
SPAN_READINGS = """
    create or replace temp table span_readings as
    with listings as (
        select index_code, in_date as listing_date from member_spans
        union
        select index_code, out_date from member_spans where out_date is not null
    ),
    readings as (
        select index_code, ts_code, in_date, out_date, out_date_means, 1 as reading_order,
            'first_day_out' as reading, out_date as end_date
        from member_spans
        union all
        select index_code, ts_code, in_date, out_date, out_date_means, 2, 'last_day', out_date + 1
        from member_spans
        union all
        select s.index_code, s.ts_code, s.in_date, s.out_date, s.out_date_means, 3, 'last_listing',
            min(l.listing_date)
        from member_spans as s
        left join listings as l on l.index_code = s.index_code and l.listing_date > s.out_date
        group by all
    ),
    events as (
        select index_code, reading, reading_order, out_date_means, in_date as day, 1 as change
        from readings
        union all
        select index_code, reading, reading_order, out_date_means, end_date, -1
        from readings where end_date is not null
    ),
    changes as (
        select index_code, reading, reading_order, min(out_date_means) as out_date_means, day,
            sum(change) as change
        from events group by index_code, reading, reading_order, day
    ),
    counts as (
        select *, sum(change) over earlier as members,
            lead(day) over (partition by index_code, reading order by day) - day as days
        from changes
        window earlier as (partition by index_code, reading order by day)
    ),
    measured as (
        select index_code, reading, reading_order, min(out_date_means) as out_date_means,
            min(members) as fewest, max(members) as most,
            sum(days * members ** 2) / sum(days) - (sum(days * members) / sum(days)) ** 2 as spread
        from counts where days > 0 group by index_code, reading, reading_order
    ),
    chosen as (
        select index_code, arg_min(reading, (
            coalesce(reading <> out_date_means, false), round(spread, 6), reading_order
        )) as chosen_reading
        from measured group by index_code
    )
    select r.index_code, r.ts_code, r.in_date, r.out_date, r.end_date, r.reading, m.fewest, m.most,
        max(r.out_date) over (partition by r.index_code) as last_date
    from readings as r
    left join chosen as c using (index_code)
    left join measured as m using (index_code, reading)
    where r.reading = coalesce(c.chosen_reading, r.out_date_means, 'first_day_out')
"""
# Listings month by month are the second choice: an index with spans is taken from its spans.
# In a file without open spans, a last date that at least a third of the index shares and on which
# nobody enters is the end of the file, not of membership.
INDEX_MEMBERS = """
    with last_dates as (
        select index_code, last_date,
            count_if(out_date = last_date) * 3 >= max(most)
                and count(out_date) = count(*)
                and count_if(in_date = last_date) = 0 as is_file_end
        from span_readings group by index_code, last_date
    ),
    spans as (
        select r.index_code, r.ts_code, r.in_date,
            case when l.is_file_end and r.out_date = r.last_date then null else r.end_date end
                as out_date
        from span_readings as r
        left join last_dates as l using (index_code, last_date)
    ),
    snapshots as (
        select distinct index_code, ts_code, known_date from member_snapshots
        where index_code not in (select index_code from member_spans)
    ),
    listings as (
        select index_code, known_date,
            row_number() over (partition by index_code order by known_date) as listing,
            lead(known_date) over (partition by index_code order by known_date) as next_date
        from (select distinct index_code, known_date from snapshots)
    ),
    runs as (
        select index_code, ts_code, known_date, next_date,
            listing - row_number() over (partition by index_code, ts_code order by known_date)
                as run
        from snapshots inner join listings using (index_code, known_date)
    ),
    from_snapshots as (
        select index_code, ts_code, min(known_date) as in_date,
            max(next_date) as out_date, bool_or(next_date is null) as still_in
        from runs group by index_code, ts_code, run
    )
    select * from (
        select index_code, ts_code, in_date, out_date from spans
        union all
        select index_code, ts_code, in_date, case when not still_in then out_date end
        from from_snapshots
    )
    order by index_code, ts_code, in_date
"""

# The table of classes names the codes of 2021; a code of an older list keeps the names of the
# levels above it that are still in the table. A change without a change of code is none.
INDUSTRY_MEMBERS = """
    with days as (
        select ts_code, in_date, max(industry_code) as industry_code
        from industry_changes group by ts_code, in_date
    ),
    changed as (
        select *
        from days
        qualify industry_code is distinct from
            lag(industry_code) over (partition by ts_code order by in_date)
    ),
    spans as (
        select ts_code, industry_code, in_date,
            lead(in_date) over (partition by ts_code order by in_date) as out_date,
            left(industry_code, 2) || '0000' as l1_code,
            case when right(industry_code, 4) <> '0000' then left(industry_code, 4) || '00' end
                as l2_code,
            case when right(industry_code, 2) <> '00' then industry_code end as l3_code
        from changed
    ),
    classes as (
        select industry_code, any_value(l1_name) as l1_name, any_value(l2_name) as l2_name,
            any_value(l3_name) as l3_name
        from industry_classes group by industry_code
    )
    select * from (
        select s.ts_code, s.industry_code, s.l1_code, l1.l1_name, s.l2_code, l2.l2_name,
            s.l3_code, l3.l3_name, s.in_date, s.out_date
        from spans as s
        left join classes as l1 on l1.industry_code = s.l1_code
        left join classes as l2 on l2.industry_code = s.l2_code
        left join classes as l3 on l3.industry_code = s.l3_code
        union all by name
        select distinct * from industry_spans
    )
    order by ts_code, in_date
"""
TRADING_CALENDAR = "select distinct trade_date from open_days order by trade_date"
SUSPENDED_BARS = """
    select s.ts_code, s.trade_date, {columns}
    from (select distinct ts_code, trade_date from suspended_days) as s
    anti join daily_bars as b using (ts_code, trade_date)
    order by s.ts_code, s.trade_date
"""

QUERIES = {
    "securities": SECURITIES,
    "security_names": SECURITY_NAMES,
    "security_code_changes": SECURITY_CODE_CHANGES,
    "index_members": INDEX_MEMBERS,
    "industry_members": INDUSTRY_MEMBERS,
    "trading_calendar": TRADING_CALENDAR,
}
DAYS = {
    "securities": "list_date",
    "security_names": "start_date",
    "security_code_changes": "first_seen_date",
    "index_members": "in_date",
    "industry_members": "in_date",
    "trading_calendar": "trade_date",
}

# Counts worth a note, over the view `written` and the parts; each gives one text or none.
NOTES = {
    "securities": (
        """
        select ts_code || ' has several list dates: '
            || string_agg(list_date || ' (' || votes || ')', ', ' order by votes desc, list_date)
            || '; ' || any_value(taken) || ' taken'
        from (
            select s.ts_code, s.list_date::varchar as list_date, count(*) as votes,
                any_value(w.list_date)::varchar as taken
            from security_snapshots as s inner join written as w using (ts_code)
            where s.list_date is not null group by s.ts_code, s.list_date
        )
        group by ts_code having count(*) > 1
        """,
        """
        select count(*) || ' codes without a known list date' from written
        where list_date is null having count(*) > 0
        """,
        """
        select count(distinct ts_code) || ' delist dates not taken: a later list calls them listed'
        from security_snapshots as s inner join written as w using (ts_code)
        where s.delist_date is not null and w.delist_date is null having count(*) > 0
        """,
    ),
    "security_names": (
        """
        select count(*) || ' names from snapshots: a change is known from the next snapshot on, '
            || 'so marks such as ST may be stale between snapshots'
        from security_snapshots having count(*) > 0
        """,
        """
        select 'of ' || count(*) || ' stock-days on which the bars tell is_st, '
            || count(*) filter (b.is_st <> regexp_matches(plain_name(w.name), 'ST'))
            || ' contradict the mark in the name'
        from daily_bars as b
        inner join written as w on w.ts_code = b.ts_code and w.start_date <= b.trade_date
            and (w.end_date is null or w.end_date > b.trade_date)
        where b.is_st is not null
        having count(*) > 0
        """,
    ),
    "security_code_changes": (
        """
        select count(*) || ' old Beijing codes without a 920 code of the same name'
        from (select distinct ts_code from security_snapshots
            where ts_code like '%.BJ' and ts_code not like '920%')
        where ts_code not in (select old_ts_code from written) having count(*) > 0
        """,
    ),
    "index_members": (
        """
        select distinct index_code || ': out_date read as ' || reading
            || coalesce(', ' || fewest || ' to ' || most || ' members a day', '')
        from span_readings order by 1
        """,
        """
        select index_code || ': spans are used, its monthly listings are not'
        from (select distinct index_code from member_snapshots)
        where index_code in (select index_code from member_spans) order by 1
        """,
        """
        with sizes as (
            select index_code, known_date, count(distinct ts_code) as members
            from member_snapshots group by all
        ),
        listings as (
            select *, lag(members) over w as members_before, lag(known_date) over w as date_before
            from sizes window w as (partition by index_code order by known_date)
        ),
        kept as (
            select now.index_code, now.known_date, count(*) as members_kept
            from member_snapshots as now
            inner join listings as l using (index_code, known_date)
            inner join member_snapshots as before on before.index_code = now.index_code
                and before.ts_code = now.ts_code and before.known_date = l.date_before
            group by all
        )
        select index_code || ': the listing of ' || known_date || ' has ' || members
            || ' members, the one before ' || members_before || ', and '
            || coalesce(members_kept, 0) || ' are in both'
        from listings left join kept using (index_code, known_date)
        where members_before is not null and (
            coalesce(members_kept, 0) < 0.8 * least(members, members_before)
            or abs(members - members_before) > 0.1 * members_before
        )
        order by 1
        """,
    ),
    "industry_members": (
        """
        select count(*) || ' of ' || any_value(total) || ' spans have a code that the table of '
            || 'classes lacks (older lists): names are NULL where no level matches'
        from (select *, count(*) over () as total from written)
        where l3_code is not null and l3_name is null having count(*) > 0
        """,
    ),
    "trading_calendar": (),
}


def view_parts(con: duckdb.DuckDBPyConnection, data_dir: Path) -> dict[str, list[str]]:
    """Show the bars and every kind of part as a view of its name; return the files by kind."""
    files = {}
    for name, kind in KINDS.items():
        if not kind.assembled_into and name != "daily_bars":
            continue
        found = sorted(map(str, (data_dir / daily.folder_of(name)).glob("*.parquet")))
        files[name] = [f for f in found if not Path(f).name.startswith("assembled-")]
        nothing = ", ".join(f"null::{type} as {c}" for c, type in kind.columns.items())
        rows = f"read_parquet([{', '.join(map(quoted, files[name]))}])"
        rows = rows if files[name] else f"(select {nothing} where false)"
        con.execute(f"create or replace temp view {name} as from {rows}")
    con.execute(CODE_CHANGES)
    return files


def digest(parts: list[str]) -> str:
    """Return the hash of the parts' names, which hold the hashes of their sources."""
    names = sorted(Path(part).name for part in parts)
    return hashlib.sha256(json.dumps([ASSEMBLY_VERSION, names]).encode()).hexdigest()


def write(con: duckdb.DuckDBPyConnection, query: str, target: Path, footer: dict[str, str]) -> int:
    """Write a query's rows to `target` in one step; return how many."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    pairs = ", ".join(f"'wavehouse.{key}': {quoted(value)}" for key, value in footer.items())
    try:
        rows = con.execute(
            f"copy ({query}) to {quoted(str(temporary))} "
            f"(format parquet, compression zstd, kv_metadata {{{pairs}}})"
        ).fetchone()[0]
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


def assemble(con: duckdb.DuckDBPyConnection, data_dir: Path) -> Iterator[tuple[str, dict]]:
    """Bring the contract files that come from parts up to date; report each that was written.

    Yields the contract file's folder and the fields of its report.
    """
    files = view_parts(con, data_dir)
    for name, query in QUERIES.items():
        parts = [f for kind, at in files.items() if name in KINDS[kind].assembled_into for f in at]
        sha256 = digest(parts)
        target = data_dir / name / f"assembled-{sha256[:16]}.parquet"
        if target.exists():
            continue
        if not parts:  # the last one was taken out
            for path in (data_dir / name).glob("assembled-*.parquet"):
                path.unlink()
            continue
        if name == "index_members":
            con.execute(SPAN_READINGS)
        footer = {"source": f"{len(parts)} parts in {daily.PARTS}", "source_sha256": sha256}
        rows = write(con, query, target, footer | {"options": '{"format": "assembled"}'})
        earlier = [p for p in target.parent.glob("assembled-*.parquet") if p != target]
        for path in earlier:
            path.unlink()
        status = "replaced" if earlier else "added"
        yield name, report(con, name, target, status, rows, len(parts))
    yield from assemble_bars(con, data_dir, files)


def report(
    con: duckdb.DuckDBPyConnection, name: str, target: Path, status: str, rows: int, parts: int
) -> dict:
    """Return the fields of the report on a contract file."""
    con.execute(f"create or replace temp view written as from read_parquet({quoted(str(target))})")
    columns = [row[0] for row in con.execute("describe written").fetchall()]
    code = next((c for c in ("ts_code", "old_ts_code") if c in columns), "null")
    day = DAYS.get(name, "trade_date")
    symbols, first, last = con.execute(
        f"select count(distinct {code}), epoch_ms(min({day})), epoch_ms(max({day})) from written"
    ).fetchone()
    found = [row[0] for query in NOTES.get(name, ()) for row in con.execute(query).fetchall()]
    return {
        "status": f"{status}, from {parts} parts",
        "rows_read": rows,
        "rows_written": rows,
        "symbols": symbols,
        "first_ms": first,
        "last_ms": last,
        "notes": found,
    }


def assemble_bars(
    con: duckdb.DuckDBPyConnection, data_dir: Path, files: dict[str, list[str]]
) -> Iterator[tuple[str, dict]]:
    """Join adjustment factors to the bars of their days, and add suspended days as bars.

    A bars file is written again when the factors of its days changed: its footer names them.
    """
    folder = data_dir / "daily_bars"
    bars = files["daily_bars"]
    if not bars or not (files["adjustment_factors"] or files["suspended_days"]):
        return
    joined = join_factors(con, bars, files["adjustment_factors"])
    if joined:
        missing, total = con.execute(
            "select count(*) filter (adj_factor is null), count(*) "
            f"from read_parquet([{', '.join(quoted(str(p)) for p in joined)}])"
        ).fetchone()
        yield (
            "daily_bars",
            {
                "status": f"adj_factor joined to {len(joined)} files",
                "rows_read": total,
                "rows_written": total,
                "notes": [f"{missing:,} bars have no adj_factor"] if missing else [],
            },
        )
    if not files["suspended_days"]:
        return
    sha256 = digest([*files["suspended_days"], *bars])
    target = folder / f"assembled-{sha256[:16]}.parquet"
    if target.exists():
        return
    values = {"volume": "0", "amount": "0", "is_suspended": "true", "price_basis": "'unadjusted'"}
    columns = ", ".join(
        f"{values.get(name, 'null')}::{type} as {name}"
        for name, type in KINDS["daily_bars"].columns.items()
        if name not in ("ts_code", "trade_date")
    )
    footer = {"source": "suspended days", "source_sha256": sha256}
    footer["options"] = '{"format": "assembled"}'
    rows = write(con, SUSPENDED_BARS.format(columns=columns), target, footer)
    earlier = [p for p in folder.glob("assembled-*.parquet") if p != target]
    for path in earlier:
        path.unlink()
    yield (
        "daily_bars",
        report(con, "daily_bars", target, "suspended days added as bars", rows, len(bars)),
    )


def join_factors(con: duckdb.DuckDBPyConnection, bars: list[str], factors: list[str]) -> list[Path]:
    """Write those bars files again whose days' factors changed; return them.

    The footer of a bars file names, by a hash, the factor files whose days overlap its own.
    """
    if not factors:
        return []
    footers = con.execute(
        "select file_name, map_from_entries(list((decode(key), decode(value)))) "
        "from parquet_kv_metadata(?) group by file_name",
        [bars],
    ).fetchall()
    ranges = "select filename as file, min(trade_date) as first_day, max(trade_date) as last_day "
    overlaps = con.execute(
        f"""
        with bars as ({ranges} from read_parquet(?, filename = true) group by filename),
        factors as ({ranges} from read_parquet(?, filename = true) group by filename)
        select bars.file, list(factors.file order by factors.file), any_value(bars.first_day),
            any_value(bars.last_day)
        from bars
        inner join factors
            on factors.first_day <= bars.last_day and factors.last_day >= bars.first_day
        group by bars.file
        """,
        [bars, factors],
    ).fetchall()
    of_days = {file: (parts, first, last) for file, parts, first, last in overlaps}
    changed = []
    for file, pairs in footers:
        footer = {key.removeprefix("wavehouse."): value for key, value in pairs.items()}
        if file not in of_days:
            continue
        parts, first, last = of_days[file]
        state = digest(parts)
        if footer.get("adjustment_factors") == state:
            continue
        query = f"""
            with factors as (
                select ts_code, trade_date, max(adj_factor) as adj_factor
                from read_parquet([{", ".join(map(quoted, parts))}])
                where trade_date between '{first}' and '{last}' group by ts_code, trade_date
            )
            select b.* replace (coalesce(f.adj_factor, b.adj_factor) as adj_factor)
            from read_parquet({quoted(file)}) as b
            left join factors as f using (ts_code, trade_date)
            order by b.ts_code, b.trade_date
        """
        write(con, query, Path(file), footer | {"adjustment_factors": state})
        changed.append(Path(file))
    return changed
