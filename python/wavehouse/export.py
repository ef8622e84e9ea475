"""`wavehouse export`: the files that downstream services read, written from the relations.

Every file is a function of the warehouse alone: rows are ordered by key, JSON keys are sorted, no
file holds a time of writing. Two exports of one warehouse are equal byte for byte, and
`SHA256SUMS` (for `sha256sum --check`) says what they were.
"""

import contextlib
import hashlib
import io
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import click
import duckdb
from rich.console import Console
from rich.progress import track

from wavehouse import warehouse
from wavehouse.shell import show_markdown

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
CHECKSUMS = "SHA256SUMS"
THRESHOLDS = (
    "long_open_prob, short_open_prob, min_entry_prob, max_market_risk_prob, min_expected_edge_bps, "
    "min_direction_margin"
)
METRICS = (
    "trade_count, win_rate, avg_actual_edge_bps, avg_weighted_edge_bps, total_weighted_edge_bps, "
    "max_drawdown_bps, avg_planned_ratio, profit_factor, max_consecutive_losses"
)
SPLITS = "['tune_inner', 'validation_locked', 'latest_stress']"
TRADES = (
    "sample_id, symbol, event_time, split_id, side, direction_prob, entry_prob, market_risk_prob, "
    "predicted_edge_bps, actual_edge_bps, entry_target, planned_ratio, weighted_edge_bps, "
    "threshold_hash"
)

# {file: query}: csv and parquet by their suffix
TABLES = {
    "pm-search/pm_search_candidates.csv": f"""
        select {THRESHOLDS}, {METRICS}, score from pm.pm_grid_search order by score_rank
    """,
    "pm-search/pm_backtest_trades.parquet": f"""
        select {TRADES} from pm.pm_trades order by trade_index
    """,
    "pm-search/pm_equity_curve.csv": "from pm.pm_equity_curve order by trade_index",
    "pm-search/pm_regime_metrics.csv": """
        select split_id, side, trade_count, win_rate, avg_actual_edge_bps, total_weighted_edge_bps
        from pm.pm_regime_metrics order by split_id, side
    """,
    "backtest/backtest_trades.parquet": f"""
        select {TRADES}, split_id as eval_split from backtest.backtest_trades
        order by list_position({SPLITS}, split_id), trade_index
    """,
    "backtest/executed_positions.parquet": f"""
        from backtest.executed_positions order by list_position({SPLITS}, eval_split), trade_index
    """,
    "backtest/equity_curve.csv": """
        select event_time, run_index as trade_index, weighted_edge_bps, equity_bps, drawdown_bps
        from backtest.equity_curve where accounting = 'label_edge' order by run_index
    """,
    "backtest/regime_metrics.csv": """
        select eval_split as split_id, regime as side, trade_count, win_rate, avg_actual_edge_bps,
            total_weighted_edge_bps
        from backtest.regime_metrics
        where accounting = 'label_edge' and regime_kind = 'side' order by split_id, side
    """,
    "diagnostics/gate_funnel.csv": f"""
        from diagnostics.gate_funnel order by list_position({SPLITS}, split_id), side, position
    """,
    "release/deployment_decisions.csv": "from release.deployment_decisions order by subject",
    "release/model_gating.csv": "from release.model_gating order by subject",
    "release/walk_forward_folds.csv": "from release.walk_forward_folds order by subject, fold",
    "release/drift_check.csv": "from release.drift_check order by all",
}


