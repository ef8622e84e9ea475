"""The `wavehouse` command: one group, one sub-command per module, imported when it is asked for."""

import importlib

import click

COMMANDS = {
    "sample": "wavehouse.sample:sample_command",
    "ingest": "wavehouse.ingest:ingest_command",
    "sql": "wavehouse.shell:sql_command",
    "heads": "wavehouse.heads.cli:heads_command",
    "factors": "wavehouse.factors.cli:factors_command",
    "export": "wavehouse.export:export_command",
    "report": "wavehouse.reports.cli:report_command",
    "doctor": "wavehouse.doctor:doctor_command",
}


class LazyGroup(click.Group):
    """A click group that imports a sub-command's module only when that command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the sub-commands in the order a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Import and return the command `name`, or None when there is no such command."""
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name].split(":")
        return getattr(importlib.import_module(module), attribute)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wavehouse")
def main() -> None:
    """Market bars in; factors, labels, heads and release decisions out, all as SQL relations.

    Two tracks: minute bars, and daily bars of China's A-shares up to their labels.

    \b
    A first session:
      wavehouse sample                write small deterministic markets to data/sample
      dbt build                       build every relation and run its tests
      wavehouse sql "from labels.label_distribution"
      wavehouse heads list            the trained models: what they predict, how well
      wavehouse report run            the tear sheet: equity, search, rules, worst trades
      wavehouse export RUN            the files that downstream services read
      wavehouse doctor                what is installed, what data is there, what is missing

    \b
    Your own data:
      wavehouse ingest binance klines/*.zip --data-dir ~/market
      WAREHOUSE_DATA=~/market dbt build
      wavehouse ingest tushare dump/ --data-dir ~/ashares   daily A-shares; or: ingest baostock
      WAREHOUSE_DATA=~/ashares dbt build --select +tag:daily
    """


if __name__ == "__main__":
    main()
