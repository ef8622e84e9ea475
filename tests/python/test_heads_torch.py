"""The torch trainer: its net against loops written from the definition, its bytes, its routes."""

import functools
import json
import math

import duckdb
import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavehouse.heads import torch_export, torch_net, torch_trainer
from wavehouse.heads.base import Block, HeadsError, Target
from wavehouse.heads.torch_member import Groups
from wavehouse.heads.tune_metrics import average_precision, rank_ic

SMALL = {"rounds": 3, "members": 3, "hidden": [6, 5], "batch_rows": 256, "device": "cpu"}
OBJECTIVES = ["binary", "multiclass", "regression"]
CLASSES = ("LONG", "SHORT", "NEUTRAL")
GROUP_ROWS = 10
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")


def target(objective):
    classes = CLASSES if objective == "multiclass" else ()
    return Target(
        "head", "aim", "label", objective, classes, classes or ("aim",), "x", "none", None
    )


@functools.cache
def market(seed, rows=1500, features=6, objective="binary"):
    """A block whose label depends on a product, on a kink, and on f0 being NULL; and the truth."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, features)).astype(np.float32)
    unknown = rng.random((rows, features)) < 0.2
    unknown[:, 1:4] = False
    signal = values[:, 1] * values[:, 2] + np.abs(values[:, 3]) + 2 * unknown[:, 0]
    noisy = signal + rng.normal(size=rows)
    labels = {
        "binary": (noisy > 2).astype(float),
        "multiclass": np.digitize(noisy, [0.5, 2]).astype(float),
        "regression": 30 * noisy + 100,
    }[objective]
    values[:, 1] = values[:, 1] * 1000 + 5000  # units differ between features
    values[:, features - 2] /= 1000
    table = pa.table({f"f{i}": pa.array(values[:, i], mask=unknown[:, i]) for i in range(features)})
    groups = np.arange(rows) // GROUP_ROWS
    return Block(table, labels, np.ones(rows), groups), signal


def train(objective="binary", seed=1, fit=None, tune=None, threads=1, shared=None, **params):
    fit = fit or market(1, objective=objective)[0]
    tune = tune or market(2, rows=600, objective=objective)[0]
    shared = {} if shared is None else shared
    return torch_trainer.fit(target(objective), fit, tune, seed, SMALL | params, threads, shared)


@functools.cache
def trained(objective="binary", **params):
    """One member for all tests that only read it."""
    return train(objective, **params)


def replaced(block, **changes):
    parts = {name: getattr(block, name) for name in ("features", "labels", "weights", "groups")}
    return Block(**(parts | changes))


def with_column(table, name, values):
    column = pa.array(np.asarray(values, dtype=np.float32))
    return table.set_column(table.column_names.index(name), name, column)


def as_rows(table):
    """The values as lists of floats, None where NULL."""
    return [list(row.values()) for row in table.to_pylist()]


# The net, from its definition


def slow_inputs(tensors, row):
    """RealMLP's scaling of one row, then one indicator per feature that had NULLs in fit."""
    inputs = []
    for value, center, factor in zip(
        row, tensors["center"].tolist(), tensors["inverse_scale"].tolist(), strict=True
    ):
        if value is None or not math.isfinite(value):
            inputs.append(0.0)
        else:
            scaled = (value - center) * factor
            inputs.append(scaled / math.sqrt(1 + (scaled / 3) ** 2))
    for ordinal in tensors["missing"].tolist():
        value = row[ordinal]
        inputs.append(1.0 if value is None or not math.isfinite(value) else 0.0)
    return inputs


def slow_layer(tensors, name, member, inputs):
    """BatchEnsemble, equation 5: ((x * r) W) * s + b of one member."""
    matrix = tensors[f"{name}.weight"].tolist()
    r, s, b = (tensors[f"{name}.{part}"].tolist()[member] for part in ("r", "s", "bias"))
    outputs = []
    for unit in range(len(s)):
        total = 0.0
        for place, value in enumerate(inputs):
            total += value * r[place] * matrix[place][unit]
        outputs.append(max(0.0, total * s[unit] + b[unit]))
    return outputs


