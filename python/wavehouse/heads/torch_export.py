"""The net of the torch trainer outside of torch: as ONNX and as a SQL expression."""

from collections.abc import Sequence

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from wavehouse.heads.base import HeadsError
from wavehouse.heads.torch_net import CLIP, FAR, Dense

OPSET = 17
IR_VERSION = 10  # of ONNX; what onnxruntime has read since 1.18
SQL_WEIGHTS_MAX = 250_000  # 3 MB of SQL; DuckDB then scores 1,000 rows per CPU-second


def to_onnx(
    stats: dict[str, torch.Tensor], layers: Dense, objective: str, scale: float, offset: float
) -> bytes:
    """Return the net with its scaling as ONNX: `features` float32 (n, F), `scores` double (n, o).

    Written node by node: the exporters of torch want onnxscript, or put weights in a second file.
    """
    nodes: list[onnx.NodeProto] = []
    constants: list[onnx.TensorProto] = []

    def constant(name: str, value: torch.Tensor | float, dtype: type = np.float32) -> str:
        array = value.cpu().numpy() if isinstance(value, torch.Tensor) else np.array(value, dtype)
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(name: str, kind: str, *inputs: str, **attributes: int | list[int]) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    center = constant("center", stats["center"])
    node("nan", "IsNaN", "features")
    node("infinite", "IsInf", "features")
    node("unknown", "Or", "nan", "infinite")
    node("known", "Where", "unknown", center, "features")
    node("centered", "Sub", "known", center)
    node("unbounded", "Mul", "centered", constant("inverse_scale", stats["inverse_scale"]))
    node("scaled", "Clip", "unbounded", constant("near", -FAR), constant("far", FAR))
    node("bent", "Div", "scaled", constant("clip", CLIP))
    node("square", "Mul", "bent", "bent")
    node("grown", "Add", "square", constant("one", 1.0))
    node("root", "Sqrt", "grown")
    hidden = node("clipped", "Div", "scaled", "root")
    if len(stats["missing"]):
        node("chosen", "Gather", "unknown", constant("missing", stats["missing"]), axis=1)
        node("indicators", "Cast", "chosen", to=TensorProto.FLOAT)
        hidden = node("inputs", "Concat", hidden, "indicators", axis=1)
    for number, (matrix, bias) in enumerate(layers):
        node(f"product{number}", "MatMul", hidden, constant(f"weight{number}", matrix))
        hidden = node(f"sum{number}", "Add", f"product{number}", constant(f"bias{number}", bias))
        if number < len(layers) - 1:
            hidden = node(f"hidden{number}", "Relu", hidden)
    node("members", "Cast", hidden, to=TensorProto.DOUBLE)
    if objective == "regression":
        node("mean", "ReduceMean", "members", axes=[0], keepdims=0)
        node("unscaled", "Mul", "mean", constant("score_scale", scale, np.float64))
        node("scores", "Add", "unscaled", constant("score_offset", offset, np.float64))
    else:
        if objective == "binary":
            node("probabilities", "Sigmoid", "members")
        else:
            node("probabilities", "Softmax", "members", axis=-1)
        node("scores", "ReduceMean", "probabilities", axes=[0], keepdims=0)
    width = len(stats["center"])
    outputs = layers[-1][0].shape[-1]
    graph = helper.make_graph(
        nodes,
        "torch_member",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["rows", width])],
        [helper.make_tensor_value_info("scores", TensorProto.DOUBLE, ["rows", outputs])],
        constants,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return model.SerializeToString(deterministic=True)


