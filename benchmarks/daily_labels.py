"""The daily track from gates to labels on a generated market of any size, relation by relation.

    python benchmarks/daily_labels.py                          1,000 stocks x 1,000 days
    python benchmarks/daily_labels.py --stocks 5000 --days 2500 --memory-limit 5GB
    python benchmarks/daily_labels.py --models daily_gates daily_panel main_wave_labels
    python benchmarks/daily_labels.py --next-day               and again with one day more
    python benchmarks/daily_labels.py --next-day --compare     and compared with full builds

The market is made by SQL: a random walk whose volatility comes in clusters, suspensions, listings
inside the window, delistings, ST spells, ex-right days. Staging relations are written straight into
a warehouse file; every other relation is its model's SQL with its hooks, rendered as the tests do,
run in the order given in a process of its own. CPU seconds are user plus system, peak memory is
that process's. Relations without an incremental form are built in full on the next day too.
"""

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "python"))
from daily_incremental_models import SEEDS, RenderedModel
from daily_sql import load_seed

MODELS = [
    "daily_day_hashes",
    "daily_built_days",
    "daily_gates",
    "universe_members",
    "price_limits",
    "entry_eligibility",
    "daily_panel",
    "forward_return_exits",
    "forward_return_benchmarks",
    "forward_returns",
    "main_wave_labels",
    "main_wave_episodes",
    "wave_proximity_targets",
    "event_benchmarks",
    "daily_event_inputs",
    "directional_changes",
    "excess_adaptive_events",
    "trend_scanning_events",
    "triple_barrier_events",
    "directional_change_events",
    "label_events",
    "event_thresholds",
    "excess_adaptive_labels",
    "trend_scanning_labels",
    "triple_barrier_labels",
    "directional_change_labels",
    "anchor_labels",
    "daily_label_manifest",
    "daily_label_distribution",
]
# dates, as for any warehouse that grows: a share of the days would find other thresholds each day
FIT_WINDOW = {"daily_fit_start": "2015-01-05", "daily_fit_end": "2017-06-30"}
SETTINGS = """
    set enable_progress_bar = false;
    set disabled_optimizers = 'column_lifetime';
    set threads = {threads};
    set memory_limit = '{memory_limit}'
"""

