"""`wavehouse heads`: list the trained models, look into one, print it as SQL, check them all."""

import contextlib
import dataclasses
import datetime as dt
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import duckdb

from wavehouse import warehouse
from wavehouse.heads.base import HeadsError
from wavehouse.heads.config import MINUTE
from wavehouse.paths import warehouse_file
from wavehouse.shell import format_cell, show_table

ID_DIGITS = 12  # of a model_id, where a person reads it
TOP_FEATURES = 10
ROUTES = ("native", "onnx", "sql")
SAMPLE_ID = "sample_id"
TRAIN = "Train with `dbt build --select head_samples+`."


@dataclasses.dataclass(frozen=True)
class Registered:
    """A model of `heads.model_registry`; `state` is champion, earlier, previous or none."""

    model_id: str
    head: str
    target: str
    outputs: list[str]
    state: str
    fold: str
    trainer: str
    members: int
    valid_from: dt.datetime
    tune_metric: str | None
    tune_value: float | None


@click.group("heads")
def heads_command() -> None:
    """List, show and check the learned heads; print one as SQL.

    \b
      wavehouse heads list
      wavehouse heads show long_entry_prob
      wavehouse heads sql long_entry_prob > long_entry.sql
      wavehouse heads verify

    A NAME is an output (long_entry_prob) or a target (long_entry), which stand for the champion of
    today, or a model_id or its first digits.
    """


db_option = click.option(
    "--db", type=click.Path(), help="The DuckDB file; default $WAREHOUSE_DB, else warehouse.duckdb."
)


@heads_command.command("list")
@db_option
def list_command(db: str | None) -> None:
    """List every registered model, those that predict now first.

    \b
      wavehouse heads list

    State: a champion predicts from valid_from on, an earlier one did until the champion; previous
    was replaced by a later build; none tests a fold and never predicts. The tune metric stopped the
    training; shown is its mean over the members.
    """
    with opened(db) as (con, _):
        models = registered(con)
    names = [field.name for field in dataclasses.fields(Registered)]
    names.append(names.pop(names.index("model_id")))
    names.insert(0, names.pop(names.index("target")))  # a folded table repeats its first column
    rows = [
        [
            {"outputs": ", ".join(model.outputs), "model_id": model.model_id[:ID_DIGITS]}.get(
                name, getattr(model, name)
            )
            for name in names
        ]
        for model in models
    ]
    show_table(names, rows, sys.stdout)


@heads_command.command("show")
@click.argument("name")
@db_option
def show_command(name: str, db: str | None) -> None:
    """Show what is known of a model: its facts, rows, features, calibration and files.

    \b
      wavehouse heads show long_entry_prob
      wavehouse heads show c30b0a25
    """
    with opened(db) as (con, store):
        model = find(registered(con), name)
        facts = model_facts(con, model, store)
        margin = max(map(len, facts))
        for fact, value in facts.items():
            click.echo(f"{fact:{margin}}  {format_cell(value)}".rstrip())
        for title, query in SECTIONS.items():
            try:
                cursor = con.execute(query, {"id": model.model_id})
            except duckdb.CatalogException:
                continue  # not built: a selection of dbt's left it out
            names, rows = [column[0] for column in cursor.description], cursor.fetchall()
            if rows:
                click.echo(f"\n{title}")
                show_table(names, rows, sys.stdout)


@heads_command.command("sql")
@click.argument("name")
@click.option(
    "--relation",
    default=MINUTE.features,
    show_default=True,
    help="What to score: a name, a table function, or a query in parentheses.",
)
@click.option("--raw", is_flag=True, help="The scores of the members, neither mean nor calibrated.")
@db_option
def sql_command(name: str, relation: str, raw: bool, db: str | None) -> None:
    """Print a model as one SELECT of plain SQL that any DuckDB runs, without Python.

    \b
      wavehouse heads sql long_entry_prob > long_entry.sql
      wavehouse heads sql long_prob --relation "read_parquet('new_rows.parquet')"

    It gives what heads.<head>_predictions has (to the last bit for trees): sample_id where the
    relation has one, the model's outputs, the ends of their intervals. Large nets have no SQL.
    """
    with opened(db) as (con, store):
        from wavehouse.heads.model import load
        from wavehouse.heads.model_sql import model_select

        one = find(registered(con), name)
        model, _ = load(store, one.model_id)
        keep = columns_to_keep(con, relation, model.features)
        text = model_select(model, relation, keep, raw)
    click.echo(
        f"-- {', '.join(one.outputs)}: head {one.head}, target {one.target}, fold {one.fold}\n"
        f"-- model {one.model_id}\n{text};"
    )


