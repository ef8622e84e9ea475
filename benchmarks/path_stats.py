"""labels.path_stats against numpy sliding windows, in one run, with equal results.

    python benchmarks/path_stats.py             10 symbols x 30 days, one horizon and both
    python benchmarks/path_stats.py --sizes     time per bar as the market grows, longest horizon
    python benchmarks/path_stats.py --large     20 symbols x 365 days under a memory limit

The SQL is the model's own, compiled by dbt. Two numpy forms are timed: the reference system's,
which computes each side on its own and takes the spread's quantile with np.nanquantile, and the
tests' evaluator, which shares what both sides share and avoids np.nanquantile's call per row. CPU
seconds are user plus system of a process of its own, DuckDB on two threads; the best of
`--repeat` runs, the reference form once.
"""

import argparse
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
import numpy as np
import pandas as pd

REPO = Path(__file__).parents[1]
sys.path.insert(0, str(REPO / "tests" / "python"))
import oracle_labels  # noqa: E402  the evaluator lives with the tests

TARGET_BPS, STOP_BPS = 12.0, 8.0
SETTINGS = """
    set enable_progress_bar = false;
    set disabled_optimizers = 'column_lifetime';
    set threads = 2;
    set memory_limit = '{}'
"""


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    cpu_s: float
    wall_s: float
    peak_mib: float
    rows: int


def dbt(folder: Path, *args: str) -> None:
    """Run dbt quietly on the market in `folder`."""
    command = [str(Path(sys.executable).with_name("dbt")), "--quiet", *args]
    environment = {"WAREHOUSE_DATA": str(folder), "WAREHOUSE_DB": str(folder / "warehouse.duckdb")}
    command += ["--target-path", str(folder / "target"), "--log-path", str(folder / "logs")]
    subprocess.run(command, cwd=REPO, env={**os.environ, **environment}, check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip


def staged_market(folder: Path, symbols: int, days: int) -> Path:
    """Write a sample market and stage it; return the warehouse file."""
    market = ["--data-dir", str(folder), "--symbols", str(symbols), "--days", str(days)]
    subprocess.run([sys.executable, "-m", "wavehouse.cli", "sample", *market], check=True,
                   stdout=subprocess.DEVNULL)  # fmt: skip
    dbt(folder, "run", "--select", "+stg_minute_bars")
    return folder / "warehouse.duckdb"


def model_sql(folder: Path, horizons: list[int]) -> str:
    """The full build of labels.path_stats for these horizons, compiled by dbt."""
    settings = (
        f"{{entry_max_hold_minutes: {horizons[0]}, continue_horizon_minutes: {horizons[-1]}}}"
    )
    dbt(folder, "compile", "--select", "path_stats", "--full-refresh", "--vars", settings)
    return (folder / "target/compiled/wavehouse/models/labels/path_stats.sql").read_text()


def run_sql(warehouse: Path, sql: str, output: Path | None, memory_limit: str) -> int:
    """Write path statistics into a table of a database file of their own; return its row count."""
    with (
        tempfile.TemporaryDirectory(dir=warehouse.parent) as scratch,
        duckdb.connect() as connection,
    ):
        connection.execute(SETTINGS.format(memory_limit))
        connection.execute(f"set temp_directory = '{scratch}/spill'")
        connection.execute(f"attach '{warehouse}' as warehouse (read_only)")
        connection.execute(f"attach '{scratch}/built.duckdb' as built")
        connection.execute(f"create table built.path_stats as {sql}")
        if output:
            connection.execute(f"copy built.path_stats to '{output}' (format parquet)")
        return connection.execute("select count(*) from built.path_stats").fetchone()[0]


def run_numpy(warehouse: Path, horizons: list[int], output: Path | None, reference: bool) -> int:
    """The same statistics by numpy windows; return their row count."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        bars = connection.execute("from staging.stg_minute_bars").df()
    forms = [{"sides": ["LONG", "SHORT"]}]
    if reference:
        quantile = {"row_quantile": lambda windows, q: np.nanquantile(windows, q, axis=1)}
        forms = [{"sides": [side], **quantile} for side in ("LONG", "SHORT")]
    frames = [
        oracle_labels.path_stats_windows(bars, horizon, TARGET_BPS, STOP_BPS, **form)
        for horizon in horizons
        for form in forms
    ]
    if output:
        pd.concat(frames).to_parquet(output, index=False)
    return sum(len(frame) for frame in frames)


def _measured(connection, function, arguments):
    """Run in a process of its own and send back what it took."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    start = time.perf_counter()
    rows = function(*arguments)
    wall_s = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    connection.send(Cost(cpu_s, wall_s, after.ru_maxrss / 1024, rows))


def measure(function, *arguments, repeat: int = 1) -> Cost:
    """Best CPU of `repeat` runs, each in a fresh process."""
    costs = []
    for _ in range(repeat):
        ours, theirs = multiprocessing.get_context("spawn").Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_measured, args=(theirs, function, arguments)
        )
        process.start()
        costs.append(ours.recv())
        process.join()
    return min(costs, key=lambda cost: cost.cpu_s)


