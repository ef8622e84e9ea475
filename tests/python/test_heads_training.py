"""Training heads: the same rows give the same bytes, unknowns stay unknown, bins are shared.

The rows are those of `heads_market`; every test trains for a fraction of a second.
"""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

import heads_market as market
from heads_market import DAILY, MINUTE
from wavehouse.heads import lightgbm_trainer, model, replay, training
from wavehouse.heads.base import Block, HeadsError, Target, Untrainable
from wavehouse.heads.config import read_settings, read_targets
from wavehouse.heads.data import as_table, read_fold

HERE = Path(__file__).parent


def trained(con, root, track=MINUTE):
    return training.train(con, track, root)


def ids(table):
    """{(fold, target): model_id}."""
    columns = (table[name].to_pylist() for name in ("fold", "target", "model_id"))
    return {(fold, target): model_id for fold, target, model_id in zip(*columns, strict=True)}


def blocks_of(con, name, track=MINUTE, fold="anchor", features=market.FEATURES):
    """The target of a name, and its blocks by role."""
    target = next(each for each in read_targets(con, track) if each.target == name)
    data = read_fold(con, track, fold, features, [target])
    return target, {role: data.block(role, target) for role in data.bounds}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """On a busy machine the threads of so small a fit wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAREHOUSE_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def con():
    return market.warehouse()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def base(con, root):
    """What training on the unchanged market gives."""
    return trained(con, root)


# The same training gives the same bytes


def same_but_for_clocks(table):
    rows = table.drop_columns(["trained_at", "cpu_seconds"]).to_pylist()
    for row in rows:
        row["members"] = [{**each, "cpu_seconds": None} for each in row["members"]]
    return rows


def test_training_again_gives_the_same_row_and_the_same_files(con, base, root, tmp_path):
    again = trained(con, tmp_path)
    assert same_but_for_clocks(again) == same_but_for_clocks(base)
    for model_id in again["model_id"].to_pylist():
        files = [path for path in (tmp_path / model_id).rglob("*") if path.is_file()]
        assert len(files) >= 7
        for path in files:
            assert path.read_bytes() == (root / path.relative_to(tmp_path)).read_bytes()


PROGRAM = f"""
import json, pathlib, sys
sys.path.insert(0, {str(HERE)!r})
import heads_market
from wavehouse.heads.training import train
rows = train(heads_market.warehouse(), heads_market.MINUTE, pathlib.Path(sys.argv[1]))
print(json.dumps(rows.select(["fold", "target", "model_id"]).to_pylist()))
"""


def test_another_process_and_other_threads_give_the_same_models(base, tmp_path):
    assert training.threads() == 1  # here; there two
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        env=os.environ | {"WAREHOUSE_THREADS": "2", "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(run.stdout.splitlines()[-1])
    assert {(row["fold"], row["target"]): row["model_id"] for row in found} == ids(base)


def permute_rows(con):
    """Write every table of the warehouse anew in another order of rows."""
    tables = con.execute(
        "select schema_name || '.' || table_name from duckdb_tables() where not temporary"
    ).fetchall()
    for (name,) in tables:
        con.execute(f"create or replace table {name} as from {name} order by hash(rowid + 1)")


def permute_columns(con):
    con.execute(
        "create or replace table factors.minute_features as "
        "select noise, split_id, whole, constant, * exclude (noise, split_id, whole, "
        "constant) from factors.minute_features"
    )


def add_rows_without_a_role(con):
    """Rows after the last block, and rows in the gaps that the folds leave out."""
    for name, fields in (
        (
            "heads.head_samples",
            "starts_at_ms = starts_at_ms + 86400000, "
            "label_ends_at_ms = label_ends_at_ms + 86400000, ",
        ),
        ("factors.minute_features", "strong = 100, whole = NULL, "),
        ("heads.sample_weights", "weight = 50, "),
    ):
        changes = "".join(
            f"{value} as {column}, "
            for column, value in (part.split(" = ") for part in fields.strip(", ").split(", "))
        ).rstrip(", ")
        con.execute(
            f"insert into {name} select * replace ('late ' || sample_id as sample_id, "
            f"{changes}) from {name} limit 500"
        )


def add_a_target(con):
    """A head more in the seed: not what the others learn from."""
    con.execute("alter table heads.head_samples add column calm tinyint")
    con.execute("update heads.head_samples set calm = (starts_at_ms // 60000) % 2")
    con.execute(
        "insert into seeds.head_targets select * replace ('calm' as head, 'calm' as "
        "target, 'calm' as label_column, 'calm_prob' as outputs) from seeds.head_targets "
        "where target = 'entry'"
    )


def scale_weights(con):
    """Only ratios of weights mean something."""
    con.execute("update heads.sample_weights set weight = 1024 * weight")


@pytest.mark.parametrize(
    "change",
    [permute_rows, permute_columns, add_rows_without_a_role, add_a_target, scale_weights],
)
def test_what_no_model_learns_from_changes_no_model(base, tmp_path, change):
    con = market.warehouse()
    change(con)
    found = trained(con, tmp_path)
    kept = {key: value for key, value in ids(found).items() if key[1] != "calm"}
    assert kept == ids(base)
    if change not in (add_a_target, scale_weights):
        hashes = [[role["rows_hash"] for role in row] for row in found["roles"].to_pylist()]
        assert hashes == [[role["rows_hash"] for role in row] for row in base["roles"].to_pylist()]


def one_value(column, table, role, value):
    """Change one value, of the earliest sample of a role."""
    return (
        f"update {table} set {column} = {value} where sample_id = (select min(sample_id) from "
        f"heads.folds where role = '{role}')"
    )


# Enough: a target's models do not depend on the other targets.
ENTRY, TWO = market.TARGETS[1:2], market.TARGETS[2:]

ONE_VALUE = {
    "a feature": one_value("noise", "factors.minute_features", "fit", "noise + 1e-6"),
    "a feature now NULL": one_value("noise", "factors.minute_features", "tune", "NULL"),
    "a calibrate feature": one_value("noise", "factors.minute_features", "calibrate", "0"),
    "a weight": one_value("weight", "heads.sample_weights", "fit", "weight + 1"),
    "a calibrate weight": one_value("weight", "heads.sample_weights", "calibrate", "weight + 1"),
    "a symbol": one_value("symbol", "heads.head_samples", "fit", "'OTHER'"),
}


@pytest.mark.parametrize("what", ONE_VALUE)
def test_one_changed_value_gives_other_models(base, tmp_path, what):
    con = market.warehouse(targets=TWO)
    con.execute(ONE_VALUE[what])
    found = ids(trained(con, tmp_path))
    assert not set(found.values()) & set(ids(base).values())


@pytest.mark.parametrize("role", ["fit", "tune", "calibrate"])
def test_one_changed_label_gives_another_model_of_its_target_alone(base, tmp_path, role):
    con = market.warehouse(targets=TWO)
    con.execute(one_value("rare_entry", "heads.head_samples", role, "1 - rare_entry"))
    found = ids(trained(con, tmp_path))
    changed = {target for (_, target), each in found.items() if each != ids(base)[_, target]}
    assert changed == {"rare_entry"}


@pytest.mark.parametrize(
    "changes",
    [
        {"seeds": [1, 3]},
        {"seeds": [2, 1]},
        {"seeds": [1]},
        {"max_rounds": 9},
        {"patience": 3},
        {"lightgbm": market.SETTINGS["lightgbm"] | {"num_leaves": 4}},
        {"lightgbm": market.SETTINGS["lightgbm"] | {"lambda_l2": 1.5}},
    ],
)
def test_another_seed_or_parameter_gives_other_models(base, tmp_path, changes):
    found = ids(trained(market.warehouse(targets=TWO, **changes), tmp_path))
    assert not set(found.values()) & set(ids(base).values())


def test_rows_that_only_test_a_fold_change_no_model(tmp_path):
    def daily():
        return market.warehouse(
            market.daily_rows(),
            DAILY,
            market.DAILY_TARGETS[:1],
            market.DAILY_FEATURES,
            market.EXPANDING,
            train_folds=["expanding_2"],
        )

    con = daily()
    con.execute(
        "update panel.factors set value_rank = 0.5 where sample_id in "
        "(select sample_id from daily.cuts where fold = 'expanding_2' and role = 'test')"
    )
    before, after = trained(daily(), tmp_path, DAILY), trained(con, tmp_path, DAILY)
    assert ids(before) == ids(after)
    assert before["test_metrics"].to_pylist() != after["test_metrics"].to_pylist()


# Unknown stays unknown


def test_features_are_float32_and_what_is_not_finite_is_unknown():
    con = market.warehouse()
    con.execute("alter table factors.minute_features alter whole type integer")
    con.execute("alter table factors.minute_features add column is_late boolean")
    con.execute("update factors.minute_features set is_late = open_time_ms % 2 = 0")
    strange = ["'inf'", "'-inf'", "'nan'", "1e300", "-3.5e38", "NULL"]
    for number, value in enumerate(strange):
        con.execute(f"update factors.minute_features set strong = {value} where rowid = {number}")
    _, blocks = blocks_of(con, "entry", features=(*market.FEATURES, "is_late"))
    table = as_table(blocks["fit"].features)
    assert set(table.schema.types) == {pa.float32()}
    rows = market.minute_rows()
    expected = rows["strong"].to_numpy()[: len(table)].astype(np.float32)
    found = table["strong"].to_numpy()
    assert table["strong"].null_count == len(strange)
    np.testing.assert_array_equal(found[len(strange) :], expected[len(strange) :])
    starts = rows["starts_at_ms"].to_numpy()[: len(table)]
    np.testing.assert_array_equal(blocks["fit"].groups, starts)
    np.testing.assert_array_equal(blocks["fit"].periods, starts // 3_600_000 * 3_600_000)
    nulls = rows["gaps"].slice(0, len(table)).is_null().to_pylist()
    assert table["gaps"].is_null().to_pylist() == nulls  # NULL, and not 0 or NaN


def test_a_null_is_learned_from_and_is_not_zero(base, root):
    """`gaps` says something by being unknown, and nothing by its value."""
    row = base.filter(pa.compute.equal(base["target"], "edge_bps")).to_pylist()[0]
    found, _ = model.load(root, row["model_id"])
    inputs = {name: pa.array([0.0] * 3, pa.float32()) for name in market.FEATURES}
    inputs["gaps"] = pa.array([None, 0.0, float("nan")], pa.float32())
    unknown, zero, nan = found.seed_scores(pa.table(inputs)).mean(axis=(1, 2))
    assert unknown > zero + 3
    assert nan == unknown
    shares = {each["feature"]: each["null_share"] for each in row["inputs"]}
    assert 0.2 < shares["gaps"] < 0.4
    assert shares["strong"] == 0
    assert found.manifest["unseen_nulls"] == ["strong", "whole", "constant", "noise"]


def coarse_rows(seed=3):
    """Rows with few values of each feature: their bins do not depend on which rows are there."""
    rows = market.minute_rows(seed=seed)
    for name in market.FEATURES:
        values = pa.compute.min_element_wise(pa.compute.round(rows[name]), 2, skip_nulls=False)
        values = pa.compute.max_element_wise(values, -2, skip_nulls=False)
        rows = rows.set_column(rows.column_names.index(name), name, values)
    return rows


@pytest.mark.parametrize("name", ["direction", "entry", "edge_bps"])
def test_rows_of_unknown_label_are_as_good_as_not_there(name):
    rows, own = coarse_rows(), [row for row in market.TARGETS if row["target"] == name]
    known = rows.filter(rows[name].is_valid())
    assert len(known) < 0.95 * len(rows)
    found = []
    for each in (rows, known):
        con = market.warehouse(each, targets=own)
        # the same times, though the last bars of `known` may lack a row, and weights of one mean
        market.put(con, MINUTE.blocks, market.blocks_of(rows, market.ANCHOR))
        con.execute("update heads.sample_weights set weight = 1")
        target, blocks = blocks_of(con, name)
        found.append(fit(target, blocks))
    assert found[0].text == found[1].text
    assert found[0].curve == found[1].curve


def test_an_infinite_label_is_unknown():
    rows = market.minute_rows()
    unknown = pa.compute.if_else(
        pa.compute.greater(rows["edge_bps"], 20), pa.scalar(float("inf")), rows["edge_bps"]
    )
    con = market.warehouse(
        rows.set_column(rows.column_names.index("edge_bps"), "edge_bps", unknown)
    )
    _, blocks = blocks_of(con, "edge_bps")
    labels = blocks["fit"].labels
    assert np.nanmax(labels) <= 20
    assert (
        np.isnan(labels).sum()
        > market.warehouse()
        .execute(
            "select count(*) - count(edge_bps) from heads.folds inner join heads.head_samples "
            "using (sample_id) where role = 'fit'"
        )
        .fetchall()[0][0]
    )


def test_classes_are_numbered_in_the_order_of_the_seed(con):
    target, blocks = blocks_of(con, "direction")
    rows = market.minute_rows()
    names = rows["direction"].to_pylist()[: len(blocks["fit"].labels)]
    for name, label in zip(names, blocks["fit"].labels, strict=True):
        if name is None:
            assert np.isnan(label)
        else:
            assert ("LONG", "SHORT", "NEUTRAL")[int(label)] == name
    assert target.outputs == ("long_prob", "short_prob", "neutral_prob")


def test_each_class_gets_its_own_probability(base, root):
    """A model that mixed up the order of classes would still pass every check of its metric."""
    row = base.filter(pa.compute.equal(base["target"], "direction")).to_pylist()[0]
    found, _ = model.load(root, row["model_id"])
    inputs = {name: pa.array([0.0, 0.0], pa.float32()) for name in market.FEATURES}
    inputs["strong"] = pa.array([3.0, -3.0], pa.float32())
    high, low = found.seed_scores(pa.table(inputs)).mean(axis=2)
    assert np.argmax(high) == 0  # LONG
    assert np.argmax(low) == 1  # SHORT


# Bins


@pytest.fixture
def counted(monkeypatch):
    """Count the Datasets that are binned and the subsets that are taken."""
    count = {"binned": 0, "tune": 0, "subset": 0}
    binned, subset = lightgbm_trainer.binned, lgb.Dataset.subset

    def count_binned(block, params, reference):
        count["binned"] += 1
        count["tune"] += reference is not None
        return binned(block, params, reference)

    def count_subset(self, *args, **kwargs):
        count["subset"] += 1
        return subset(self, *args, **kwargs)

    monkeypatch.setattr(lightgbm_trainer, "binned", count_binned)
    monkeypatch.setattr(lgb.Dataset, "subset", count_subset)
    return count


def test_all_targets_and_seeds_of_a_fold_share_two_binned_datasets(counted, tmp_path):
    trained(market.warehouse(seeds=[1, 2, 3]), tmp_path)
    assert counted["binned"] == 2  # of role fit and, by its bins, of role tune
    assert counted["tune"] == 1
    # direction and entry are unknown on the same rows, edge_bps on others, rare_entry nowhere
    assert counted["subset"] == 2 * 2


def test_every_fold_has_bins_of_its_own(counted, tmp_path):
    folds = market.ANCHOR | {"expanding_1": market.EXPANDING["expanding_1"]}
    con = market.warehouse(targets=ENTRY, folds=folds, train_folds=["anchor", "expanding"])
    trained(con, tmp_path)
    assert counted["binned"] == 4


def test_shared_bins_give_what_bins_of_ones_own_give(con):
    """Labels and subsets of one target do not leak into the next one."""
    shared, alone = {}, []
    for name in ("edge_bps", "entry", "direction", "rare_entry", "edge_bps"):
        target, blocks = blocks_of(con, name)
        alone.append((fit(target, blocks), fit(target, blocks, shared=shared)))
    for own, common in alone:
        assert own.text == common.text
        assert own.curve == common.curve


def test_columns_read_in_parts_give_the_same_trees(con, monkeypatch):
    target, blocks = blocks_of(con, "entry")
    whole = fit(target, blocks)
    monkeypatch.setattr(lightgbm_trainer, "COLUMNS_AT_ONCE", 2)
    assert fit(target, blocks).text == whole.text


# Early stopping

FAST = {"rounds": 30, "min_rounds": 1, "patience": 30, "num_leaves": 4, "min_data_in_leaf": 20}


def fit(target, blocks, shared=None, seed=1, **params):
    shared = {} if shared is None else shared
    params = FAST | {"rounds": 8} | params
    return lightgbm_trainer.fit(target, blocks["fit"], blocks["tune"], seed, params, 1, shared)


def tune_curve(member):
    metric, _ = training.tune_metric(member)
    return [each.value for each in member.curve if (each.role, each.metric) == ("tune", metric)]


def definition(target, block, scores):
    """The head's own metric by scikit-learn and SciPy, one class and one date at a time."""
    known = ~np.isnan(block.labels)
    labels, weights = block.labels[known], block.weights[known]
    if target.objective in ("regression", "ranking"):
        if not block.cross_sectional:
            return spearmanr(labels, scores[known][:, 0]).statistic
        dates = block.groups[known]
        each = []
        for date in np.unique(dates):
            rows = dates == date
            if rows.sum() >= 5:
                each.append(spearmanr(labels[rows], scores[known][rows, 0]).statistic)
        return np.mean(each)
    classes = [1] if target.objective == "binary" else range(len(target.classes))
    columns = [0] if target.objective == "binary" else classes
    return np.mean(
        [
            average_precision_score(
                labels == number, scores[known][:, column], sample_weight=weights
            )
            for number, column in zip(classes, columns, strict=True)
        ]
    )