def slow_scores(member, rows, groups=None):
    """Scores by loops: members apart, then the mean of their probabilities or values."""
    tensors, config = member.tensors, member.config
    layers = len(config["params"]["hidden"])
    encoder_layers = max(1, layers - 1)
    sums = [[0.0] * member.outputs for _ in rows]
    for k in range(config["params"]["members"]):
        hidden = [slow_inputs(tensors, row) for row in rows]
        for layer in range(layers + 1):
            if groups is not None and layer == encoder_layers:
                pooled = []
                for group in groups:
                    peers = [hidden[i] for i in range(len(rows)) if groups[i] == group]
                    pooled.append([sum(column) / len(peers) for column in zip(*peers, strict=True)])
                hidden = [own + mean for own, mean in zip(hidden, pooled, strict=True)]
            if layer < layers:
                hidden = [slow_layer(tensors, f"layer{layer}", k, values) for values in hidden]
        head, bias = tensors["head.weight"][k].tolist(), tensors["head.bias"][k].tolist()
        for number, values in enumerate(hidden):
            outputs = [
                bias[o] + sum(value * head[unit][o] for unit, value in enumerate(values))
                for o in range(member.outputs)
            ]
            if config["objective"] == "binary":
                outputs = [1 / (1 + math.exp(-value)) for value in outputs]
            elif config["objective"] == "multiclass":
                powers = [math.exp(value) for value in outputs]
                outputs = [power / sum(powers) for power in powers]
            else:
                outputs = [v * config["score_scale"] + config["score_offset"] for v in outputs]
            for o, value in enumerate(outputs):
                sums[number][o] += value / config["params"]["members"]
    return np.array(sums)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("hidden", [(7,), (6, 5)])
def test_scores_are_the_definition(objective, hidden):
    member = trained(objective, rounds=2, hidden=hidden)
    table = market(3, rows=40, objective=objective)[0].features
    slow = slow_scores(member, as_rows(table))
    scale = max(1, np.abs(slow).max())
    assert np.abs(member.predict(table) - slow).max() / scale < 1e-6
    for name in ("layer0.r", "layer0.s", "layer0.bias", "head.weight", "center"):
        changed = member.tensors | {name: member.tensors[name] * 1.01 + 0.01}
        other = torch_trainer.TorchMember(member.config, changed)
        assert np.abs(other.predict(table) - slow).max() / scale > 1e-6, name


@pytest.mark.parametrize("hidden", [(7,), (6, 5), (5, 4, 3)])
def test_pooled_scores_are_the_definition(hidden):
    member = trained(rounds=1, pool=True, hidden=hidden)
    block = market(3, rows=35)[0]
    slow = slow_scores(member, as_rows(block.features), block.groups.tolist())
    assert np.abs(member.predict_groups(block.features, block.groups) - slow).max() < 1e-6
    alone = member.predict_groups(block.features, np.arange(35))
    assert np.abs(alone - slow).max() > 1e-4


def test_members_differ_and_share_matrices():
    tensors = trained().tensors
    assert tensors["layer0.weight"].shape == (6 + 3, 6)
    assert tensors["layer0.r"].shape == (3, 9)
    assert len({tuple(row) for row in tensors["layer0.r"].sign().tolist()}) == 3


def test_statistics_are_the_definition():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(101, 6)).astype(np.float32)
    values[rng.random(101) < 0.3, 0] = np.nan
    values[:, 1] = 7  # constant
    values[:, 2] = 0
    values[:9, 2] = 5  # no interquartile range, some deviation
    values[:, 3] = np.nan
    values[4, 4] = np.inf
    found = torch_net.statistics(torch.from_numpy(values), 1000)
    assert found["missing"].tolist() == [0, 3, 4]
    for place in range(6):
        known = values[np.isfinite(values[:, place]), place].astype(float)
        low, center, high = np.percentile(known, [25, 50, 75]) if len(known) else (0, 0, 0)
        scale = high - low or (known.std() if len(known) else 0) or 1
        assert float(found["center"][place]) == pytest.approx(center, rel=1e-6)
        assert float(found["inverse_scale"][place]) == pytest.approx(1 / scale, rel=1e-6)


def test_statistics_of_a_sample_see_every_missing_value():
    values = np.tile(np.arange(100, dtype=np.float32)[:, None], (1, 2))
    values[37, 1] = np.nan
    found = torch_net.statistics(torch.from_numpy(values), 10)
    assert found["missing"].tolist() == [1]
    assert found["center"][0] == 45  # the median of 0, 10, ..., 90


def test_losses_are_the_definition():
    rng = np.random.default_rng(0)
    k, n = 2, 7
    weights = np.array([1, 2, 0, 1, 0.5, 3, 1])
    used = 6

    def mean(loss):
        return sum(weights[i] * loss(m, i) for m in range(k) for i in range(n)) / k / used

    one, values = rng.normal(size=(k, n, 1)), rng.normal(size=(n, 1)) * 2
    three, classes = rng.normal(size=(k, n, 3)), np.eye(3)[rng.integers(0, 3, n)]
    hits = (values > 0).astype(float)

    def cross(m, i):
        p = 1 / (1 + math.exp(-one[m, i, 0]))
        return -math.log(p if hits[i, 0] else 1 - p)

    def multi(m, i):
        powers = np.exp(three[m, i])
        return -math.log(powers[classes[i] == 1][0] / powers.sum())

    def huber(m, i):
        gap = abs(one[m, i, 0] - values[i, 0])
        return gap**2 / 2 if gap <= 0.7 else 0.7 * (gap - 0.35)

    cases = {
        "binary_cross_entropy": (one, hits, cross),
        "cross_entropy": (three, classes, multi),
        "mse": (one, values, lambda m, i: (one[m, i, 0] - values[i, 0]) ** 2),
        "huber": (one, values, huber),
    }
    for name, (outputs, goals, loss) in cases.items():
        tensors = (torch.from_numpy(part) for part in (outputs, goals, weights))
        assert float(torch_net.mean_loss(*tensors, name, 0.7)) == pytest.approx(mean(loss)), name