# {file: (title, what it shows, {heading: query})}: one Markdown table a query
REPORTS = {
    "pm-search/pm_search_report.md": (
        "Position-manager search",
        "Every candidate of the grid was judged on tune_inner; the best by score is frozen. Sealed "
        "splits were not read.",
        {
            "Winner": f"select {THRESHOLDS}, best_score, edge_basis, config_hash from pm.pm_config",
            "Metrics": f"select {METRICS} from pm.pm_grid_search where score_rank = 1",
            "Ten best candidates": f"""
                select score_rank, {THRESHOLDS}, score, trade_count, win_rate,
                    total_weighted_edge_bps, max_drawdown_bps, profit_factor
                from pm.pm_grid_search where score_rank <= 10 order by score_rank
            """,
            "More than luck?": "from pm.pm_overfitting",
            "One step away from the winner": """
                select axis, value, score, score_rank, trade_count, total_weighted_edge_bps
                from pm.pm_neighbourhood order by axis, step
            """,
        },
    ),
    "backtest/backtest_report.md": (
        "Integrated backtest",
        "The frozen configuration on the searched split and the two sealed ones. Label edge takes "
        "every signal as a trade; executed is what an account could hold.",
        {
            "Verdict": """
                select status, status_reasons, executed_status, executed_status_reasons, edge_basis,
                    pm_config_hash_sha256
                from backtest.backtest_manifest
            """,
            "Metrics": f"""
                select accounting, eval_split, {METRICS} from backtest.backtest_metrics
                order by is_path_honest, list_position({SPLITS}, eval_split), eval_split
            """,
            "Rules": """
                select accounting, reason, observed_value, comparison, limit_value, is_violated
                from backtest.backtest_rule_checks order by is_path_honest, position
            """,
            "By side": f"""
                select accounting, eval_split, regime as side, {METRICS}
                from backtest.regime_metrics where regime_kind = 'side'
                order by is_path_honest, list_position({SPLITS}, eval_split), side
            """,
        },
    ),
    "backtest/failure_cases.md": (
        "Failure cases",
        "The trades and positions that lost most, worst first, to look at features, labels and "
        "thresholds again.",
        {
            heading: f"""
                select failure_rank, eval_split, symbol, side, signal_time, opened_at, entry_price,
                    closed_at, exit_price, exit_reason, predicted_edge_bps, actual_edge_bps,
                    planned_ratio, weighted_edge_bps, volatility_regime
                from backtest.failure_cases where accounting = '{accounting}' order by failure_rank
            """
            for heading, accounting in {"Executed": "executed", "Label edge": "label_edge"}.items()
        },
    ),
    "backtest/direction_ablation_backtest_report.md": (
        "Direction ablation",
        "The same frozen configuration with the direction probabilities of the model before.",
        {
            "By split": f"""
                select eval_split, status, reason, trade_count, baseline_trade_count,
                    total_weighted_edge_bps, baseline_total_weighted_edge_bps,
                    total_weighted_edge_bps_difference
                from backtest.direction_ablation order by list_position({SPLITS}, eval_split)
            """
        },
    ),
    "diagnostics/training_failure_diagnostics.md": (
        "Training diagnostics",
        "Where signals come from and where they are lost.",
        {
            "Conclusion": """
                select status, reason_en, next_action_en, reason_zh, next_action_zh
                from diagnostics.training_diagnosis
            """,
            "Labels": f"""
                select split_id, label_set, side, statistic, quantile, value
                from diagnostics.label_summary
                order by list_position(['fit'] || {SPLITS}, split_id), label_set, side, statistic,
                    quantile
            """,
            "Gate funnel": f"""
                select split_id, side, gate, threshold, rows_passing_gate, rows_after_gate,
                    row_count
                from diagnostics.gate_funnel
                order by list_position({SPLITS}, split_id), side, position
            """,
            "Relaxed variants": f"""
                select split_id, variant, row_count, win_rate, avg_actual_edge_bps,
                    avg_executed_edge_bps, long_rows, short_rows
                from diagnostics.relaxed_variants
                order by list_position({SPLITS}, split_id), position
            """,
            "Top direction scores": f"""
                select split_id, fraction, row_count, win_rate, avg_actual_edge_bps,
                    avg_executed_edge_bps, long_rows, short_rows
                from diagnostics.direction_top_score
                order by list_position({SPLITS}, split_id), fraction
            """,
            "Entry probability by decile": f"""
                select split_id, side, bucket, row_count, score_min, score_max, hit_rate,
                    avg_actual_edge_bps, avg_executed_edge_bps
                from diagnostics.entry_prob_deciles
                order by list_position({SPLITS}, split_id), side, bucket
            """,
            "Candidates that trade": f"""
                from diagnostics.grid_trade_summary order by list_position({SPLITS}, split_id)
            """,
        },
    ),
}
REPORTS["pm-search/pm_threshold_report.md"] = REPORTS["pm-search/pm_search_report.md"]