def assert_equal(sql_output: Path, numpy_output: Path) -> str:
    """Compare both outputs row by row; return the worst difference of a float column."""
    floats = ["gross_edge_bps", "future_return_bps", "mfe_bps", "mae_bps", "future_spread_p80",
              "future_realized_vol_bps"]  # fmt: skip
    exact = ["target_hit", "stop_hit", "timeout_hit", "ambiguous_hit", "time_to_target_ms",
             "time_to_stop_ms"]  # fmt: skip
    known = [f"if(isnan(theirs.{name}), null, theirs.{name})" for name in floats]
    differs = " or ".join(f"ours.{name} is distinct from theirs.{name}" for name in exact)
    unknown = " or ".join(
        f"(ours.{name} is null) <> ({value} is null)"
        for name, value in zip(floats, known, strict=True)
    )
    distance = ", ".join(
        f"max(abs(ours.{name} - {value}))" for name, value in zip(floats, known, strict=True)
    )
    wrong, *distances = duckdb.execute(
        f"""
        select
            count(*) filter (
                where ours.symbol is null or theirs.symbol is null or {differs} or {unknown}
            ),
            {distance}
        from '{sql_output}' as ours
        full join '{numpy_output}' as theirs using (symbol, open_time_ms, side, horizon_minutes)
        """
    ).fetchone()
    worst = max(value for value in distances if value is not None)
    if wrong or worst > 1e-9:
        raise SystemExit(f"results differ: {wrong} rows, floats by up to {worst} bps")
    return f"{worst:.1e}"


def compare(symbols: int, days: int, repeat: int) -> None:
    """Print the ratios for one horizon and for both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warehouse = staged_market(folder, symbols, days)
        print(f"{symbols} symbols x {days} days; CPU seconds (wall), ratio to the SQL\n")
        print(
            f"{'horizons':<10}{'SQL':>14}{'reference numpy':>24}{'shared numpy':>22}"
            "   largest difference, bps"
        )
        for horizons in ([45], [45, 30]):
            sql = model_sql(folder, horizons)
            ours, theirs = folder / "sql.parquet", folder / "numpy.parquet"
            run_sql(warehouse, sql, ours, "8GB")
            run_numpy(warehouse, horizons, theirs, reference=False)
            worst = assert_equal(ours, theirs)
            sql_cost = measure(run_sql, warehouse, sql, None, "8GB", repeat=repeat)
            shared = measure(run_numpy, warehouse, horizons, None, False, repeat=repeat)
            reference = measure(run_numpy, warehouse, horizons, None, True)
            assert sql_cost.rows == shared.rows == reference.rows
            line = (
                f"{'+'.join(map(str, horizons)):<10}{sql_cost.cpu_s:>7.2f} ({sql_cost.wall_s:.2f})"
            )
            for cost in (reference, shared):
                ratio = cost.cpu_s / sql_cost.cpu_s
                line += f"{cost.cpu_s:>9.2f} ({cost.wall_s:.2f}) {ratio:>5.1f}x"
            print(f"{line}   {worst}", flush=True)


def scale(repeat: int) -> None:
    """Print CPU per million bars as the market grows, and with the longest horizon."""
    print(f"{'bars':>12}{'horizons':>10}{'CPU s':>9}{'CPU s per million bars':>26}{'peak MiB':>10}")
    for symbols, days, horizons in [(5, 30, [45, 30]), (10, 30, [45, 30]), (20, 60, [45, 30]),
                                    (10, 30, [480, 30])]:  # fmt: skip
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            warehouse = staged_market(folder, symbols, days)
            with duckdb.connect(str(warehouse), read_only=True) as connection:
                bars = connection.execute(
                    "select count(*) from staging.stg_minute_bars"
                ).fetchone()[0]
            sql = model_sql(folder, horizons)
            cost = measure(run_sql, warehouse, sql, None, "8GB", repeat=repeat)
            print(f"{bars:>12,}{'+'.join(map(str, horizons)):>10}{cost.cpu_s:>9.2f}"
                  f"{cost.cpu_s / bars * 1e6:>26.2f}{cost.peak_mib:>10,.0f}")  # fmt: skip


def large(memory_limit: str) -> None:
    """20 symbols x 365 days, both horizons, under a memory limit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        warehouse = staged_market(folder, 20, 365)
        cost = measure(run_sql, warehouse, model_sql(folder, [45, 30]), None, memory_limit)
        print(
            f"20 symbols x 365 days, horizons 45+30, memory_limit {memory_limit}: "
            f"{cost.rows:,} rows, CPU {cost.cpu_s:.1f} s, wall {cost.wall_s:.1f} s, "
            f"peak {cost.peak_mib:,.0f} MiB"
        )


def main() -> None:
    """Parse the command line and run one of the three benchmarks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--symbols", type=int, default=10)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--sizes", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--memory-limit", default="4GB", help="of DuckDB, with --large")
    options = parser.parse_args()
    if options.large:
        large(options.memory_limit)
    elif options.sizes:
        scale(options.repeat)
    else:
        compare(options.symbols, options.days, options.repeat)


if __name__ == "__main__":
    main()