def test_correlations_are_the_definition():
    rng = np.random.default_rng(0)
    groups = np.array([0] * 6 + [1] * 9)
    outputs, goals = rng.normal(size=(2, 15)), rng.normal(size=15)
    weights = rng.integers(0, 3, 15) + 0.5
    tensors = (torch.from_numpy(part) for part in (outputs, goals, weights, groups))
    found = torch_net.correlations(*tensors, 2).numpy()
    for group in range(2):
        rows = groups == group
        for member in range(2):
            spread = np.cov(outputs[member, rows], goals[rows], aweights=weights[rows])
            slow = spread[0, 1] / math.sqrt(spread[0, 0] * spread[1, 1])
            assert found[group, member] == pytest.approx(slow, abs=1e-5)
    assert np.abs(found[0] - found[1]).max() > 0.01


# Training


def test_learns_a_signal_that_no_line_can():
    fit, tune = market(1, rows=8000)[0], market(2, rows=2000)[0]
    test = market(4, rows=4000)[0]
    member = train(fit=fit, tune=tune, rounds=15, members=4, hidden=[32, 32])
    base = test.labels.mean()
    scores = member.predict(test.features)[:, 0]
    found = average_precision(test.labels, scores, test.weights)
    assert found > base + 0.3
    assert scores.mean() == pytest.approx(base, abs=0.04)
    # NULL in f0 is information: hiding it costs, and shuffled labels teach nothing.
    hidden = with_column(test.features, "f0", np.zeros(4000))
    assert average_precision(test.labels, member.predict(hidden)[:, 0], test.weights) < found - 0.02
    shuffled = replaced(fit, labels=np.random.default_rng(0).permutation(fit.labels))
    null = train(fit=shuffled, tune=tune, rounds=3, members=4, hidden=[32, 32])
    null_scores = null.predict(test.features)[:, 0]
    assert average_precision(test.labels, null_scores, test.weights) < base + 0.12


@pytest.mark.parametrize("loss", ["auto", "huber", "ic"])
def test_values_come_in_the_unit_of_the_label(loss):
    fit, tune = (market(s, rows=r, objective="regression")[0] for s, r in ((1, 4000), (2, 1000)))
    test, signal = market(4, rows=2000, objective="regression")
    member = train("regression", fit=fit, tune=tune, rounds=12, hidden=[24], loss=loss)
    scores = member.predict(test.features)[:, 0]
    assert np.corrcoef(scores, signal)[0, 1] > 0.6
    assert scores.mean() == pytest.approx(test.labels.mean(), abs=8)
    if loss != "huber":  # whose line is steeper where tails are heavy
        slope = np.polyfit(member.predict(fit.features)[:, 0], fit.labels, 1)[0]
        assert slope == pytest.approx(1, abs=0.15)
    name = "mse" if loss == "auto" else loss
    assert {point.metric for point in member.curve} == {name, "rank_ic"}


def test_ic_falls_back_to_batches_where_groups_are_small():
    tune = market(2, rows=600, objective="regression")[0]
    fit = market(1, objective="regression")[0]
    single = replaced(fit, groups=np.arange(fit.row_count))
    member = train("regression", fit=single, tune=tune, loss="ic", rounds=8)
    assert rank_ic(tune.labels, tune.groups)(member.predict(tune.features)[:, 0]) > 0.15


def test_keeps_the_best_epoch_and_stops_after_patience():
    tune = market(2, rows=600)[0]
    member = train(rounds=40, patience=2, learning_rate=0.05)
    values = [point.value for point in member.curve if point.role == "tune"]
    assert member.best_iteration == int(np.argmax(values)) + 1
    assert len(values) == min(member.best_iteration + 2, 40) < 40
    scores = member.predict(tune.features)[:, 0]
    best = values[member.best_iteration - 1]
    assert average_precision(tune.labels, scores, tune.weights) == pytest.approx(best, abs=1e-9)
    last = train(rounds=len(values), min_rounds=len(values), learning_rate=0.05)
    assert last.best_iteration == len(values)
    assert last.tensors["head.weight"].tolist() != member.tensors["head.weight"].tolist()