# {key of the diagnostics file: relation}, each a list of rows under its split
PM_SUMMARY = {
    "score_distribution": "score_distribution order by column_name, quantile",
    "gate_funnel": "gate_funnel order by side, position",
    "relaxed_variants": "relaxed_variants order by position",
    "direction_top_score": "direction_top_score order by fraction",
    "entry_prob_deciles": "entry_prob_deciles order by side, bucket",
    "grid_search_any_trade": "grid_trade_summary",
}


@click.command("export")
@click.argument("run")
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("exports"),
    show_default=True,
    help="Folder that the run's folder is written to.",
)
@click.option(
    "--db", type=click.Path(), help="The DuckDB file; default $WAREHOUSE_DB, else warehouse.duckdb."
)
def export_command(run: str, output: Path, db: str | None) -> None:
    """Write the files of a RUN that downstream services read, from the relations.

    \b
      wavehouse export 2026-11-21                  to exports/2026-11-21/
      wavehouse export nightly --output /srv/models

    RUN is a name of your choice; it becomes the folder's name and the backtest manifest's id.
    The same warehouse gives the same bytes again: SHA256SUMS lists them. An earlier export of
    that name is replaced whole, or left alone when anything fails.
    """
    if not RUN_NAME.fullmatch(run):
        raise click.UsageError(
            f"RUN is {run!r}, expected a name of letters, digits, '.', '_' and '-', such as "
            "2026-11-21."
        )
    try:
        with contextlib.closing(warehouse.connect(db)) as con:
            sums = export_run(con, run, output / run)
    except warehouse.WarehouseError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{output / run} cannot be written: {error}") from error
    for name, digest in sums.items():
        click.echo(f"{digest[:12]}  {output / run / name}")