@pytest.mark.parametrize("name", ["direction", "entry", "edge_bps"])
def test_the_curve_is_the_heads_own_metric_after_every_round(con, name):
    target, blocks = blocks_of(con, name)
    member = fit(target, blocks, patience=3, num_leaves=15, learning_rate=0.6)
    curve = tune_curve(member)
    assert member.best_iteration > 1
    for number in range(1, member.best_iteration + 1):
        rows = np.column_stack([column.to_numpy() for column in blocks["tune"].features.columns])
        scores = member.booster.predict(rows, num_iteration=number).reshape(len(rows), -1)
        assert curve[number - 1] == pytest.approx(definition(target, blocks["tune"], scores), 1e-9)
    scores = member.predict(as_table(blocks["tune"].features))
    assert curve[member.best_iteration - 1] == pytest.approx(
        definition(target, blocks["tune"], scores), 1e-9
    )


def chosen_round(values, min_rounds, patience):
    """The definition: the rounds trained and the best one, from the metric after each round."""
    best = None
    for number, value in enumerate(values, start=1):
        if number >= min_rounds and (best is None or value > values[best - 1]):
            best = number
        if best is not None and number - best >= patience:
            return number, best
    return len(values), best or len(values)


@pytest.mark.parametrize("name", ["entry", "edge_bps"])
@pytest.mark.parametrize(("min_rounds", "patience"), [(1, 3), (7, 5), (50, 5)])
def test_the_best_round_is_the_peak_of_the_curve_from_min_rounds_on(
    con, name, min_rounds, patience
):
    target, blocks = blocks_of(con, name)
    limits = {"rounds": 30, "min_rounds": min_rounds, "patience": patience, "learning_rate": 0.5}
    member, longest = (
        fit(target, blocks, **limits),
        fit(target, blocks, **limits | {"patience": 30}),
    )
    curve = tune_curve(longest)
    assert (len(tune_curve(member)), member.best_iteration) == chosen_round(
        curve, min_rounds, patience
    )
    assert member.booster.current_iteration() == member.best_iteration