# One statement a relation. {stocks}, {days} and {seed} are filled in; `draw` is uniform on (0, 1)
# and the same for the same stock, day and name, and sums are of whole numbers, so that one day more
# leaves the others alone.
MARKET = """
    create schema if not exists staging;

    create or replace macro draw(stock, day, name) as
        (hash(stock, day, name, {seed}) >> 12)::double / 4503599627370496.0 + 1e-16;
    create or replace macro draw_normal(stock, day, name) as
        sqrt(-2 * ln(draw(stock, day, name || ' radius')))
        * cos(2 * pi() * draw(stock, day, name || ' angle'));

    create or replace table staging.stg_trading_calendar as
    select
        trade_date,
        trading_day,
        lag(trade_date) over (order by trade_date) as previous_trade_date,
        lead(trade_date) over (order by trade_date) as next_trade_date
    from (
        select
            day::date as trade_date,
            row_number() over (order by day)::integer as trading_day
        from generate_series(
            date '2015-01-05', date '2015-01-05' + {days} * 2, interval 1 day
        ) as days (day)
        where isodow(day) <= 5
        order by day
        limit {days}
    )
    order by trade_date;

    create or replace temp table stocks as
    select
        printf('%06d.%s', case when stock % 2 = 0 then 600000 + stock // 2 else stock // 2 end,
            case when stock % 2 = 0 then 'SH' else 'SZ' end) as ts_code,
        stock,
        case when draw(stock, 0, 'listed late') < 0.3
            then (draw(stock, 0, 'list day') * {horizon})::integer + 1 else 1 end as first_day,
        case when draw(stock, 0, 'delisted') < 0.05
            then (draw(stock, 0, 'delist day') * {horizon})::integer + 100 end as last_day
    from range({stocks}) as stocks (stock);

    create or replace table staging.stg_securities as
    select
        stocks.ts_code,
        'Stock ' || stocks.stock as name,
        right(stocks.ts_code, 2) as exchange,
        case when stocks.first_day = 1 then date '2010-01-04' else first_days.trade_date end
            as list_date,
        last_days.next_trade_date as delist_date
    from stocks
    inner join staging.stg_trading_calendar as first_days
        on stocks.first_day = first_days.trading_day
    left join staging.stg_trading_calendar as last_days on stocks.last_day = last_days.trading_day
    order by ts_code;

    create or replace table staging.stg_security_names (
        ts_code varchar, name varchar, start_date date, end_date date,
        is_st_name boolean, is_delisting_name boolean
    );

    create or replace table staging.stg_index_members as
    select
        case
            when stock < 300 then '000300.SH'
            when stock < 800 then '000905.SH'
            else '000852.SH'
        end as index_code,
        ts_code,
        date '2010-01-04' as in_date,
        null::date as out_date
    from stocks
    where stock < 1800;

    create or replace table staging.stg_daily_bars as
    with moves as (
        select
            stocks.ts_code,
            days.trade_date,
            days.trading_day,
            stocks.stock,
            -- a calm or a rough month, for the market and for the stock
            0.008 * exp(
                0.5 * draw_normal(-1, days.trading_day // 40, 'market volatility')
                + 0.4 * draw_normal(stocks.stock, days.trading_day // 20, 'volatility')
            ) as volatility,
            0.012 * draw_normal(-1, days.trading_day, 'market')
                * exp(0.5 * draw_normal(-1, days.trading_day // 40, 'market volatility'))
                as market_move
        from stocks
        inner join staging.stg_trading_calendar as days
            on days.trading_day >= stocks.first_day
                and days.trading_day <= coalesce(stocks.last_day, 1000000)
        -- spells of up to twenty days without a bar
        where draw(stocks.stock, days.trading_day // 20, 'suspended') >= 0.015
    ),
    walked as (
        select
            *,
            greatest(-0.1, least(0.1,
                market_move + 1.5 * volatility * draw_normal(stock, trading_day, 'own')
                + 0.0003
            )) as move,
            case when draw(stock, trading_day, 'ex-right') < 0.004 then 0.97 else 1 end
                as ex_right
        from moves
    ),
    priced as (
        select
            *,
            -- pulled back towards its first price so that ten years stay in a plausible range
            10 * exp(tanh(sum((ln(1 + move) * 1e12)::bigint) over per_stock / 4e12) * 4)
                as adjusted,
            exp(-sum((ln(ex_right) * 1e12)::bigint) over per_stock / 1e12) as adj_factor
        from walked
        window per_stock as (partition by ts_code order by trading_day)
    ),
    closed as (
        select *, greatest(round(adjusted / adj_factor, 2), 0.02) as close from priced
    )
    select
        ts_code,
        trade_date,
        round(close * (1 + 0.5 * volatility * draw_normal(stock, trading_day, 'open')), 2) as open,
        greatest(round(close * (1 + volatility * draw(stock, trading_day, 'high')), 2),
            round(close * (1 + 0.5 * volatility * draw_normal(stock, trading_day, 'open')), 2))
            as high,
        least(round(close * (1 - volatility * draw(stock, trading_day, 'low')), 2),
            round(close * (1 + 0.5 * volatility * draw_normal(stock, trading_day, 'open')), 2))
            as low,
        close,
        round(lag(close * adj_factor) over per_stock / adj_factor, 2) as pre_close,
        close * adj_factor / lag(close * adj_factor) over per_stock - 1 as pct_chg,
        round(2e7 * exp(draw_normal(stock, trading_day, 'volume'))) as volume,
        round(close * 2e7 * exp(draw_normal(stock, trading_day, 'volume')), 2) as amount,
        round(0.02 * exp(draw_normal(stock, trading_day, 'volume')), 6) as turnover,
        adj_factor,
        'given' as adj_factor_source,
        false as is_suspended,
        draw(stock, trading_day // 250, 'st') < 0.03 as is_st,
        'unadjusted' as price_basis,
        'ok' as data_quality_flag,
        1 as duplicate_count,
        'generated' as source_file
    from closed
    window per_stock as (partition by ts_code order by trading_day)
    order by ts_code, trade_date;

    create or replace table staging.stg_index_daily as
    with moves as (
        select
            *,
            0.012 * draw_normal(-1, trading_day, 'market')
                * exp(0.5 * draw_normal(-1, trading_day // 40, 'market volatility')) as move
        from staging.stg_trading_calendar
    ),
    closed as (
        select
            trade_date,
            move,
            3000 * exp(tanh(sum((ln(1 + move) * 1e12)::bigint) over (order by trade_date) / 1e12))
                as close
        from moves
    )
    select
        '000300.SH' as ts_code,
        trade_date,
        close / (1 + move / 2) as open,
        close * 1.01 as high,
        close * 0.99 as low,
        close,
        1e10 as volume,
        1e11 as amount,
        move as pct_chg
    from closed
    order by trade_date;

    create or replace table staging.stg_industry_members as
    select
        ts_code,
        printf('%06d', stock % 300) as industry_code,
        printf('%02d0000', stock % 30) as l1_code,
        'Sector ' || stock % 30 as l1_name,
        printf('%04d00', stock % 120) as l2_code,
        'Group ' || stock % 120 as l2_name,
        printf('%06d', stock % 300) as l3_code,
        'Industry ' || stock % 300 as l3_name,
        date '2010-01-01' as in_date,
        null::date as out_date
    from stocks
    order by ts_code;

    create or replace table staging.stg_daily_basic as
    select
        ts_code,
        trade_date,
        turnover,
        close * 1e9 as market_cap_cny,
        close * 6e8 as float_market_cap_cny
    from staging.stg_daily_bars
    order by ts_code, trade_date;

    drop table stocks;
    drop macro draw;
    drop macro draw_normal
"""


