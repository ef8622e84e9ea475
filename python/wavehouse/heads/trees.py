"""LightGBM forests in other exact forms: SQL, a table of nodes, and ONNX.

The decision rule is that of `Tree::NumericalDecision` in LightGBM's include/LightGBM/tree.h, in
double precision: a missing value goes to the node's default side, any other value goes left when it
is <= the threshold. What counts as missing depends on the node. `nan`: NaN and NULL. `zero`: those
and |x| <= 1e-35. `none`: nothing; NaN and NULL are read as 0. The margins of the trees are added in
the order of the trees (`GBDT::PredictRaw`), and the objective turns the margins into outputs
(`BinaryLogloss::ConvertOutput`, `Common::Softmax`).

Every form reads features as float32, as the trainers do. It gives what `Booster.predict` gives for
an Arrow table. For a numpy matrix LightGBM first turns |x| <= 1e-35 into 0, which can change the
leaf of one value only: the float32 next to -1e-35.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pyarrow as pa

from wavehouse.heads.base import HeadsError

ZERO_THRESHOLD = float(np.float32(1e-35))  # kZeroThreshold of LightGBM, a float kept as a double
MISSING_TYPES = ("none", "zero", "nan")  # in the order of bits 2 and 3 of decision_type
IDENTITY_OBJECTIVES = (
    *("regression", "regression_l1", "huber", "fair", "quantile", "mape"),
    *("lambdarank", "rank_xendcg"),
)

ONNX_OPSET = 21
ONNX_ML_OPSET = 5  # the first with TreeEnsemble, whose output may be double
ONNX_IR_VERSION = 10
BRANCH_LEQ = 0
SUM = 1


@dataclasses.dataclass(frozen=True)
class Tree:
    """One tree; node 0 is the root, a negative child -1 - k is leaf k.

    `feature` int32, `threshold` float64, `default_left` bool, `missing_type` int8 (an index of
    `MISSING_TYPES`), `left` and `right` int32 have one item per node, none in a tree of one leaf.
    `leaf_value` float64 has one item per leaf.
    """

    feature: np.ndarray
    threshold: np.ndarray
    default_left: np.ndarray
    missing_type: np.ndarray
    left: np.ndarray
    right: np.ndarray
    leaf_value: np.ndarray


@dataclasses.dataclass(frozen=True)
class Forest:
    """A LightGBM model: tree t adds to the margin of output t % outputs.

    `link` turns margins m into outputs: `identity`; `sigmoid`, 1 / (1 + exp(-sigmoid * m)); or
    `softmax` over all outputs. `sigmoid` is 1 where it is not used.
    """

    features: tuple[str, ...]
    trees: tuple[Tree, ...]
    outputs: int
    link: str
    sigmoid: float

    def trees_of(self, output: int) -> tuple[Tree, ...]:
        """Return the trees whose sum is the margin of one output, in order."""
        return self.trees[output :: self.outputs]


def parse(model_text: str) -> Forest:
    """Return the forest of a LightGBM text model (`Booster.model_to_string()`).

    The text holds every threshold and leaf value with 17 significant digits, so that the doubles
    read here are those LightGBM reads; `dump_model()` writes an infinite threshold as 1e300 and
    would not do. A model saved with `num_iteration=best_iteration` holds those trees only.

    Raises HeadsError for a text that is no such model, and for what has no exact form here:
    categorical splits, linear trees, averaged forests (boosting=rf) and other objectives than
    binary, multiclass and the regressions without a link.
    """
    text, end, _ = model_text.partition("\nend of trees")
    if not (model_text.startswith("tree\n") and end):
        raise HeadsError(
            f"This is no LightGBM text model: it starts with {model_text[:20]!r} and "
            f"{'ends' if end else 'does not end'} its trees. Give Booster.model_to_string()."
        )
    header, *blocks = text.split("\nTree=")
    if "average_output" in header.split("\n"):
        raise HeadsError("Found an averaged forest (boosting=rf), expected a sum: use gbdt.")
    try:
        fields = _fields(header)
        outputs = int(fields["num_tree_per_iteration"])
        link, sigmoid = _link(fields.get("objective", "none (a custom objective)"), outputs)
        trees = tuple(_tree(_fields(block), number) for number, block in enumerate(blocks))
        features = tuple(fields["feature_names"].split(" "))
    except (KeyError, ValueError) as error:
        raise HeadsError(
            f"The LightGBM text model is damaged ({type(error).__name__}: {error}). Save it again."
        ) from error
    if len(trees) % outputs:
        raise HeadsError(
            f"Found {len(trees)} trees, expected a multiple of {outputs}, the trees of an "
            "iteration: the text was cut. Save the model again."
        )
    return Forest(features, trees, outputs, link, sigmoid)


def to_sql(forest: Forest) -> list[str]:
    """Return one scalar SQL expression per output over columns named like the features.

    The columns are FLOAT; a DOUBLE column is rounded to FLOAT first. The margins are equal to
    LightGBM's bit for bit, for NULL, NaN, infinities and zeros too, and so are the outputs where
    DuckDB and LightGBM call the same exp. Plain SQL for DuckDB 1.5 and later.

    Every tree is a nested CASE. Two things keep planning cheap: 0.1 to 0.4 CPU-seconds per 1000
    leaves, 0.1 for `to_select`. Literals have an exponent, which makes them DOUBLE from the parser
    on; 0.1::double is a cast to fold and, before DuckDB 2, a DECIMAL that is rounded twice. And one
    `list_reduce` adds the trees, from left to right: the search for common subexpressions walks a
    chain of + again for every +, and does not enter CASE.

    Each output of a multiclass model holds the trees of all outputs; `to_select` has them once.
    """

    def column(feature: int) -> tuple[str, str]:
        name = _quoted(forest.features[feature])
        return f"{name}::float", f"-{name}::float"

    margins = [_margin_sql(forest.trees_of(k), column) for k in range(forest.outputs)]
    if forest.link == "sigmoid":
        return [_sigmoid_sql(margins[0], forest.sigmoid)]
    if forest.link == "identity":
        return margins
    exponentials = "list_transform(m, lambda v: exp(v - list_max(m)))"
    return [
        f"list_transform([[{', '.join(margins)}]], lambda m: "
        f"exp(m[{output + 1}] - list_max(m)) / {_sum_sql(exponentials)})[1]"
        for output in range(forest.outputs)
    ]


def to_select(
    forest: Forest, relation: str, outputs: Sequence[str], keep: Sequence[str] = ()
) -> str:
    """Return a SELECT of the columns `keep` of `relation` and one column per output.

    Exact like `to_sql`. Each feature is cast once and each tree computed once: the form to use for
    a multiclass model. `relation` is SQL that may stand after FROM. Raises HeadsError when
    `outputs` are not as many as the model has or names are not distinct.
    """
    names = [*keep, *outputs]
    if len(outputs) != forest.outputs or len({name.lower() for name in names}) != len(names):
        raise HeadsError(
            f"Found output names {list(outputs)} and kept columns {list(keep)}, expected "
            f"{forest.outputs} output names and no name twice. Rename them."
        )
    kept = [_quoted(name) for name in keep]
    ours = "_"
    while any(name.lower().startswith(ours) for name in keep):
        ours += "_"
    used = sorted({int(feature) for tree in forest.trees for feature in tree.feature})
    inputs = []
    for feature in used:
        value = f"{_quoted(forest.features[feature])}::float::double"
        inputs += [f"{value} as {ours}x{feature}", f"-{value} as {ours}n{feature}"]
    raw = [f"{ours}m{output}" for output in range(forest.outputs)]
    margins = [
        _margin_sql(forest.trees_of(output), lambda f: (f"{ours}x{f}", f"{ours}n{f}")) + f" as {m}"
        for output, m in enumerate(raw)
    ]
    steps = [
        (f"{ours}inputs", [*kept, *(inputs or ["1 as " + ours + "x"])], relation),
        (f"{ours}margins", [*kept, *margins], f"{ours}inputs"),
    ]
    if forest.link == "softmax":
        shifted = f"greatest({', '.join(raw)})"
        powers = [f"exp({m} - {shifted}) as {ours}e{k}" for k, m in enumerate(raw)]
        steps.append((f"{ours}exponentials", [*kept, *powers], f"{ours}margins"))
        terms = [f"{ours}e{k}" for k in range(forest.outputs)]
        values = [f"{term} / ({' + '.join(terms)})" for term in terms]
    else:
        values = [_sigmoid_sql(raw[0], forest.sigmoid) if forest.link == "sigmoid" else raw[0]]
    final = [f"{value} as {_quoted(name)}" for value, name in zip(values, outputs, strict=True)]
    ctes = ",\n\n".join(
        f"{name} as (\n    select\n        {_lines(columns, 8)}\n    from {source}\n)"
        for name, columns, source in steps
    )
    return f"with {ctes}\n\nselect\n    {_lines([*kept, *final], 4)}\nfrom {steps[-1][0]}"


def nodes(forest: Forest) -> pa.Table:
    """Return one row per node and leaf: what the model is made of, for audits.

    Columns: tree int32 (from 0), node int32 (from 0 within the tree, 0 is the root, leaves after
    the inner nodes), output int32 (the margin the tree adds to), feature string, threshold double,
    default_left bool, missing_type string (none, zero or nan), left and right int32 (node numbers),
    leaf_value double. The columns of a split are NULL in a leaf and the other way round.
    """
    rows: dict[str, list] = {name: [] for name in _NODES_SCHEMA.names}
    for number, tree in enumerate(forest.trees):
        splits, leaves = len(tree.feature), len(tree.leaf_value)
        blank = [None] * leaves

        def place(children: np.ndarray, splits: int = splits) -> list[int]:
            return np.where(children < 0, splits - 1 - children, children).tolist()

        rows["tree"] += [number] * (splits + leaves)
        rows["node"] += range(splits + leaves)
        rows["output"] += [number % forest.outputs] * (splits + leaves)
        rows["feature"] += [forest.features[feature] for feature in tree.feature] + blank
        rows["threshold"] += tree.threshold.tolist() + blank
        rows["default_left"] += tree.default_left.tolist() + blank
        rows["missing_type"] += [MISSING_TYPES[kind] for kind in tree.missing_type] + blank
        rows["left"] += place(tree.left) + blank
        rows["right"] += place(tree.right) + blank
        rows["leaf_value"] += [None] * splits + tree.leaf_value.tolist()
    return pa.table(rows, schema=_NODES_SCHEMA)


def to_onnx(forest: Forest) -> bytes:
    """Return the forest as an ONNX model, the same bytes for the same forest.

    Input `features` float32 (n, F), NaN where unknown, in the order of `forest.features`; output
    `scores` float64 (n, outputs). Thresholds and leaf values are the model's own doubles and the
    input is widened to double, so every row reaches the leaf that LightGBM gives it; outputs differ
    by the order of summation of the runtime's threads and by its exp, a few units of 1e-16.

    onnxmltools is not used: it rounds thresholds to the nearest float32, and where that is upwards
    a value between the two goes to the other leaf (onnxmltools issue 708).

    NaN at a node of missing type `none` is 0, so its side is known beforehand. A node of type
    `zero` reads a copy of its feature in which |x| <= 1e-35 is NaN.
    """
    helper, double = onnx.helper, onnx.TensorProto.DOUBLE
    width = len(forest.features)
    zero_features = sorted(
        {int(f) for tree in forest.trees for f in tree.feature[tree.missing_type == 1]}
    )
    copies = {feature: width + place for place, feature in enumerate(zero_features)}

    graph = [helper.make_node("Cast", ["features"], ["inputs"], to=double)]
    constants = {}
    inputs = "inputs"
    if zero_features:
        constants["zero_features"] = np.array(zero_features, np.int64)
        constants["zero_threshold"] = np.array(ZERO_THRESHOLD)
        constants["unknown"] = np.array(math.nan)
        graph += [
            helper.make_node("Gather", ["inputs", "zero_features"], ["copied"], axis=1),
            helper.make_node("Abs", ["copied"], ["magnitudes"]),
            helper.make_node("LessOrEqual", ["magnitudes", "zero_threshold"], ["is_zero"]),
            helper.make_node("Where", ["is_zero", "unknown", "copied"], ["without_zeros"]),
            helper.make_node("Concat", ["inputs", "without_zeros"], ["all_inputs"], axis=1),
        ]
        inputs = "all_inputs"
    link = {"identity": "scores", "sigmoid": "margins", "softmax": "margins"}[forest.link]
    graph.append(
        helper.make_node(
            "TreeEnsemble",
            [inputs],
            [link],
            domain="ai.onnx.ml",
            aggregate_function=SUM,
            n_targets=forest.outputs,
            **_ensemble_attributes(forest, copies),
        )
    )
    if forest.link == "sigmoid":
        constants["minus_sigmoid"], constants["one"] = np.array(-forest.sigmoid), np.array(1.0)
        graph += [
            helper.make_node("Mul", ["margins", "minus_sigmoid"], ["exponents"]),
            helper.make_node("Exp", ["exponents"], ["odds_against"]),
            helper.make_node("Add", ["odds_against", "one"], ["denominators"]),
            helper.make_node("Div", ["one", "denominators"], ["scores"]),
        ]
    elif forest.link == "softmax":
        graph.append(helper.make_node("Softmax", ["margins"], ["scores"], axis=1))
    model = helper.make_model(
        helper.make_graph(
            graph,
            "forest",
            [helper.make_tensor_value_info("features", onnx.TensorProto.FLOAT, ["n", width])],
            [helper.make_tensor_value_info("scores", double, ["n", forest.outputs])],
            [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
        ),
        producer_name="wavehouse",
        ir_version=ONNX_IR_VERSION,
        opset_imports=[
            helper.make_opsetid("", ONNX_OPSET),
            helper.make_opsetid("ai.onnx.ml", ONNX_ML_OPSET),
        ],
    )
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


_NODES_SCHEMA = pa.schema(
    [
        ("tree", pa.int32()),
        ("node", pa.int32()),
        ("output", pa.int32()),
        ("feature", pa.string()),
        ("threshold", pa.float64()),
        ("default_left", pa.bool_()),
        ("missing_type", pa.string()),
        ("left", pa.int32()),
        ("right", pa.int32()),
        ("leaf_value", pa.float64()),
    ]
)


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.split("\n") if "=" in line)


def _link(objective: str, outputs: int) -> tuple[str, float]:
    name, *settings = objective.split(" ")
    if name == "binary":
        values = dict(setting.split(":", 1) for setting in settings)
        return "sigmoid", float(values["sigmoid"])
    if name == "multiclass" and outputs > 1:
        return "softmax", 1.0
    if name in IDENTITY_OBJECTIVES and "sqrt" not in settings:
        return "identity", 1.0
    raise HeadsError(
        f"Found the objective {objective}, expected binary, multiclass or one of "
        f"{', '.join(IDENTITY_OBJECTIVES)}. Train with one of those."
    )


def _tree(fields: dict[str, str], number: int) -> Tree:
    leaves = int(fields["num_leaves"])
    if int(fields.get("num_cat", "0")):
        raise HeadsError(
            f"Tree {number} has categorical splits, expected numerical ones only. Train without "
            "categorical_feature."
        )
    if int(fields.get("is_linear", "0")):
        raise HeadsError(f"Tree {number} is linear, expected constant leaves: linear_tree=false.")

    def array(name: str, dtype: type, count: int) -> np.ndarray:
        values = np.array(fields[name].split(), dtype) if count else np.empty(0, dtype)
        if len(values) != count:
            raise HeadsError(
                f"Tree {number} has {len(values)} items of {name}, expected {count}: the text was "
                "cut. Save the model again."
            )
        return values

    splits = leaves - 1
    decisions = array("decision_type", np.int32, splits)
    left, right = (array(name, np.int32, splits) for name in ("left_child", "right_child"))
    # A node is numbered when its leaf is split, so its inner children have larger numbers.
    for children in (left, right):
        if np.any((children >= 0) & (children <= np.arange(splits))) or np.any(children >= splits):
            raise HeadsError(f"Tree {number} has a node before its parent. Save the model again.")
    return Tree(
        feature=array("split_feature", np.int32, splits),
        threshold=array("threshold", np.float64, splits),
        default_left=(decisions & 2) > 0,
        missing_type=((decisions >> 2) & 3).astype(np.int8),
        left=left,
        right=right,
        leaf_value=array("leaf_value", np.float64, leaves),
    )


def _missing_left(tree: Tree) -> np.ndarray:
    """Return for each node whether NaN goes left: bool (nodes,)."""
    return np.where(tree.missing_type == 0, tree.threshold >= 0, tree.default_left)


def _margin_sql(trees: Sequence[Tree], column: Callable[[int], tuple[str, str]]) -> str:
    if not trees:
        return "0e0"
    return _sum_sql(f"[{', '.join(_tree_sql(tree, column) for tree in trees)}]")


def _tree_sql(tree: Tree, column: Callable[[int], tuple[str, str]]) -> str:
    """Return a nested CASE; `column` gives the SQL of a feature and of its negative.

    A condition must fail for NULL and for NaN, which is above all numbers in DuckDB, so that both
    take the ELSE: x <= t does, and so does -x < -t for x > t. The side of missing values is put
    into the ELSE.
    """
    missing_left = _missing_left(tree)
    parts = [_number_sql(value) for value in tree.leaf_value]
    branches: list[str] = [""] * len(tree.feature)
    # Inner children have larger numbers than their parents, so this meets them first.
    for node in reversed(range(len(tree.feature))):
        threshold = float(tree.threshold[node])
        left, right = (
            parts[-1 - child] if child < 0 else branches[child]
            for child in (tree.left[node], tree.right[node])
        )
        value, negative = column(int(tree.feature[node]))
        if missing_left[node]:
            test, first, other = f"{negative} < {_number_sql(-threshold)}", right, left
            zero_takes_first = threshold < ZERO_THRESHOLD
        else:
            test, first, other = f"{value} <= {_number_sql(threshold)}", left, right
            zero_takes_first = threshold >= -ZERO_THRESHOLD
        if tree.missing_type[node] == 1 and zero_takes_first:
            test = f"abs({value}) > {_number_sql(ZERO_THRESHOLD)} and {test}"
        branches[node] = f"case when {test} then {first} else {other} end"
    return branches[0] if branches else parts[0]


def _sigmoid_sql(margin: str, sigmoid: float) -> str:
    return f"1e0 / (1e0 + exp({_number_sql(-sigmoid)} * {margin}))"


def _sum_sql(values: str) -> str:
    return f"list_reduce({values}, lambda a, b: a + b)"


def _number_sql(value: float) -> str:
    if math.isinf(value):
        return f"'{value}'::double"
    text = repr(float(value))
    return text if "e" in text else text + "e0"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _lines(columns: Sequence[str], indent: int) -> str:
    return (",\n" + " " * indent).join(columns)


def _ensemble_attributes(forest: Forest, copies: dict[int, int]) -> dict:
    """Return the attributes of ai.onnx.ml TreeEnsemble that hold nodes and leaves.

    Nodes and leaves are numbered through the whole forest. A tree of one leaf is a node both of
    whose sides are that leaf.
    """
    columns: dict[str, list] = {
        name: []
        for name in (
            "nodes_featureids",
            "nodes_splits",
            "nodes_missing_value_tracks_true",
            "nodes_truenodeids",
            "nodes_trueleafs",
            "nodes_falsenodeids",
            "nodes_falseleafs",
            "leaf_targetids",
            "leaf_weights",
            "tree_roots",
        )
    }
    for number, tree in enumerate(forest.trees):
        node0, splits = len(columns["nodes_splits"]), len(tree.feature)
        children = (tree.left, tree.right) if splits else (np.array([-1]), np.array([-1]))
        if not splits:
            tree = dataclasses.replace(
                tree,
                feature=np.zeros(1, np.int32),
                threshold=np.zeros(1),
                default_left=np.zeros(1, bool),
                missing_type=np.zeros(1, np.int8),
            )
        # Older onnxruntime (1.22 for one) takes a root for a leaf when its two children, a leaf
        # and a node, have the same number (onnxruntime issue 24679): an unused leaf moves them
        # apart.
        first, second = int(children[0][0]), int(children[1][0])
        leaf0 = len(columns["leaf_weights"])
        if (first < 0) != (second < 0):
            leaf, inner = min(first, second), max(first, second)
            if leaf0 - 1 - leaf == node0 + inner:
                columns["leaf_targetids"].append(number % forest.outputs)
                columns["leaf_weights"].append(0.0)
                leaf0 += 1
        columns["tree_roots"].append(node0)
        columns["nodes_featureids"] += [
            copies[int(feature)] if kind == 1 else int(feature)
            for feature, kind in zip(tree.feature, tree.missing_type, strict=True)
        ]
        columns["nodes_splits"] += tree.threshold.tolist()
        columns["nodes_missing_value_tracks_true"] += _missing_left(tree).astype(int).tolist()
        for side, child in zip(("true", "false"), children, strict=True):
            leaf = child < 0
            columns[f"nodes_{side}nodeids"] += np.where(
                leaf, leaf0 - 1 - child, node0 + child
            ).tolist()
            columns[f"nodes_{side}leafs"] += leaf.astype(int).tolist()
        columns["leaf_targetids"] += [number % forest.outputs] * len(tree.leaf_value)
        columns["leaf_weights"] += tree.leaf_value.tolist()
    modes = np.full(len(columns["nodes_splits"]), BRANCH_LEQ, np.uint8)
    tensor = onnx.numpy_helper.from_array
    return columns | {
        "nodes_modes": tensor(modes, "nodes_modes"),
        "nodes_splits": tensor(np.array(columns["nodes_splits"]), "nodes_splits"),
        "leaf_weights": tensor(np.array(columns["leaf_weights"]), "leaf_weights"),
    }
