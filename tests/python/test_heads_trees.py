"""A LightGBM forest has four forms here: the library's own, SQL, ONNX and a table of nodes.

All of them are compared with an evaluator that walks the trees of `dump_model()` for one row in
plain Python, from LightGBM's decision rule. Margins must be equal bit for bit.
"""

import dataclasses
import functools
import math
import re

import duckdb
import lightgbm as lgb
import numpy as np
import onnx
import onnxruntime
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wavehouse.heads import trees
from wavehouse.heads.base import HeadsError

F32 = np.float32
TINY = float(F32(1e-35))  # LightGBM's kZeroThreshold
DUMPED_INFINITY = 1e300  # dump_model() writes this for an infinite threshold

FEATURES = ("plain", "gaps", "constant", "Select", "crowded", "zeros", "tiny", "wide")
SPECIAL = [
    *(math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3e38, -3e38),
    *(sign * float(value) for sign in (1, -1) for value in (TINY, np.nextafter(F32(TINY), F32(1)))),
    *(sign * float(np.nextafter(F32(TINY), F32(0))) for sign in (1, -1)),
]


def market(seed, rows):
    """Columns with and without NULL: normal, constant, small integers, duplicates, zeros, tiny."""
    rng = np.random.default_rng(seed)
    columns = {
        "plain": rng.normal(size=rows),
        "gaps": np.where(rng.random(rows) < 0.2, np.nan, rng.normal(size=rows)),
        "constant": np.full(rows, 3.0),
        "Select": rng.integers(-2, 3, rows).astype(float),
        "crowded": np.round(rng.normal(size=rows), 1),
        "zeros": np.where(rng.random(rows) < 0.5, 0.0, rng.normal(size=rows)),
        "tiny": rng.choice([-1, 1], rows) * 10.0 ** rng.uniform(-38, -30, rows),
        "wide": np.where(rng.random(rows) < 0.1, np.nan, rng.standard_cauchy(rows) * 1e6),
    }
    return np.column_stack([columns[name] for name in FEATURES]).astype(F32)


def signal(x, seed):
    """A target that every column has a part in, missing values too."""
    rng = np.random.default_rng(seed)
    gaps = np.where(np.isnan(x[:, 1]), 4.0, 0.1 * x[:, 1])  # so that a split is by NULL alone
    wide = np.where(np.isnan(x[:, 7]), -1.0, np.sign(x[:, 7]))
    parts = x[:, 0] + gaps + 0.5 * x[:, 3] + np.abs(x[:, 4]) + np.cos(2 * x[:, 5]) + wide
    return parts + np.sign(x[:, 6]) * (np.abs(x[:, 6]) > 1e-34) + rng.normal(size=len(x))


BINARY = {"objective": "binary"}
MODELS = {
    "binary": BINARY,
    "binary_unbalanced": BINARY | {"is_unbalance": True, "sigmoid": 0.7},
    "binary_weighted": BINARY | {"scale_pos_weight": 3.5, "boost_from_average": False},
    "zero_as_missing": BINARY | {"zero_as_missing": True},
    "no_missing": BINARY | {"use_missing": False},
    "regression": {"objective": "regression"},
    "l1": {"objective": "regression_l1"},
    "huber": {"objective": "huber"},
    "multiclass": {"objective": "multiclass", "num_class": 3},
    "absent_class": {"objective": "multiclass", "num_class": 4, "zero_as_missing": True},
    "single_leaves": {"objective": "regression", "min_data_in_leaf": 1500},
    "early_stopping": BINARY | {"learning_rate": 0.5, "num_leaves": 31},
}
every_model = pytest.mark.parametrize("name", MODELS)


@dataclasses.dataclass(frozen=True)
class Case:
    """A model read back from its text, as the store does, and rows to score."""

    booster: lgb.Booster
    text: str
    forest: trees.Forest
    rows: np.ndarray  # (n, F) float32


