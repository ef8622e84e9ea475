"""Daily panel and labels on a generated market of any size, relation by relation.

    python benchmarks/daily_labels.py                          1,000 stocks x 1,000 days
    python benchmarks/daily_labels.py --stocks 5000 --days 2500 --memory-limit 8GB
    python benchmarks/daily_labels.py --models daily_panel main_wave_labels
    python benchmarks/daily_labels.py --next-day               and again with one day more

The market is made by SQL: a random walk whose volatility comes in clusters, suspensions, listings
inside the window, delistings, ex-right days. Staging and universe relations are written straight
into a warehouse file; every other relation is dbt's own compiled SQL, run in the order of the
graph in a process of its own. CPU seconds are user plus system, peak memory is that process's.
A relation of another floor is plugged in by naming its model; what it reads must be there, made
above or named as well.
"""

import argparse
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import duckdb

REPO = Path(__file__).parents[1]
MODELS = [
    "daily_panel",
    "forward_return_exits",
    "forward_return_benchmarks",
    "forward_returns",
    "main_wave_labels",
    "main_wave_episodes",
    "wave_proximity_targets",
]
SETTINGS = """
    set enable_progress_bar = false;
    set disabled_optimizers = 'column_lifetime';
    set threads = {threads};
    set memory_limit = '{memory_limit}'
"""

# One statement a relation. {stocks}, {days} and {seed} are filled in; `draw` is uniform on (0, 1)
# and the same for the same stock, day and name, so that one day more leaves the others alone.
MARKET = """
    create schema if not exists staging;
    create schema if not exists universe;

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

    create or replace table staging.stg_securities as
    select
        printf('%06d.%s', case when stock % 2 = 0 then 600000 + stock // 2 else stock // 2 end,
            case when stock % 2 = 0 then 'SH' else 'SZ' end) as ts_code,
        stock,
        'Stock ' || stock as name,
        case when stock % 2 = 0 then 'SH' else 'SZ' end as exchange,
        case when draw(stock, 0, 'listed late') < 0.3
            then (draw(stock, 0, 'list day') * {horizon})::integer else 1 end as first_day,
        case when draw(stock, 0, 'delisted') < 0.05
            then (draw(stock, 0, 'delist day') * {horizon})::integer + 100 end as last_day
    from range({stocks}) as stocks (stock)
    order by ts_code;

    create or replace table universe.daily_gates as
    select
        securities.ts_code,
        calendar.trade_date,
        calendar.trading_day,
        case when securities.exchange = 'SH' then 'MAIN_SH' else 'MAIN_SZ' end as board,
        calendar.trading_day - securities.first_day as days_since_listing,
        true as data_ok,
        true as main_board,
        calendar.trading_day - securities.first_day >= 60 as listed,
        true as not_delisted,
        draw(securities.stock, calendar.trading_day // 250, 'st') >= 0.03 as not_st,
        -- spells of up to twenty days
        draw(securities.stock, calendar.trading_day // 20, 'suspended') >= 0.015
            as not_suspended,
        true as is_st_known,
        calendar.trading_day - securities.first_day >= 60
            and draw(securities.stock, calendar.trading_day // 250, 'st') >= 0.03
            and draw(securities.stock, calendar.trading_day // 20, 'suspended') >= 0.015
            as passes_all
    from staging.stg_securities as securities
    inner join staging.stg_trading_calendar as calendar
        on calendar.trading_day >= securities.first_day
            and calendar.trading_day <= coalesce(securities.last_day, 1000000)
    order by ts_code, trade_date;

    create or replace table staging.stg_daily_bars as
    with moves as (
        select
            gates.ts_code,
            gates.trade_date,
            gates.trading_day,
            securities.stock,
            -- a calm or a rough month, for the market and for the stock
            0.008 * exp(
                0.5 * draw_normal(-1, gates.trading_day // 40, 'market volatility')
                + 0.4 * draw_normal(securities.stock, gates.trading_day // 20, 'volatility')
            ) as volatility,
            0.012 * draw_normal(-1, gates.trading_day, 'market')
                * exp(0.5 * draw_normal(-1, gates.trading_day // 40, 'market volatility'))
                as market_move
        from universe.daily_gates as gates
        inner join staging.stg_securities as securities using (ts_code)
        where gates.not_suspended
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
            10 * exp(tanh(sum(ln(1 + move)) over per_stock / 4) * 4) as adjusted,
            exp(-sum(ln(ex_right)) over per_stock) as adj_factor
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
        lag(close * adj_factor) over per_stock / adj_factor as pre_close,
        close * adj_factor / lag(close * adj_factor) over per_stock - 1 as pct_chg,
        round(2e7 * exp(draw_normal(stock, trading_day, 'volume'))) as volume,
        round(close * 2e7 * exp(draw_normal(stock, trading_day, 'volume')), 2) as amount,
        round(0.02 * exp(draw_normal(stock, trading_day, 'volume')), 6) as turnover,
        adj_factor,
        'given' as adj_factor_source,
        false as is_suspended,
        false as is_st,
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
            3000 * exp(tanh(sum(ln(1 + move)) over (order by trade_date))) as close
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
    from staging.stg_securities
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

    create or replace table universe.entry_eligibility as
    with days as (
        select
            gates.ts_code,
            gates.trade_date,
            gates.passes_all,
            bars.close is not null as is_traded,
            coalesce(abs(bars.pct_chg), 0) < 0.098 as is_inside_limits
        from universe.daily_gates as gates
        left join staging.stg_daily_bars as bars using (ts_code, trade_date)
    )
    select
        ts_code,
        trade_date,
        lead(is_traded) over per_stock as may_buy_next_open,
        lead(is_traded and is_inside_limits) over per_stock as may_buy_next_close,
        is_traded as may_sell_at_open,
        is_traded and is_inside_limits as may_sell_at_close,
        lead(trade_date) over per_stock as next_trade_date,
        lead(trade_date, 2) over per_stock as first_sell_date,
        passes_all as decision_eligible
    from days
    window per_stock as (partition by ts_code order by trade_date)
    order by ts_code, trade_date;

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
    """Statements that write the staging and universe relations of a generated market.

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


