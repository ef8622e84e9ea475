"""`wavehouse report`: pages to look at, each one file without a network."""

import contextlib
from pathlib import Path

import click
import duckdb

from wavehouse import warehouse


@click.group("report")
def report_command() -> None:
    """Write a self-contained HTML page from the warehouse.

    \b
      wavehouse report run                 the tear sheet of this build, to reports/run.html
    """


@report_command.command("run")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("reports/run.html"),
    show_default=True,
    help="File to write.",
)
@click.option(
    "--db", type=click.Path(), help="The DuckDB file; default $WAREHOUSE_DB, else warehouse.duckdb."
)
def run_command(output: Path, db: str | None) -> None:
    """Write the tear sheet of a run: verdicts, equity, funnel, search, regimes, worst trades.

    The page holds its plots and its style; it opens anywhere, without a network. The same
    warehouse gives the same bytes.
    """
    from wavehouse.reports.run_report import run_page

    try:
        with contextlib.closing(warehouse.connect(db)) as con:
            page = run_page(con)
        output.parent.mkdir(parents=True, exist_ok=True)
        with warehouse.whole_file(output) as draft:
            Path(draft).write_text(page, encoding="utf-8")
    except warehouse.WarehouseError as error:
        raise click.ClickException(str(error)) from error
    except duckdb.Error as error:
        raise click.ClickException(
            f"{error}\nThe report reads the floors up to release: `dbt build` makes them."
        ) from error
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error}") from error
    click.echo(f"{output}  {output.stat().st_size:,} bytes")