@functools.cache
def case(name):
    x = market(1, 2000)
    target = signal(x, 2)
    params = MODELS[name]
    if params["objective"] == "binary":
        labels = (target > 1.5).astype(float)
    elif params["objective"] == "multiclass":
        labels = np.digitize(target, [0.0, 2.0]).astype(float)  # class 3 never happens
    else:
        labels = target
    booster = lgb.train(
        {"num_leaves": 8, "verbose": -1, "num_threads": 1, "seed": 1, "deterministic": True}
        | params,
        lgb.Dataset(x[:1500], labels[:1500], feature_name=list(FEATURES)),
        num_boost_round=20,
        valid_sets=[lgb.Dataset(x[1500:], labels[1500:], feature_name=list(FEATURES))],
        callbacks=[lgb.early_stopping(3, verbose=False)] if name == "early_stopping" else [],
        keep_training_booster=True,  # or train() would cut the trees after the best one itself
    )
    text = booster.model_to_string(num_iteration=booster.best_iteration)
    forest = trees.parse(text)
    if name == "early_stopping":
        assert 0 < booster.best_iteration < booster.num_trees()
        assert len(forest.trees) == booster.best_iteration
    return Case(lgb.Booster(model_str=text), text, forest, rows_to_score(forest, x[:500]))


def edges(forest, feature):
    """The float32s around every threshold of a feature."""
    found = {float(t) for tree in forest.trees for t in tree.threshold[tree.feature == feature]}
    near = {F32(t) for t in found}
    for side in (F32(np.inf), F32(-np.inf)):
        near |= {np.nextafter(F32(t), side) for t in found}
    return sorted(float(value) for value in near)


def rows_to_score(forest, x):
    """Rows of the data, rows of values on and beside thresholds, rows of special values."""
    rng = np.random.default_rng(3)
    pools = [np.array(SPECIAL + edges(forest, f), F32) for f in range(x.shape[1])]
    drawn = np.column_stack([rng.choice(pool, 1500) for pool in pools])
    special = np.column_stack([rng.choice(np.array(SPECIAL, F32), 300) for _ in pools])
    return np.concatenate([x, drawn, special]).astype(F32)


def arrow(rows, names=FEATURES, nan_is_null=False):
    return pa.table(
        {
            name: pa.array(rows[:, place], from_pandas=nan_is_null)
            for place, name in enumerate(names)
        }
    )


# The evaluators


def decide(node, value):
    """LightGBM's rule for one split of dump_model(): the key of the child that a value goes to."""
    assert node["decision_type"] == "<="
    if math.isnan(value) and node["missing_type"] != "NaN":
        value = 0.0
    is_missing = (node["missing_type"] == "Zero" and -TINY <= value <= TINY) or (
        node["missing_type"] == "NaN" and math.isnan(value)
    )
    if is_missing:
        return "left_child" if node["default_left"] else "right_child"
    threshold = node["threshold"]
    if abs(threshold) == DUMPED_INFINITY:
        threshold = math.copysign(math.inf, threshold)
    return "left_child" if value <= threshold else "right_child"


def margins_by_hand(dump, row):
    """Walk every tree for one row; add the leaves up, in order, for each output."""
    margins = [0.0] * dump["num_tree_per_iteration"]
    for number, tree in enumerate(dump["tree_info"]):
        node = tree["tree_structure"]
        while "leaf_value" not in node:
            node = node[decide(node, float(row[node["split_feature"]]))]
        margins[number % len(margins)] += node["leaf_value"]
    return margins


def outputs_by_hand(dump, row):
    margins = margins_by_hand(dump, row)
    kind = dump["objective"].split(" ")
    if kind[0] == "binary":
        sigmoid = float(kind[1].removeprefix("sigmoid:"))
        return [1.0 / (1.0 + math.exp(-sigmoid * margins[0]))]
    if kind[0] == "multiclass":
        powers = [math.exp(margin - max(margins)) for margin in margins]
        total = 0.0
        for power in powers:
            total += power
        return [power / total for power in powers]
    return margins