@heads_command.command("verify")
@click.argument("name", required=False)
@db_option
def verify_command(name: str | None, db: str | None) -> None:
    """Ask every registered model, or one, its golden cases again; exit code 1 if any differs.

    \b
      wavehouse heads verify
      wavehouse heads verify long_entry_prob

    Every file is checked against its hash. Then the model answers by its own library, by ONNX and
    in SQL; shown is the largest difference from what it answered when it was stored.
    """
    with opened(db) as (con, store):
        models = registered(con)
        models = [find(models, name)] if name else models
    rows, failures, notes = [], [], []
    for model in models:
        label = f"{model.target} {model.model_id[:ID_DIGITS]}"
        differences, failed, refused = verified(store, model.model_id)
        failures += [f"{label}: {reason}" for reason in failed]
        notes += [f"{label}: {reason}" for reason in refused]
        shown = [differences.get(route, "-") for route in ROUTES]
        verdict = "failed" if failed else "ok"
        rows.append((model.target, model.fold, model.model_id[:ID_DIGITS], *shown, verdict))
    show_table(("target", "fold", "model_id", *ROUTES, "verdict"), rows, sys.stdout)
    for line in notes + failures:
        click.echo(line, err=True)
    if failures:
        raise SystemExit(1)


@contextlib.contextmanager
def opened(db: str | None) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """Open the warehouse, read-only, and name its model store; turn our errors into messages."""
    path = Path(db).expanduser() if db else warehouse_file()
    try:
        with contextlib.closing(warehouse.connect(path)) as con:
            yield con, warehouse.model_store(path)
    except (warehouse.WarehouseError, HeadsError) as error:
        raise click.ClickException(str(error)) from error


def registered(con: duckdb.DuckDBPyConnection) -> list[Registered]:
    """Return every registered model: champions of now, champions before them, the rest.

    Raises HeadsError when there is none.
    """
    try:
        rows = con.execute("""
            with fits as (
                select
                    model_id,
                    any_value(tune_metric) as tune_metric,
                    avg(tune_value) as tune_value
                from heads.model_fits
                group by model_id
            )

            select
                registry.model_id,
                registry.head,
                registry.target,
                registry.outputs,
                case
                    when aliases.alias = 'champion' and aliases.valid_to_ms is null then 'champion'
                    when aliases.alias = 'champion' then 'earlier'
                    else coalesce(aliases.alias, 'none')
                end as state,
                registry.fold,
                registry.trainer,
                len(registry.seeds) as members,
                registry.valid_from,
                fits.tune_metric,
                fits.tune_value
            from heads.model_registry as registry
            left join heads.model_aliases as aliases using (model_id)
            left join fits using (model_id)
            order by
                list_position(['champion', 'earlier', 'previous', 'none'], state),
                registry.track,
                registry.head,
                registry.target,
                registry.valid_from desc,
                registry.model_id
        """).fetchall()
    except duckdb.CatalogException as error:
        missing = str(error).splitlines()[0]
        raise HeadsError(
            f"No head is trained in this warehouse yet. {TRAIN} ({missing})"
        ) from error
    if not rows:
        raise HeadsError(f"heads.model_registry has no model. {TRAIN}")
    return [Registered(*row) for row in rows]


def find(models: Sequence[Registered], name: str) -> Registered:
    """Return the model that `name` stands for; of several of a target, the first.

    Raises HeadsError when there is none, or when a prefix fits several.
    """
    word = name.strip().lower()
    by_name = [model for model in models if word in (model.target, *model.outputs)]
    by_id = [model for model in models if word and model.model_id.startswith(word)]
    if by_name or len(by_id) == 1:
        return (by_name or by_id)[0]
    if by_id:
        found = ", ".join(model.model_id[:ID_DIGITS] for model in by_id[:5])
        raise HeadsError(f"{len(by_id)} models begin with {name!r}: {found}. Give more digits.")
    targets = dict.fromkeys(model.target for model in models if model.head == word)
    if targets:
        raise HeadsError(f"{name} is a head of several models. Name one: {', '.join(targets)}.")
    known = dict.fromkeys(each for model in models for each in (*model.outputs, model.target))
    near = warehouse.near_names(name, list(known))
    advice = f"Near names: {', '.join(near)}" if near else "No name is near that"
    raise HeadsError(
        f"No model has the output, target or id {name!r}. {advice} (`wavehouse heads list` has "
        "them all)."
    )