def deceptive(objective):
    """A target whose second feature says the opposite in the tune rows: only round 1 is good.

    The label is dense: nine of ten rows are positive.
    """
    rng = np.random.default_rng(5)

    def block(sign):
        bad, noise = rng.normal(size=(2, 1200))
        good = (rng.random(1200) < 0.85).astype(float)  # two values: one split says it all
        signal = 3 * good + sign * bad + 0.3 * noise
        labels = (signal > 0).astype(float) if objective == "binary" else signal
        table = pa.table({"good": good.astype(np.float32), "bad": bad.astype(np.float32)})
        return Block(table, labels, np.ones(1200), np.arange(1200) // 20)

    target = Target("entry", "dense", "dense", objective, (), ("x",), "all", "none", None)
    return target, {"fit": block(1), "tune": block(-1)}


STUMPS = {
    **{"num_leaves": 2, "learning_rate": 0.7, "min_data_in_leaf": 5, "feature_fraction": 1.0},
    **{"bagging_fraction": 1.0, "lambda_l2": 0.0},
}


@pytest.mark.parametrize("objective", ["binary", "regression"])
def test_a_metric_that_peaks_at_once_does_not_stop_at_once(objective):
    target, blocks = deceptive(objective)
    hasty = fit(target, blocks, rounds=30, min_rounds=1, patience=5, **STUMPS)
    assert objective == "regression" or blocks["fit"].labels.mean() > 0.85
    assert hasty.best_iteration == 1  # the known failure: a model of one stump
    member = fit(target, blocks, rounds=30, min_rounds=10, patience=5, **STUMPS)
    curve = tune_curve(member)
    assert np.argmax(curve) == 0
    assert member.best_iteration >= 10
    assert member.booster.current_iteration() == member.best_iteration


@settings(max_examples=20, deadline=None)
@given(
    values=st.lists(st.integers(0, 5), min_size=12, max_size=12),
    min_rounds=st.integers(1, 14),
    patience=st.integers(1, 6),
)
def test_early_stopping_follows_its_definition_on_any_curve(values, min_rounds, patience):
    target, blocks = SCRIPTED
    numbers = iter(values)

    def scripted(_, block):
        return "scripted", lambda scores: float(next(numbers)), np.full(block.row_count, True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightgbm_trainer, "metric_of", scripted)
        limits = {"rounds": 12, "min_rounds": min_rounds, "patience": patience}
        member = fit(target, blocks, **limits, **STUMPS)
    trained_rounds = len(tune_curve(member))
    expected, best = chosen_round(values, min_rounds, patience)
    if min_rounds > 12:
        best = 12
    assert (trained_rounds, member.best_iteration) == (expected, best)


SCRIPTED = deceptive("regression")


# Another market: a daily cross-section

LEARNERS = {"lightgbm": {}, "torch": {"alpha": "torch"}}


@pytest.fixture(scope="module", params=LEARNERS)
def daily(request, tmp_path_factory):
    """A track of dates, three horizons and a class, several seeds, two folds."""
    con = market.warehouse(
        market.daily_rows(),
        DAILY,
        market.DAILY_TARGETS,
        market.DAILY_FEATURES,
        market.EXPANDING,
        train_folds=["expanding"],
        trainers=LEARNERS[request.param],
        max_rounds=24 if request.param == "torch" else 12,
        torch=market.SETTINGS["torch"] | {"learning_rate": 0.05},
    )
    store = tmp_path_factory.mktemp("daily")
    return request.param, con, trained(con, store, DAILY), store


def test_a_daily_cross_section_needs_another_track_and_nothing_else(daily):
    learner, con, table, store = daily
    rows = table.to_pylist()
    names = [row["target"] for row in market.DAILY_TARGETS]
    assert [(row["fold"], row["target"]) for row in rows] == list(
        itertools.product(market.EXPANDING, names)
    )
    for row in rows:
        expected = learner if row["head"] == "alpha" else "lightgbm"
        assert row["trainer"] == expected
        assert (row["track"], row["fold_scheme"]) == ("daily", "expanding")
        assert [each["seed"] for each in row["members"]] == [1, 2]
        roles = {each["role"]: each for each in row["roles"]}
        assert list(roles) == ["fit", "tune", "calibrate", "test"]
        last = con.execute(
            "select max(label_ends_at_ms) from daily.cuts inner join daily.targets "
            "using (sample_id) where fold = ? and role <> 'test'",
            [row["fold"]],
        ).fetchall()[0][0]
        assert row["valid_from_ms"] == last == roles["calibrate"]["last_label_ends_at_ms"]
        found, _ = model.load(store, row["model_id"])
        assert len({member.predict(sample(con))[0, 0] for member in found.members}) == 2


def sample(con):
    names = ", ".join(f"{name}::float as {name}" for name in market.DAILY_FEATURES)
    return con.sql(f"select {names} from panel.factors limit 5").to_arrow_table()


def test_rows_hashes_count_the_rows_of_each_role(daily):
    _, con, table, _ = daily
    counted = {
        (fold, role): count
        for fold, role, count in con.execute(
            "select fold, role, count(*) from daily.cuts group by all"
        ).fetchall()
    }
    for row in table.to_pylist():
        label = {"order_3d": "forward_3d"}.get(row["target"], row["target"])
        for role in row["roles"]:
            assert role["row_count"] == counted[row["fold"], role["role"]]
            known, positive = con.execute(
                f"select count({label}), sum({label}::double) from daily.targets where sample_id "
                "in (select sample_id from daily.cuts where fold = ? and role = ?)",
                [row["fold"], role["role"]],
            ).fetchall()[0]
            assert role["labelled_row_count"] == known
            assert role["positive_count"] == (positive if row["objective"] == "binary" else None)


def test_a_daily_head_ranks_stocks_within_their_date(daily):
    """The metric of the tested rows, by SciPy: the mean over dates of the rank correlation."""
    _, con, table, store = daily
    for row in table.to_pylist():
        target, blocks = daily_blocks(con, row)
        found, _ = model.load(store, row["model_id"])
        scores = found.seed_scores(as_table(blocks["test"].features)).mean(axis=2)
        expected = definition(target, blocks["test"], scores)
        (metric,) = row["test_metrics"]
        assert metric["value"] == pytest.approx(expected, 1e-9)
        assert metric["row_count"] == np.isfinite(blocks["test"].labels).sum()
        assert metric["value"] > 0.3  # far above 0, and above the tenth of rows that is positive


def daily_blocks(con, row):
    target = next(each for each in read_targets(con, DAILY) if each.target == row["target"])
    roles = ("fit", "tune", "calibrate", "test")
    data = read_fold(con, DAILY, row["fold"], market.DAILY_FEATURES, [target], roles)
    return target, {role: data.block(role, target) for role in roles}


def test_daily_models_answer_as_they_did(daily):
    _, _, table, store = daily
    for model_id in table["model_id"].to_pylist():
        for answer in replay.replay_model(store, model_id):
            assert answer["largest_difference"] <= answer["tolerance"], answer


def test_training_the_daily_track_again_gives_the_same_models(daily, tmp_path):
    _, con, table, _ = daily
    assert ids(trained(con, tmp_path, DAILY)) == ids(table)


# Refusals


def refusal(con, root, track=MINUTE):
    with pytest.raises(HeadsError) as caught:
        trained(con, root, track)
    return str(caught.value)


def changed_target(**changes):
    """A market whose target `entry` has another row in the seed."""
    return market.warehouse(targets=[market.TARGETS[1] | changes, market.TARGETS[3]])


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"objective": "guessing"}, ["'entry'", "'guessing'", "binary"]),
        ({"label_column": "exit"}, ["'entry'", "heads.head_samples", "'exit'"]),
        ({"outputs": "a|b"}, ["'entry'", "2 outputs", "0 classes"]),
        ({"classes": "YES|NO", "outputs": "a|b"}, ["'entry'", "2 outputs", "2 classes"]),
        ({"objective": "multiclass"}, ["'entry'", "1 outputs", "0 classes"]),
        ({"interval_level": 0.8}, ["'entry'", "binary", "no interval"]),
        ({"interval_level": 80.0}, ["'entry'", "80.0", "0.8"]),
        ({"feature_list": "none"}, ["'none'", "seeds/head_features.csv"]),
    ],
)
def test_a_target_that_contradicts_itself_is_refused(tmp_path, changes, parts):
    con = changed_target(**changes)
    if "feature_list" in changes:
        con.execute("delete from seeds.head_features where feature_list = 'none'")
    text = refusal(con, tmp_path)
    assert all(part in text for part in parts), text