@dataclass(frozen=True)
class Cost:
    """What building one relation took."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    rows: int


def market_sql(stocks: int, days: int, seed: int, horizon: int | None = None) -> str:
    """Statements that write the staging relations of a generated market.

    Args:
        stocks: how many.
        days: trading days of the calendar.
        seed: decides everything.
        horizon: days over which listings and delistings are spread; `days` when not given. Keep
            it fixed to add days to a market without changing those before.
    """
    return MARKET.format(stocks=stocks, days=days, seed=seed, horizon=horizon or days)


def settings_sql(threads: int, memory_limit: str) -> str:
    """Session settings of every measured statement."""
    return SETTINGS.format(threads=threads, memory_limit=memory_limit)


def make_market(warehouse: Path, options: argparse.Namespace, days: int) -> None:
    """Write the generated market into the file."""
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute(settings_sql(options.threads, options.memory_limit))
        connection.execute(market_sql(options.stocks, days, options.seed, options.days))


def load_seeds(warehouse: Path) -> None:
    """Write the seeds that the universe reads into the file."""
    with duckdb.connect(str(warehouse)) as connection:
        for seed in SEEDS:
            load_seed(connection, seed)


def build(warehouse: Path, model: RenderedModel, threads: int, memory_limit: str) -> int:
    """Build the relation as dbt would, a view also read through once; return its row count."""
    schema, name = model.relation.split(".")
    with (
        tempfile.TemporaryDirectory(dir=warehouse.parent) as scratch,
        duckdb.connect(str(warehouse)) as connection,
    ):
        connection.execute(settings_sql(threads, memory_limit))
        connection.execute(f"set temp_directory = '{scratch}'")
        connection.execute(f"create schema if not exists {schema}")
        is_there = connection.execute(
            "from duckdb_tables() where schema_name = ? and table_name = ?", [schema, name]
        ).fetchall()
        kind = model.config.get("materialized", "table")
        before, select, after = model.statements(bool(is_there) and kind == "incremental")
        connection.execute("begin")
        connection.execute(before)
        if kind == "view":
            connection.execute(f"create or replace view {model.relation} as {select}")
            # every column of every row, and nothing written
            connection.execute(f"select max(columns(*)) from {model.relation}")
        elif is_there and kind == "incremental":
            connection.execute(f"create temp table new_rows as {select}")
            connection.execute(f"insert into {model.relation} by name from new_rows")
        else:
            connection.execute(f"create or replace table {model.relation} as {select}")
        connection.execute(after)
        connection.execute("commit")
        return connection.execute(f"select count(*) from {model.relation}").fetchall()[0][0]


def differences(warehouse: Path, model: RenderedModel, threads: int, memory_limit: str) -> int:
    """Rows that differ between the table and its full SQL, by two sums of row hashes."""
    with (
        tempfile.TemporaryDirectory(dir=warehouse.parent) as scratch,
        duckdb.connect(str(warehouse), read_only=True) as connection,
    ):
        connection.execute(settings_sql(threads, memory_limit))
        connection.execute(f"set temp_directory = '{scratch}'")
        sums = [
            connection.execute(
                f"select count(*), sum(hash(r)::hugeint) from ({rows}) as r"
            ).fetchall()
            for rows in (f"from {model.relation}", model.statements(False)[1])
        ]
    return int(sums[0] != sums[1])


def _measured(connection, arguments):
    """Run in a process of its own and send back what it took."""
    warehouse, name, *limits = arguments
    model = RenderedModel(name, FIT_WINDOW)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    rows = build(warehouse, model, *limits)
    wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    connection.send(Cost(cpu_s, wall_s, after.ru_maxrss / 1024, rows))


def measure(*arguments) -> Cost:
    """Cost of `build` in a process of its own; its imports are in the memory alone."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measured, args=(theirs, arguments))
    process.start()
    theirs.close()
    try:
        cost = ours.recv()
    except EOFError:
        raise SystemExit(f"{arguments[1]} was not built: see above") from None
    process.join()
    return cost


