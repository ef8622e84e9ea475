"""pm.pm_grid_search against one pandas simulation a candidate, in one run, with equal results.

    python benchmarks/pm_grid.py                      10,000 and 100,000 rows
    python benchmarks/pm_grid.py --rows 1000000       another size
    python benchmarks/pm_grid.py --every 1            the loop over every candidate, nothing scaled

The SQL is the model's own, compiled by dbt, planning included: every metric of all candidates
(full), the best and its runners-up alone (pruned), and sums that need no order (additive). The loop
is what the reference system does: masks, a copy of the admitted rows, a sort, the metrics. It costs
minutes, so by default it runs every 50th candidate and its CPU is scaled; those candidates are
compared with the SQL's. CPU seconds are user plus system of a process of its own, DuckDB on two
threads; the best of `--repeat` runs, the loop once.
"""

import argparse
import itertools
import json
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

REPO = Path(__file__).parents[1]
SETTINGS = (
    "set enable_progress_bar = false; set threads = 2; set memory_limit = '6GB';"
    " set disabled_optimizers = 'column_lifetime'"
)
AXES = [
    "long_open_prob",
    "short_open_prob",
    "min_entry_prob",
    "max_market_risk_prob",
    "min_expected_edge_bps",
    "min_direction_margin",
]
COMPARED = [
    "trade_count",
    "win_rate",
    "avg_actual_edge_bps",
    "avg_weighted_edge_bps",
    "total_weighted_edge_bps",
    "max_drawdown_bps",
    "avg_planned_ratio",
    "profit_factor",
    "max_consecutive_losses",
    "score",
]