def without_targets(con):
    con.execute("delete from seeds.head_targets")


def without_a_column(con):
    con.execute("alter table factors.minute_features drop column whole")


def without_role(con):
    con.execute("delete from heads.fold_blocks where role = 'tune'")


def with_a_class_of_none(con):
    con.execute("update heads.head_samples set direction = 'FLAT' where rowid = 7")


def without_labels(con):
    con.execute("update heads.head_samples set entry = NULL")


def without_labels_to_calibrate(con):
    con.execute(
        "update heads.head_samples set entry = NULL where sample_id in "
        "(select sample_id from heads.folds where role = 'calibrate')"
    )


def with_one_class(con):
    con.execute("update heads.head_samples set entry = 0 where entry = 1")


def with_one_class_to_tune(con):
    con.execute(
        "update heads.head_samples set entry = 0 where sample_id in "
        "(select sample_id from heads.folds where role = 'tune')"
    )


def with_no_short_side(con):
    con.execute("update heads.head_samples set direction = 'LONG' where direction = 'SHORT'")


def with_a_label_that_is_no_class(con):
    con.execute("update heads.head_samples set entry = 2 where rowid = 3")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (without_targets, ["seeds.head_targets", "minute", "dbt build"]),
        (without_a_column, ["factors.minute_features", "whole"]),
        (without_role, ["fold anchor", "tune", "heads.folds", "heads_tune_share"]),
        (with_a_class_of_none, ["direction", "'FLAT'", "LONG, SHORT, NEUTRAL"]),
        (without_labels, ["head entry", "fold anchor", "target entry", "fit", "known label"]),
        (without_labels_to_calibrate, ["head entry", "fold anchor", "target entry", "calibrat"]),
        (with_one_class, ["head entry", "fold anchor", "target entry", "role fit", "none is 1"]),
        (with_one_class_to_tune, ["target entry", "role tune", "none is 1"]),
        (with_no_short_side, ["head direction", "role fit", "none is SHORT"]),
        (with_a_label_that_is_no_class, ["head entry", "role fit", "[2.0]", "0 to 1"]),
    ],
)
def test_data_that_cannot_be_trained_on_is_refused(tmp_path, change, parts):
    con = market.warehouse(targets=market.TARGETS[:1] if "direct" in "".join(parts) else ENTRY)
    change(con)
    text = refusal(con, tmp_path)
    assert all(part in text for part in parts), text
    assert not list(tmp_path.glob(".*"))