def native(booster, table, **options):
    return booster.predict(table, num_threads=1, **options).reshape(table.num_rows, -1)


def sql(expressions, table):
    """Evaluate expressions in DuckDB: (n, expressions) float64."""
    selected = ", ".join(f"{text} as o{place}" for place, text in enumerate(expressions))
    found = sql_select(f"select {selected} from samples", table)
    return np.column_stack([column.to_numpy() for column in found.columns])


def sql_select(query, table):
    memory_database().register("samples", table)
    return memory_database().sql(query).to_arrow_table()


@functools.cache
def memory_database():
    return duckdb.connect()


def onnx_scores(model, rows, threads=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(["scores"], {"features": rows})[0]


def bare(forest):
    """The forest without its link, so that its outputs are the margins."""
    return dataclasses.replace(forest, link="identity")


def assert_same_bits(found, expected):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype == np.float64
    differ = np.argwhere(found.view(np.int64) != expected.view(np.int64))
    assert differ.size == 0, f"{len(differ)} differ, first at {differ[0]}"


# The same scores by every route


@every_model
def test_library_follows_the_written_rule(name):
    found = case(name)
    dump = found.booster.dump_model()
    rows = np.concatenate([found.rows[:200], found.rows[-500:]])
    table = arrow(rows)
    margins = np.array([margins_by_hand(dump, row) for row in rows])
    outputs = np.array([outputs_by_hand(dump, row) for row in rows])
    assert_same_bits(native(found.booster, table, raw_score=True), margins)
    assert_same_bits(native(found.booster, table), outputs)


@every_model
@pytest.mark.parametrize("nan_is_null", [False, True], ids=["nan", "null"])
def test_sql_is_the_library_bit_for_bit(name, nan_is_null):
    found = case(name)
    table = arrow(found.rows, nan_is_null=nan_is_null)
    expected = native(found.booster, table)
    assert_same_bits(sql(trees.to_sql(found.forest), table), expected)
    assert_same_bits(
        sql(trees.to_sql(bare(found.forest)), table), native(found.booster, table, raw_score=True)
    )
    names = [f"score_{k}" for k in range(found.forest.outputs)]
    query = trees.to_select(found.forest, "samples", names)
    selected = sql_select(query, table)
    assert selected.column_names == names
    assert_same_bits(np.column_stack([selected[n].to_numpy() for n in names]), expected)


@every_model
def test_onnx_reaches_the_leaves_of_the_library(name):
    found = case(name)
    table = arrow(found.rows)
    margins = native(found.booster, table, raw_score=True)
    assert_same_bits(onnx_scores(trees.to_onnx(bare(found.forest)), found.rows), margins)
    scores = onnx_scores(trees.to_onnx(found.forest), found.rows, threads=2)
    assert scores.dtype == np.float64
    np.testing.assert_allclose(scores, native(found.booster, table), rtol=2e-15, atol=1e-15)


@every_model
def test_nodes_lead_to_the_same_leaves(name):
    found = case(name)
    table = trees.nodes(found.forest)
    leaf_count = sum(len(tree.leaf_value) for tree in found.forest.trees)
    assert table.num_rows == 2 * leaf_count - len(found.forest.trees)
    assert table.select(["tree", "node"]).group_by(["tree", "node"]).aggregate([]).num_rows == (
        table.num_rows
    )
    at = {(row["tree"], row["node"]): row for row in table.to_pylist()}
    written = {"none": "None", "zero": "Zero", "nan": "NaN"}
    rows = found.rows[-100:]
    expected = native(found.booster, arrow(rows), raw_score=True)
    for values, margins in zip(rows, expected, strict=True):
        sums = [0.0] * found.forest.outputs
        for number in range(len(found.forest.trees)):
            row = at[number, 0]
            while row["leaf_value"] is None:
                split = row | {
                    "decision_type": "<=",
                    "missing_type": written[row["missing_type"]],
                }
                child = decide(split, float(values[FEATURES.index(row["feature"])]))
                row = at[number, row[child.removesuffix("_child")]]
            assert row["output"] == number % found.forest.outputs
            sums[row["output"]] += row["leaf_value"]
        assert sums == list(margins)


def test_models_have_what_they_are_here_for():
    kinds = {
        name: {int(kind) for tree in case(name).forest.trees for kind in tree.missing_type}
        for name in MODELS
    }
    assert kinds["binary"] == {0, 2}  # features with and without NULL in fit
    assert kinds["no_missing"] == {0}
    assert kinds["zero_as_missing"] == {1}
    sizes = {
        name: {len(tree.leaf_value) for tree in case(name).forest.trees}
        for name in ("single_leaves", "absent_class")
    }
    assert sizes["single_leaves"] == {1}
    assert sizes["absent_class"] >= {1, 8}
    thresholds = np.concatenate([tree.threshold for tree in case("binary").forest.trees])
    assert np.any(thresholds != thresholds.astype(F32))  # rounding to float32 would matter
    assert np.isinf(np.concatenate([t.threshold for t in case("regression").forest.trees])).any()


# Every kind of node by hand: two of them in a tree, after one that is a leaf alone

HEADER = """tree
version=v4
num_class=1
num_tree_per_iteration=1
label_index=0
max_feature_idx=1
objective=regression
feature_names=a b
feature_infos=[-5:5] [-5:5]
"""
LEAF_ALONE = """
Tree=0
num_leaves=1
num_cat=0
leaf_value=0.125
is_linear=0
shrinkage=1
"""
TWO_SPLITS = """
Tree=1
num_leaves=3
num_cat=0
split_feature=0 {feature}
split_gain=1 1
threshold={first} {second}
decision_type={first_type} {second_type}
left_child={left}
right_child={right}
leaf_value=1 2 4
leaf_weight=1 1 1
leaf_count=1 1 1
internal_value=0 0
internal_weight=0 0
internal_count=3 2
is_linear=0
shrinkage=1
"""
FOOTER = "\n\nend of trees\n\nfeature_importances:\n\nparameters:\nend of parameters\n"
LEFT_BRANCH = {"left": "1 -1", "right": "-2 -3"}
RIGHT_BRANCH = {"left": "-1 -2", "right": "1 -3"}


def small_model(first, second, branch=LEFT_BRANCH, feature=0, before=LEAF_ALONE):
    """A model of one feature or two; `first` and `second` are (threshold, decision_type)."""
    tree = TWO_SPLITS.format(
        first=first[0],
        second=second[0],
        first_type=first[1],
        second_type=second[1],
        feature=feature,
        **branch,
    )
    return HEADER + before + tree + FOOTER


THRESHOLDS = ["-inf", "-1.5", repr(-TINY), "-1e-40", "0", "1e-40", repr(TINY), "0.1", "inf"]
DECISION_TYPES = [0, 2, 4, 6, 8, 10]  # missing type none, zero, nan; default right or left


@pytest.mark.parametrize("second_type", DECISION_TYPES)
@pytest.mark.parametrize("first_type", DECISION_TYPES)
def test_every_kind_of_node(first_type, second_type):
    """Both splits read the same feature, so missing types are mixed on one feature too."""
    values = sorted({0.1, 0.2, float(np.nextafter(F32(0.1), F32(0))), -1.5, *SPECIAL[1:]})
    rows = np.array([[value, 0.0] for value in [*values, math.nan]], F32)
    table = arrow(rows, "ab")
    pairs = [(t, THRESHOLDS[-1 - place]) for place, t in enumerate(THRESHOLDS)]
    forests, expected = [], []
    for first, second in [*pairs, *((t, t) for t in THRESHOLDS)]:
        text = small_model((first, first_type), (second, second_type))
        forests.append(trees.parse(text))
        expected.append(native(lgb.Booster(model_str=text), table))
        assert_same_bits(onnx_scores(trees.to_onnx(forests[-1]), rows), expected[-1])
    expressions = [trees.to_sql(forest)[0] for forest in forests]
    assert_same_bits(sql(expressions, table), np.hstack(expected))
    selects = [trees.to_select(forest, "samples", ["s"]) for forest in forests]
    for query, wanted in zip(selects, expected, strict=True):
        assert_same_bits(sql_select(query, table)["s"].to_numpy()[:, None], wanted)


def test_numpy_route_of_the_library_turns_one_float_to_zero():
    """The forms follow the Arrow route; this is the one value where a matrix scores otherwise."""
    text = small_model((repr(-TINY), 0), ("0.1", 0))
    booster = lgb.Booster(model_str=text)
    rows = np.array([[value, 0.0] for value in SPECIAL], F32)
    differ = booster.predict(rows) != booster.predict(arrow(rows, "ab"))
    assert [float(value) for value in rows[differ, 0]] == [-TINY]


def test_root_whose_leaf_and_node_would_share_a_number_in_onnx():
    """onnxruntime 1.22 took such a root for a leaf: see `to_onnx`."""
    for before, branch in [("", LEFT_BRANCH), (LEAF_ALONE, RIGHT_BRANCH), ("", RIGHT_BRANCH)]:
        text = small_model(("0.5", 8), ("0.5", 8), branch, feature=1, before=before)
        model = trees.to_onnx(trees.parse(text))
        fields = {a.name: a for a in onnx.load_from_string(model).graph.node[-1].attribute}
        for root in fields["tree_roots"].ints:
            left, right = (
                (fields[f"nodes_{side}nodeids"].ints[root], fields[f"nodes_{side}leafs"].ints[root])
                for side in ("true", "false")
            )
            assert left[0] != right[0] or left[1] == right[1] == 1
        rows = np.array([[a, b] for a in (0, 1) for b in (0, 1)], F32)
        expected = native(lgb.Booster(model_str=text), arrow(rows, "ab"))
        assert_same_bits(onnx_scores(model, rows), expected)


# Properties


@st.composite
def binary_rows(draw):
    forest = case("binary").forest
    value = st.one_of(
        st.sampled_from(SPECIAL),
        st.floats(width=32, allow_nan=True, allow_infinity=True),
        st.sampled_from([v for f in range(len(FEATURES)) for v in edges(forest, f)]),
    )
    row = st.lists(value, min_size=len(FEATURES), max_size=len(FEATURES))
    return np.array(draw(st.lists(row, min_size=1, max_size=20)), F32)


@settings(max_examples=30, deadline=None)
@given(binary_rows(), st.booleans())
def test_any_row_scores_the_same_by_every_route(rows, nan_is_null):
    found = case("binary")
    table = arrow(rows, nan_is_null=nan_is_null)
    expected = native(found.booster, table)
    dump = dumped("binary")
    assert_same_bits(np.array([outputs_by_hand(dump, row) for row in rows]), expected)
    assert_same_bits(sql(trees.to_sql(found.forest), table), expected)
    scores = session("binary").run(["scores"], {"features": rows})[0]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-15)