def made_up_frame(rows: int, seed: int = 1) -> pd.DataFrame:
    """A frame whose probabilities and edges spread over every step of the default grid."""
    random = np.random.default_rng(seed)
    symbols = 10
    lean = random.normal(0, 0.06, rows)
    neutral = random.uniform(0, 0.1, rows)
    entry = random.beta(1.2, 2.5, rows)
    strength = random.normal(0, 7, rows)
    minutes = np.repeat(np.arange(-(-rows // symbols)), symbols)[:rows]
    event_time = pd.Timestamp("2025-01-01") + pd.to_timedelta(minutes, unit="min")
    symbol = np.tile(np.arange(symbols), -(-rows // symbols))[:rows]
    frame = pd.DataFrame(
        {
            "sample_id": [f"S{s}@{m}" for s, m in zip(symbol, minutes, strict=True)],
            "symbol": [f"S{s}" for s in symbol],
            "event_time": event_time,
            "split_id": "tune_inner",
            "long_prob": (1 - neutral) * (0.5 + lean),
            "short_prob": (1 - neutral) * (0.5 - lean),
            "neutral_prob": neutral,
            "long_entry_prob": entry,
            "short_entry_prob": np.clip(entry + random.normal(0, 0.1, rows), 0, 1),
            "market_risk_prob": random.beta(2, 1.2, rows),
        }
    )
    for side, sign in (("long", 1), ("short", -1)):
        predicted = strength + sign * 40 * lean + random.normal(0, 2, rows)
        frame[f"pred_{side}_expected_net_edge_bps"] = predicted
        frame[f"actual_{side}_expected_net_edge_bps"] = predicted * 0.2 + random.normal(0, 25, rows)
    return frame.sample(frac=1, random_state=seed)


def compiled(folder: Path) -> dict[str, str]:
    """The queries by name, as dbt compiles them against pm.pm_frame and pm.pm_candidates."""
    environment = {**os.environ, "WAREHOUSE_DB": str(folder / "bench.duckdb")}
    target = folder / "target"
    queries = {}
    additive = "{{ pm_grid_additive(ref('pm_frame'), ref('pm_candidates')) }}"
    for name, selection, settings in [
        ("full", ["--select", "pm_grid_search"], {"pm_ordered_metrics": "full"}),
        ("pruned", ["--select", "pm_grid_search"], {"pm_ordered_metrics": "pruned"}),
        ("additive", ["--inline", additive], {}),
        ("candidates", ["--select", "pm_candidates"], {}),
    ]:
        command = [str(Path(sys.executable).with_name("dbt")), "--quiet", "compile", *selection]
        command += ["--vars", json.dumps(settings), "--target-path", str(target)]
        command += ["--log-path", str(folder / "logs"), "--output", "json"]
        done = subprocess.run(
            command, cwd=REPO, env=environment, check=True, text=True, stdout=subprocess.PIPE
        )
        queries[name] = json.loads(done.stdout)["compiled"]
    return queries


def run_sql(database: Path, query: str, output: Path | None) -> None:
    """Run a query into a table, and into a parquet file where one is asked for."""
    with duckdb.connect() as con:
        con.execute(SETTINGS)
        con.execute(f"attach '{database}' as bench (read_only)")
        con.execute("use bench")
        con.execute(f"create temp table result as {query}")
        if output:
            con.execute(f"copy result to '{output}' (format parquet)")


def run_loop(database: Path, every: int, output: Path) -> None:
    """One simulation a candidate, as the reference system runs it."""
    with duckdb.connect(str(database), read_only=True) as con:
        frame = con.execute("from pm.pm_frame").df()
        candidates = con.execute("from pm.pm_candidates order by candidate_id").df()
    found = []
    for candidate in candidates.iloc[::every].to_dict("records"):
        metrics = trade_metrics(admitted(frame, candidate))
        found.append({"candidate_id": candidate["candidate_id"], **metrics})
    pd.DataFrame(found).to_parquet(output, index=False)


def admitted(frame: pd.DataFrame, limits: dict[str, float]) -> pd.DataFrame:
    """The trades that one candidate opens, in order."""
    lead = frame["long_prob"] - frame["short_prob"]
    calm = frame["market_risk_prob"] <= limits["max_market_risk_prob"]
    opens, scores = {}, {}
    for side, sign in (("long", 1), ("short", -1)):
        edge = frame[f"pred_{side}_expected_net_edge_bps"]
        opens[side] = (
            (frame[f"{side}_prob"] >= limits[f"{side}_open_prob"])
            & (sign * lead >= limits["min_direction_margin"])
            & (frame[f"{side}_entry_prob"] >= limits["min_entry_prob"])
            & calm
            & (edge >= limits["min_expected_edge_bps"])
        )
        scores[side] = edge + sign * lead * 10.0
    goes_long = opens["long"] & (~opens["short"] | (scores["long"] >= scores["short"]))
    goes_short = opens["short"] & ~goes_long
    trades = frame.loc[goes_long | goes_short].copy().reset_index(drop=True)
    is_long = goes_long[goes_long | goes_short].to_numpy()
    for name in ("actual", "pred"):
        trades[f"{name}_edge_bps"] = np.where(
            is_long,
            trades[f"{name}_long_expected_net_edge_bps"],
            trades[f"{name}_short_expected_net_edge_bps"],
        )
    strength = ((trades["pred_edge_bps"] - limits["min_expected_edge_bps"]) / 20.0).clip(0.0, 1.5)
    discount = (1.0 - trades["market_risk_prob"]).clip(0.0, 1.0)
    trades["planned_ratio"] = (strength * discount).clip(0.05, 1.0)
    trades["weighted_edge_bps"] = trades["actual_edge_bps"] * trades["planned_ratio"]
    return trades.sort_values(["event_time", "symbol", "sample_id"])


def trade_metrics(trades: pd.DataFrame) -> dict[str, float]:
    """The nine metrics and the score of one candidate's trades."""
    count = len(trades)
    if not count:
        return dict.fromkeys(COMPARED, 0.0) | {"score": -1_000_000.0}
    weighted = trades["weighted_edge_bps"]
    equity = weighted.cumsum()
    gains, losses = weighted[weighted > 0].sum(), -weighted[weighted < 0].sum()
    runs = [len(list(run)) for lost, run in itertools.groupby(weighted.to_numpy() < 0) if lost]
    average, total = weighted.mean(), equity.iloc[-1]
    drawdown = (equity.cummax() - equity).max()
    factor = gains / losses if losses > 0 else np.inf
    return {
        "trade_count": count,
        "win_rate": (trades["actual_edge_bps"] > 0).mean(),
        "avg_actual_edge_bps": trades["actual_edge_bps"].mean(),
        "avg_weighted_edge_bps": average,
        "total_weighted_edge_bps": total,
        "max_drawdown_bps": drawdown,
        "avg_planned_ratio": trades["planned_ratio"].mean(),
        "profit_factor": factor,
        "max_consecutive_losses": max(runs, default=0),
        "score": average * np.sqrt(count)
        + 0.05 * total
        - 0.25 * drawdown
        - 1.5 * max(0, 120 - count)
        - 20.0 * max(0.0, 1.15 - factor)
        - 40.0 * max(0.0, -average),
    }


def _measured(connection, function, arguments) -> None:
    """Run in a process of its own and send back (CPU seconds, peak MiB)."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    function(*arguments)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    connection.send((cpu_s, after.ru_maxrss / 1024))


def measure(function, *arguments, repeat: int = 1) -> tuple[float, float]:
    """Best CPU and highest memory of `repeat` runs, each in a fresh process."""
    costs = []
    for _ in range(repeat):
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_measured, args=(theirs, function, arguments))
        process.start()
        costs.append(ours.recv())
        process.join()
    return min(cost[0] for cost in costs), max(cost[1] for cost in costs)


def largest_differences(folder: Path) -> tuple[float, int]:
    """Largest relative difference of SQL and loop, and how many candidates were compared.

    Raises SystemExit when pruned and full differ in a candidate that pruned ranks.
    """
    full = pd.read_parquet(folder / "full.parquet").set_index("candidate_id")
    loop = pd.read_parquet(folder / "loop.parquet").set_index("candidate_id")
    ours, theirs = full.loc[loop.index, COMPARED].to_numpy(float), loop[COMPARED].to_numpy(float)
    both_infinite = np.isinf(ours) & np.isinf(theirs)
    distance = np.abs(np.where(both_infinite, 0, ours - theirs)) / np.maximum(1, np.abs(theirs))
    pruned = pd.read_parquet(folder / "pruned.parquet").set_index("candidate_id")
    ranked = pruned[pruned["score_rank"].notna()]
    if len(ranked) < 11 or not np.array_equal(
        ranked[["score_rank", *COMPARED]], full.loc[ranked.index, ["score_rank", *COMPARED]]
    ):
        raise SystemExit("pruned and full search differ in their best candidates")
    return float(np.nanmax(distance)), len(loop)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--every", type=int, default=50, help="the loop runs every nth candidate")
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    print(f"{'rows':>9}  {'form':<10}{'CPU s':>9}{'ratio':>9}{'peak MiB':>10}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        queries = compiled(folder)
        for rows in options.rows:
            database = folder / f"frame_{rows}.duckdb"
            frame = made_up_frame(rows)  # noqa: F841  DuckDB reads it by name
            with duckdb.connect(str(database)) as con:
                con.execute("create schema pm; create schema seeds")
                con.execute("create table pm.pm_frame as from frame")
                con.execute(
                    "create table seeds.pm_grid_axes as select axis, position, value::double as"
                    f" value from '{REPO / 'seeds/pm_grid_axes.csv'}'"
                )
                here = queries["candidates"].replace('"bench".', "")
                con.execute(f"create table pm.pm_candidates as {here}")
                candidates = con.execute("select count(*) from pm.pm_candidates").fetchall()[0][0]
            loop = measure(run_loop, database, options.every, folder / "loop.parquet")
            simulated = -(-candidates // options.every)
            loop_s = loop[0] * candidates / simulated
            note = "" if options.every == 1 else f"  ({simulated} simulated, scaled)"
            print(f"{rows:>9,}  {'loop':<10}{loop_s:>9.1f}{1:>9.0f}{loop[1]:>10,.0f}{note}")
            for form in ("full", "pruned", "additive"):
                here = queries[form].replace('"bench".', "")
                output = None if form == "additive" else folder / f"{form}.parquet"
                if output:
                    run_sql(database, here, output)
                cpu_s, peak = measure(run_sql, database, here, None, repeat=options.repeat)
                print(f"{rows:>9,}  {form:<10}{cpu_s:>9.2f}{loop_s / cpu_s:>9.0f}{peak:>10,.0f}")
            distance, compared = largest_differences(folder)
            print(f"{'':>11}largest relative difference of {compared} candidates: {distance:.1e}")


if __name__ == "__main__":
    main()