SECTIONS = {
    "rows": """
        select
            role,
            row_count,
            labelled_row_count,
            positive_count,
            make_timestamp(first_starts_at_ms * 1000) as first_starts_at,
            make_timestamp(last_label_ends_at_ms * 1000) as last_label_ends_at
        from heads.model_rows
        where model_id = $id
        order by list_position(['fit', 'tune', 'calibrate', 'test'], role)
    """,
    "members": """
        select seed, best_iteration, rounds, tune_metric, tune_value, cpu_seconds
        from heads.model_fits
        where model_id = $id
        order by seed
    """,
    f"features, the first {TOP_FEATURES} by permutation": f"""
        with importance as (
            from heads.feature_importance
            where model_id = $id
        )

        pivot importance on kind in ('permutation', 'shap', 'gain') using any_value(value)
        group by feature
        order by permutation desc, feature
        limit {TOP_FEATURES}
    """,
    "calibration": """
        select
            output,
            any_value(method) as method,
            count(*) as pieces,
            any_value(row_count) as row_count,
            any_value(positive_count) as positive_count,
            any_value(base_rate) as base_rate
        from heads.calibration_maps
        where model_id = $id
        group by output
        order by output
    """,
    "intervals": """
        select
            output,
            any_value(level) as level,
            count(*) as bins,
            sum(row_count)::bigint as row_count,
            median(upper_offset - lower_offset) as median_width
        from heads.conformal_intervals
        where model_id = $id
        group by output
        order by output
    """,
}


def model_facts(
    con: duckdb.DuckDBPyConnection, model: Registered, store: Path
) -> dict[str, object]:
    """Return the facts of a model, from the registry and from its manifest where that is there."""
    cursor = con.execute("from heads.model_registry where model_id = $id", {"id": model.model_id})
    names = [column[0] for column in cursor.description]
    row = dict(zip(names, cursor.fetchall()[0], strict=True))
    folder = store / model.model_id
    manifest = {}
    with contextlib.suppress(OSError, ValueError):
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    sizes = sum(each["size_bytes"] for each in row["artifacts"])
    never_null = ", ".join(manifest.get("unseen_nulls", []))
    files = f"{folder} ({len(row['artifacts'])} files, {sizes:,} bytes)"
    return {
        "model_id": model.model_id,
        "state": model.state,
        "outputs": ", ".join(model.outputs),
        "head": model.head,
        "target": model.target,
        "label_column": manifest.get("label_column", "-"),
        "objective": row["objective"],
        "fold": model.fold,
        "valid_from": model.valid_from,
        "trainer": f"{model.trainer} {row['params_json']}",
        "seeds": ", ".join(map(str, row["seeds"])),
        "features": f"{row['feature_count']} of list {row['feature_list']}",
        "never_null": never_null and f"{never_null} (a NULL there makes the prediction NULL)",
        "trained_at": row["trained_at"],
        "cpu_seconds": row["cpu_seconds"],
        "libraries": row["libraries_json"],
        "hashes": ", ".join(
            f"{name} {row[f'{name}_hash'][:ID_DIGITS]}" for name in ("schema", "order", "code")
        ),
        "files": files if folder.is_dir() else f"{folder} is not there",
    }


def columns_to_keep(
    con: duckdb.DuckDBPyConnection, relation: str, features: Sequence[str]
) -> list[str]:
    """Return the columns of a relation beside the outputs: sample_id, where it has one.

    Raises HeadsError when there is no such relation or it lacks a feature.
    """
    try:
        rows = con.execute(f"describe select * from {relation} as features").fetchall()
    except duckdb.Error as error:
        raise HeadsError(warehouse.explain_error(con, str(error))) from error
    names = {row[0].lower(): row[0] for row in rows}
    missing = [name for name in features if name.lower() not in names]
    if missing:
        raise HeadsError(
            f"{relation} lacks {len(missing)} of the {len(features)} features: "
            f"{', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}. Name a relation that "
            f"has them, such as {MINUTE.features}."
        )
    return [names[SAMPLE_ID]] if SAMPLE_ID in names else []


def verified(store: Path, model_id: str) -> tuple[dict[str, float], list[str], list[str]]:
    """Replay a model; return its largest difference by route, what failed, and absent routes."""
    from wavehouse.heads.replay import replay_model

    try:
        replays = replay_model(store, model_id)
    except HeadsError as error:
        return {}, [str(error)], []
    differences: dict[str, float] = {}
    failed, refused = [], {}
    for replay in replays:
        route, seed = replay["route"], replay["seed"]
        if reason := replay.get("refusal"):
            refused[route] = f"{route}: {reason}"
            continue
        difference, tolerance = replay["largest_difference"], replay["tolerance"]
        differences[route] = max(differences.get(route, 0.0), difference)
        if not difference <= tolerance:  # NaN too
            differences[route] = difference if math.isnan(difference) else differences[route]
            failed.append(
                f"{route}, seed {seed}: a score differs by {difference:g} from the stored one, "
                f"{tolerance:g} is allowed. The files are as they were stored, so a library or "
                f"this code answers differently than when it was trained. {TRAIN}"
            )
    return differences, failed, list(refused.values())