@functools.cache
def dumped(name):
    return case(name).booster.dump_model()


@functools.cache
def session(name):
    return onnxruntime.InferenceSession(trees.to_onnx(case(name).forest))


def test_double_columns_are_read_as_the_trainer_read_them():
    found = case("binary")
    rng = np.random.default_rng(4)
    thresholds = [
        np.concatenate([tree.threshold[tree.feature == f] for tree in found.forest.trees] + [[0.0]])
        for f in range(len(FEATURES))
    ]
    # The next double above a threshold goes right, its float32 may lie below and go left.
    rows = np.column_stack([rng.choice(np.nextafter(t, np.inf), 500) for t in thresholds])
    table = arrow(rows)
    assert table.schema.field(0).type == pa.float64()
    expected = native(found.booster, arrow(rows.astype(F32)))
    assert np.any(native(found.booster, table) != expected)
    assert_same_bits(sql(trees.to_sql(found.forest), table), expected)
    query = trees.to_select(found.forest, "samples", ["score"])
    assert_same_bits(sql_select(query, table)["score"].to_numpy()[:, None], expected)


def test_select_keeps_columns_and_rows_in_their_places():
    found = case("multiclass")
    names = ["LONG prob", "short_prob", 'odd "name"']
    table = arrow(found.rows).append_column("_x0", pa.array(range(len(found.rows))))
    query = trees.to_select(found.forest, "samples", names, keep=["_x0", "Select"])
    result = sql_select(f"{query}\norder by _x0", table)
    assert result.column_names == ["_x0", "Select", *names]
    expected = native(found.booster, arrow(found.rows))
    assert_same_bits(np.column_stack([result[name].to_numpy() for name in names]), expected)
    np.testing.assert_array_equal(result["Select"].to_numpy(), found.rows[:, 3])