def test_curve_tells_loss_and_metric_of_each_epoch():
    curve = trained().curve
    assert [(p.iteration, p.role, p.metric) for p in curve[:2]] == [
        (1, "fit", "binary_cross_entropy"),
        (1, "tune", "average_precision"),
    ]
    losses = [point.value for point in curve if point.role == "fit"]
    assert len(losses) == 3
    assert losses[-1] < losses[0]


def test_same_seed_same_bytes():
    first = train(dropout=0.2).files()
    assert first == train(dropout=0.2).files()
    assert set(first) == {"member.safetensors", "member.json"}
    other = train(dropout=0.2, seed=2).files()
    assert all(first[name] != other[name] for name in first)
    text = json.loads(first["member.json"])
    assert list(text) == sorted(text)


def test_threads_do_not_change_bytes():
    assert train(cpu_threads=2, threads=1).files() == train(cpu_threads=2, threads=2).files()


def test_leaves_the_state_of_torch_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_num_threads(), np.random.get_state()[1].tolist()  # noqa: NPY002
    train().predict(market(3)[0].features)
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == torch.get_num_threads()
    assert before[2] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert not torch.are_deterministic_algorithms_enabled()


def test_rows_of_weight_0_or_unknown_label_do_not_count():
    fit = market(1)[0]
    out = np.random.default_rng(0).random(fit.row_count) < 0.3
    lies = np.where(out, 1 - fit.labels, fit.labels)
    by_weight = train(fit=replaced(fit, labels=lies, weights=np.where(out, 0.0, 1.0)))
    by_label = train(fit=replaced(fit, labels=np.where(out, np.nan, fit.labels)))
    assert by_weight.files() == by_label.files()
    assert train(fit=replaced(fit, labels=lies)).files() != by_label.files()


def test_weights_count():
    fit = market(1)[0]
    twice = train(fit=replaced(fit, weights=2 * fit.weights))
    assert twice.files() == trained().files()
    heavy = train(fit=replaced(fit, weights=1 + 9 * fit.labels), rounds=5)
    scores = [m.predict(fit.features).mean() for m in (heavy, train(rounds=5))]
    assert scores[0] > scores[1] + 0.1


def test_light_rows_teach_little():
    fit, tune = market(1, rows=4000)[0], market(2, rows=1000)[0]
    lies = np.random.default_rng(0).random(4000) < 0.5
    mixed = replaced(fit, labels=np.where(lies, 1 - fit.labels, fit.labels))
    weighed = replaced(mixed, weights=np.where(lies, 1e-3, 1.0))
    found = []
    for block in (weighed, mixed):
        member = train(fit=block, tune=tune, rounds=10, min_rounds=10, hidden=[24])
        scores = member.predict(tune.features)[:, 0]
        found.append(average_precision(tune.labels, scores, tune.weights))
    assert found[0] > found[1] + 0.1


