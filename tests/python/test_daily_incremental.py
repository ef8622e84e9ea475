"""Incremental relations of the daily track equal a full build to the last bit.

A market grows day by day; bars come late, are corrected, withdrawn; spans end, appear, begin on
other days; seeds and settings change; runs build some of the relations only. Each time every table
is compared with its full SQL. dbt itself builds once, fails once and builds on.
"""

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from daily_event_models import LABEL_SETS
from daily_frames import Market, calendar_frame, generated_market, known_at
from daily_incremental_models import INCREMENTAL, IncrementalTrack
from daily_sql import model_source, put, schemas
from test_daily_events import CASES as EVENT_CASES
from test_daily_events import frames, random_stocks
from warehouse import new_warehouse
from wavehouse.daily_sample import write_daily_sample
from wavehouse.daily_sample_plan import DailyOptions

# windows of a market that is weeks long; stocks are absent for longer than their rows are kept
SETTINGS = {
    "daily_min_listed_days": 10,
    "daily_absent_days_kept": 8,
    "forward_return_days": [1, 3, 6],
    "main_wave_hold_days": 4,
    "main_wave_fast_days": 2,
    "main_wave_slow_days": 6,
    "main_wave_volatility_days": 8,
    "main_wave_amount_days": 5,
    "main_wave_minimum_amount_cny": 1e5,
    "wave_episode_days": 7,
    "wave_episode_first_peak_day": 2,
    "wave_episode_prior_days": 3,
    "wave_episode_minimum_gain": 0.03,
    "wave_episode_minimum_daily_gain": 0.005,
    "wave_episode_max_prior_gain": 0.2,
    "wave_episode_drawdown_base": 0.2,
    "event_amount_days": 4,
    "event_min_amount_cny": 1e5,
    "event_volatility_half_life_days": 3,
    "event_positive_rate": 0.05,
    "event_max_positive_rate": 0.1,
    "excess_adaptive_prior_days": 2,
    "excess_adaptive_window_days": 5,
    "excess_adaptive_min_peak_days": 1,
    "excess_adaptive_min_excess": 0.01,
    "excess_adaptive_volatility_multiple": 0.5,
    "excess_adaptive_max_prior_gain": 0.2,
    "excess_adaptive_drawdown_base": 0.2,
    "trend_scanning_windows": [3, 5],
    "triple_barrier_days": 4,
    "triple_barrier_volatility_multiple": 1.0,
    "directional_change_thresholds": [0.02, 0.05],
    "directional_change_min_days": 1,
    "directional_change_max_days": 5,
    "daily_fit_end": "2021-02-10",
}
OTHERS = {
    "daily_unknown_st_passes": False,
    "daily_adv_basis": "volume",
    "forward_return_days": [2, 4],
    "forward_return_suspended_exit": "last_close",
    "forward_return_same_close_entry": True,
    "main_wave_partial_windows": True,
    "main_wave_unadjusted_close": True,
    "main_wave_amount_from_close": True,
    "main_wave_cut_windows_are_valid": True,
    "main_wave_entry_price": "next_open",
    "wave_episode_drawdown_over": "whole_window",
    "wave_proximity_weights": [1.0, 0.5],
    "event_unsettled_rows": "reference",
    "event_volatility_half_life_days": 2,
    "directional_change_magnitude": "confirmation",
    "anchor_label_set": "directional_change",
    "daily_fit_end": 0.6,
}
SHORT = {
    "adv_days": lambda: [2, 5, 20],
    "_settling_days_searched": lambda: 10,
    "event_horizons": lambda: {"t1": 1, "t3": 3, "t5": 5, "e20": 7},
}
BARS = "staging.stg_daily_bars"


