"""The factor operators from their definitions: plain loops over stocks and rows, or over days.

Knows nothing of SQL. `evaluate` takes an expression and a frame: a dict of column name -> array
with `stock` and `day` (integers) beside the columns that the expression reads, rows in any order.
Unknown is nan (None in a column of groups); a condition is 1.0, 0.0 or nan. What is not finite is
unknown.
"""

import bisect
import math
import operator

import numpy as np

from wavehouse.factors.expression import Expression, walk
from wavehouse.factors.operators import OPERATORS

UNKNOWN = math.nan
GROUPS = "rows of each stock and of each day"


def evaluate(
    expression: Expression,
    frame: dict,
    known: dict | None = None,
    noise: np.random.Generator | None = None,
) -> np.ndarray:
    """The value on every row of the frame, in its order.

    `known` keeps the values of nodes between calls on the same frame. With `noise`, whatever is
    about to be calculated with changes in its last digits first: values that then come out
    otherwise say nothing but how the arithmetic rounds.
    """
    known = {} if known is None else known
    if GROUPS not in known:
        stock, day = frame["stock"], frame["day"]
        known[GROUPS] = _groups(stock, day), _groups(day, stock)
    stocks, days = known[GROUPS]
    for node in walk(expression):
        if node not in known:
            known[node] = _value(node, frame, known, stocks, days, noise)
    return np.asarray(known[expression], dtype=float)


def _groups(by: np.ndarray, then_by: np.ndarray) -> list[list[int]]:
    """Row numbers of each value of `by`, in the order of `then_by`."""
    groups = {}
    for row in np.argsort(then_by, kind="stable"):
        groups.setdefault(int(by[row]), []).append(int(row))
    return list(groups.values())


def _value(
    node: Expression,
    frame: dict,
    known: dict,
    stocks: list,
    days: list,
    noise: np.random.Generator | None,
) -> list | None:
    rows = len(frame["stock"])
    if node.op == "constant":
        return [node.value] * rows
    if node.op == "column":
        if node.type == "group":
            return list(frame[node.value])
        return [_finite(float(value)) for value in frame[node.value]]
    if node.op in ("filter", "sequence"):
        return None  # reg_beta reads what is in them
    if node.op == "reg_beta":
        columns, windows = _regression_columns(node, known, rows)
    else:
        arguments = OPERATORS[node.op].matched(len(node.args))
        given = list(zip(arguments, node.args, strict=True))
        columns = [known[arg] for argument, arg in given if argument.kind not in CONSTANT]
        windows = [arg.value for argument, arg in given if argument.kind in CONSTANT]
        windows = [int(n) if float(n).is_integer() else n for n in windows]
    if noise is not None and node.op not in EXACT:
        columns = [_shaken(column, noise) for column in columns]
    if node.op in ELEMENT:
        return [_element(node.op, row) for row in zip(*columns, strict=True)]
    groups, functions = (stocks, SERIES) if node.op in SERIES else (days, SECTION)
    out = [UNKNOWN] * rows
    for group in groups:
        parts = [[column[row] for row in group] for column in columns]
        try:
            values = functions[node.op](*parts, *windows)
        except OverflowError:  # of a sum over the day
            values = [UNKNOWN] * len(group)
        for row, value in zip(group, values, strict=True):
            out[row] = _finite(value)
    return out


CONSTANT = ("window", "constant")
# operators that choose, count or order and round nothing
EXACT = {
    "negate", "<", "<=", ">", ">=", "==", "!=", "and", "or", "if", "abs", "sign", "min", "max",
    "delay", "ts_min", "ts_max", "ts_argmax", "ts_argmin", "high_day", "low_day", "ts_rank",
    "count", "event_decay", "rank",
}  # fmt: skip
NOISE = 2.0**-48


def _shaken(column: list, noise: np.random.Generator) -> list:
    """Numbers of 48 good bits instead of 53; what is no number stays."""
    if column and not isinstance(column[0], float | int):
        return column
    factors = 1 + NOISE * noise.uniform(-1, 1, len(column))
    return [value * factor for value, factor in zip(column, factors.tolist(), strict=True)]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else UNKNOWN


def _unknown(value: object) -> bool:
    return value is None or value != value


# one row at a time