def test_targets_and_seeds_share_the_rows(monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        return torch_trainer_to_tensor(*args)

    torch_trainer_to_tensor = torch_trainer.to_tensor
    monkeypatch.setattr(torch_trainer, "to_tensor", counted)
    fit, tune = market(1)[0], market(2, rows=600)[0]
    shared = {}
    first = train(fit=fit, tune=tune, shared=shared)
    again = replaced(fit, features=fit.features.select(fit.features.column_names))
    second = train(fit=again, tune=tune, shared=shared)
    assert len(calls) == 2
    assert first.files() == second.files() == trained().files()
    short = Block(
        fit.features.slice(0, 1000), fit.labels[:1000], fit.weights[:1000], fit.groups[:1000]
    )
    assert train(fit=short, tune=tune, shared=shared).files() == train(fit=short).files()
    moved = replaced(tune, features=with_column(tune.features, "f2", np.zeros(600)))
    again = train(fit=fit, tune=moved, shared=shared)
    assert again.files() == train(fit=fit, tune=moved).files() != first.files()


# Scoring


def test_columns_are_found_by_name():
    member = trained()
    table = market(3)[0].features
    shuffled = table.select(["f3", "f0", "f5", "f1", "f4", "f2"]).append_column("more", table["f0"])
    assert np.array_equal(member.predict(shuffled), member.predict(table))
    renamed = table.rename_columns(["f1", "f0", "f2", "f3", "f4", "f5"])
    assert not np.array_equal(member.predict(renamed), member.predict(table))


def test_a_score_does_not_depend_on_its_batch():
    member = trained("multiclass")
    table = market(3, rows=2500, objective="multiclass")[0].features
    whole = member.predict(table)
    assert whole.shape == (2500, 3)
    assert np.allclose(whole.sum(axis=1), 1)
    for rows in (1, 7, 1023, 1025):
        starts = range(0, min(40 * rows, 2500), rows)
        parts = np.concatenate([member.predict(table.slice(at, rows)) for at in starts])
        assert np.abs(parts - whole[: len(parts)]).max() < 1e-9
    batch = table.combine_chunks().to_batches()[0]
    assert np.array_equal(member.predict(batch), whole)
    assert member.predict(table.slice(0, 0)).shape == (0, 3)


def test_unknown_is_the_median_and_infinity_is_unknown():
    member = trained()
    assert member.tensors["missing"].tolist() == [0, 4, 5]
    table = market(3, rows=50)[0].features
    null = np.full(50, np.nan)
    center = member.tensors["center"].numpy()
    never = member.predict(with_column(table, "f1", null))
    assert np.array_equal(
        never, member.predict(with_column(table, "f1", null + center[1] * 0 + np.inf))
    )
    assert np.array_equal(never, member.predict(with_column(table, "f1", np.full(50, center[1]))))
    sometimes = member.predict(with_column(table, "f0", null))
    assert np.array_equal(sometimes, member.predict(with_column(table, "f0", np.full(50, -np.inf))))
    at_center = member.predict(with_column(table, "f0", np.full(50, center[0])))
    assert np.abs(sometimes - at_center).max() > 1e-4  # the indicator tells


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(width=32) | st.none(), min_size=6, max_size=6))
def test_every_row_has_a_score(row):
    table = pa.table({f"f{i}": pa.array([value], pa.float32()) for i, value in enumerate(row)})
    score = trained().predict(table)
    assert 0 <= score[0, 0] <= 1


# Pooling


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_pooled_scores_follow_their_rows(seed):
    member = trained(pool=True)
    block = market(3, rows=60)[0]
    order = np.random.default_rng(seed).permutation(60)
    scores = member.predict_groups(block.features, block.groups)
    moved = member.predict_groups(block.features.take(pa.array(order)), block.groups[order])
    assert np.abs(moved - scores[order]).max() < 1e-6


def test_pooled_scores_depend_on_their_group_alone():
    member = trained(pool=True)
    block = market(3, rows=60)[0]
    scores = member.predict_groups(block.features, block.groups)
    values = block.features["f1"].to_numpy().copy()
    values[13] += 3000
    changed = member.predict_groups(with_column(block.features, "f1", values), block.groups)
    peers = np.flatnonzero(block.groups == block.groups[13])
    others = np.flatnonzero(block.groups != block.groups[13])
    assert np.abs(changed - scores)[peers].min() > 1e-7
    assert np.abs(changed - scores)[others].max() < 1e-6


def test_pooled_net_sees_rows_without_a_label():
    fit = market(1)[0]
    out = np.arange(fit.row_count) % 3 == 0
    partial = replaced(fit, labels=np.where(out, np.nan, fit.labels))
    values = fit.features["f1"].to_numpy().copy()
    values[out] = np.random.default_rng(0).permutation(values[out])
    moved = replaced(partial, features=with_column(fit.features, "f1", values))
    first, second = train(fit=partial, pool=True), train(fit=moved, pool=True)
    assert torch.equal(first.tensors["center"], second.tensors["center"])
    assert not torch.equal(first.tensors["head.weight"], second.tensors["head.weight"])
    plain, plain_moved = train(fit=partial), train(fit=moved)
    assert torch.equal(plain.tensors["head.weight"], plain_moved.tensors["head.weight"])


def test_pooling_learns_what_only_the_group_tells():
    """The label is whether a row is above the mean of its group."""

    def block(seed, rows):
        rng = np.random.default_rng(seed)
        groups = np.arange(rows) // 20
        level = rng.normal(size=rows // 20)[groups] * 3
        x = (level + rng.normal(size=rows)).astype(np.float32)
        means = np.bincount(groups, x) / np.bincount(groups)
        noise = rng.normal(size=rows).astype(np.float32)
        return Block(
            pa.table({"x": x, "noise": noise}),
            (x > means[groups]).astype(float),
            np.ones(rows),
            groups,
        )

    fit, tune, test = block(1, 4000), block(2, 1000), block(3, 1000)
    found = []
    for pool in (True, False):
        member = train(
            fit=fit, tune=tune, pool=pool, rounds=15, hidden=[16, 16], learning_rate=0.01
        )
        scores = member.predict_groups(test.features, test.groups)[:, 0]
        found.append(average_precision(test.labels, scores, test.weights))
    assert found[0] > 0.95
    assert found[1] < 0.8


def test_plain_net_needs_no_groups():
    table = market(3)[0].features
    member = trained()
    assert np.array_equal(member.predict_groups(table, np.zeros(len(table))), member.predict(table))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 20))
