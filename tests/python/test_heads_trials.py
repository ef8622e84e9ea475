"""Trials and importances: what a head does without its labels, with a leak, without features."""

import dataclasses
import itertools
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

import heads_market as market
from heads_market import DAILY, MINUTE
from wavehouse.heads import importance, lightgbm_trainer, model, training, trials
from wavehouse.heads.base import Block, HeadsError, Target
from wavehouse.heads.config import read_settings, read_targets
from wavehouse.heads.data import as_table, read_fold

FEATURES = ("strong", "whole", "constant", "noise")  # group signal: the first two; noise: the rest
NAMES = ("direction", "entry", "edge_bps")
LEARNING = {
    "max_rounds": 40,
    "patience": 40,
    "lightgbm": {"num_leaves": 15, "min_data_in_leaf": 10, "learning_rate": 0.2},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAREHOUSE_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def con():
    rows = market.minute_rows(bars=900, period_minutes=10)
    return market.warehouse(rows, features=FEATURES, trial_targets=NAMES, seeds=[1], **LEARNING)


@pytest.fixture(scope="module")
def table(con):
    return trials.run_trials(con, MINUTE)


def trial(table, target, kind, group=None):
    """The one row of a target and a trial."""
    (row,) = [
        row
        for row in table.to_pylist()
        if (row["target"], row["kind"], row["feature_group"]) == (target, kind, group)
    ]
    return row


def parts_of(con, name):
    target = next(each for each in read_targets(con, MINUTE) if each.target == name)
    return target, read_fold(con, MINUTE, "anchor", FEATURES, [target])


# Trials


def test_one_row_per_target_and_trial(con, table):
    assert table.schema == trials.SCHEMA
    kinds = ["baseline", "label_shuffle", "date_shuffle", "planted_leak"]
    expected = [(name, trial) for name in NAMES for trial in kinds]
    expected += [(name, f"drop_group:{group}") for name in NAMES for group in ("signal", "noise")]
    found = list(zip(table["target"].to_pylist(), table["trial"].to_pylist(), strict=True))
    assert sorted(found) == sorted(expected)
    assert set(table["track"].to_pylist()) == {"minute"}
    assert set(table["fold"].to_pylist()) == {"anchor"}
    drops = pa.compute.equal(table["kind"], "drop_group")
    assert table["loss_without"].is_valid().to_pylist() == drops.to_pylist()
    labelled = dict(
        con.execute(
            "unpivot (select count(direction) as direction, count(entry) as entry, count(edge_bps) "
            "as edge_bps from heads.head_samples inner join heads.folds using (sample_id) where "
            "role = 'calibrate') on *"
        ).fetchall()
    )
    for row in table.to_pylist():
        assert row["row_count"] == labelled[row["target"]]


def chance(con, name):
    """What the head's own metric is for scores that say nothing: the definition."""
    if name == "edge_bps":
        return 0.0
    if name == "direction":
        return 1 / 3
    return con.execute(
        "select sum(entry * weight) / sum(weight) filter (where entry is not null) "
        "from heads.head_samples inner join heads.folds using (sample_id) inner join "
        "heads.sample_weights using (sample_id) where role = 'calibrate'"
    ).fetchall()[0][0]


@pytest.mark.parametrize("name", NAMES)
def test_without_its_own_labels_a_head_has_no_skill(con, table, name):
    baseline = trial(table, name, "baseline")
    assert baseline["skill"] > 0.6
    assert baseline["value"] > baseline["base_value"] + 0.25
    for kind in ("label_shuffle", "date_shuffle"):
        row = trial(table, name, kind)
        assert abs(row["skill"]) < 0.15, row
        assert abs(row["value"] - row["base_value"]) < 0.12, row
        if name == "direction":
            assert row["base_value"] == pytest.approx(chance(con, name))
    assert baseline["base_value"] == pytest.approx(chance(con, name), abs=1e-12)


@pytest.mark.parametrize("kind", ["label_shuffle", "date_shuffle"])
def test_a_shuffle_that_shuffles_nothing_is_noticed(con, table, monkeypatch, kind):
    """The mutation: labels that stay where they are keep the skill of the baseline."""
    for order in ("_any_order", "_period_order"):
        monkeypatch.setattr(trials, order, lambda periods, rng: np.arange(len(periods)))
    target, data = parts_of(con, "entry")
    rows = trials.target_trials(data, target, read_settings(con), {"strong": "signal"})
    found = next(row for row in rows if row["kind"] == kind)
    assert found["skill"] == trial(table, "entry", "baseline")["skill"] > 0.6


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_leak_is_plain_to_see(table, name):
    assert trial(table, name, "planted_leak")["skill"] > 0.95
    assert trial(table, name, "baseline")["skill"] < 0.95


@pytest.mark.parametrize("name", NAMES)
def test_only_the_group_that_informs_costs_when_it_is_left_out(table, name):
    baseline = trial(table, name, "baseline")
    for group, keep in (("signal", True), ("noise", False)):
        row = trial(table, name, "drop_group", group)
        assert row["loss_without"] == pytest.approx(baseline["value"] - row["value"], abs=1e-12)
        assert row["loss_without_lower"] < row["loss_without_upper"]
        assert (row["loss_without_lower"] > 0) == keep, row
        if keep:
            assert abs(row["skill"]) < 0.2
            assert row["loss_without_lower"] <= row["loss_without"] <= row["loss_without_upper"]


def test_the_baseline_is_a_member_of_the_head_judged_on_calibrate_rows(con, table):
    target, data = parts_of(con, "entry")
    own = read_settings(con)
    blocks = {role: data.block(role, target) for role in data.bounds}
    params = own.params("lightgbm")
    member = lightgbm_trainer.fit(target, blocks["fit"], blocks["tune"], 1, params, 1, {})
    block = blocks["calibrate"]
    known = ~np.isnan(block.labels)
    scores = member.predict(as_table(block.features))[known, 0]
    row = trial(table, "entry", "baseline")
    assert row["best_iteration"] == member.best_iteration
    assert row["value"] == pytest.approx(
        average_precision_score(block.labels[known], scores, sample_weight=block.weights[known]),
        abs=1e-12,
    )
    pairs = [
        np.sign(high - low)
        for high, low in itertools.product(
            scores[block.labels[known] == 1], scores[block.labels[known] == 0]
        )
    ]
    assert row["skill"] == pytest.approx(np.mean(pairs), abs=1e-9)  # Somers' D by its definition


def spearman(labels, scores):
    return spearmanr(labels, scores).statistic


@pytest.mark.parametrize("track", [MINUTE, DAILY])
def test_the_interval_is_a_bootstrap_of_whole_periods(con, table, track):
    """By SciPy and a loop: the rank correlation over the periods drawn, of one member less that of
    the other; where values compete within dates, its mean over the dates drawn."""
    features, name = FEATURES, "edge_bps"
    if track is DAILY:
        features, name = market.DAILY_FEATURES, "forward_1d"
        lists = (market.DAILY_TARGETS[:1], features, market.ANCHOR)
        con = market.warehouse(market.daily_rows(), DAILY, *lists, trial_targets=[name], seeds=[1])
        table = trials.run_trials(con, DAILY)
    target = next(each for each in read_targets(con, track) if each.target == name)
    data = read_fold(con, track, "anchor", features, [target])
    blocks = {role: data.block(role, target) for role in data.bounds}
    block, each = blocks["calibrate"], []
    known = ~np.isnan(block.labels)
    labels, periods = block.labels[known], block.periods[known]
    rest = [feature for feature in features if market.group_of(feature) != "signal"]
    for kept in (features, rest):
        fit, tune = (
            dataclasses.replace(block, features=as_table(block.features).select(kept))
            for block in (blocks["fit"], blocks["tune"])
        )
        params = read_settings(con).params("lightgbm")
        member = lightgbm_trainer.fit(target, fit, tune, 1, params, 1, {})
        each.append(member.predict(as_table(block.features))[known, 0])
    rng = np.random.default_rng(trials.SEED)
    spans = [np.flatnonzero(periods == period) for period in np.unique(periods)]
    assert len(spans) > 10
    losses = []
    for _ in range(trials.DRAWS):
        drawn = [spans[number] for number in rng.integers(0, len(spans), len(spans))]
        parts = drawn if track is DAILY else [np.concatenate(drawn)]
        one, other = (
            np.mean([spearman(labels[rows], scores[rows]) for rows in parts]) for scores in each
        )
        losses.append(one - other)
    row = trial(table, name, "drop_group", "signal")
    assert row["loss_without_lower"] == pytest.approx(np.quantile(losses, 0.05), abs=1e-9)
    assert row["loss_without_upper"] == pytest.approx(np.quantile(losses, 0.95), abs=1e-9)


def test_trials_repeat(con, table):
    target, data = parts_of(con, "entry")
    own = read_settings(con)
    groups = {name: market.group_of(name) for name in FEATURES}
    again = list(trials.target_trials(data, target, own, groups))
    rows = [row for row in table.to_pylist() if row["target"] == "entry"]
    assert [{**dict.fromkeys(trials.SCHEMA.names), **row, "track": "minute"} for row in again] == (
        rows
    )


def test_a_list_of_one_group_has_no_drop_trial():
    con = market.warehouse(features=("strong", "whole"), trial_targets=["entry"], seeds=[1])
    assert "drop_group" not in trials.run_trials(con, MINUTE)["kind"].to_pylist()


def test_nets_are_tried_too():
    con = market.warehouse(features=FEATURES, trial_targets=["entry"], trainer="torch")
    table = trials.run_trials(con, MINUTE)
    assert table.num_rows == 6
    assert abs(trial(table, "entry", "label_shuffle")["skill"]) < 0.25


def test_no_targets_no_trials():
    con = market.warehouse(trial_targets=[])
    assert trials.run_trials(con, MINUTE).num_rows == 0


def test_an_unknown_target_is_refused():
    con = market.warehouse(trial_targets=["entry", "exit"])
    with pytest.raises(
        HeadsError, match=r"heads_trial_targets names exit; .* has direction, entry"
    ):
        trials.run_trials(con, MINUTE)


def test_trials_need_the_anchor_fold():
    con = market.warehouse(folds=market.EXPANDING, trial_targets=["entry"])
    with pytest.raises(HeadsError, match=r"'anchor'.*expanding_1"):
        trials.run_trials(con, MINUTE)


# Shuffles


@st.composite
def labelled_blocks(draw):
    """Blocks of three roles: labels with unknowns, periods ascending and of uneven lengths."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=6, max_size=15))
    periods = np.repeat(np.arange(len(lengths)) * 7, lengths)
    labels = np.arange(len(periods), dtype=float)  # every label another, so that it can be followed
    unknown = draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    labels[np.array(unknown)] = np.nan
    cuts = sorted(draw(st.lists(st.integers(1, len(labels) - 1), min_size=2, max_size=2)))
    if np.isnan(labels).all():
        labels[0] = 0.0
    blocks = {}
    for role, rows in zip(trials.ROLES, np.split(np.arange(len(labels)), cuts), strict=True):
        table = pa.table({"row": rows.astype(np.float32)})
        weights = np.ones(len(rows))
        blocks[role] = Block(table, labels[rows], weights, periods[rows] + 1, periods[rows])
    return blocks


def joined(blocks, name):
    return np.concatenate([getattr(blocks[role], name) for role in trials.ROLES])


@settings(deadline=None)
@given(labelled_blocks(), st.sampled_from([trials._any_order, trials._period_order]))
def test_a_shuffle_permutes_known_labels_and_nothing_else(blocks, order):
    found = trials._shuffled(blocks, order)
    old, new = joined(blocks, "labels"), joined(found, "labels")
    np.testing.assert_array_equal(np.isnan(new), np.isnan(old))
    assert sorted(new[~np.isnan(new)]) == sorted(old[~np.isnan(old)])
    for role in trials.ROLES:
        assert found[role].row_count == blocks[role].row_count
        assert found[role].features is blocks[role].features
        np.testing.assert_array_equal(found[role].weights, blocks[role].weights)
        np.testing.assert_array_equal(found[role].periods, blocks[role].periods)


@settings(deadline=None)
@given(labelled_blocks())
def test_a_date_shuffle_moves_whole_periods(blocks):
    old, periods = joined(blocks, "labels"), joined(blocks, "periods")
    period_of = dict(zip(old[~np.isnan(old)], periods[~np.isnan(old)], strict=True))
    new = joined(trials._shuffled(blocks, trials._period_order), "labels")
    order = [period_of[label] for label in new[~np.isnan(new)]]
    runs = [period for period, _ in itertools.groupby(order)]
    assert len(runs) == len(set(runs))  # the labels of a period stay together


def test_shuffles_shuffle():
    """Over many periods hardly any label keeps its place, or its period; within one they mix."""
    periods = np.repeat(np.arange(200), 10)
    rng = np.random.default_rng(3)
    for order in (trials._any_order(periods, rng), trials._period_order(periods, rng)):
        assert sorted(order) == list(range(2000))
        assert (order == np.arange(2000)).mean() < 0.01
        assert (periods[order] == periods).mean() < 0.03
        within = np.corrcoef(order % 10, np.arange(2000) % 10)[0, 1]
        assert abs(within) < 0.1


# Importances


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Models of every objective by trees, one by a net; `gaps` informs by being unknown."""
    root = tmp_path_factory.mktemp("store")
    con = market.warehouse(max_rounds=16, importance_rows=150.0)
    nets = market.warehouse(targets=market.TARGETS[3:], trainer="torch", max_rounds=160)
    return root, training.train(con, MINUTE, root), training.train(nets, MINUTE, root)


def by_kind(row):
    found = {}
    for each in row["importance"]:
        found.setdefault(each["kind"], {})[each["feature"]] = each["value"]
    return found


@pytest.mark.parametrize("number", range(4))
def test_what_informs_ranks_first_and_what_is_not_used_is_zero(trained, number):
    row = trained[1].to_pylist()[number]
    kinds = by_kind(row)
    assert list(kinds) == ["gain", "permutation", "shap"]
    for kind, values in kinds.items():
        assert list(values) == list(market.FEATURES)
        assert max(values, key=values.get) == "strong", kind
        assert values["constant"] == 0, kind
        assert values["gaps"] > 2 * values["noise"], kind
        if kind != "permutation":
            assert min(values.values()) >= 0
            assert sum(values.values()) == pytest.approx(1, abs=1e-12)


def test_nets_have_permutation_alone(trained):
    (row,) = trained[2].to_pylist()
    kinds = by_kind(row)
    assert list(kinds) == ["permutation"]
    assert max(kinds["permutation"], key=kinds["permutation"].get) == "strong"
    assert kinds["permutation"]["constant"] == 0


def test_permutation_is_the_fall_of_the_heads_own_metric(trained):
    """One feature at a time, by numpy, scikit-learn and SciPy, on evenly spaced labelled rows."""
    con = market.warehouse()
    for number in (1, 3):
        row = trained[1].to_pylist()[number]
        found, _ = model.load(trained[0], row["model_id"])
        target = next(t for t in read_targets(con, MINUTE) if t.target == row["target"])
        data = read_fold(con, MINUTE, "anchor", market.FEATURES, [target])
        block = data.block("tune", target)
        known = [place for place, label in enumerate(block.labels) if not math.isnan(label)]
        rows = [known[int(place)] for place in np.linspace(0, len(known) - 1, 150)]
        table = as_table(block.features).take(rows)

        def value(table, row=row, rows=rows, found=found, labels=block.labels[rows], b=block):
            scores = found.seed_scores(table).mean(axis=2)[:, 0]
            if row["objective"] == "binary":
                return average_precision_score(labels, scores, sample_weight=b.weights[rows])
            return spearmanr(labels, scores).statistic

        order = np.random.default_rng(0).permutation(150)
        for place, feature in enumerate(market.FEATURES):
            mixed = table.set_column(place, feature, table[feature].take(order))
            expected = value(table) - value(mixed)
            assert by_kind(row)["permutation"][feature] == pytest.approx(expected, abs=1e-9)


def test_gain_is_the_sum_over_splits_as_a_share(trained):
    for row in trained[1].to_pylist():
        found, _ = model.load(trained[0], row["model_id"])
        totals = dict.fromkeys(market.FEATURES, 0.0)
        for member in found.members:
            for tree in member.booster.dump_model()["tree_info"]:
                stack = [tree["tree_structure"]]
                while stack:
                    node = stack.pop()
                    if "split_feature" in node:
                        totals[market.FEATURES[node["split_feature"]]] += node["split_gain"]
                        stack += [node["left_child"], node["right_child"]]
        for feature, value in by_kind(row)["gain"].items():
            expected = totals[feature] / sum(totals.values())
            assert value == pytest.approx(expected, rel=1e-4)  # the text rounds gains


# SHAP, from Shapley's definition


def expectation(node, row, known):
    """The tree's value of a row of which only the features `known` are given.

    Where a split is on another feature, both sides count by their share of the training rows.
    """
    if "leaf_value" in node:
        return node["leaf_value"]
    left, right = node["left_child"], node["right_child"]
    if node["split_feature"] in known:
        value = row[node["split_feature"]]
        if math.isnan(value) and node["missing_type"] == "NaN":
            goes_left = node["default_left"]
        else:
            goes_left = (0.0 if math.isnan(value) else value) <= node["threshold"]
        return expectation(left if goes_left else right, row, known)
    counts = [side.get("internal_count", side.get("leaf_count")) for side in (left, right)]
    sides = [expectation(side, row, known) for side in (left, right)]
    return (counts[0] * sides[0] + counts[1] * sides[1]) / sum(counts)


def shapley(tree, row):
    """Shapley's value of each feature: its mean contribution over all orders (Shapley 1953)."""
    count = len(row)
    values = []
    for feature in range(count):
        others, total = [each for each in range(count) if each != feature], 0.0
        for size in range(count):
            share = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for known in itertools.combinations(others, size):
                gained = expectation(tree, row, {*known, feature}) - expectation(tree, row, known)
                total += share * gained
        values.append(total)
    return values


@pytest.mark.parametrize("objective", ["binary", "multiclass", "regression"])
def test_shap_values_are_shapleys(objective):
    rng = np.random.default_rng(8)
    values = rng.normal(size=(400, 3)).astype(np.float32)
    values[rng.random(400) < 0.2, 1] = np.nan
    signal = values[:, 0] * np.nan_to_num(values[:, 1], nan=2.0) + values[:, 2]
    labels = {
        "binary": (signal > 0).astype(float),
        "multiclass": np.digitize(signal, [-0.5, 0.8]).astype(float),
        "regression": 10 * signal,
    }[objective]
    classes = ("A", "B", "C") if objective == "multiclass" else ()
    target = Target("x", "x", "x", objective, classes, classes or ("x",), "all", "none", None)
    table = pa.table({f"f{i}": pa.array(values[:, i], from_pandas=True) for i in range(3)})
    block = Block(table, labels, np.ones(400), np.arange(400) // 20)
    params = {"rounds": 4, "min_rounds": 4, "patience": 4, "num_leaves": 6, "min_data_in_leaf": 5}
    member = lightgbm_trainer.fit(target, block, block, 1, params, 1, {})
    found = member.contributions(table.slice(0, 40))
    assert found.shape == (40, member.outputs, 3)
    assert np.isnan(values[:40]).any()
    info = member.booster.dump_model()["tree_info"]
    for place, row in enumerate(values[:40].astype(float)):
        for output in range(member.outputs):
            own = [tree["tree_structure"] for tree in info[output :: member.outputs]]
            expected = np.sum([shapley(tree, row) for tree in own], axis=0)
            np.testing.assert_allclose(found[place, output], expected, rtol=0, atol=1e-9)


def test_shap_importance_is_the_mean_size_over_rows_and_members():
    con = market.warehouse(seeds=[1, 2, 3])
    target = next(each for each in read_targets(con, MINUTE) if each.target == "direction")
    data = read_fold(con, MINUTE, "anchor", market.FEATURES, [target])
    blocks = {role: data.block(role, target) for role in data.bounds}
    params = read_settings(con).params("lightgbm")
    members = tuple(
        lightgbm_trainer.fit(target, blocks["fit"], blocks["tune"], seed, params, 1, {})
        for seed in (1, 2, 3)
    )
    manifest = {"features": list(market.FEATURES), "outputs": list(target.outputs)}
    found = importance.importances(
        model.Model(manifest, members, {}, {}), target, blocks["tune"], 10**6
    )
    known = ~np.isnan(blocks["tune"].labels)
    table = as_table(blocks["tune"].features).filter(pa.array(known))
    sizes = dict.fromkeys(market.FEATURES, 0.0)
    for member in members:
        for row in np.abs(member.contributions(table)):
            for output in row:
                for feature, size in zip(market.FEATURES, output, strict=True):
                    sizes[feature] += size
    for each in found:
        if each["kind"] == "shap":
            expected = sizes[each["feature"]] / sum(sizes.values())
            assert each["value"] == pytest.approx(expected, abs=1e-9)
