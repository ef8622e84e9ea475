"""All factors to Parquet, one factor from a view, one day more, and ten factors against polars.

    pip install polars                                       the reference, needed for this alone
    python benchmarks/factors.py                             1,000 stocks x 500 days
    python benchmarks/factors.py --stocks 3000 --days 750    takes some fifteen minutes
    python benchmarks/factors.py --every                     only each factor of both families alone

Each measurement runs in a process of its own over the same made-up market, DuckDB with a memory
limit of 5 GB. CPU seconds are user plus system of the measured part, planning included; the peak is
of the whole process. The ten factors are written in polars as one would from the formula; both
sides must give the same values. One day more must give what the whole history gives.
"""

import argparse
import json
import math
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb

from wavehouse.factors import program
from wavehouse.factors.catalog import WARM_UP, factor_sql, read_catalog
from wavehouse.factors.expression import columns, walk

PROJECT = Path(__file__).parents[1]
PRICE_FAMILIES = ("alpha101", "gtja191")
ALONE = ("alpha_012", "alpha_006", "alpha_013", "alpha_040", "gtja_042", "gtja_067", "gtja_191")
TEN = ("alpha_002", "alpha_003", "alpha_004", "alpha_006", "alpha_012", "alpha_013", "alpha_033",
       "alpha_040", "alpha_044", "alpha_101")  # fmt: skip