def test_batches_are_whole_groups(ids, batch_rows):
    ids = np.array(ids)
    groups = Groups.of(ids, np.arange(len(ids)))
    chosen = np.arange(len(groups.sizes))[::-1]
    seen = []
    for batch in groups.batches(chosen, batch_rows, torch.device("cpu")):
        rows, codes = batch.rows.numpy(), batch.groups.numpy()
        assert len(np.unique(codes)) == batch.group_count == codes.max() + 1
        for code in range(batch.group_count):
            [group] = set(ids[rows[codes == code]])
            assert (codes == code).sum() == (ids == group).sum()
        last = (ids[rows] == ids[rows[-1]]).sum()
        assert len(rows) - last < batch_rows
        seen += rows.tolist()
    assert sorted(seen) == list(range(len(ids)))


# Other routes


EXTREMES = [np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-40, 0.0, 1e20, 5000.0]


def hard_rows(objective):
    table = market(3, rows=300, objective=objective)[0].features
    for name in ("f0", "f1", "f4"):
        values = table[name].to_numpy(zero_copy_only=False).copy()
        values[: len(EXTREMES)] = EXTREMES
        table = with_column(table, name, values)
    return table


def by_onnx(content, member, table):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    values = torch_trainer.to_tensor(table, member.features).numpy()
    return session.run(["scores"], {"features": values})[0]


def by_sql(expressions, table):
    with duckdb.connect(config={"threads": 1}) as con:
        con.register("arrow_rows", table)
        con.execute("create table samples as select * from arrow_rows")
        columns = ", ".join(f"{text} as s{i}" for i, text in enumerate(expressions))
        found = con.execute(f"select {columns} from samples order by rowid").fetchnumpy()
    return np.stack([np.ma.filled(column, np.nan) for column in found.values()], axis=1)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_onnx_scores_alike(objective):
    member = trained(objective)
    table = hard_rows(objective)
    content = member.onnx()
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    assert content == torch_trainer.load(member.files()).onnx()
    found, native = by_onnx(content, member, table), member.predict(table)
    assert found.dtype == np.float64
    assert np.abs(found - native).max() / max(1, np.abs(native).max()) < 1e-6
    assert by_onnx(content, member, table.slice(0, 1)).shape == (1, member.outputs)
    other = train(objective, seed=2).onnx()
    assert np.abs(by_onnx(other, member, table) - native).max() > 1e-4


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_sql_scores_alike(objective):
    member = trained(objective)
    table = hard_rows(objective)
    found, native = by_sql(member.sql(), table), member.predict(table)
    assert found.shape == native.shape
    assert np.abs(found - native).max() / max(1, np.abs(native).max()) < 1e-6
    other = train(objective, seed=2).sql()
    assert np.abs(by_sql(other, table) - native).max() > 1e-4


@pytest.mark.parametrize("objective", ["binary", "multiclass"])
@pytest.mark.parametrize("sign", [1, -1])
def test_certain_scores_do_not_overflow(objective, sign):
    member = trained(objective)
    certain = member.tensors["head.bias"].clone()
    certain[:, 0] += sign * 2000
    member = torch_trainer.TorchMember(member.config, member.tensors | {"head.bias": certain})
    table = hard_rows(objective)
    native = member.predict(table)
    assert np.allclose(native[:, 0], max(0, sign))
    for found in (by_sql(member.sql(), table), by_onnx(member.onnx(), member, table)):
        assert np.abs(found - native).max() < 1e-6


def test_sql_quotes_names():
    names = ['a "b"', "select", "x", "h0", "w", "{}"]
    fit, tune = market(1)[0], market(2, rows=600)[0]
    fit, tune = (replaced(b, features=b.features.rename_columns(names)) for b in (fit, tune))
    member = train(fit=fit, tune=tune)
    assert np.abs(by_sql(member.sql(), tune.features) - member.predict(tune.features)).max() < 1e-6


def test_net_without_nulls_has_no_indicators():
    fit, tune = (
        replaced(b, features=b.features.select(["f1", "f2", "f3"]))
        for b in (market(1)[0], market(2, rows=600)[0])
    )
    member = train(fit=fit, tune=tune)
    assert member.tensors["missing"].tolist() == []
    table = hard_rows("binary").select(["f1", "f2", "f3"])
    native = member.predict(table)
    assert np.isfinite(native).all()
    assert np.abs(by_onnx(member.onnx(), member, table) - native).max() < 1e-6
    assert np.abs(by_sql(member.sql(), table) - native).max() < 1e-6


