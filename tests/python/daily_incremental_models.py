"""Incremental models of the daily track in memory: SQL and hooks rendered and run as dbt does."""

import hashlib
import itertools
from collections.abc import Mapping
from types import SimpleNamespace

from dbt_common.clients.jinja import get_template

from daily_frames import Market, write_market
from daily_sql import load_seed, model_source, new_connection, put, rendering_context, schemas

SEEDS = (
    "board_rules", "price_limit_rules", "price_limit_exceptions", "universes", "user_universes",
)  # fmt: skip
INCREMENTAL = (
    "daily_gates", "universe_members", "price_limits", "entry_eligibility", "daily_panel",
    "forward_return_exits", "forward_return_benchmarks", "main_wave_labels", "main_wave_episodes",
    "wave_proximity_targets", "event_benchmarks", "daily_event_inputs", "directional_changes",
    "excess_adaptive_events", "trend_scanning_events", "triple_barrier_events",
    "directional_change_events", "excess_adaptive_labels", "trend_scanning_labels",
    "triple_barrier_labels", "directional_change_labels", "anchor_labels",
)  # fmt: skip
LEDGERS = ("daily_day_hashes", "daily_built_days")
# made anew before each build of a model that reads them
REBUILT = {"excess_adaptive_labels": ("label_events", "event_thresholds")}


class RenderedModel:
    """A model's full SQL, incremental SQL and hooks under some settings."""

    def __init__(self, name: str, settings: Mapping | None = None, patches: Mapping | None = None):
        patches = patches or {}
        self.name = name
        self.relation = f"{schemas()[name]}.{name}"
        self.source = patches.get(name) or model_source(name)
        self.config: dict = {}
        self.context = rendering_context(settings)
        find = self.context["ref"]
        nodes: list[str] = []

        def ref(other: str) -> str:
            nodes.append(f"model.wavehouse.{other}")
            return find(other)

        self.context |= {
            "ref": ref,
            "this": self.relation,
            "render": self.rendered,
            "config": lambda **given: self.config.update(given) or "",
            "local_md5": lambda text: hashlib.md5(text.encode()).hexdigest(),
            "model": SimpleNamespace(
                name=name, raw_code=self.source, depends_on=SimpleNamespace(nodes=nodes)
            ),
        } | {macro: value for macro, value in patches.items() if callable(value)}
        self.context["execute"] = False
        self.statements(False)
        nodes[:] = sorted(set(nodes))
        self.context["ref"] = find
        self.context["execute"] = True
        self.full, self.incremental = self.statements(False), self.statements(True)

    def rendered(self, text: str) -> str:
        return get_template(text, {}).render(self.context)

    def statements(self, is_incremental: bool) -> tuple[str, str, str]:
        """Pre-hook, the model's select, post-hook."""
        self.context["is_incremental"] = lambda: is_incremental
        body = self.rendered(self.source)
        hooks = (self.config.get(name, "select 1") for name in ("pre_hook", "post_hook"))
        before, after = (self.rendered(hook) for hook in hooks)
        return before, body, after


class IncrementalTrack:
    """A warehouse in memory that takes deliveries; each build is compared with a full one.

    patches: {model: other source} or {macro: other function}, to plant faults and shorten windows.
    """

    def __init__(self, settings: Mapping, patches: Mapping | None = None):
        self.connection = new_connection()
        self.patches = patches or {}
        for seed in SEEDS:
            load_seed(self.connection, seed)
        self.set(settings)

    def set(self, settings: Mapping) -> None:
        """Use these settings from the next build on."""
        self.models = {
            name: RenderedModel(name, settings, self.patches)
            for name in (*LEDGERS, *INCREMENTAL, *itertools.chain(*REBUILT.values()))
        }

    def deliver(self, market: Market) -> None:
        """Replace the staging relations."""
        write_market(self.connection, market)
        put(
            self.connection,
            {name: market[name] for name in market if name.endswith("stg_daily_basic")},
        )

    def exists(self, model: RenderedModel) -> bool:
        schema, name = model.relation.split(".")
        return bool(
            self.connection.execute(
                "from duckdb_tables() where schema_name = ? and table_name = ?", [schema, name]
            ).fetchall()
        )

    def build(self, names=INCREMENTAL, with_hashes=True) -> dict[str, int]:
        """Run the models in their order as dbt does; return how many rows each of them wrote.

        with_hashes: make staging.daily_day_hashes anew.
        """
        ledger = self.models["daily_built_days"]
        if not self.exists(ledger):
            self.connection.execute(f"create table {ledger.relation} as {ledger.full[1]}")
        written = {}
        for name in INCREMENTAL:
            if name == "daily_gates" and with_hashes:
                self.rebuild(self.models["daily_day_hashes"])
            if name not in names:
                continue
            for other in REBUILT.get(name, ()):
                self.rebuild(self.models[other])
            model = self.models[name]
            is_incremental = self.exists(model)
            before, select, after = model.incremental if is_incremental else model.full
            self.connection.execute(before)
            if is_incremental:
                self.connection.execute(f"create or replace temp table new_rows as {select}")
                found = self.insert(model)
            else:
                found = self.connection.execute(f"create table {model.relation} as {select}")
            written[name] = found.fetchall()[0][0]
            self.connection.execute(after)
        return written

    def rebuild(self, model: RenderedModel) -> None:
        """Make the table anew."""
        self.connection.execute(f"create or replace table {model.relation} as {model.full[1]}")

    def insert(self, model: RenderedModel):
        """Add new_rows to the table, whose columns may follow the settings if the model says so."""
        ours, theirs = (
            self.connection.execute(f"select * from {name} limit 0").description
            for name in ("new_rows", model.relation)
        )
        if ours == theirs:
            return self.connection.execute(f"insert into {model.relation} from new_rows")
        assert model.config["on_schema_change"] == "sync_all_columns"
        assert self.rows(model.name) == 0
        return self.connection.execute(f"create or replace table {model.relation} as from new_rows")

    def differences(self, names=INCREMENTAL) -> dict[str, int]:
        """Rows that differ between each table and what its full SQL gives."""
        found = {}
        for name in names:
            model = self.models[name]
            self.connection.execute(f"create or replace temp table full_build as {model.full[1]}")
            count = self.connection.execute(
                f"""
                select count(*) from (
                    (from full_build except all from {model.relation})
                    union all
                    (from {model.relation} except all from full_build)
                )
                """
            ).fetchall()[0][0]
            if count:
                found[name] = count
        return found

    def rows(self, name: str) -> int:
        relation = self.models[name].relation
        return self.connection.execute(f"select count(*) from {relation}").fetchall()[0][0]