def with_lightgbm(**params):
    return {"lightgbm": market.SETTINGS["lightgbm"] | params}


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"train_folds": ["anchored"]}, ["'anchored'", "heads_train_folds", "anchor"]),
        ({"trainers": {"entrance": "torch"}}, ["entrance", "heads_trainers", "entry"]),
        ({"trainer": "forest"}, ["'forest'", "lightgbm, torch"]),
        ({"trainers": {"entry": "forest"}}, ["'forest'", "lightgbm, torch"]),
        (with_lightgbm(num_threads=4, seed=1), ["num_threads, seed", "heads_seeds"]),
        (with_lightgbm(boosting="dart"), ["boosting"]),
        (with_lightgbm(early_stopping_round=3), ["early_stopping_round"]),
        (with_lightgbm(num_leafs=3), ["num_leafs", "heads_lightgbm"]),
        (with_lightgbm(eta=0.9), ["eta", "learning_rate"]),
        (with_lightgbm(n_estimators=2), ["n_estimators"]),
        (with_lightgbm(num_leaves=1), ["entry", "num_leaves", "heads_lightgbm"]),
        (with_lightgbm(use_missing=False), ["use_missing", "heads_lightgbm"]),
    ],
)
def test_settings_that_cannot_be_trained_with_are_refused(tmp_path, changes, parts):
    con = market.warehouse(targets=ENTRY, **changes)
    text = refusal(con, tmp_path)
    assert all(part in text for part in parts), text