def _element(op: str, row: tuple[float, ...]) -> float:
    if op == "if":
        condition, first, second = row
        if _unknown(condition):
            return UNKNOWN
        return first if condition else second
    if any(map(math.isnan, row)):
        return UNKNOWN
    try:
        return _finite(float(ELEMENT[op](*row)))
    except OverflowError:
        return UNKNOWN


def _power(base: float, exponent: float) -> float:
    if base < 0 and exponent != math.floor(exponent):
        return UNKNOWN
    if base == 0 and exponent < 0:
        return UNKNOWN
    return math.pow(base, exponent)


def _sign(x: float) -> float:
    if x > 0:
        return 1.0
    return -1.0 if x < 0 else 0.0


ELEMENT = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: UNKNOWN if y == 0 else x / y,
    "^": _power,
    "negate": lambda x: -x,
    "<": lambda x, y: x < y,
    "<=": lambda x, y: x <= y,
    ">": lambda x, y: x > y,
    ">=": lambda x, y: x >= y,
    "==": lambda x, y: x == y,
    "!=": lambda x, y: x != y,
    "and": lambda c, d: c == 1 and d == 1,
    "or": lambda c, d: c == 1 or d == 1,
    "if": None,
    "abs": lambda x: -x if x < 0 else x,
    "sign": _sign,
    "log": lambda x: math.log(x) if x > 0 else UNKNOWN,
    "sqrt": lambda x: math.sqrt(x) if x >= 0 else UNKNOWN,
    "exp": math.exp,
    "signed_power": lambda x, e: _sign(x) * _power(abs(x), e),
    "min": lambda x, y: x if x < y else y,
    "max": lambda x, y: x if x > y else y,
}


# one stock at a time, its rows by day


def _delay(x: list, n: int) -> list:
    return [x[row - n] if row >= n else UNKNOWN for row in range(len(x))]


def _delta(x: list, n: int) -> list:
    return [today - before for today, before in zip(x, _delay(x, n), strict=True)]


def _windowed(function):
    """Apply `function` to every full window of known values of one or more columns."""

    def apply(*arguments):
        *columns, n = arguments
        out, unbroken = [], 0
        for row, values in enumerate(zip(*columns, strict=True)):
            unbroken = 0 if any(map(math.isnan, values)) else unbroken + 1
            if unbroken < n:
                out.append(UNKNOWN)
                continue
            try:
                out.append(function(*(column[row + 1 - n : row + 1] for column in columns)))
            except (OverflowError, ZeroDivisionError):
                out.append(UNKNOWN)
        return out

    return apply


def _constant(window: list) -> bool:
    """Whether all values are the same to some 12 digits."""
    if abs(window[0] - window[-1]) > 1e-9 * abs(window[0]):
        return False  # without a look at the rest
    first = _rounded(window[0])
    return all(_rounded(value) == first for value in window)


def _mean(window: list) -> float:
    return math.fsum(window) / len(window)


def _centred(window: list) -> list:
    return [0.0] * len(window) if _constant(window) else _from_mean(window)


def _from_mean(window: list) -> list:
    mean = _mean(window)
    return [value - mean for value in window]


def _dot(x: list, y: list) -> float:
    total = math.fsum(map(operator.mul, x, y))
    if not math.isfinite(total):
        raise OverflowError("a product is too large for a double")
    return total


def _variance(x: list) -> float:
    return _dot(_centred(x), _centred(x)) / (len(x) - 1)


def _covariance(x: list, y: list) -> float:
    if _constant(x) or _constant(y):
        return 0.0
    found = _dot(_centred(x), _centred(y)) / (len(x) - 1)
    noise = 1e-12 * math.sqrt(_variance(x)) * math.sqrt(_variance(y))
    return found if abs(found) > noise else 0.0


def _correlation(x: list, y: list) -> float:
    if _constant(x) or _constant(y):
        return UNKNOWN
    x, y = _centred(x), _centred(y)
    found = _dot(x, y) / (math.sqrt(_dot(x, x)) * math.sqrt(_dot(y, y)))
    return round(found, 12)


def _moment(window: list, power: int) -> float:
    return math.fsum(value**power for value in _centred(window)) / len(window)


