"""Folds and sample weights: against the evaluator, by truncation, and the data tests by mutation.

The compiled SQL of the models and of their data tests runs in an empty DuckDB on made-up samples,
so that many markets cost no dbt run.
"""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import oracle_folds as oracle
from markets import MINUTE_MS, START_MS
from oracle_folds import Boundaries, Sample
from warehouse import Warehouse, new_warehouse

SETTINGS = {
    "defaults": {},
    "others": {
        "walk_forward_folds": 3,
        "heads_tune_share": 0.3,
        "heads_calibrate_share": 0.25,
        "heads_embargo_bars": 0,
        "heads_rolling_blocks": 1,
        "heads_cpcv_test_groups": 1,
        "heads_weighting": "equal",
        "heads_decay_half_life_bars": 7.5,
    },
}
MODELS = ["sample_keys", "head_samples", "fold_blocks", "folds", "sample_weights"]
DATA_TESTS = [
    "no_fold_row_meets_another_role",
    "fold_embargo_is_honoured",
    "fold_tests_every_row_of_a_tested_split",
    "no_fold_learns_from_sealed_splits",
    "unique_combination_folds_fold__sample_id",
    "unique_combination_fold_blocks_fold__block_number",
]
EVERY_FOLD = ("roles_without_rows is null", "true")  # those that cannot be used as well
RELATIONS = """
    create schema heads;
    create schema factors;
    create table heads.sample_keys (
        sample_id varchar, symbol varchar, starts_at_ms bigint, label_ends_at_ms bigint,
        evaluation_period timestamp, split_id varchar
    );
    create table factors.minute_features (
        sample_id varchar, split_id varchar, walk_forward_fold integer
    );
    create table factors.split_boundaries (
        boundary_kind varchar, boundary_name varchar, boundary_order integer,
        starts_at_ms bigint, embargo_minutes integer
    );
"""


# ---- made-up markets ---------------------------------------------------------------------------