def test_rows_to_score_without_a_feature_are_refused(base, root):
    found, _ = model.load(root, base["model_id"].to_pylist()[0])
    with pytest.raises(HeadsError, match="no feature strong, whole"):
        found.seed_scores(pa.table({"gaps": [1.0], "constant": [1.0], "noise": [1.0]}))


def test_a_fold_whose_tested_rows_have_no_label_still_gives_its_models(tmp_path):
    con = market.warehouse(
        market.daily_rows(),
        DAILY,
        market.DAILY_TARGETS[-1:],
        market.DAILY_FEATURES,
        market.EXPANDING,
        train_folds=["expanding_2"],
    )
    con.execute(
        "update daily.targets set top_tenth = NULL where sample_id in "
        "(select sample_id from daily.cuts where role = 'test' and fold = 'expanding_2')"
    )
    (row,) = trained(con, tmp_path, DAILY).to_pylist()
    assert row["test_metrics"] == []


def test_schemes_and_folds_are_taken_by_name_once_each(con):
    con = market.warehouse(folds=market.ANCHOR | market.EXPANDING)
    wanted = ("expanding", "anchor", "expanding_2")
    assert training.read_folds(con, MINUTE, wanted) == ["expanding_1", "expanding_2", "anchor"]


def test_settings_are_read_as_they_were_written():
    con = market.warehouse(scale=2.0, trainers={"entry": "torch"})
    found = read_settings(con)
    assert dataclasses.asdict(found) | {"seeds": [1, 2], "train_folds": ["anchor"]} == (
        market.SETTINGS | {"scale": 2.0, "trainers": {"entry": "torch"}, "trial_targets": ()}
    )
    assert found.trainer_of("entry") == "torch"
    assert found.trainer_of("risk") == "lightgbm"
    params = found.params("lightgbm")
    assert (params["rounds"], params["min_rounds"], params["patience"]) == (16, 3, 8)
    assert params["scale"] == 2.0