def export_run(con: duckdb.DuckDBPyConnection, run: str, folder: Path) -> dict[str, str]:
    """Write every file of a run under `folder`, replacing it whole.

    Returns the SHA-256 of each file by its name within the folder, sorted.

    Raises WarehouseError when a relation is missing, OSError when the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{run}.", dir=folder.parent) as name:
        draft = Path(name) / run
        draft.mkdir()
        writers = dict(file_writers(con, run))
        for path, write in track(
            writers.items(), "Exporting", console=Console(stderr=True), transient=True
        ):
            target = draft / path
            target.parent.mkdir(exist_ok=True)
            try:
                write(target)
            except duckdb.Error as error:
                raise warehouse.WarehouseError(
                    "query", f"{path}: {warehouse.explain_error(con, str(error))}"
                ) from error
        sums = {path: sha256_of(draft / path) for path in sorted(writers)}
        lines = [f"{digest}  {path}\n" for path, digest in sums.items()]
        (draft / CHECKSUMS).write_text("".join(lines), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        draft.rename(folder)
    return sums


def file_writers(
    con: duckdb.DuckDBPyConnection, run: str
) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """Yield each file's name within the run's folder and what writes it."""
    for name, query in TABLES.items():
        yield name, lambda path, query=query: write_rows(con, query, path)
    for name, report in REPORTS.items():
        yield name, lambda path, report=report: write_report(con, *report, path)
    for name in ("position_manager_config.json", "pm_threshold_config.json"):
        yield f"pm-search/{name}", lambda path: write_json(path, position_manager_config(con))
    yield (
        "backtest/backtest_manifest.json",
        lambda path: write_json(path, backtest_manifest(con, run)),
    )
    yield (
        "diagnostics/training_failure_diagnostics.json",
        lambda path: write_json(path, diagnostics(con, run)),
    )
    for row in rows(con, "select label_set from labels.label_manifest order by label_set"):
        yield (
            f"label/{row['label_set']}.manifest.json",
            lambda path, label_set=row["label_set"]: write_json(
                path, label_manifest(con, label_set)
            ),
        )


def position_manager_config(con: duckdb.DuckDBPyConnection) -> dict:
    """Return the frozen configuration, its hash and how it was found."""
    return json.loads(rows(con, "select payload_json from pm.pm_config")[0]["payload_json"])


def backtest_manifest(con: duckdb.DuckDBPyConnection, run: str) -> dict:
    """Return the verdict of acceptance under the name of the run."""
    row = rows(con, "select payload_json, inputs_json from backtest.backtest_manifest")[0]
    return {
        **json.loads(row["payload_json"]),
        "backtest_manifest_id": f"backtest-{run}",
        "inputs": json.loads(row["inputs_json"]),
    }


def label_manifest(con: duckdb.DuckDBPyConnection, label_set: str) -> dict:
    """Return what a label set is: rows, version, hashes, how its main target is distributed."""
    manifest = rows(
        con,
        """
        select label_set, label_version, main_target, horizon_minutes, row_count,
            first_event_time, last_event_time, settings_hash as price_plan_hash, data_hash
        from labels.label_manifest where label_set = ?
        """,
        [label_set],
    )[0]
    distribution = rows(
        con,
        """
        select side, split_id, target_value, row_count from labels.label_distribution
        where label_set = ? and is_main_target order by side, split_id, target_value
        """,
        [label_set],
    )
    return manifest | {"distribution": distribution}


def diagnostics(con: duckdb.DuckDBPyConnection, run: str) -> dict:
    """Return the diagnostics floor, split by split."""
    summaries = {name: rows(con, f"from diagnostics.{query}") for name, query in PM_SUMMARY.items()}
    splits = sorted({row["split_id"] for each in summaries.values() for row in each})
    return {
        "run_id": run,
        "conclusion": rows(con, "from diagnostics.training_diagnosis")[0],
        "label_summary": rows(con, "from diagnostics.label_summary order by all"),
        "pm_summary": {
            split_id: {
                name: [
                    {key: value for key, value in row.items() if key != "split_id"}
                    for row in each
                    if row["split_id"] == split_id
                ]
                for name, each in summaries.items()
            }
            for split_id in splits
        },
    }


def rows(con: duckdb.DuckDBPyConnection, query: str, values: Sequence = ()) -> list[dict]:
    """Return rows as JSON takes them: times as text in UTC, no number that is not finite."""
    cursor = con.execute(query, list(values))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, map(plain, row), strict=True)) for row in cursor.fetchall()]


def plain(value: object) -> object:
    """Return a value as JSON can hold it."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_rows(con: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    """Write the rows of a query as CSV or parquet, as the file's suffix says."""
    warehouse.export(con, con.sql(query), path, path.suffix[1:])


def write_report(
    con: duckdb.DuckDBPyConnection,
    title: str,
    introduction: str,
    queries: Mapping[str, str],
    path: Path,
) -> None:
    """Write Markdown: a table a query, a single row as a list of its columns."""
    page = io.StringIO()
    page.write(f"# {title}\n\n{introduction}\n")
    for heading, query in queries.items():
        cursor = con.execute(query)
        names = [column[0] for column in cursor.description]
        found = cursor.fetchall()
        page.write(f"\n## {heading}\n\n")
        if not found:
            page.write("No rows.\n")
        elif len(found) == 1:
            show_markdown(["name", "value"], list(zip(names, found[0], strict=True)), page, False)
        else:
            show_markdown(names, found, page, False)
    path.write_text(page.getvalue(), encoding="utf-8")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_json(path: Path, value: Mapping) -> None:
    """Write JSON with sorted keys, two spaces deep, a line break at the end.

    Raises ValueError where a number is not finite: JSON has no name for it.
    """
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