def test_large_net_is_no_sql(monkeypatch):
    monkeypatch.setattr(torch_export, "SQL_WEIGHTS_MAX", 100)
    with pytest.raises(HeadsError, match=r"has 303 weights.*at most 100"):
        trained().sql()


@pytest.mark.parametrize("params", [{}, {"pool": True}, {"hidden": (4,)}])
def test_files_bring_the_member_back(params):
    member = trained("multiclass", **params)
    again = torch_trainer.load(member.files())
    block = market(3, objective="multiclass")[0]
    scores = [m.predict_groups(block.features, block.groups) for m in (member, again)]
    assert np.array_equal(*scores)
    assert again.files() == member.files()
    assert (again.seed, again.features, again.outputs) == (1, member.features, 3)
    assert (again.best_iteration, again.curve) == (member.best_iteration, member.curve)


DAMAGES = {
    "no weights": lambda weights, config: {"member.json": json.dumps(config)},
    "no config": lambda weights, config: {"member.safetensors": weights},
    "cut weights": lambda weights, config: pair(weights[:-5], config),
    "no safetensors": lambda weights, config: pair(b"PK pickle", config),
    "no json": lambda weights, config: pair(weights, config) | {"member.json": b"{"},
    "other format": lambda weights, config: pair(weights, config | {"format": 2}),
    "fewer features": lambda weights, config: pair(weights, config | {"features": ["f0"]}),
    "other shape": lambda weights, config: pair(
        weights, config | {"params": config["params"] | {"hidden": [6, 7]}}
    ),
    "hardly a config": lambda weights, config: pair(weights, {"format": 1}),
    "other net": lambda weights, config: pair(
        trained("multiclass").files()["member.safetensors"], config
    ),
}


def pair(weights, config):
    return {"member.safetensors": weights, "member.json": json.dumps(config).encode()}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_damaged_files_are_refused(damage):
    files = trained().files()
    weights, config = files["member.safetensors"], json.loads(files["member.json"])
    torch_trainer.load(pair(weights, config))
    with pytest.raises(HeadsError, match="Train it again"):
        torch_trainer.load(DAMAGES[damage](weights, config))


# Arrow to tensor


def test_tensor_holds_the_columns_in_order():
    table = pa.table(
        {
            "a": pa.array([1, None, 3], pa.float32()),
            "b": pa.array([1.5, 2.5, None], pa.float64()),
            "c": pa.array([7, None, 9], pa.int64()),
            "d": pa.array(["x", "y", "z"]),
        }
    )
    table = pa.concat_tables([table, table.slice(1, 1)])
    expected = [[7, 1, 1.5], [np.nan, np.nan, 2.5], [9, 3, np.nan], [np.nan, np.nan, 2.5]]
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=2))
    for found in (
        torch_trainer.to_tensor(table, ["c", "a", "b"]),
        torch_trainer.to_tensor(reader, ["c", "a", "b"], rows=4),
        torch_trainer.to_tensor(table.combine_chunks().to_batches()[0], ["c", "a", "b"]),
    ):
        assert found.dtype == torch.float32
        assert found.is_contiguous()
        np.testing.assert_array_equal(found.numpy(), np.array(expected, dtype=np.float32))


@pytest.mark.parametrize("rows", [3, 5, None])
def test_reader_must_have_the_rows_it_was_said_to_have(rows):
    table = pa.table({"a": pa.array([1.0, 2.0, 3.0, 4.0], pa.float32())})
    reader = pa.RecordBatchReader.from_batches(table.schema, table.to_batches(max_chunksize=2))
    with pytest.raises(HeadsError, match=r"4 rows, expected|give `rows`"):
        torch_trainer.to_tensor(reader, ["a"], rows)


# Refusals


BAD_BLOCKS = {
    "none of 0 rows": lambda block: Block(
        block.features.slice(0, 0), np.empty(0), np.empty(0), np.empty(0, dtype=int)
    ),
    "none of 1500 rows has a known label": lambda block: replaced(
        block, labels=np.full(1500, np.nan)
    ),
    "and a weight above 0": lambda block: replaced(block, weights=np.zeros(1500)),
    "none is 1": lambda block: replaced(block, labels=np.zeros(1500)),
    "none is 0": lambda block: replaced(block, labels=np.ones(1500)),
    r"labels hold \[.*2\.0": lambda block: replaced(block, labels=block.labels * 2),
    "a weight is negative": lambda block: replaced(block, weights=-np.ones(1500)),
    "or not finite": lambda block: replaced(block, weights=np.full(1500, np.nan)),
}


@pytest.mark.parametrize("message", list(BAD_BLOCKS))
@pytest.mark.parametrize("role", ["fit", "tune"])
def test_bad_blocks_are_refused(message, role):
    with pytest.raises(HeadsError, match=f"aim, role {role}.*{message}"):
        train(**{role: BAD_BLOCKS[message](market(1)[0])})