def test_sql_of_one_tree_reads_like_this():
    forest = trees.parse(small_model(("0.1", 10), ("-2.5e-07", 8), feature=1, before=""))
    assert trees.to_sql(forest) == [
        'list_reduce([case when -"a"::float < -0.1e0 then 2.0e0 else '
        'case when "b"::float <= -2.5e-07 then 1.0e0 else 4.0e0 end end], lambda a, b: a + b)'
    ]


def test_numbers_are_doubles_without_a_cast():
    """A literal that DuckDB reads as DECIMAL would be rounded twice, or cast while planning."""
    text = "".join(trees.to_sql(case("no_missing").forest))
    numbers = re.findall(r"(?<![\w\"])\d[\d.]*(?:e[-+]?\d+)?", text)
    assert len(numbers) > 300
    assert all("e" in number for number in numbers)


def test_forest_without_trees():
    text = HEADER.replace("objective=regression", "objective=binary sigmoid:1") + FOOTER
    forest = trees.parse(text)
    table = arrow(np.zeros((3, 2), F32), "ab")
    assert forest.trees == ()
    assert trees.nodes(forest).num_rows == 0
    assert sql(trees.to_sql(forest), table).tolist() == [[0.5]] * 3
    assert sql_select(trees.to_select(forest, "samples", ["s"]), table)["s"].to_pylist() == (
        [0.5] * 3
    )


