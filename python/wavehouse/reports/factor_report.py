"""The page of factors.factor_health: what factors say, what is missing, how fast they change."""

import duckdb
import numpy as np
from markupsafe import Markup

from wavehouse.reports import plots
from wavehouse.reports.run_report import Rows, nan_for_none, page_template, rows

EXTREMES = 15  # factors named at either end
MAPPED = 40  # factors whose months are drawn when all families are on the page
NAMED = 6  # points that are named in a scatter plot, where no other name is in the way,
CANDIDATES = 20  # of the strongest
ENOUGH = 0.25  # of the days of the factor that has most: less, and a few days decide the order
# over all months: the mean and the deviation of the daily ones, from those of each month
SUMMARY = """
    with months as (

        select
            health.*,
            catalog.family,
            catalog.direction,
            sum(ic_days * ic) over of_factor / nullif(sum(ic_days) over of_factor, 0) as whole_ic,
            sum(ic_days * rank_ic) over of_factor / nullif(sum(ic_days) over of_factor, 0)
                as whole_rank_ic
        from factors.factor_health as health
        inner join factors.factor_catalog as catalog using (factor_id)
        where family = coalesce(?, family)
        window of_factor as (partition by factor_id)

    )

    select
        family,
        factor_id,
        any_value(direction) as direction,
        sum(ic_days)::bigint as ic_days,
        any_value(whole_ic) as ic,
        any_value(whole_rank_ic) as rank_ic,
        any_value(whole_rank_ic) / nullif(sqrt(
            sum(
                greatest(ic_days - 1, 0) * coalesce(rank_ic_std, 0) ** 2
                + ic_days * (rank_ic - whole_rank_ic) ** 2
            ) / nullif(sum(ic_days) - 1, 0)
        ), 0) as rank_ic_ir,
        sum(null_share * row_count) / sum(row_count) as null_share,
        avg(distinct_share) as distinct_share,
        sum(nonfinite_count)::bigint as nonfinite_count,
        sum(clipped_count)::bigint as clipped_count,
        avg(autocorrelation) as autocorrelation,
        avg(turnover) as turnover
    from months
    group by family, factor_id
    order by rank_ic desc nulls last, factor_id
"""


class NoFactorsError(Exception):
    """There is nothing to show; the text says what there is."""


def factor_page(con: duckdb.DuckDBPyConnection, family: str | None = None) -> str:
    """Return the whole page as HTML, of all families or of one.

    Raises duckdb.Error when a relation that it reads is missing, NoFactorsError for a family that
    has no factor there.
    """
    factors = rows(con, SUMMARY, [family])
    if not factors:
        known = rows(con, "select distinct family from factors.factor_catalog order by family")
        listed = ", ".join(each["family"] for each in known)
        raise NoFactorsError(
            f"factors.factor_health has no factor of family {family!r}; families are {listed}"
            if family
            else "factors.factor_health is empty"
        )
    # one without an information coefficient, such as of a feed that is not there, is in the table
    judged = [each for each in factors if each["rank_ic"] is not None]
    least = ENOUGH * max((each["ic_days"] for each in judged), default=0)
    compared = [each for each in judged if each["ic_days"] >= least]
    span = rows(
        con,
        """
        select min(month) as first, max(month) as last, count(distinct month) as months,
            max(month) filter (ic_days > 0) as last_judged
        from factors.factor_health
        """,
    )[0]
    return page_template("factor_report.html.j2").render(
        family=family,
        factors=sorted(
            factors, key=lambda each: (each["ic_days"] < least, -abs(each["rank_ic_ir"] or 0))
        ),
        judged=len(judged),
        rare=len(judged) - len(compared),
        families=len({each["family"] for each in factors}),
        span=span,
        maps=month_maps(con, judged if family else compared, family),
        bars=extreme_bars(compared),
        gaps=gap_map(con, factors, family),
        motion=motion_plots(compared),
    )