def connect(path: Path, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open the market as the warehouse's own connections do."""
    con = duckdb.connect(str(path), read_only=read_only)
    con.execute("set memory_limit = '5GB'; set threads = 2; set enable_progress_bar = false")
    con.execute("set disabled_optimizers = 'column_lifetime'")
    return con


def make_market(path: Path, stocks: int, days: int) -> None:
    """Write the table `inputs`: random walks of stocks that trade every day."""
    catalog = read_catalog(PROJECT)
    given = {"returns", "industry_l1", "industry_l2", "industry_l3", "close"}
    made = {
        "open": "close * (0.99 + 0.02 * random())",
        "high": "close * (1.01 + 0.02 * random())",
        "low": "close * (0.99 - 0.02 * random())",
        "volume": "round(exp(12 + 2 * random()), -2)",
        "amount": "exp(14 + 2 * random())",
        "vwap": "close * (0.995 + 0.01 * random())",
        "market_cap": "close * exp(20 + stock % 7)",
    }
    others = [name.replace(".", "__") for name in catalog.columns() if name not in given]
    listed = ", ".join(f"{made.get(name, 'random()')} as {name}" for name in others)
    with duckdb.connect(str(path)) as con:
        con.execute("set threads = 1; select setseed(0.5)")
        con.execute(f"""
            create table inputs as
            select
                printf('%06d', stock) as ts_code,
                date '2020-01-01' + day::integer as trade_date,
                stock::integer as stock_number,
                day + 1 as stock_row,
                {stocks}::bigint as day_rows,
                true as in_universe,
                close,
                close / lag(close) over (partition by stock order by day) - 1 as returns,
                (stock % 30)::varchar as industry_l1,
                (stock % 90)::varchar as industry_l2,
                (stock % 180)::varchar as industry_l3,
                {listed}
            from (
                select *, 20 * exp(sum(0.04 * random() - 0.02) over per_stock) as close
                from (
                    select i // {days} as stock, i % {days} as day
                    from range({stocks * days}) as t(i)
                )
                window per_stock as (partition by stock order by day)
            )
            order by ts_code, stock_row
        """)


def planned(names: list[str]) -> program.Program:
    """The program of some factors."""
    expressions = {each.factor_id: each.expression for each in read_catalog(PROJECT).factors}
    chosen = {name: expressions[name] for name in names}
    return program.Program(chosen, {name: WARM_UP.get(name) for name in columns(*chosen.values())})


def run(con: duckdb.DuckDBPyConnection, steps: list[program.Step]) -> None:
    """Execute every statement."""
    for step in steps:
        for statement in step.statements:
            con.execute(statement)


def all_to_parquet(path: Path, folder: Path, names: list[str]) -> dict:
    """Every factor of every row to Parquet, and what is kept for the next day."""
    with connect(path) as con:
        steps, tables, state = program.history(planned(names), "inputs")
        run(con, steps)
        con.execute(f"create temp table kept as {state}")
        source = " positional join ".join(("factor_base", *tables))
        con.execute(f"""
            copy (select ts_code, trade_date, {", ".join(names)} from {source})
            to '{folder / "factors.parquet"}' (compression zstd, parquet_version v2)
        """)
    return {"factors": len(names)}


def put_view(con: duckdb.DuckDBPyConnection, family: str) -> list[str]:
    """The view of a family over the market; its factors."""
    catalog = read_catalog(PROJECT)
    factors = catalog.of_family(family)
    whole = factor_sql(catalog, factors, "inputs", "duckdb")
    con.execute(f"create temp view {family} as {whole}")
    return list(factors)


def query_alone(con: duckdb.DuckDBPyConnection, family: str, name: str) -> dict:
    """One factor as a query of its family's view computes it."""
    started, cpu = time.perf_counter(), time.process_time()
    con.execute(
        f"create or replace temp table found as select ts_code, trade_date, {name} from {family}"
    )
    return {"wall_s": time.perf_counter() - started, "query_cpu_s": time.process_time() - cpu}


def one_alone(path: Path, folder: Path, names: list[str]) -> dict:
    """The first of the names alone."""
    family = next(
        each.family for each in read_catalog(PROJECT).factors if each.factor_id == names[0]
    )
    with connect(path) as con:
        put_view(con, family)
        return query_alone(con, family, names[0])


def every_alone(path: Path, folder: Path, names: list[str]) -> dict:
    """Each factor of the price families alone: {factor: seconds}."""
    with connect(path) as con:
        listed = {name: family for family in PRICE_FAMILIES for name in put_view(con, family)}
        return {"views_s": {n: query_alone(con, f, n)["wall_s"] for n, f in listed.items()}}


def day_more(path: Path, folder: Path, names: list[str]) -> dict:
    """The last day computed from what was kept of the days before it."""
    made = planned(names)
    expressions = made.factors
    with connect(path) as con:
        steps, tables, state = program.history(made, "inputs")
        run(con, steps)
        source = " positional join ".join(("factor_base", *tables))
        last = "(select max(trade_date) from inputs)"
        con.execute(f"""
            create temp table whole as
            select ts_code, {", ".join(names)} from {source} where trade_date = {last}
        """)
        before = f"(select * from inputs where trade_date < {last})"
        steps, _, state = program.history(made, before)
        run(con, steps)
        con.execute(f"create table state as {state}")
        steps, table, state = program.next_day(made, "inputs", "state", last)
        cpu = time.process_time()
        run(con, steps)
        con.execute(f"create temp table day as select * from factor_today positional join {table}")
        con.execute(f"create or replace table state as {state}")
        cpu = time.process_time() - cpu
        apart, beyond = 0, 0
        for name in names:
            carries = any(node.op in ("sma", "self") for node in walk(expressions[name]))
            differ, far = con.execute(f"""
                select
                    count(*) filter (day.{name} is distinct from whole.{name}),
                    count(*) filter (
                        (day.{name} is null) <> (whole.{name} is null)
                        or abs(day.{name} - whole.{name})
                        > 1e-9 * greatest(abs(day.{name}), abs(whole.{name}))
                    )
                from day join whole using (ts_code)
            """).fetchall()[0]
            apart += 0 if carries else differ
            beyond += far
        return {"day_cpu_s": cpu, "cells_not_to_the_bit": apart, "cells_beyond_1e-9": beyond}


def ten_by_program(path: Path, folder: Path, names: list[str]) -> dict:
    """Ten factors as the panel computes them."""
    return all_to_parquet(path, folder, names)


def ten_by_polars(path: Path, folder: Path, names: list[str]) -> dict:
    """Ten factors as one would write them in polars, formula by formula."""
    import polars as pl

    stock, day = "ts_code", "trade_date"
    open_, high, low, close, volume = map(pl.col, ("open", "high", "low", "close", "volume"))

    def rank(x: pl.Expr) -> pl.Expr:
        x = x * 8193 - (x * 8193 - x)  # to 40 bits, as we do: float noise decides no tie
        return (x.rank("average") / x.count()).over(day)

    def corr(x: str, y: str, rows: int) -> pl.Expr:
        return pl.rolling_corr(pl.col(x), pl.col(y), window_size=rows).over(stock)

    with connect(path, read_only=True) as con:
        frame = con.sql(
            "select ts_code, trade_date, open, high, low, close, volume from inputs"
            " order by ts_code, trade_date"
        ).pl()
    frame = frame.with_columns(
        (volume.log() - volume.log().shift(2)).over(stock).alias("volume_change"),
        rank((close - open_) / open_).alias("rank_of_body"),
        rank(open_).alias("rank_of_open"),
        rank(volume).alias("rank_of_volume"),
        rank(low).alias("rank_of_low"),
        rank(close).alias("rank_of_close"),
    ).with_columns(rank(pl.col("volume_change")).alias("rank_of_change"))
    frame = frame.with_columns(
        pl.rolling_cov(
            pl.col("rank_of_close"), pl.col("rank_of_volume"), window_size=5, ddof=1
        ).over(stock).round(12).alias("covariance"),
        high.rolling_std(10).over(stock).alias("deviation"),
    )  # fmt: skip
    found = frame.select(
        stock,
        day,
        (-corr("rank_of_change", "rank_of_body", 6)).alias("alpha_002"),
        (-corr("rank_of_open", "rank_of_volume", 10)).alias("alpha_003"),
        (-(pl.col("rank_of_low").rolling_rank(9, "average").over(stock) / 9)).alias("alpha_004"),
        (-corr("open", "volume", 10)).alias("alpha_006"),
        (volume.diff().sign() * -close.diff()).over(stock).alias("alpha_012"),
        (-rank(pl.col("covariance"))).alias("alpha_013"),
        rank(-(1 - open_ / close)).alias("alpha_033"),
        (-rank(pl.col("deviation")) * corr("high", "volume", 10)).alias("alpha_040"),
        (-corr("high", "rank_of_volume", 5)).alias("alpha_044"),
        ((close - open_) / (high - low + 0.001)).alias("alpha_101"),
    )
    found.write_parquet(folder / "polars.parquet")
    return {}


def _measured(work: Callable, path: Path, folder: Path, names: list[str], answer) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    found = work(path, folder, names)
    found = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - started} | found
    found["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    answer.put(json.dumps(found))


def measure(work: Callable, path: Path, folder: Path, names: list[str]) -> dict:
    """What a piece of work takes in a fresh process."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_measured, args=(work, path, folder, names, answer))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{work.__name__} failed with {process.exitcode}")
    return json.loads(answer.get())


def apart_from_polars(folder: Path) -> dict[str, int]:
    """Cells per factor that both sides know and that lie apart, or that one alone knows."""
    ours, theirs = (folder / name for name in ("factors.parquet", "polars.parquet"))
    found = {}
    for name in TEN:
        known = f"isfinite(theirs.{name})"
        found[name] = duckdb.sql(f"""
            select count(*) filter (
                ({known} and ours.{name} is not null and abs(ours.{name} - theirs.{name}) > 1e-7)
                or coalesce({known}, false) <> (ours.{name} is not null)
            )
            from '{ours}' as ours join '{theirs}' as theirs using (ts_code, trade_date)
        """).fetchall()[0][0]
    return {name: count for name, count in found.items() if count}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stocks", type=int, default=1_000)
    parser.add_argument("--days", type=int, default=500)
    parser.add_argument("--every", action="store_true", help="time each factor's view, no more")
    chosen = parser.parse_args()
    catalog = read_catalog(PROJECT)
    families = {name: list(catalog.of_family(name)) for name in PRICE_FAMILIES}
    price = [name for names in families.values() for name in names]
    print(f"{chosen.stocks:,} stocks x {chosen.days:,} days", flush=True)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = folder / "market.duckdb"
        make_market(path, chosen.stocks, chosen.days)
        if chosen.every:
            took = measure(every_alone, path, folder, price)["views_s"]
            slowest = sorted(took, key=took.get, reverse=True)
            print(
                f"{len(took)} factors, each from its view: {statistics.mean(took.values()):.2f} s,"
                f" {sum(wall < 2 for wall in took.values())} under 2 s; the slowest"
                f" {', '.join(f'{name} {took[name]:.1f} s' for name in slowest[:5])}"
            )
            return
        whole = math.inf
        for title, names in (("alpha101", families["alpha101"]), ("all of price", price)):
            found = measure(all_to_parquet, path, folder, names)
            whole = found["cpu_s"]
            print(
                f"{title}, {len(names)} factors to Parquet: {whole:.1f} CPU-s,"
                f" {found['wall_s']:.1f} s, peak {found['peak_gib']:.1f} GiB", flush=True,
            )  # fmt: skip
        found = measure(day_more, path, folder, price)
        print(
            f"one day more: {found['day_cpu_s']:.1f} CPU-s, {found['day_cpu_s'] / whole:.1%} of the"
            f" whole; cells that differ in a bit {found['cells_not_to_the_bit']}, by more than 1e-9"
            f" {found['cells_beyond_1e-9']}", flush=True,
        )  # fmt: skip
        for name in ALONE:
            found = measure(one_alone, path, folder, [name])
            print(
                f"{name} from its view: {found['wall_s']:.2f} s, {found['query_cpu_s']:.2f} CPU-s",
                flush=True,
            )
        ours = measure(ten_by_program, path, folder, list(TEN))["cpu_s"]
        theirs = measure(ten_by_polars, path, folder, list(TEN))["cpu_s"]
        print(f"ten factors: {ours:.1f} CPU-s, polars {theirs:.1f}: ratio {theirs / ours:.1f}")
        print(f"cells apart from polars: {apart_from_polars(folder) or 'none'}")


if __name__ == "__main__":
    main()
