"""`wavehouse factors`: compile the catalog into models, show what a factor is."""

import sys
from pathlib import Path

import click

from wavehouse.factors import catalog as seeds
from wavehouse.factors.expression import columns, look_back


@click.group("factors", context_settings={"help_option_names": ["-h", "--help"]})
def factors_command() -> None:
    """Factors are lines of seeds/factor_catalog.csv; this makes them columns.

    \b
    Add a factor:
      echo 'tech_gap_5d,technical,"mean(open / delay(close, 1) - 1, 5)",0,Ours,,' \\
        >> seeds/factor_catalog.csv
      wavehouse factors compile
      dbt build --select +technical
      wavehouse sql "select tech_gap_5d from factors.technical"
    """


def _catalog() -> seeds.Catalog:
    try:
        return seeds.read_catalog(Path.cwd())
    except seeds.CatalogError as error:
        raise click.ClickException(str(error)) from None


@factors_command.command("compile")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 where a file is stale.")
def compile_command(check: bool) -> None:
    """Write the generated models from the seeds."""
    read = _catalog()
    files = seeds.generated_files(read)
    if check:
        stale = seeds.stale_files(Path.cwd(), files)
        for line in stale:
            click.echo(line, err=True)
        if stale:
            click.echo("Run `wavehouse factors compile`.", err=True)
            sys.exit(1)
        click.echo(f"{len(files)} files are what the seeds say.")
        return
    changed = seeds.write_files(Path.cwd(), files)
    for path in changed:
        click.echo(path)
    count, families = len(read.factors), len(read.families)
    click.echo(f"{count} factors of {families} families, {len(changed)} files changed.")


@factors_command.command("list")
@click.argument("prefix", default="")
def list_command(prefix: str) -> None:
    """List the factors whose id begins with PREFIX."""
    found = [each for each in _catalog().factors if each.factor_id.startswith(prefix)]
    if not found:
        raise click.ClickException(f"no factor begins with {prefix!r}: `wavehouse factors list`")
    for factor in found:
        click.echo(f"{factor.factor_id:<36}{factor.formula}")


@factors_command.command("show")
@click.argument("factor_id")
@click.option(
    "--dialect", default="duckdb", show_default=True, help="Of the SQL, as sqlglot names it."
)
def show_command(factor_id: str, dialect: str) -> None:
    """Show a factor: formula, source, what it reads, how far it looks back, its SQL alone."""
    read = _catalog()
    found = [each for each in read.factors if each.factor_id == factor_id.lower()]
    if not found:
        known = [each.factor_id for each in read.factors]
        hint = seeds.nearest(factor_id, known)
        raise click.ClickException(f"there is no factor {factor_id}{hint}")
    factor = found[0]
    rows = look_back(factor.expression)
    for name, text in {
        "formula": factor.formula,
        "published": factor.published_formula,
        "read as": factor.expression,
        "source": factor.source,
        "note": factor.note,
        "reads": ", ".join(columns(factor.expression)),
        "panel unit": f"{factor.panel_unit:,.15g}" if factor.panel_unit != 1 else "",
        "looks back": "all rows" if rows == float("inf") else f"{int(rows)} rows",
    }.items():
        if text:
            click.echo(f"{name:<12}{text}")
    click.echo()
    click.echo(seeds.factor_sql(read, [factor.factor_id], "factors.factor_inputs", dialect))