def compiled_models(folder: Path, warehouse: Path, names: list[str]) -> list[dict]:
    """The named models in the order of the graph: relation, SQL, materialization."""
    command = [str(Path(sys.executable).with_name("dbt")), "--quiet", "compile", "--full-refresh"]
    command += ["--target-path", str(folder / "target"), "--log-path", str(folder / "logs")]
    command += ["--select", *names]
    environment = {**os.environ, "WAREHOUSE_DB": str(warehouse), "WAREHOUSE_DATA": str(folder)}
    environment["PYTHONPATH"] = str(REPO / "python")
    subprocess.run(command, cwd=REPO, env=environment, check=True, stdout=subprocess.DEVNULL)
    nodes = json.loads((folder / "target" / "manifest.json").read_text())["nodes"]
    wanted = {key: node for key, node in nodes.items() if node["name"] in names}
    unknown = set(names) - {node["name"] for node in wanted.values()}
    if unknown:
        raise SystemExit(f"no model is named {', '.join(sorted(unknown))}")
    ordered: list[dict] = []
    while wanted:
        ready = [
            key
            for key, node in wanted.items()
            if not wanted.keys() & set(node["depends_on"]["nodes"])
        ]
        for key in sorted(ready):
            node = wanted.pop(key)
            ordered.append(
                {
                    "relation": f"{node['schema']}.{node['name']}",
                    "schema": node["schema"],
                    "is_view": node["config"]["materialized"] == "view",
                    "sql": (
                        folder / "target/compiled/wavehouse" / node["original_file_path"]
                    ).read_text(),
                }
            )
    return ordered


def build(warehouse: Path, model: dict, threads: int, memory_limit: str) -> int:
    """Create the relation as dbt would, a view also read through once; return its row count."""
    with (
        tempfile.TemporaryDirectory(dir=warehouse.parent) as scratch,
        duckdb.connect(str(warehouse)) as connection,
    ):
        connection.execute(settings_sql(threads, memory_limit))
        connection.execute(f"set temp_directory = '{scratch}'")
        connection.execute(f"create schema if not exists {model['schema']}")
        kind = "view" if model["is_view"] else "table"
        connection.execute(f"create or replace {kind} {model['relation']} as {model['sql']}")
        if model["is_view"]:
            # every column of every row, and nothing written
            connection.execute(f"select max(columns(*)) from {model['relation']}")
        return connection.execute(f"select count(*) from {model['relation']}").fetchone()[0]


def _measured(connection, arguments):
    """Run in a process of its own and send back what it took."""
    start = time.perf_counter()
    rows = build(*arguments)
    wall_s = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF)
    connection.send(Cost(used.ru_utime + used.ru_stime, wall_s, used.ru_maxrss / 1024, rows))


def measure(*arguments) -> Cost:
    """Cost of `build`, imports of the process included."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measured, args=(theirs, arguments))
    process.start()
    theirs.close()
    try:
        cost = ours.recv()
    except EOFError:
        raise SystemExit(f"{arguments[1]['relation']} was not built: see above") from None
    process.join()
    return cost


def measure_all(warehouse: Path, models: list[dict], options: argparse.Namespace) -> None:
    """Build relation after relation and print a line for each."""
    print(
        f"{'relation':<36}{'rows':>12}{'CPU s':>9}{'wall s':>9}{'CPU s per million':>20}"
        f"{'peak MiB':>10}"
    )
    total = 0.0
    for model in models:
        cost = measure(warehouse, model, options.threads, options.memory_limit)
        total += cost.cpu_s
        print(
            f"{model['relation']:<36}{cost.rows:>12,}{cost.cpu_s:>9.1f}{cost.wall_s:>9.1f}"
            f"{cost.cpu_s / max(cost.rows, 1) * 1e6:>20.2f}{cost.peak_mib:>10,.0f}",
            flush=True,
        )
    print(f"{'all':<36}{'':>12}{total:>9.1f}\n", flush=True)


def main() -> None:
    """Make the market, compile the models, build them, with --next-day once more."""
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
    parser.add_argument("--folder", type=Path, help="keep the warehouse here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        warehouse = folder / "warehouse.duckdb"
        for days in [options.days] + [options.days + 1] * options.next_day:
            start = time.perf_counter()
            make_market(warehouse, options, days)
            print(
                f"{options.stocks:,} stocks x {days:,} days, made in"
                f" {time.perf_counter() - start:.0f} s",
                flush=True,
            )
            measure_all(warehouse, compiled_models(folder, warehouse, options.models), options)


if __name__ == "__main__":
    main()