def test_scale_takes_smaller_steps(con):
    target, blocks = blocks_of(con, "edge_bps")
    one = fit(target, blocks, rounds=1, learning_rate=0.4, scale=4.0)
    two = fit(target, blocks, rounds=1, learning_rate=0.1)
    np.testing.assert_array_equal(
        one.predict(blocks["tune"].features), two.predict(blocks["tune"].features)
    )


def test_a_warehouse_without_settings_says_so():
    with pytest.raises(duckdb.CatalogException, match="head_settings"):
        training.train(duckdb.connect(), MINUTE, Path("unused"))


def test_a_short_fold_without_a_class_has_no_model_of_that_target(tmp_path, capsys):
    """The walk goes on; the anchor fold, from which every row is scored, has to be trained."""
    rows = market.minute_rows()
    starts = rows["starts_at_ms"].to_numpy()
    early = starts < np.quantile(starts, 0.2)  # before the tune rows of both folds
    rare = pa.array(np.where(early, rows["entry"].to_numpy(zero_copy_only=False), 0.0))
    rows = rows.set_column(rows.column_names.index("entry"), "entry", rare)
    con = market.warehouse(rows, folds=market.EXPANDING, train_folds=["expanding"])
    found = training.train(con, MINUTE, tmp_path).to_pylist()
    assert {row["target"] for row in found} == {"direction", "edge_bps", "rare_entry"}
    assert "no model: head entry, fold expanding_1" in capsys.readouterr().out
    con = market.warehouse(rows, train_folds=["anchor"])
    with pytest.raises(Untrainable, match=r"head entry, fold anchor.*none is 1"):
        training.train(con, MINUTE, tmp_path)