def test_constant_values_and_absent_classes_are_refused():
    fit = market(1, objective="regression")[0]
    with pytest.raises(HeadsError, match=r"all 1500 known labels are 2\.0"):
        train("regression", fit=replaced(fit, labels=np.full(1500, 2.0)))
    fit = market(1, objective="multiclass")[0]
    with pytest.raises(HeadsError, match="none is SHORT"):
        train("multiclass", fit=replaced(fit, labels=np.where(fit.labels == 1, 0, fit.labels)))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"depth": 3, "alpha": 1}, "no parameter alpha, depth. It has rounds, min_rounds"),
        ({"rounds": 0}, "rounds is 0, expected a whole number"),
        ({"members": 2.5}, "members is 2.5"),
        ({"hidden": []}, r"hidden is \[\], expected a list"),
        ({"hidden": 64}, "hidden is 64"),
        ({"hidden": [64, 0]}, "hidden is"),
        ({"learning_rate": 0}, "learning_rate is 0, expected a number above 0"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"dropout": 1}, "dropout is 1"),
        ({"pool": 1}, "pool is 1, expected true or false"),
        ({"loss": "ic"}, "loss is 'ic', expected one of auto, binary_cross_entropy"),
        ({"device": "tpu"}, "device is 'tpu'"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(HeadsError, match=message):
        train(**params)


def test_divergence_is_refused():
    fit = market(1, objective="regression")[0]
    wild = {"learning_rate": 1e30, "clip_norm": 1e30}
    with pytest.raises(HeadsError, match=r"the loss is (nan|inf).*Lower learning_rate"):
        train("regression", fit=fit, **wild)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_where_there_is_none_is_refused():
    with pytest.raises(HeadsError, match="device is cuda and torch sees none"):
        train(device="cuda")
    config = trained().config
    stored = config | {"params": config["params"] | {"device": "cuda"}}
    member = torch_trainer.TorchMember(stored, trained().tensors)
    assert member.device.type == "cpu"


def test_bad_rows_to_score_are_refused():
    table = market(3)[0].features
    with pytest.raises(HeadsError, match="no feature f1, f5"):
        trained().predict(table.drop_columns(["f1", "f5"]))
    words = table.set_column(0, "f0", pa.array(["a"] * len(table)))
    with pytest.raises(HeadsError, match="feature f0 is string, expected FLOAT"):
        trained().predict(words)
    with pytest.raises(HeadsError, match="1500 rows and 3 groups"):
        trained(pool=True).predict_groups(table, np.zeros(3))


def test_pooled_net_is_not_scored_row_by_row():
    member = trained(pool=True)
    with pytest.raises(HeadsError, match=r"predict scores row by row.*predict_groups"):
        member.predict(market(3)[0].features)
    for route in (member.onnx, member.sql):
        with pytest.raises(HeadsError, match="this net pools"):
            route()


# The same on a GPU


@cuda
@pytest.mark.parametrize("params", [{}, {"pool": True}, {"dropout": 0.2}])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_cuda_gives_the_same_bytes_again(objective, params):
    first = train(objective, device="cuda", **params)
    again = train(objective, device="cuda", **params)
    assert first.files() == again.files()
    block = market(3, objective=objective)[0]
    scores = [m.predict_groups(block.features, block.groups) for m in (first, again)]
    assert np.array_equal(*scores)


@cuda
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("pool", [False, True])
def test_cuda_is_close_to_the_cpu(objective, pool):
    block = market(3, objective=objective)[0]
    members = [train(objective, pool=pool, device=device) for device in ("cuda", "cpu")]
    scores = [m.predict_groups(block.features, block.groups) for m in members]
    spread = scores[1].std()
    assert np.abs(scores[0] - scores[1]).max() < 0.02 * spread
    stored = torch_trainer.load(members[0].files())
    assert stored.device.type == "cuda"
    on_cpu = members[0].config | {"params": members[0].config["params"] | {"device": "cpu"}}
    moved = torch_trainer.TorchMember(on_cpu, members[0].tensors)
    found = moved.predict_groups(block.features, block.groups)
    assert np.abs(found - scores[0]).max() < 1e-5 * max(1, np.abs(found).max())


@cuda
def test_cuda_loss_ic_and_batches():
    block = market(3, objective="regression")[0]
    member = train("regression", device="cuda", loss="ic")
    assert member.files() == train("regression", device="cuda", loss="ic").files()
    whole = member.predict(block.features)
    parts = [member.predict(block.features.slice(at, 7)) for at in range(0, 70, 7)]
    assert np.array_equal(np.concatenate(parts), whole[:70])