def to_sql(
    features: Sequence[str],
    stats: dict[str, torch.Tensor],
    layers: Dense,
    objective: str,
    scale: float,
    offset: float,
) -> list[str]:
    """Return one scalar SQL expression per output, over FLOAT columns named like `features`.

    A matrix is a list of FLOAT arrays, one per unit, with the bias last: the inputs end in 1, and
    so does each hidden layer, by a unit that passes the 1 on. A lambda over a list of one value
    names that value, so that nothing is computed twice. Outputs of a multiclass net repeat the
    net, which DuckDB computes once when they stand in one select.

    Raises HeadsError when the net has more than SQL_WEIGHTS_MAX weights, members counted apart.
    """
    count = sum(matrix.numel() + bias.numel() for matrix, bias in layers)
    if count > SQL_WEIGHTS_MAX:
        raise HeadsError(
            f"the net has {count} weights over its members, SQL is written for at most "
            f"{SQL_WEIGHTS_MAX}: then DuckDB scores 1,000 rows per CPU-second. Score it natively "
            "or through ONNX, or train fewer `members` or smaller `hidden` layers."
        )
    columns = ['"{}"::float'.format(name.replace('"', '""')) for name in features]
    center = [_float(value) for value in stats["center"].tolist()]
    inverse = [_float(value) for value in stats["inverse_scale"].tolist()]
    inputs = [
        _clipped_sql(column, middle, factor)
        for column, middle, factor in zip(columns, center, inverse, strict=True)
    ]
    inputs += [
        f"case when isfinite({columns[ordinal]}) then 0::float else 1::float end"
        for ordinal in stats["missing"].tolist()
    ]
    members = [
        _member_sql([(matrix[number], bias[number]) for matrix, bias in layers], objective)
        for number in range(len(layers[0][0]))
    ]
    net = _let(f"array_value({', '.join(inputs)}, 1::float)", "x", f"[{', '.join(members)}]")
    scores = []
    for output in range(1, layers[-1][0].shape[-1] + 1):
        score = f"list_avg(list_transform({net}, lambda member: member[{output}]))"
        if objective == "regression":
            score = f"{score} * {scale!r}::double + {offset!r}::double"
        scores.append(score)
    return scores


def _clipped_sql(column: str, center: str, inverse_scale: str) -> str:
    """Return the scaled and smoothly clipped value of a column, 0 where it is not known."""
    scaled = (
        f"greatest(least(({column} - {center}) * {inverse_scale}, {FAR}::float), {-FAR}::float)"
    )
    clipped = f"({scaled} / sqrt(1 + pow({scaled} / {CLIP}, 2)))::float"
    return f"case when isfinite({column}) then {clipped} else 0::float end"


def _member_sql(layers: Dense, objective: str) -> str:
    """Return the list of outputs of one member, DOUBLE[], as a function of the array x."""
    hidden = "x"
    expression = "{}"
    for number, (matrix, bias) in enumerate(layers[:-1]):
        passed = torch.zeros(1, len(matrix) + 1)
        passed[0, -1] = 1
        rows = torch.cat([torch.cat([matrix, bias]).T.cpu(), passed])
        units = f"lambda w: greatest(array_inner_product(w, {hidden}), 0::float)"
        layer = f"list_transform({_matrix(rows)}, {units})::float[{len(rows)}]"
        hidden = f"h{number}"
        expression = expression.replace("{}", _let(layer, hidden, "{}"))
    rows = torch.cat(layers[-1]).T.cpu()
    outputs = f"list_transform({_matrix(rows)}, lambda w: array_inner_product(w, {hidden})::double)"
    if objective == "binary":
        outputs = f"list_transform({outputs}, lambda z: 1 / (1 + exp(-z)))"
    elif objective == "multiclass":
        powers = "list_transform(z, lambda v: exp(v - list_max(z)))"
        shares = "list_transform(p, lambda v: v / list_sum(p))"
        outputs = _let(outputs, "z", _let(powers, "p", shares))
    return expression.replace("{}", outputs)


def _let(value: str, name: str, expression: str) -> str:
    """Return `expression` where `name` stands for `value`, computed once."""
    return f"list_transform([{value}], lambda {name}: {expression})[1]"


def _matrix(rows: torch.Tensor) -> str:
    """Return a matrix as a list of FLOAT arrays, one per row."""
    lists = ",".join(f"[{','.join(map(_digits, row))}]" for row in rows.numpy())
    return f"'[{lists}]'::float[{rows.shape[1]}][]"


def _float(value: float) -> str:
    """Return a FLOAT literal."""
    return f"'{_digits(np.float32(value))}'::float"


def _digits(value: np.float32) -> str:
    """Return the fewest digits that read back as the same float32."""
    return str(value)
