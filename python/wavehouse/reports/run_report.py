"""The tear sheet of a run: a section's numbers are a query here, its looks are the template."""

import math
from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from wavehouse.reports import plots

SPLITS = {
    "tune_inner": "tune (searched)",
    "validation_locked": "validation (sealed)",
    "latest_stress": "stress (sealed)",
}
ACCOUNTINGS = {"label_edge": "label edge", "executed": "executed"}
CURVE_POINTS = 400  # a curve is drawn through at most so many
AXES = {
    "long_open_prob": "long open prob",
    "short_open_prob": "short open prob",
    "min_entry_prob": "min entry prob",
    "max_market_risk_prob": "max market risk",
    "min_expected_edge_bps": "min expected edge, bps",
    "min_direction_margin": "min direction margin",
}
HEATMAPS = [
    ("min_entry_prob", "min_expected_edge_bps"),
    ("long_open_prob", "short_open_prob"),
    ("min_direction_margin", "max_market_risk_prob"),
]
Rows = list[dict[str, object]]


def run_page(con: duckdb.DuckDBPyConnection) -> str:
    """Return the whole page as HTML.

    Raises duckdb.Error when a relation that it reads is missing.
    """
    return page_template("run_report.html.j2").render(
        splits=SPLITS,
        accountings=ACCOUNTINGS,
        axes=AXES,
        manifest=one(con, "from backtest.backtest_manifest"),
        config=one(con, "from pm.pm_config"),
        spans=rows(
            con,
            """
            select split_id, count(*) as samples, count(distinct symbol) as symbols,
                min(event_time) as first_time, max(event_time) as last_time
            from backtest.backtest_frame group by split_id order by first_time
            """,
        ),
        metrics=rows(con, "from backtest.backtest_metrics"),
        rules=rows(con, "from backtest.backtest_rule_checks order by is_path_honest, position"),
        decisions=rows(con, "from release.deployment_decisions order by subject"),
        diagnosis=one(con, "from diagnostics.training_diagnosis"),
        overfitting=one(con, "from pm.pm_overfitting"),
        neighbours=rows(con, "from pm.pm_neighbourhood order by axis, step"),
        ablation=rows(con, "from backtest.direction_ablation"),
        failures=rows(con, "from backtest.failure_cases order by is_path_honest, failure_rank"),
        drift=drift_counts(con),
        periods=period_table(con),
        equity=equity_plots(con),
        funnel=funnel_plots(con),
        reliability=reliability_plot(con),
        deciles=decile_plots(con),
        grid=grid_plots(con),
        stability=stability_plots(con),
        regimes=regime_plots(con),
        folds=fold_plot(con),
    )