def _skew(window: list) -> float:
    if _constant(window):
        return UNKNOWN
    if len(window) == 2:  # both as far from their mean
        return 0.0
    return _moment(window, 3) / _moment(window, 2) ** 1.5


def _kurt(window: list) -> float:
    return UNKNOWN if _constant(window) else _moment(window, 4) / _moment(window, 2) ** 2 - 3


def _median(window: list) -> float:
    ordered, middle = sorted(window), len(window) // 2
    if len(window) % 2:
        return ordered[middle]
    return math.fsum(ordered[middle - 1 : middle + 1]) / 2


def _product(window: list) -> float:
    product = 1.0
    for value in window:
        product *= value
    return product


def _first_position(window: list, value: float) -> int:
    return window.index(value) + 1


def _rounded(value: float) -> float:
    """To 40 significant bits, some 12 digits."""
    if math.isnan(value):
        return value
    fraction, exponent = math.frexp(value)
    return math.ldexp(round(fraction * 2**40), exponent - 40)


def _share_of_rank(value: float, ordered: list) -> float:
    """Average rank of a value among sorted ones, itself included, divided by their number."""
    less = bisect.bisect_left(ordered, value)
    equal = bisect.bisect_right(ordered, value) - less
    return (less + (equal + 1) / 2) / len(ordered)


def _ts_rank(x: list, n: int) -> list:
    rounded = [_rounded(value) for value in x]
    return _windowed(lambda window: _share_of_rank(window[-1], sorted(window)))(rounded, n)


def _decay_linear(window: list) -> float:
    n = len(window)
    weighted = math.fsum(value * weight for weight, value in enumerate(window, start=1))
    return weighted / (n * (n + 1) / 2)


def _wma(window: list) -> float:
    weights = [0.9**back for back in reversed(range(len(window)))]
    return math.fsum(map(operator.mul, window, weights)) / math.fsum(weights)


def _sma(x: list, n: float, m: float) -> list:
    out, before = [], None
    for value in x:
        if _unknown(value):
            out.append(UNKNOWN)
            continue
        before = value if before is None else (m * value + (n - m) * before) / n
        out.append(before)
    return out


def _self(factor: list, initial: float) -> list:
    out, before = [], initial
    for value in factor:
        if _unknown(value):
            out.append(UNKNOWN)
            continue
        before = before * value
        out.append(before)
    return out


def _sum_if(x: list, condition: list, n: int) -> list:
    kept = [
        UNKNOWN if _unknown(c) else (value if c else 0.0)
        for value, c in zip(x, condition, strict=True)
    ]
    return _windowed(math.fsum)(kept, n)


def _event_decay(condition: list, tau: float, n: int) -> list:
    out = []
    for row in range(len(condition)):
        if row < n:
            out.append(UNKNOWN)
            continue
        events = [i for i in range(n + 1) if condition[row - i] == 1]
        out.append(math.fsum(math.exp(-i / tau) for i in events))
    return out


def _regression_columns(node: Expression, known: dict, rows: int) -> tuple[list, list]:
    """y, x and which rows are kept; what is filtered out is not looked at, so it is 0."""
    y, x, window = node.args
    kept = [1.0] * rows
    for side in (y, x):
        if side.op == "filter":
            kept = [_element("and", pair) for pair in zip(kept, known[side.args[1]], strict=True)]
    columns = []
    for side in (y, x):
        if side.op == "sequence":
            columns.append([0.0] * rows)  # reg_beta numbers the rows of each window itself
            continue
        values = known[side.args[0] if side.op == "filter" else side]
        columns.append([0.0 if keep == 0 else v for v, keep in zip(values, kept, strict=True)])
    filtered = "filter" in (y.op, x.op)
    return [*columns, kept], [x.op == "sequence", filtered, int(window.value)]


def _reg_beta(y: list, x: list, kept: list, sequence: bool, filtered: bool, n: int) -> list:
    def slope(y_window: list, x_window: list, kept_window: list) -> float:
        if sequence:
            x_window = list(range(1, n + 1))
        rows = [row for row in range(n) if kept_window[row]]
        if filtered and len(rows) < 3:
            return UNKNOWN
        ys, xs = [y_window[row] for row in rows], [x_window[row] for row in rows]
        if _constant(xs):
            return UNKNOWN
        return _dot(_centred(xs), _from_mean(ys)) / _dot(_centred(xs), _centred(xs))

    return _windowed(slope)(y, x, kept, n)