class Deliveries:
    """A market of which more becomes known day by day, and whose vendor changes his mind."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.market = generated_market(seed)
        bars = self.market[BARS]
        self.market["staging.stg_daily_basic"] = bars[["ts_code", "trade_date"]].assign(
            market_cap_cny=bars["close"] * 1e8, float_market_cap_cny=bars["close"] * 6e7
        )
        self.days = sorted(set(bars["trade_date"]))
        self.late = self.pick(BARS, 60)  # bars that are not there at first
        self.missing = [self.days[30]]  # an open day that is not there at first

    def pick(self, relation: str, count: int) -> pd.Index:
        return pd.Index(self.rng.choice(self.market[relation].index, count, replace=False))

    def day(self, first: int, end: int):
        return self.days[int(self.rng.integers(first, end))]

    def known(self, last: int) -> Market:
        """What is there on the evening of the day with this number."""
        known = known_at(self.market, self.days[last])
        known[BARS] = known[BARS].drop(index=self.late, errors="ignore")
        for relation in (BARS, "staging.stg_index_daily", "staging.stg_daily_basic"):
            rows = known[relation]
            known[relation] = rows[~rows["trade_date"].isin(self.missing)]
        basic = known["staging.stg_daily_basic"]
        known["staging.stg_daily_basic"] = basic[basic["trade_date"] <= self.days[last]]
        days = known["staging.stg_trading_calendar"]["trade_date"]
        known["staging.stg_trading_calendar"] = calendar_frame(
            [day for day in days if day not in self.missing]
        )
        return known

    def change(self, relation: str, rows: pd.Index, **columns) -> None:
        frame = self.market[relation].copy()
        for column, value in columns.items():
            changed = frame[column].astype(object)
            changed[rows] = value(frame.loc[rows]) if callable(value) else value
            frame[column] = changed.astype(frame[column].dtype)
        self.market[relation] = frame

    def drop(self, relation: str, rows: pd.Index) -> None:
        self.market[relation] = self.market[relation].drop(index=rows)

    def of_stock(self, relation: str, first=None) -> pd.Index:
        """Rows of one stock, of bars those from a day on."""
        frame = self.market[relation]
        stock = self.rng.choice(frame["ts_code"].unique())
        chosen = frame["ts_code"] == stock
        return frame.index[chosen & (frame["trade_date"] >= first) if first else chosen]

    # what may happen besides a new day, each a function of the number of the last day

    def late_bars(self, last):
        self.late = self.late[20:]

    def late_day(self, last):
        self.missing = []

    def corrected_bars(self, last):
        rows = self.pick(BARS, 3)
        self.change(BARS, rows, close=lambda bars: bars["close"] * 1.01, amount=123456.0)

    def corrected_status(self, last):
        self.change(BARS, self.pick(BARS, 3), is_st=True, is_suspended=True)

    def withdrawn_bars(self, last):
        self.drop(BARS, self.pick(BARS, 5))

    def withdrawn_stock(self, last):
        self.drop(BARS, self.of_stock(BARS, self.day(last - 25, last)))

    def withdrawn_last_days(self, last):
        self.missing = self.days[last - 2 : last + 1]

    def withdrawn_securities(self, last):
        self.drop("staging.stg_securities", self.pick("staging.stg_securities", 2))

    def other_list_dates(self, last):
        rows = self.pick("staging.stg_securities", 2)
        self.change("staging.stg_securities", rows[:1], list_date=None)
        self.change("staging.stg_securities", rows[1:], list_date=self.day(0, last))

    def delisted(self, last):
        rows = self.pick("staging.stg_securities", 2)
        self.change("staging.stg_securities", rows, delist_date=self.day(last - 5, last))

    def becomes_st(self, last):
        day = self.day(last - 10, last)
        names = "staging.stg_security_names"
        rows = self.of_stock(names)[-1:]
        added = (
            self.market[names]
            .loc[rows]
            .assign(
                name="ST", start_date=day, end_date=None, is_st_name=True, is_delisting_name=False
            )
        )
        # twice from one day, of which one ends: which counts hangs on the end
        added = pd.concat([added, added.assign(name="A", is_st_name=False)])
        added.iloc[1, list(added.columns).index("end_date")] = day + timedelta(2)
        self.market[names] = pd.concat([self.market[names], added], ignore_index=True)

    def name_ends_otherwise(self, last):
        names = "staging.stg_security_names"
        self.change(names, self.pick(names, 3), end_date=self.day(last - 10, last))

    def leaves_index(self, last):
        for relation in ("staging.stg_index_members", "staging.stg_industry_members"):
            self.change(relation, self.pick(relation, 3), out_date=self.day(last - 15, last))

    def joined_index_earlier(self, last):
        for relation in ("staging.stg_index_members", "staging.stg_industry_members"):
            self.change(relation, self.pick(relation, 3), in_date=self.day(5, last))

    def other_index_and_capital(self, last):
        for relation, column in {"index_daily": "close", "daily_basic": "market_cap_cny"}.items():
            rows = self.pick(f"staging.stg_{relation}", 1)
            self.change(f"staging.stg_{relation}", rows, **{column: 1234.5})


CHANGES = [
    name
    for name, value in vars(Deliveries).items()
    if callable(value) and not name.startswith("_")
    and name not in {"pick", "day", "known", "change", "drop", "of_stock"}
]  # fmt: skip


def run_history(seed: int, changes: list[str], settings=SETTINGS) -> None:
    """Build after each change, most of them together with a day or two more."""
    deliveries = Deliveries(seed)
    rng = np.random.default_rng([seed, 1])
    track = IncrementalTrack(settings, SHORT)
    last = 45
    track.deliver(deliveries.known(last))
    track.build()
    assert all(track.rows(name) for name in INCREMENTAL)
    for name in changes:
        getattr(deliveries, name)(last)
        if rng.random() < 0.3:
            continue  # the next build meets both
        last += int(rng.integers(0, 3)) if name != "withdrawn_last_days" else 0
        track.deliver(deliveries.known(last))
        # a run that stops half way, or that builds a selection
        some = [model for model in INCREMENTAL if rng.random() < 0.1]
        track.build(some)
        track.build()
        differences = track.differences()
        assert not differences, (seed, name, last, some, differences)


@pytest.mark.parametrize("seed", [1])
def test_every_delivery_gives_what_a_full_build_gives(seed):
    rng = np.random.default_rng(seed)
    run_history(seed, list(rng.permutation(CHANGES)))


EVENT_MODELS = INCREMENTAL[INCREMENTAL.index("event_benchmarks") :]


def event_track(settings, patches=None) -> tuple:
    """A track without days, and a year of panel and members, of which ever more is to be seen."""
    track = IncrementalTrack(settings, patches)
    panel, members = frames(random_stocks(1))
    days = sorted(panel["trade_date"].unique())
    trading_day = {day: number + 1 for number, day in enumerate(days)}
    panel["trading_day"] = panel["trade_date"].map(trading_day)
    put(track.connection, {"staging.stg_trading_calendar": calendar_frame(days)})
    return track, panel, members, days


def build_events(track, panel, members, days, names=EVENT_MODELS) -> dict[str, int]:
    """Build the event relations on the rows of these days, all of them new or known before."""
    last = days[-1]
    seen = {
        "factors.daily_panel": panel[panel["trade_date"] <= last],
        "universe.universe_members": members[members["trade_date"] <= last],
    }
    put(track.connection, seen)
    ledger = track.models["daily_built_days"]
    if not track.exists(ledger):
        track.connection.execute(f"create table {ledger.relation} as {ledger.full[1]}")
    track.connection.execute(
        f"""
        create or replace table staging.daily_day_hashes as
        select 'stg_trading_calendar' as source, trade_date, 0::ubigint as day_hash
        from staging.stg_trading_calendar
        where trade_date <= '{last}';

        delete from {ledger.relation} where relation = 'daily_panel';
        insert into {ledger.relation}
        select 'daily_panel', trade_date, hash(sum(hash(p)::hugeint))
        from factors.daily_panel as p
        group by trade_date
        """
    )
    return track.build(names, with_hashes=False)


@pytest.mark.parametrize("name", ["defaults", "others"])
def test_events_grow_with_the_days(name):
    settings = EVENT_CASES[name][0]
    track, panel, members, days = event_track(settings)
    rows = {}
    for last in (120, 121, 122, 125, 140, 141, 143, 180, 181, 182, 230, 259):
        build_events(track, panel, members, days[: last + 1])
        assert not track.differences(EVENT_MODELS), last
        rows[last] = [track.rows(f"{label_set}_events") for label_set in LABEL_SETS]
    assert all(first < later for first, later in zip(rows[120], rows[259], strict=True))


EVENT_FAULTS = {
    "the search goes on before the last peak": (
        "trend_scanning_events",
        "days.trade_date > coalesce(last_peaks.peak_date, '-infinity'::date)", "true",
    ),
    "a stock that nothing may start on is searched": (
        "excess_adaptive_events", "where first_free_row is not null", "",
    ),
    "the days before a start are not read": (
        "excess_adaptive_events", "searches.first_row - 6", "searches.first_row",
    ),
    "a listed event is found again": ("triple_barrier_events", "max(peak_date)", "null::date"),
    "the last price is not carried": (
        "daily_event_inputs", "max_by(this.price,", "max_by(null::double,",
    ),
    "volatility starts anew": (
        "daily_event_inputs", "max_by(this.return_variance,", "max_by(null::double,",
    ),
    "days are counted anew": ("daily_event_inputs", "coalesce(built.first_row, 0)", "0"),
    "every leg falls at first": (
        "directional_changes", "coalesce(last_turns.is_rise, false)", "false",
    ),
    "labels do not wait for events": ("triple_barrier_labels", "ahead=60", "ahead=20"),
}  # fmt: skip


@pytest.mark.parametrize("fault", EVENT_FAULTS)
def test_a_fault_of_growing_events_is_noticed(fault):
    name, text, other = EVENT_FAULTS[fault]
    patches = {}
    if name.endswith("labels"):
        source = model_source(name).replace("ahead=event_label_days('triple_barrier')", text)
        patches = {name: source.replace(text, other)}
    track, panel, members, days = event_track(EVENT_CASES["defaults"][0], patches)
    names = EVENT_MODELS[: EVENT_MODELS.index(name) + 1]
    if not patches:
        before, select, after = track.models[name].incremental
        assert text in select
        track.models[name].incremental = before, select.replace(text, other), after
    for last in (60, 61, 62, 150, *range(151, 175), 200, 230):
        build_events(track, panel, members, days[: last + 1], names)
        if track.differences([name]):
            return
    raise AssertionError(f"unnoticed: {fault}")


def new_track(seed: int, last: int, settings=SETTINGS, patches=None) -> tuple:
    deliveries = Deliveries(seed)
    track = IncrementalTrack(settings, SHORT | (patches or {}))
    track.deliver(deliveries.known(last))
    track.build()
    return deliveries, track


def test_a_day_costs_its_tail_and_nothing_costs_nothing():
    deliveries, track = new_track(2, 60)
    assert set(track.build().values()) == {0}
    track.deliver(deliveries.known(61))
    written = track.build()
    # the last day again, since it now knows the next one
    per_day = track.rows("daily_gates") / 60
    assert written["daily_gates"] == written["price_limits"] < 3 * per_day
    assert written["universe_members"] < 6 * per_day
    assert written["forward_return_benchmarks"] == 2 + 7
    for name in ("daily_panel", "main_wave_labels", "forward_return_exits"):
        assert written[name] < 0.5 * track.rows(name), name
    assert not track.differences()
    assert set(track.build().values()) == {0}


def test_settings_seeds_and_sql_rebuild_what_they_concern():
    deliveries, track = new_track(3, 60)
    rows = {name: track.rows(name) for name in INCREMENTAL}

    def rebuilt() -> set[str]:
        written = track.build()
        assert not track.differences()
        return {name for name, count in written.items() if count}

    track.set(SETTINGS | {"wave_episode_minimum_gain": 0.02})
    assert rebuilt() == {"main_wave_episodes", "wave_proximity_targets"}

    # another universe for one stock
    track.connection.execute(
        "insert into seeds.user_universes (universe, kind, value) values ('MINE', 'all', '*')"
    )
    assert rebuilt() == {"universe_members", *EVENT_MODELS}

    patches = {"price_limits": model_source("price_limits").replace("/ 10000.0", "/ 1e4")}
    track.patches = SHORT | patches
    track.set(SETTINGS | {"wave_episode_minimum_gain": 0.02})
    assert "daily_panel" not in rebuilt()

    track.set(SETTINGS | OTHERS)
    assert rebuilt() == set(INCREMENTAL)
    assert track.rows("daily_gates") == rows["daily_gates"]
    track.deliver(deliveries.known(63))
    lists = {name for name in INCREMENTAL if name.endswith(("_episodes", "_events"))}
    assert rebuilt() >= {*INCREMENTAL} - lists


# What a mistake in the mechanism would be; each must be noticed by the histories above.
FAULTS = {
    "bars that come late are not looked at": (
        "daily_day_hashes",
        "from bars\n    union all",
        "from bars where trade_date > '2021-01-10'\n    union all",
    ),
    "spans end without a hash": (
        "daily_day_hashes", "'in_date', 'out_date'", "'in_date', 'in_date'",
    ),
    "exits do not wait": (
        "forward_return_exits",
        "stock_days=traded_panel_days()",
        "stock_days='select ts_code, trading_day, true as is_settling from factors.daily_panel'",
    ),
    "the panel looks back too little": ("daily_panel", "back=adv_days() | max", "back=2"),
    "labels look ahead too little": (
        "main_wave_labels", "ahead=daily_label_settings().main_wave_hold_days", "ahead=2",
    ),
    "the scan of waves forgets where it stood": (
        "main_wave_episodes", "and start_trading_day > coalesce(last_peak_day, 0)", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(fault):
    model, text, other = FAULTS[fault]
    source = model_source(model)
    assert text in source
    deliveries, track = new_track(1, 50, patches={model: source.replace(text, other)})
    position = INCREMENTAL.index(model if model in INCREMENTAL else "daily_panel")
    names = INCREMENTAL[: position + 1]
    days = 1
    changes = [None, "late_bars", None, "leaves_index", "joined_index_earlier", None, None]
    for change in [*changes, *[None] * 8]:
        if change:
            getattr(deliveries, change)(50 + days)
        days += 1
        track.deliver(deliveries.known(50 + days))
        track.build(names)
        if track.differences(names):
            return
    raise AssertionError(f"unnoticed: {fault}")


def table_of(warehouse, name: str) -> list[tuple]:
    with warehouse.connect() as connection:
        return connection.execute(f"from {schemas()[name]}.{name} order by all").fetchall()


def test_dbt_builds_the_same_and_undoes_what_fails(tmp_path):
    warehouse = new_warehouse(tmp_path)
    names = ("daily_gates", "daily_panel", "main_wave_labels", "forward_return_exits")
    mark = "update factors.daily_panel set volume = -volume"

    def run(days: int, *options: str, check: bool = True):
        options_of_sample = DailyOptions(stocks=40, trading_days=days)
        write_daily_sample(warehouse.data_dir, options_of_sample, force=True)
        select = ["--select", "+main_wave_labels", "+forward_return_exits"]
        kinds = ["--resource-type", "model", "--resource-type", "seed"]
        return warehouse.dbt("build", *select, *kinds, *options, check=check)

    run(250)
    built_days = table_of(warehouse, "daily_built_days")
    labels = table_of(warehouse, "main_wave_labels")
    with warehouse.connect(read_only=False) as connection:
        connection.execute(mark)
        # a column that the model does not know stops it behind its pre-hook
        connection.execute("alter table labels.main_wave_labels add column stranger integer")
    failed = run(252, check=False)
    assert failed.returncode == 1
    assert "main_wave_labels" in failed.stdout
    with warehouse.connect(read_only=False) as connection:
        connection.execute("alter table labels.main_wave_labels drop column stranger")
        made_anew, rows = connection.execute(
            "select count(*) filter (where volume > 0), count(volume) from factors.daily_panel"
        ).fetchall()[0]
        connection.execute(f"{mark} where volume < 0")
    assert table_of(warehouse, "main_wave_labels") == labels

    def of_labels(days: list[tuple]) -> list[tuple]:
        return [day for day in days if day[0] == "main_wave_labels"]

    assert of_labels(table_of(warehouse, "daily_built_days")) == of_labels(built_days)
    assert 2 * 20 < made_anew < rows / 4, (made_anew, rows)

    run(252)
    incremental = {name: table_of(warehouse, name) for name in names}
    run(252, "--full-refresh")
    assert {name: table_of(warehouse, name) for name in names} == incremental
    assert len(incremental["main_wave_labels"]) > len(labels)