def page_template(name: str) -> Template:
    """Return the template of a page, with the filters that pages show numbers by."""
    environment = Environment(
        loader=PackageLoader("wavehouse.reports", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "price": price, "share": share}
    environment.filters |= {"moment": moment, "words": words}
    environment.globals["words"] = words
    return environment.get_template(name)


def equity_plots(con: duckdb.DuckDBPyConnection) -> list[Markup]:
    """One plot a split: running sums of both accountings."""
    pictures = []
    for split_id, name in SPLITS.items():
        curves = {}
        for accounting, label in ACCOUNTINGS.items():
            # of each stretch of trades the last sum and the deepest drawdown
            curve = con.execute(
                f"""
                select
                    max(event_time) as time,
                    arg_max(split_equity_bps, trade_index) as equity_bps,
                    max(split_drawdown_bps) as drawdown_bps
                from (
                    select *, ntile({CURVE_POINTS}) over (order by trade_index) as stretch
                    from backtest.equity_curve
                    where accounting = ? and eval_split = ?
                )
                group by stretch
                order by time
                """,
                [accounting, split_id],
            ).fetchnumpy()
            if len(curve["time"]):
                curves[label] = curve
        pictures.append(Markup(plots.equity(f"equity-{split_id}", name, curves)))
    return pictures


def period_table(con: duckdb.DuckDBPyConnection) -> dict[str, object]:
    """Sums per month, or per day where a run is shorter than three months, of both accountings."""
    months = con.execute(
        "select count(distinct date_trunc('month', event_time)) from backtest.equity_curve"
    ).fetchall()[0][0]
    unit = "month" if months >= 3 else "day"
    found = rows(
        con,
        f"""
        select
            strftime(date_trunc('{unit}', event_time), ?) as period,
            eval_split,
            sum(weighted_edge_bps order by run_index) filter (where accounting = 'label_edge')
                as label_edge,
            count(*) filter (where accounting = 'label_edge') as label_trades,
            sum(weighted_edge_bps order by run_index) filter (where accounting = 'executed')
                as executed,
            count(*) filter (where accounting = 'executed') as positions
        from backtest.equity_curve
        group by all
        order by period, min(run_index)
        """,
        ["%Y-%m" if unit == "month" else "%Y-%m-%d"],
    )
    return {"unit": unit, "rows": found}


def funnel_plots(con: duckdb.DuckDBPyConnection) -> list[Markup]:
    """Rows that are left after each gate, one plot a split."""
    pictures = []
    for split_id, name in SPLITS.items():
        found = rows(
            con,
            """
            select side, list(gate order by position) as gates,
                list(100 * remaining_share order by position) as shares
            from diagnostics.gate_funnel where split_id = ? group by side order by side
            """,
            [split_id],
        )
        series = {each["side"]: each["shares"] for each in found}
        gates = found[0]["gates"] if found else []
        title = f"Left after each gate: {name}"
        pictures.append(
            Markup(plots.bars(f"funnel-{split_id}", title, gates, series, "% of samples"))
        )
    return pictures


def reliability_plot(con: duckdb.DuckDBPyConnection) -> Markup:
    """Predicted and happened entry probability by decile, sealed splits."""
    found = rows(
        con,
        """
        select side, list((score_min + score_max) / 2 order by split_id, bucket) as predicted,
            list(hit_rate order by split_id, bucket) as happened
        from diagnostics.entry_prob_deciles
        where split_id = 'validation_locked' group by side order by side
        """,
    )
    series = {each["side"]: (each["predicted"], each["happened"]) for each in found}
    return Markup(
        plots.lines(
            "reliability",
            "Entry probability: validation, by decile",
            series,
            "predicted",
            "happened",
            diagonal=True,
        )
    )


def decile_plots(con: duckdb.DuckDBPyConnection) -> list[Markup]:
    """Mean edge by decile of the entry probability: label and executed."""
    pictures = []
    for side in ("LONG", "SHORT"):
        found = rows(
            con,
            """
            select bucket, avg_actual_edge_bps, avg_executed_edge_bps
            from diagnostics.entry_prob_deciles
            where split_id = 'validation_locked' and upper(side) = ? order by bucket
            """,
            [side],
        )
        series = {
            label: [each[column] for each in found]
            for label, column in [
                ("label edge", "avg_actual_edge_bps"),
                ("executed", "avg_executed_edge_bps"),
            ]
        }
        labels = [str(each["bucket"]) for each in found]
        title = f"{side}: mean edge by entry-probability decile"
        pictures.append(Markup(plots.bars(f"deciles-{side.lower()}", title, labels, series, "bps")))
    return pictures


def grid_plots(con: duckdb.DuckDBPyConnection) -> list[Markup]:
    """Best score over all other axes, for pairs of axes; the winner framed."""
    pictures = []
    for across, down in HEATMAPS:
        found = con.execute(
            f"""
            select {across} as x, {down} as y, max(score) as score,
                bool_or(score_rank = 1) as is_best
            from pm.pm_grid_search group by all order by y, x
            """
        ).fetchnumpy()
        xs, ys = np.unique(found["x"]), np.unique(found["y"])
        values = np.asarray(np.ma.filled(found["score"], np.nan), float).reshape(len(ys), len(xs))
        best = np.argwhere(found["is_best"].reshape(len(ys), len(xs)))
        pictures.append(
            Markup(
                plots.heatmap(
                    f"grid-{across.replace('_', '-')}",
                    "Best score over the other axes",
                    values,
                    [f"{x:g}" for x in xs],
                    [f"{y:g}" for y in ys],
                    AXES[across],
                    AXES[down],
                    tuple(best[0]) if len(best) else None,
                )
            )
        )
    return pictures


def stability_plots(con: duckdb.DuckDBPyConnection) -> list[Markup]:
    """Scores one step from the winner, and what the best of shuffled grids scores."""
    found = rows(con, "from pm.pm_neighbourhood order by axis, step")
    labels = [f"{AXES[each['axis']]} {each['value']:g}" for each in found]
    neighbours = plots.bars(
        "neighbours",
        "Score one step away from the winner",
        labels,
        {"score": [nan_for_none(each["score"]) for each in found]},
        "score",
        horizontal=True,
        by_sign=True,
    )
    best = one(con, "select best_score from pm.pm_config")["best_score"]
    scores = con.execute("select best_score from pm.pm_null_search order by draw").fetchnumpy()
    luck = plots.histogram(
        "luck",
        "Best of the same grid on shuffled edges",
        np.asarray(np.ma.filled(scores["best_score"], np.nan), float),
        nan_for_none(best),
        "score",
    )
    return [Markup(neighbours), Markup(luck)]


def regime_plots(con: duckdb.DuckDBPyConnection) -> list[Markup]:
    """Total by regime on the sealed splits, a plot for each kind, both accountings."""
    pictures = []
    found = rows(
        con,
        """
        select regime_kind, regime, min(regime_position) as position,
            sum(total_weighted_edge_bps) filter (where accounting = 'label_edge') as label_edge,
            sum(total_weighted_edge_bps) filter (where accounting = 'executed') as executed
        from backtest.regime_metrics
        where eval_split in ('validation_locked', 'latest_stress')
        group by all order by regime_kind, position, regime
        """,
    )
    for kind in dict.fromkeys(each["regime_kind"] for each in found):
        of_kind = [each for each in found if each["regime_kind"] == kind]
        series = {
            label: [nan_for_none(each[accounting]) for each in of_kind]
            for accounting, label in ACCOUNTINGS.items()
        }
        labels = [str(each["regime"]) for each in of_kind]
        pictures.append(
            Markup(
                plots.bars(
                    f"regime-{kind}",
                    f"Sealed total by {kind}",
                    labels,
                    series,
                    "bps",
                    horizontal=len(labels) > 4,
                )
            )
        )
    return pictures


def fold_plot(con: duckdb.DuckDBPyConnection) -> Markup:
    """Executed return of each walk-forward fold, all subjects together."""
    found = rows(
        con,
        """
        select fold, return_bps from release.walk_forward_folds
        where subject = 'ALL' order by fold
        """,
    )
    return Markup(
        plots.bars(
            "folds",
            "Executed return by walk-forward fold",
            [str(each["fold"]) for each in found],
            {"return": [nan_for_none(each["return_bps"]) for each in found]},
            "bps",
            by_sign=True,
        )
    )


def drift_counts(con: duckdb.DuckDBPyConnection) -> Rows:
    """How many drift checks are in which status."""
    return rows(
        con,
        """
        select check_name, count(*) as checks,
            count(*) filter (where status = 'OK') as ok,
            count(*) filter (where status = 'WARN') as warn,
            count(*) filter (where status = 'ALARM') as alarm,
            count(*) filter (where status is null) as unknown
        from release.drift_check group by check_name order by check_name
        """,
    )


def rows(con: duckdb.DuckDBPyConnection, query: str, values: Sequence = ()) -> Rows:
    """Return the rows of a query as dictionaries."""
    cursor = con.execute(query, list(values))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def one(con: duckdb.DuckDBPyConnection, query: str) -> Mapping[str, object]:
    """Return the only row of a query as a dictionary.

    Raises ValueError when there is not exactly one.
    """
    found = rows(con, query)
    if len(found) != 1:
        raise ValueError(f"{query.strip()} has {len(found)} rows, expected one")
    return found[0]


def nan_for_none(value: float | None) -> float:
    """Return a number for a plot: unknown and infinite values are NaN."""
    return value if value is not None and math.isfinite(value) else math.nan


def number(value: float | None, digits: int = 1) -> str:
    """Show a number with its thousands apart; a dash for what is unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "-∞"
    return f"{value:,.{digits}f}" if isinstance(value, float) else f"{value:,}"


def price(value: float | None) -> str:
    """Show a price to six digits."""
    return "–" if value is None else f"{value:,.6g}"


def share(value: float | None, digits: int = 1) -> str:
    """Show a share of 0 to 1 in percent."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def moment(value: object) -> str:
    """Show a timestamp to the minute."""
    return "–" if value is None else f"{value:%Y-%m-%d %H:%M}"


def words(value: str) -> str:
    """Show an identifier as words."""
    return value.replace("_", " ")