def _residual(y: list, *regressors: list) -> float:
    """Of the last row: take out of y what the regressors explain, each made independent first."""
    left, basis = _from_mean(y), []
    for x in regressors:
        whole = own = _centred(x)
        for earlier in basis:
            share = _dot(own, earlier) / _dot(earlier, earlier)
            own = [a - share * b for a, b in zip(own, earlier, strict=True)]
        if _dot(own, own) <= 1e-10 * _dot(whole, whole):
            return UNKNOWN
        basis.append(own)
        share = _dot(left, own) / _dot(own, own)
        left = [a - share * b for a, b in zip(left, own, strict=True)]
    return left[-1]


SERIES = {
    "delay": _delay,
    "delta": _delta,
    "sum": _windowed(math.fsum),
    "mean": _windowed(_mean),
    "stddev": _windowed(lambda x: math.sqrt(_variance(x))),
    "variance": _windowed(_variance),
    "ts_min": _windowed(min),
    "ts_max": _windowed(max),
    "ts_argmax": _windowed(lambda x: _first_position(x, max(x))),
    "ts_argmin": _windowed(lambda x: _first_position(x, min(x))),
    "high_day": _windowed(lambda x: len(x) - _first_position(x, max(x))),
    "low_day": _windowed(lambda x: len(x) - _first_position(x, min(x))),
    "ts_rank": _ts_rank,
    "product": _windowed(_product),
    "correlation": _windowed(_correlation),
    "covariance": _windowed(_covariance),
    "count": _windowed(math.fsum),
    "sum_if": _sum_if,
    "decay_linear": _windowed(_decay_linear),
    "wma": _windowed(_wma),
    "sma": _sma,
    "skew": _windowed(_skew),
    "kurt": _windowed(_kurt),
    "median": _windowed(_median),
    "reg_beta": _reg_beta,
    "reg_residual": _windowed(_residual),
    "filter": None,
    "sequence": None,
    "self": _self,
    "event_decay": _event_decay,
}


# one day at a time


def _among_known(function):
    """Apply `function` to the day's known values; the other rows stay unknown."""

    def apply(x: list, *constants: float) -> list:
        rows = [row for row, value in enumerate(x) if not _unknown(value)]
        out = [UNKNOWN] * len(x)
        if rows:
            for row, value in zip(
                rows, function([x[row] for row in rows], *constants), strict=True
            ):
                out[row] = value
        return out

    return apply


def _rank(x: list) -> list:
    x = [_rounded(value) for value in x]
    ordered = sorted(x)
    return [_share_of_rank(value, ordered) for value in x]


def _scale(x: list, a: float) -> list:
    total = math.fsum(abs(value) for value in x)
    return [UNKNOWN if total == 0 else a * value / total for value in x]


def _zscore(x: list) -> list:
    if _constant(x):
        return [UNKNOWN] * len(x)
    deviation = math.sqrt(_moment(x, 2))
    return [value / deviation if deviation else UNKNOWN for value in _centred(x)]


def _ind_neutralize(x: list, group: list) -> list:
    out = []
    for value, own in zip(x, group, strict=True):
        if _unknown(value) or _unknown(own):
            out.append(UNKNOWN)
            continue
        members = [
            other for other, its in zip(x, group, strict=True) if its == own and not _unknown(other)
        ]
        out.append(value - _mean(members))
    return out


def _cs_mean_if(x: list, condition: list) -> list:
    kept = [v for v, c in zip(x, condition, strict=True) if c == 1 and not _unknown(v)]
    return [_mean(kept) if kept else UNKNOWN] * len(x)


def _cs_median(x: list) -> list:
    kept = [value for value in x if not _unknown(value)]
    return [_median(kept) if kept else UNKNOWN] * len(x)


SECTION = {
    "rank": _among_known(_rank),
    "scale": _among_known(_scale),
    "ind_neutralize": _ind_neutralize,
    "zscore": _among_known(_zscore),
    "cs_mean": lambda x: _cs_mean_if(x, [1.0] * len(x)),
    "cs_median": _cs_median,
    "cs_mean_if": _cs_mean_if,
}