def measure_all(warehouse: Path, options: argparse.Namespace) -> dict[str, Cost]:
    """Build relation after relation and print a line for each."""
    print(
        f"{'relation':<28}{'rows':>12}{'CPU s':>9}{'wall s':>9}{'CPU s per million':>20}"
        f"{'peak MiB':>10}"
    )
    costs = {}
    for name in options.models:
        cost = measure(warehouse, name, options.threads, options.memory_limit)
        costs[name] = cost
        print(
            f"{name:<28}{cost.rows:>12,}{cost.cpu_s:>9.1f}{cost.wall_s:>9.1f}"
            f"{cost.cpu_s / max(cost.rows, 1) * 1e6:>20.2f}{cost.peak_mib:>10,.0f}",
            flush=True,
        )
    print(
        f"{'all':<28}{'':>12}{sum(cost.cpu_s for cost in costs.values()):>9.1f}"
        f"{sum(cost.wall_s for cost in costs.values()):>9.1f}{'':>20}"
        f"{max(cost.peak_mib for cost in costs.values()):>10,.0f}\n",
        flush=True,
    )
    return costs


def compare(warehouse: Path, options: argparse.Namespace) -> None:
    """Say which incremental relations are not what their full SQL gives."""
    for name in options.models:
        model = RenderedModel(name, FIT_WINDOW)
        if model.config.get("materialized") == "incremental" and name != "daily_built_days":
            differs = differences(warehouse, model, options.threads, options.memory_limit)
            print(f"{name:<28}{'DIFFERS from' if differs else 'equals'} a full build", flush=True)


def main() -> None:
    """Make the market, build the relations, with --next-day once more."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stocks", type=int, default=1_000)
    parser.add_argument("--days", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-limit", default="4GB", help="of DuckDB")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--next-day", action="store_true", help="also with one day added")
    parser.add_argument("--compare", action="store_true", help="with full builds, at the end")
    parser.add_argument("--folder", type=Path, help="keep the warehouse here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        warehouse = folder / "warehouse.duckdb"
        load_seeds(warehouse)
        costs = []
        for days in [options.days] + [options.days + 1] * options.next_day:
            start = time.perf_counter()
            make_market(warehouse, options, days)
            print(
                f"{options.stocks:,} stocks x {days:,} days, made in"
                f" {time.perf_counter() - start:.0f} s",
                flush=True,
            )
            costs.append(measure_all(warehouse, options))
        if options.next_day:
            print("CPU s of one day more as a share of all days")
            for model in options.models:
                share = costs[1][model].cpu_s / costs[0][model].cpu_s
                print(f"{model:<28}{share:>8.0%}")
        if options.compare:
            compare(warehouse, options)


if __name__ == "__main__":
    main()
