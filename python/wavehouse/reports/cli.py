"""`wavehouse report`: pages to look at, each one file without a network."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import click
import duckdb

from wavehouse import warehouse


@click.group("report")
def report_command() -> None:
    """Write a self-contained HTML page from the warehouse.

    \b
      wavehouse report run                 the tear sheet of this build, to reports/run.html
      wavehouse report factors             what the factors are worth, to reports/factors.html
    """


def page_options(name: str) -> Callable[[Callable], Callable]:
    """Give a command the options that every page has."""

    def give(command: Callable) -> Callable:
        command = click.option(
            "--db",
            type=click.Path(),
            help="The DuckDB file; default $WAREHOUSE_DB, else warehouse.duckdb.",
        )(command)
        return click.option(
            "--output",
            "-o",
            type=click.Path(dir_okay=False, path_type=Path),
            default=Path(f"reports/{name}.html"),
            show_default=True,
            help="File to write.",
        )(command)

    return give


@report_command.command("run")
@page_options("run")
def run_command(output: Path, db: str | None) -> None:
    """Write the tear sheet of a run: verdicts, equity, funnel, search, regimes, worst trades.

    The page holds its plots and its style; it opens anywhere, without a network. The same
    warehouse gives the same bytes.
    """
    from wavehouse.reports.run_report import run_page

    write_page(run_page, output, db, "The report reads the floors up to release: `dbt build`")


@report_command.command("factors")
@click.option("--family", help="Only the factors of this family, each with its months.")
@page_options("factors")
def factors_command(family: str | None, output: Path, db: str | None) -> None:
    """Write what the factors are worth: information coefficients, gaps, persistence, turnover.

    Reads factors.factor_health. The page holds its plots and its style; it opens anywhere, without
    a network. The same warehouse gives the same bytes.
    """
    from wavehouse.reports.factor_report import NoFactorsError, factor_page

    try:
        write_page(
            lambda con: factor_page(con, family),
            output,
            db,
            "The report reads factors.factor_health: `dbt build --select +factor_health`",
        )
    except NoFactorsError as error:
        raise click.ClickException(str(error)) from error


def write_page(
    page: Callable[[duckdb.DuckDBPyConnection], str], output: Path, db: str | None, needs: str
) -> None:
    """Write the text of a page whole, or say why not; `needs` says what makes its relations."""
    try:
        with contextlib.closing(warehouse.connect(db)) as con:
            text = page(con)
        output.parent.mkdir(parents=True, exist_ok=True)
        with warehouse.whole_file(output) as draft:
            Path(draft).write_text(text, encoding="utf-8")
    except warehouse.WarehouseError as error:
        raise click.ClickException(str(error)) from error
    except duckdb.Error as error:
        raise click.ClickException(f"{error}\n{needs} makes them.") from error
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error}") from error
    click.echo(f"{output}  {output.stat().st_size:,} bytes")