@st.composite
def markets_strategy(draw, blocks: int, max_bars: int = 120) -> tuple[list[Sample], Boundaries]:
    """A few symbols with gaps and labels of any length, and boundaries on or between bars."""
    last = draw(st.integers(10, max_bars))
    samples = []
    for symbol in "ABC"[: draw(st.integers(1, 3))]:
        gaps = draw(st.sets(st.integers(0, last), max_size=last // 3))
        longest = draw(st.sampled_from([0, 2, 6]))
        for minute in range(draw(st.integers(0, 5)), last + 1):
            if minute not in gaps:
                length = draw(st.integers(0, longest))
                samples.append(sample(symbol, minute, minute + length))
    minutes = st.integers(0, 2 * last + 3).map(lambda halves: START_MS + halves * MINUTE_MS // 2)
    splits = sorted(draw(st.lists(minutes, min_size=3, max_size=3)))
    development = st.integers(START_MS, max(START_MS, splits[1]))
    starts = sorted(draw(st.lists(development, min_size=blocks, max_size=blocks)))
    embargo = draw(st.sampled_from([0, 0, 1, 3])) * MINUTE_MS
    return samples, Boundaries(tuple(splits), tuple(starts), embargo)


def sample(symbol: str, minute: int, label_ends_minute: int) -> Sample:
    starts, ends = START_MS + minute * MINUTE_MS, START_MS + label_ends_minute * MINUTE_MS
    return Sample(f"{symbol}@{minute}", symbol, starts, ends)


def regular_market(bars: int = 840, horizon: int = 4) -> tuple[list[Sample], Boundaries]:
    """Two symbols without gaps, boundaries far apart."""
    samples = [
        sample(symbol, minute, minute + horizon) for symbol in "AB" for minute in range(bars)
    ]

    def at(share: float) -> int:
        return START_MS + int(bars * share) * MINUTE_MS

    starts = tuple(at(0.75 * block / 6) for block in range(1, 6))
    return samples, Boundaries((at(0.6), at(0.75), at(0.9)), starts)


class Bench:
    """Compiled SQL of one set of settings, and an in-memory DuckDB to run it in."""

    def __init__(self, folder: Path, settings: dict):
        self.settings = oracle.DEFAULTS | settings
        compiled = {path.stem: path for path in folder.rglob("*.sql")}
        names = [*MODELS, *DATA_TESTS]
        self.sql = {name: compiled[name].read_text() for name in names}

    def build(
        self, samples: list[Sample], boundaries: Boundaries, **edits: tuple[str, str]
    ) -> duckdb.DuckDBPyConnection:
        """Build the three models on these samples; `edits` replace text in a model's SQL."""
        connection = duckdb.connect()
        connection.execute("attach ':memory:' as warehouse; use warehouse;" + RELATIONS)
        rows = pd.DataFrame([vars(each) for each in samples])
        times = boundaries.splits
        kinds = [("split", name) for name in ("tune_inner", "validation_locked", "latest_stress")]
        kinds += [("walk_forward_fold", f"fold_{k}") for k in range(1, len(boundaries.blocks) + 1)]
        connection.executemany(
            "insert into factors.split_boundaries values (?, ?, ?, ?, ?)",
            [
                (*kind, place, time, boundaries.embargo // MINUTE_MS)
                for kind, place, time in zip(
                    kinds,
                    [1, 2, 3, *range(1, len(boundaries.blocks) + 1)],
                    [*times, *boundaries.blocks],
                    strict=True,
                )
            ],
        )
        splits = ["fit", "tune_inner", "validation_locked", "latest_stress"]
        rows["split_id"] = spans_of(samples, times, boundaries.embargo, splits, "purged")
        rows["block"] = spans_of(
            samples,
            [*boundaries.blocks, times[1]],
            boundaries.embargo,
            [*range(len(boundaries.blocks) + 1), None],
            None,
        )
        connection.execute(
            "insert into heads.sample_keys select sample_id, symbol, starts, label_ends,"
            " make_timestamp(starts * 1000), split_id from rows"
        )
        connection.execute(
            "insert into factors.minute_features select sample_id, split_id, block from rows"
        )
        for name, kind in {
            "fold_blocks": "table",
            "folds": "view",
            "sample_weights": "table",
        }.items():
            sql = self.sql[name]
            if name in edits:
                assert edits[name][0] in sql
                sql = sql.replace(*edits[name])
            connection.execute(f"create {kind} heads.{name} as {sql}")
        return connection

    def failing_data_tests(self, connection) -> set[str]:
        return {name for name in DATA_TESTS if connection.execute(self.sql[name]).fetchall()}


def spans_of(samples, starts, embargo, names, purged) -> list:
    """Which span a sample lies in; `purged` where its labels or an embargo reach across a start."""
    return [
        purged
        if any(
            each.starts < start <= each.label_ends or start <= each.starts < start + embargo
            for start in starts
        )
        else names[sum(start <= each.starts for start in starts)]
        for each in samples
    ]


def built_folds(connection) -> dict[str, dict[str, str]]:
    rows = connection.execute("select fold, sample_id, role from heads.folds").fetchall()
    found = {}
    for fold, sample_id, role in rows:
        assert sample_id not in found.setdefault(fold, {}), f"{sample_id} twice in {fold}"
        found[fold][sample_id] = role
    return found


def built_weights(connection) -> dict[str, tuple[float, float]]:
    rows = connection.execute(
        "select sample_id, average_uniqueness, weight from heads.sample_weights"
    ).fetchall()
    assert len(rows) == len({sample_id for sample_id, *_ in rows})
    return {sample_id: tuple(values) for sample_id, *values in rows}


@pytest.fixture(scope="module")
def folds_warehouse(random_warehouse, tmp_path_factory) -> Warehouse:
    """The random warehouse with folds and weights, built and tested with their defaults."""
    file = tmp_path_factory.mktemp("folds") / random_warehouse.file.name
    shutil.copy(random_warehouse.file, file)
    warehouse = Warehouse(random_warehouse.data_dir, file)
    warehouse.dbt("build", "--select", *MODELS)
    return warehouse


@pytest.fixture(scope="module")
def benches(folds_warehouse, tmp_path_factory) -> dict[str, Bench]:
    others = new_warehouse(tmp_path_factory.mktemp("others"))
    others.dbt("compile", "--select", *MODELS, settings=SETTINGS["others"])
    warehouses = {"defaults": folds_warehouse, "others": others}
    return {
        name: Bench(warehouse.file.parent / "target/compiled", SETTINGS[name])
        for name, warehouse in warehouses.items()
    }


# ---- against the evaluator ---------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
@hypothesis_settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_random_markets_equal_the_evaluator_and_pass_the_data_tests(benches, name, data):
    bench = benches[name]
    samples, boundaries = data.draw(markets_strategy(bench.settings["walk_forward_folds"]))
    expected = oracle.folds(samples, boundaries, bench.settings)
    with bench.build(samples, boundaries, folds=EVERY_FOLD) as connection:
        assert built_folds(connection) == {fold: roles for fold, roles in expected.items() if roles}
        assert bench.failing_data_tests(connection) == set()
        usable = connection.execute(
            "select distinct fold from heads.fold_blocks where roles_without_rows is null"
        ).fetchall()
        assert {fold for (fold,) in usable} == oracle.usable(expected).keys()
        found = built_weights(connection)
    expected = oracle.weights(samples, bench.settings)
    assert found.keys() == expected.keys()
    for sample_id, values in expected.items():
        assert found[sample_id] == pytest.approx(values, rel=1e-12), sample_id


@pytest.mark.parametrize("gaps", [False, True], ids=["", "boundaries in gaps"])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_long_market_has_every_fold(benches, name, gaps):
    bench = benches[name]
    samples, boundaries = regular_market()
    count = bench.settings["walk_forward_folds"]
    boundaries = replace(boundaries, blocks=boundaries.blocks[:count])
    if gaps:
        edges = {*boundaries.splits, *boundaries.blocks}
        samples = [
            each
            for each in samples
            if all(abs(each.starts - edge) > 2 * MINUTE_MS for edge in edges)
        ]
    with bench.build(samples, boundaries) as connection:
        found = built_folds(connection)
        assert found == oracle.folds(samples, boundaries, bench.settings)
        assert bench.failing_data_tests(connection) == set()
        unused = "select count(*) from heads.fold_blocks where roles_without_rows is not null"
        assert connection.execute(unused).fetchall() == [(0,)]
        counts = connection.execute(
            "select (select sum(row_count) from heads.fold_blocks),"
            " (select count(*) from heads.folds)"
        ).fetchall()[0]
        assert counts[0] == counts[1]
    assert len(found) == {"defaults": 1 + 5 + 5 + 15, "others": 1 + 3 + 3 + 4}[name]


def test_a_fold_without_rows_to_learn_from_is_left_out_and_says_why(benches):
    samples, boundaries = regular_market(bars=120, horizon=12)
    with benches["defaults"].build(samples, boundaries) as connection:
        problems = dict(
            connection.execute(
                "select distinct fold, roles_without_rows from heads.fold_blocks"
            ).fetchall()
        )
        # 72 bars before tune_inner: 7 to tune and 7 to calibrate, fewer than horizon and embargo
        assert problems["anchor"] == "tune, calibrate"
        assert problems["expanding_1"] == "fit, tune, calibrate"
        assert set(problems.values()) == {"tune, calibrate", "fit, tune, calibrate"}
        assert built_folds(connection) == {}


# ---- nothing looks ahead -----------------------------------------------------------------------


def cut_off(samples: list[Sample], last: int) -> list[Sample]:
    return [each for each in samples if each.starts <= last]


@hypothesis_settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_rows_after_a_label_change_no_weight_and_no_training_role(benches, data):
    bench = benches["others"]
    samples, boundaries = data.draw(markets_strategy(bench.settings["walk_forward_folds"]))
    last = data.draw(st.sampled_from(sorted({each.starts for each in samples})))
    kept = cut_off(samples, last)
    with (
        bench.build(samples, boundaries, folds=EVERY_FOLD) as whole,
        bench.build(kept, boundaries, folds=EVERY_FOLD) as cut,
    ):
        whole_weights, cut_weights = built_weights(whole), built_weights(cut)
        for each in kept:
            if each.label_ends <= last:
                assert cut_weights[each.sample_id] == whole_weights[each.sample_id]
        whole_folds, cut_folds = built_folds(whole), built_folds(cut)
    ends = {"anchor": boundaries.splits[0]}
    for k, start in enumerate(boundaries.blocks, start=1):
        ends |= {f"expanding_{k}": start, f"rolling_{k}": start}
    learns = {"fit", "tune", "calibrate"}
    for fold, end in ends.items():
        if last >= end:
            whole_roles, cut_roles = (
                {key: role for key, role in found.get(fold, {}).items() if role in learns}
                for found in (whole_folds, cut_folds)
            )
            assert cut_roles == whole_roles, fold


@pytest.mark.parametrize(
    ("text", "by"),
    [
        ("/ cross_section_size * time_decay", "/ avg(average_uniqueness) over ()"),
        ("starts_at_ms * 2 as event_order", "(starts_at_ms - 60000) * 2 as event_order"),
    ],
    ids=["scaled to a mean of 1", "counts later labels"],
)
def test_a_weight_that_looks_ahead_is_noticed(benches, text, by):
    samples, boundaries = regular_market(bars=60)
    last = START_MS + 40 * MINUTE_MS
    edit = {"sample_weights": (text, by)}
    bench = benches["defaults"]
    with bench.build(samples, boundaries, **edit) as whole:
        found = built_weights(whole)
    with bench.build(cut_off(samples, last), boundaries, **edit) as cut:
        early = built_weights(cut)
    assert any(early[f"A@{minute}"] != found[f"A@{minute}"] for minute in range(37))


# ---- each data test can fail -------------------------------------------------------------------

TRAINING = "role in ('fit', 'tune', 'calibrate')"
MUTATIONS = {
    "labels are not purged": (
        f"set label_limit_ms = null where fold = 'expanding_3' and {TRAINING}",
        {"no_fold_row_meets_another_role", "fold_embargo_is_honoured"},
    ),
    "one bar too few is purged": (
        "set label_limit_ms = ends_at_ms + 60000 where fold = 'rolling_2' and role = 'calibrate'",
        {"no_fold_row_meets_another_role", "fold_embargo_is_honoured"},
    ),
    "one bar too few is embargoed": (
        "set label_limit_ms = label_limit_ms + 60000 where fold = 'anchor' and role = 'fit'",
        {"fold_embargo_is_honoured"},
    ),
    "no embargo after a tested block": (
        "set starts_at_ms = starts_at_ms - 60000 where fold = 'cpcv_1_4' and block_number = 3",
        {"fold_embargo_is_honoured"},
    ),
    "rows are learned from inside a tested block": (
        "set starts_at_ms = starts_at_ms - 600000 where fold = 'cpcv_1_4' and block_number = 3",
        {"no_fold_row_meets_another_role", "fold_embargo_is_honoured",
         "unique_combination_folds_fold__sample_id"},
    ),
    "purged rows are tested": (
        "set starts_at_ms = starts_at_ms - 60000 where fold = 'anchor' and role = 'locked'",
        {"no_fold_row_meets_another_role", "fold_tests_every_row_of_a_tested_split"},
    ),
    "an embargo takes tested rows": (
        "set starts_at_ms = starts_at_ms + 60000 where fold = 'expanding_2' and role = 'test'",
        {"fold_tests_every_row_of_a_tested_split"},
    ),
    "another block is tested": (
        "set fold = 'expanding_9' where fold = 'expanding_5'",
        {"fold_tests_every_row_of_a_tested_split"},
    ),
    "the sealed splits are read": (
        "set ends_at_ms = ends_at_ms + 600000, label_limit_ms = label_limit_ms + 600000"
        " where fold = 'cpcv_0_2' and role = 'calibrate'",
        {"no_fold_learns_from_sealed_splits"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_wrong_block_fails_its_data_test(benches, mutation):
    bench = benches["defaults"]
    change, expected = MUTATIONS[mutation]
    with bench.build(*regular_market()) as connection:
        changed = connection.execute(f"update heads.fold_blocks {change}").fetchall()[0][0]
        assert changed > 0
        assert bench.failing_data_tests(connection) == expected


def test_a_block_twice_fails_the_key_of_folds(benches):
    bench = benches["defaults"]
    with bench.build(*regular_market()) as connection:
        connection.execute(
            "insert into heads.fold_blocks from heads.fold_blocks"
            " where fold = 'rolling_1' and role = 'fit'"
        )
        assert bench.failing_data_tests(connection) == {
            "unique_combination_folds_fold__sample_id",
            "unique_combination_fold_blocks_fold__block_number",
        }


# ---- in the warehouse --------------------------------------------------------------------------


def test_the_warehouse_holds_the_folds_and_weights_of_its_bars(folds_warehouse):
    rows = folds_warehouse.query("from heads.head_samples")
    samples = [
        Sample(*row)
        for row in rows[["sample_id", "symbol", "starts_at_ms", "label_ends_at_ms"]].itertuples(
            index=False
        )
    ]
    starts = folds_warehouse.query("from factors.split_boundaries order by boundary_order")
    by_kind = {
        kind: tuple(part["starts_at_ms"].tolist()) for kind, part in starts.groupby("boundary_kind")
    }
    boundaries = Boundaries(by_kind["split"], by_kind["walk_forward_fold"])
    with folds_warehouse.connect() as connection:
        found = built_folds(connection)
        assert found == oracle.usable(oracle.folds(samples, boundaries, oracle.DEFAULTS))
        assert set(found) >= {"anchor", "expanding_5", "cpcv_1_4"}
        weights = built_weights(connection)
    assert weights.keys() == {each.sample_id for each in samples}
    one_symbol = [each for each in samples if each.symbol == "ROUGH"][-150:]
    alone = oracle.weights(one_symbol, oracle.DEFAULTS)
    for each in one_symbol[60:]:  # the first of them overlap with samples before
        assert weights[each.sample_id][0] == pytest.approx(alone[each.sample_id][0], rel=1e-12)


def test_head_samples_carry_every_label_of_their_sample(folds_warehouse):
    found = folds_warehouse.query("from heads.head_samples").set_index("sample_id").sort_index()
    features = folds_warehouse.query("from factors.minute_features").set_index("sample_id")
    assert list(found.index) == sorted(features.index)
    features = features.loc[found.index]
    assert found["starts_at_ms"].equals(features["open_time_ms"].rename("starts_at_ms"))
    assert ((found["label_ends_at_ms"] - found["starts_at_ms"]) == 45 * MINUTE_MS).all()
    assert (found["evaluation_period"] == features["event_time"].dt.floor("h")).all()
    assert (found["split_id"] == features["split_id"]).all()

    def labels(label_set, where="true"):
        rows = folds_warehouse.query(f"from labels.{label_set} where {where}")
        return rows.set_index("sample_id").reindex(found.index)

    direction, risk = labels("direction_labels"), labels("risk_labels")
    continues, exits = labels("continue_labels"), labels("exit_labels")
    expected = {"direction_label": direction["direction_label"]}
    expected["market_risk_target"] = risk["market_risk_target"]
    for side in ("long", "short"):
        entry = labels("entry_labels", f"side = '{side.upper()}'")
        edge = f"{side}_expected"
        expected |= {
            f"{side}_entry_target": entry["entry_target"],
            f"actual_{edge}_net_edge_bps": entry["expected_net_edge_bps"],
            f"{side}_position_risk_target": risk[f"{side}_position_risk_target"],
            f"{side}_continue_target": continues[f"{side}_continue_target"],
            f"actual_{edge}_continue_edge_bps": continues[f"{edge}_continue_edge_bps"],
            f"{side}_exit_target": exits[f"{side}_exit_target"],
            f"actual_{edge}_exit_edge_bps": exits[f"{side}_adverse_move_bps"],
        }
    keys = {"symbol", "event_time", "starts_at_ms", "label_ends_at_ms", "evaluation_period"}
    assert set(found.columns) - keys - {"split_id"} == set(expected)
    for name, values in expected.items():
        assert 0 < values.isna().sum() < len(found)
        assert found[name].astype(object).where(found[name].notna(), None).tolist() == (
            values.astype(object).where(values.notna(), None).tolist()
        ), name


# ---- settings ----------------------------------------------------------------------------------


def test_a_wrong_setting_stops_the_build_by_its_name(tmp_path):
    cases = {
        "heads_tune_share": (0.5, "a share above 0 and below 0.5"),
        "heads_cpcv_test_groups": (6, "a whole number from 0 to 5"),
    }

    def parse(setting):
        warehouse = new_warehouse(tmp_path / setting)
        return warehouse.dbt("parse", settings={setting: cases[setting][0]}, check=False)

    with ThreadPoolExecutor(2) as pool:
        for (setting, (_, said)), done in zip(cases.items(), pool.map(parse, cases), strict=True):
            assert done.returncode != 0
            assert f"var '{setting}' is" in done.stdout
            assert said in done.stdout


def test_too_short_a_half_life_is_an_error(benches):
    samples = [sample("A", 0, 0), *(sample("A", minute, minute) for minute in (8_000,))]
    bench = benches["others"]
    _, boundaries = regular_market()
    boundaries = replace(boundaries, blocks=boundaries.blocks[:3])
    with (
        pytest.raises(duckdb.Error, match=r"heads_decay_half_life_bars is 7\.5, too short"),
    ):
        bench.build(
            samples,
            boundaries,
            sample_weights=("row_number() over (order by", "8000 * rank() over (order by"),
        )


def test_splits_out_of_order_are_an_error(benches):
    samples, boundaries = regular_market(bars=60)
    tune, validation, stress = boundaries.splits
    with pytest.raises(
        duckdb.Error, match=r"validation_locked starts at .* before the split before"
    ):
        benches["defaults"].build(samples, replace(boundaries, splits=(validation, tune, stress)))