@pytest.mark.parametrize("name", ["binary", "zero_as_missing", "multiclass", "regression"])
def test_onnx_is_deterministic_and_typed(name):
    found = case(name)
    model = trees.to_onnx(found.forest)
    assert model == trees.to_onnx(trees.parse(found.text))
    loaded = onnx.load_from_string(model)
    onnx.checker.check_model(loaded, full_check=True)
    assert loaded.ir_version == 10
    assert {(o.domain, o.version) for o in loaded.opset_import} == {("", 21), ("ai.onnx.ml", 5)}
    shapes = {
        value.name: (
            value.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in [*loaded.graph.input, *loaded.graph.output]
    }
    assert shapes == {
        "features": (onnx.TensorProto.FLOAT, ["n", len(FEATURES)]),
        "scores": (onnx.TensorProto.DOUBLE, ["n", found.forest.outputs]),
    }


# The comparison can fail


def flipped_defaults(tree):
    return dataclasses.replace(tree, default_left=~tree.default_left)


def nan_read_as_zero(tree):
    return dataclasses.replace(tree, missing_type=np.where(tree.missing_type == 2, 0, 2))


def zero_not_missing(tree):
    return dataclasses.replace(tree, missing_type=np.full_like(tree.missing_type, 2))


def strict_comparison(tree):
    return dataclasses.replace(tree, threshold=np.nextafter(tree.threshold, -np.inf))


def nearest_float_thresholds(tree):
    return dataclasses.replace(tree, threshold=tree.threshold.astype(F32).astype(np.float64))


def float_leaves(tree):
    return dataclasses.replace(tree, leaf_value=tree.leaf_value.astype(F32).astype(np.float64))


def assert_routes_differ(changed, forest, rows, names):
    table = arrow(rows, names)
    for outputs in (
        [sql(trees.to_sql(each), table) for each in (changed, forest)],
        [
            sql_select(trees.to_select(each, "samples", "s"), table)["s"]
            for each in (changed, forest)
        ],
        [onnx_scores(trees.to_onnx(each), rows) for each in (changed, forest)],
    ):
        assert np.any(np.asarray(outputs[0]) != np.asarray(outputs[1]))


def changed(forest, change):
    return dataclasses.replace(forest, trees=tuple(change(tree) for tree in forest.trees))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("binary", flipped_defaults),
        ("binary", nan_read_as_zero),
        ("zero_as_missing", zero_not_missing),
        ("regression", float_leaves),
    ],
)
def test_a_wrong_tree_is_seen_by_every_route(name, change):
    forest = bare(case(name).forest)
    assert_routes_differ(changed(forest, change), forest, case(name).rows, FEATURES)


