"""Models of the panel of all factors: factors.factor_panel, and the views that are made of it."""

from collections.abc import Iterable, Mapping

from wavehouse.factors import program
from wavehouse.factors.expression import Expression
from wavehouse.factors.unrolled import tree

DAY = "getvariable('factor_day')"
KEYS = ("ts_code", "trade_date", "in_universe")
VIEWS = {
    "factor_panel_z": (
        "{{{{ factor_z_score('{factor}', '{prefix}', {weight}) }}}}",
        "Cross-sectional z-scores: each factor's distance from the mean of its day's universe, in "
        "standard deviations of the population, times the weight of its family (var "
        "factor_weights, else seeds.factor_families.default_weight). NULL outside of the universe, "
        "where the factor is unknown, and where all of the day are the same, give or take 1e-140.",
        "z-score of",
    ),
    "factor_panel_rank": (
        "{{{{ factor_normalised_rank('{factor}') }}}}",
        "Rank-normalised factors: the average rank among the day's universe, from -1 (least) to 1 "
        "(greatest). NULL outside of the universe and where the factor is unknown.",
        "Normalised rank of",
    ),
    "factor_panel_missing": (
        "{factor} is null",
        "Missing mask: whether a factor is unknown, for models that want this beside a filled "
        "value.",
        "Whether there is no",
    ),
}  # fmt: skip


def panel_sql(
    factors: Mapping[str, Expression],
    columns: Mapping[str, int | None],
    units: Mapping[str, float],
) -> str:
    """The program of factors.factor_panel, in the steps of the materialization factor_program.

    columns as in compiler.plan, units: {factor: what 1 of the panel is in its view}.
    """
    values = {
        name: name if units[name] == 1 else f"{name} / {units[name]!r}::double" for name in factors
    }
    planned = program.Program(factors, columns)
    inputs = "{{ factor_panel_inputs() }}"
    steps, tables, state = program.history(planned, inputs)
    source = " positional join ".join(("factor_base", *tables))
    parts = [
        _step("days", "days", ["{{ require_factor_universe() }}", _days(inputs)]),
        *(_step("history", each.title, each.statements) for each in steps),
        _step("history", "sanitizer", [*_macros(), _counted(values, source)]),
        _step("history_panel", "panel", [_panel(values, source)]),
        _step("history_sanitized", "counts", [_sanitized(values, source)]),
        _step("history_state", "state", [state]),
        _step("record", "days", _record()),
    ]
    kept = "{{ factor_panel_part('state') }}"
    steps, table, state = program.next_day(planned, inputs, kept, DAY)
    source = f"factor_today positional join {table}"
    parts += [
        *(_step("day", each.title, each.statements) for each in steps),
        _step("day", "sanitizer", [*_macros(), _counted(values, source)]),
        _step("day_panel", "panel", [_panel(values, source)]),
        _step("day_sanitized", "counts", [_sanitized(values, source)]),
        _step("day_state", "state", [state]),
    ]
    return "{{ config(materialized='factor_program') }}\n\n" + "\n\n".join(parts) + "\n"


def _step(kind: str, title: str, statements: list[str]) -> str:
    last = "" if len(statements) == 1 else ";"
    return f"-- step {kind}: {title}\n" + ";\n\n".join(statements) + last


def _days(inputs: str) -> str:
    return (
        "create or replace temp table factor_days as\n"
        "select trade_date, sum(hash(inputs)::hugeint) as input_hash\n"
        f"from {inputs} as inputs\ngroup by trade_date"
    )


def _record() -> list[str]:
    """What other incremental relations ask: which days the panel has, and made from what."""
    built = "{{ ref('daily_built_days') }}"
    return [
        f"delete from {built} where relation = '{{{{ this.identifier }}}}'",
        f"insert into {built}\n"
        "select '{{ this.identifier }}', trade_date, hash(input_hash, fingerprint)\n"
        "from {{ factor_panel_part('days') }}",
    ]


def _macros() -> list[str]:
    clip = "{{ factor_panel_settings().factor_clip }}::double"
    return [
        "create or replace temp macro factor_sane(x) as"
        f" case when isfinite(x) then least(greatest(x, -{clip}), {clip}) end",
        "create or replace temp macro factor_nonfinite(x) as"
        " coalesce((not isfinite(x))::integer, 0)",
        "create or replace temp macro factor_beyond(x) as"
        f" coalesce((isfinite(x) and abs(x) > {clip})::integer, 0)",
    ]


def _counted(values: Mapping[str, str], source: str) -> str:
    """How many factors of a row are cut. values: {factor: what the panel takes of `source`}."""
    terms = [
        tree([f"factor_{what}({value})" for value in values.values()])
        for what in ("nonfinite", "beyond")
    ]
    return (
        "create or replace temp table factor_cut as\nselect\n"
        f"    {terms[0]} as nonfinite_count,\n    {terms[1]} as clipped_count\nfrom {source}"
    )


def _panel(values: Mapping[str, str], source: str) -> str:
    listed = ",\n    ".join(f"factor_sane({value}) as {name}" for name, value in values.items())
    keys = ", ".join(KEYS)
    return (
        f"select\n    {keys}, nonfinite_count, clipped_count,\n    {listed}\n"
        f"from {source} positional join factor_cut"
    )


def _sanitized(values: Mapping[str, str], source: str) -> str:
    """Per factor and day, of the rows in which something is cut."""
    listed = ",\n            ".join(
        f"{{'factor_id': '{name}', 'nonfinite_count': sum(factor_nonfinite({value})),"
        f" 'clipped_count': sum(factor_beyond({value}))}}"
        for name, value in values.items()
    )
    return (
        "select factor_id, trade_date, nonfinite_count, clipped_count\nfrom (\n    select\n"
        f"        trade_date,\n        unnest([\n            {listed}\n        ],"
        f" recursive := true)\n    from {source} positional join factor_cut\n"
        "    where nonfinite_count + clipped_count > 0\n    group by trade_date\n)\n"
        "where nonfinite_count + clipped_count > 0"
    )


def view_sql(view: str, families: Mapping[str, str], weights: Mapping[str, float]) -> str:
    """A view of the panel. families: {factor: prefix}, weights: {prefix: default weight}."""
    form = VIEWS[view][0]
    listed = ",\n    ".join(
        f"{form.format(factor=factor, prefix=prefix, weight=weights[prefix])} as {factor}"
        for factor, prefix in families.items()
    )
    keys = ",\n    ".join(KEYS)
    return (
        "{{ config(materialized='view') }}\n\n"
        f"select\n    {keys},\n    {listed}\nfrom {{{{ ref('factor_panel') }}}}\n"
    )


def described(factors: Iterable[str], relations: Mapping[str, str], text: str) -> list[dict]:
    """Descriptions of the columns of factors."""
    return [
        {"name": name, "description": f"{text} `{relations[name]}.{name}`."} for name in factors
    ]