def by_month(
    con: duckdb.DuckDBPyConnection, row: str, value: str, names: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Return a matrix of an aggregate, a row for each name and a column for each month."""
    found = rows(
        con,
        f"""
        select {row} as name, strftime(month, '%Y-%m') as month, {value} as number
        from factors.factor_health
        inner join factors.factor_catalog using (factor_id)
        group by all
        order by month
        """,
    )
    months = list(dict.fromkeys(each["month"] for each in found))
    place = {name: index for index, name in enumerate(names)}
    column = {month: index for index, month in enumerate(months)}
    values = np.full((len(names), len(months)), np.nan)
    for each in found:
        if each["name"] in place:
            values[place[each["name"]], column[each["month"]]] = nan_for_none(each["number"])
    return values, months


def darkest(values: np.ndarray, fallback: float) -> float:
    """Return the value of the darkest colour: few lie beyond it."""
    known = np.abs(values[np.isfinite(values)])
    return float(np.quantile(known, 0.98)) or fallback if known.size else fallback


def month_maps(con: duckdb.DuckDBPyConnection, judged: Rows, family: str | None) -> list[Markup]:
    """Monthly rank IC: of every family and of the strongest factors, or of a family's factors."""
    pictures = []
    if family is None and judged:
        names = sorted({each["family"] for each in judged})
        values, months = by_month(con, "family", "avg(abs(rank_ic))", names)
        pictures.append(
            plots.month_map(
                "families", "Mean |rank IC| of a family's factors", values, months,
                [name.replace("_", " ") for name in names], "mean |rank IC|",
                limit=darkest(values, 0.1), signed=False,
            )
        )  # fmt: skip
    strongest = sorted(judged, key=lambda each: -abs(each["rank_ic"]))
    chosen = {each["factor_id"] for each in (strongest if family else strongest[:MAPPED])}
    names = [each["factor_id"] for each in judged if each["factor_id"] in chosen]
    if names:
        values, months = by_month(con, "factor_id", "any_value(rank_ic)", names)
        title = f"Rank IC of {family}" if family else f"Rank IC of the {len(names)} strongest"
        pictures.append(
            plots.month_map(
                "factors", title, values, months, names, "rank IC",
                limit=darkest(values, 0.1), signed=True,
            )
        )  # fmt: skip
    return [Markup(each) for each in pictures]


def extreme_bars(compared: Rows) -> list[Markup]:
    """The highest and the lowest factors by rank IC, and by its ratio."""
    pictures = []
    for column, title, unit in [
        ("rank_ic", "Rank IC: highest and lowest", "mean daily rank IC"),
        ("rank_ic_ir", "IR: highest and lowest", "mean / deviation of the daily rank IC"),
    ]:
        ranked = sorted(
            (each for each in compared if each[column] is not None), key=lambda each: -each[column]
        )
        few = len(ranked) <= 2 * EXTREMES
        chosen = ranked if few else ranked[:EXTREMES] + ranked[-EXTREMES:]
        pictures.append(
            plots.bars(
                column.replace("_", "-"), title, [each["factor_id"] for each in chosen],
                {unit: [each[column] for each in chosen]}, unit, horizontal=True, by_sign=True,
            )
        )  # fmt: skip
    return [Markup(each) for each in pictures]


def gap_map(con: duckdb.DuckDBPyConnection, factors: Rows, family: str | None) -> Markup:
    """NULL share by month: of families, or of a family's factors."""
    row = "factor_id" if family else "family"
    names = sorted({each[row] for each in factors})
    values, months = by_month(con, row, "sum(null_share * row_count) / sum(row_count)", names)
    labels = names if family else [name.replace("_", " ") for name in names]
    return Markup(
        plots.month_map(
            "gaps", "Share of unknown values", values, months, labels, "NULL share",
            limit=1.0, signed=False,
        )
    )  # fmt: skip


def motion_plots(compared: Rows) -> list[Markup]:
    """What a factor says against how fast its top changes; how much of its order stays."""
    moving = [each for each in compared if each["turnover"] is not None]
    sizes: dict[str, int] = {}
    for each in moving:
        sizes[each["family"]] = sizes.get(each["family"], 0) + 1
    groups = {}
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        of_family = [each for each in moving if each["family"] == name]
        groups[name.replace("_", " ")] = (
            [each["turnover"] for each in of_family],
            [abs(each["rank_ic"]) for each in of_family],
        )
    notes: dict[str, tuple[float, float]] = {}
    for each in sorted(moving, key=lambda each: -abs(each["rank_ic"]))[:CANDIDATES]:
        x, y = each["turnover"], abs(each["rank_ic"])
        room = all(abs(x - a) > 0.4 or abs(y - b) > 0.05 * b for a, b in notes.values())
        if room and len(notes) < NAMED:
            notes[each["factor_id"]] = x, y
    against = plots.scatter(
        "turnover", "What it says, how often its top changes", groups,
        "turnover of the top quintile a day", "|rank IC|", notes,
    )  # fmt: skip
    kept = np.array([nan_for_none(each["autocorrelation"]) for each in compared], float)
    stays = plots.counts(
        "autocorrelation", "How much of the order stays", kept,
        "autocorrelation of ranks from day to day", "factors",
    )  # fmt: skip
    return [Markup(against), Markup(stays)]