@pytest.mark.parametrize(
    ("threshold", "change"),
    # The float32 nearest to 0.1 is above it, so that 0.1 sends it right and the rounded 0.1 left.
    [("0.5", strict_comparison), ("0.1", nearest_float_thresholds)],
)
def test_a_moved_threshold_is_seen_by_every_route(threshold, change):
    forest = trees.parse(small_model((threshold, 8), (threshold, 8), feature=1))
    rows = np.array([[float(threshold), 0.0]], F32)
    assert_routes_differ(changed(forest, change), forest, rows, "ab")


def test_order_of_the_trees_is_seen():
    found = case("regression")
    table = arrow(found.rows)
    turned = dataclasses.replace(found.forest, trees=found.forest.trees[::-1])
    assert np.any(sql(trees.to_sql(turned), table) != native(found.booster, table))


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("tree\n", "forest\n"), "no LightGBM text model"),
        (("end of trees", ""), "does not end its trees"),
        (("objective=regression", "objective=poisson"), "objective poisson"),
        (("objective=regression", "objective=regression sqrt"), "regression sqrt"),
        (("objective=regression\n", ""), "custom objective"),
        (("objective=regression", "objective=multiclassova num_class:1"), "multiclassova"),
        (("label_index=0", "label_index=0\naverage_output"), "boosting=rf"),
        (("num_cat=0\nsplit", "num_cat=1\nsplit"), "Tree 1 has categorical splits"),
        (("is_linear=0", "is_linear=1"), "Tree 0 is linear"),
        (("threshold=0.5 0.5", "threshold=0.5"), "1 items of threshold, expected 2"),
        (("threshold=0.5 0.5\n", ""), "damaged"),
        (("threshold=0.5 0.5", "threshold=0.5 x"), "damaged"),
        (("left_child=1 -1", "left_child=0 -1"), "before its parent"),
        (("num_tree_per_iteration=1", "num_tree_per_iteration=3"), "2 trees, expected a multiple"),
    ],
)
def test_models_without_an_exact_form_are_refused(change, message):
    text = small_model(("0.5", 8), ("0.5", 8))
    assert change[0] in text
    with pytest.raises(HeadsError, match=re.escape(message)):
        trees.parse(text.replace(*change, 1))


def test_categorical_model_is_refused():
    rng = np.random.default_rng(5)
    x = rng.integers(0, 6, (500, 1)).astype(float)
    data = lgb.Dataset(x, np.isin(x[:, 0], [1, 4]), categorical_feature=[0])
    booster = lgb.train({"objective": "binary", "verbose": -1, "min_data_per_group": 1}, data, 2)
    with pytest.raises(HeadsError, match="categorical splits"):
        trees.parse(booster.model_to_string())


def test_select_refuses_names_that_clash():
    forest = case("multiclass").forest
    for outputs, keep in [(["a", "b"], []), (["a", "b", "A"], []), (["a", "b", "c"], ["B"])]:
        with pytest.raises(HeadsError, match="Rename them"):
            trees.to_select(forest, "samples", outputs, keep)
