"""Formulas as trees: equal trees are one object, and every tree has one text that reads back as it.

A tree is made by `column`, `constant` and `operation`; nothing else checks arguments. The `op` of
a leaf is `column` (value: the name) or `constant` (value: a finite float); every other one is a
line of the table in operators.py. Windows are constants and the last arguments.
"""

import math
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from wavehouse.factors.operators import (
    ACCEPTED,
    CALL,
    COMPARISON,
    CONDITION,
    GROUP,
    GROUP_COLUMNS,
    LEVELS,
    NEGATION,
    NUMBER,
    OPERATORS,
    TERNARY,
    Argument,
    Operator,
)

_known: weakref.WeakValueDictionary = weakref.WeakValueDictionary()


class ArgumentError(ValueError):
    """Arguments that an operator does not take; `index` is the faulty one, None for all of them."""

    def __init__(self, cause: str, index: int | None = None):
        super().__init__(cause)
        self.cause = cause
        self.index = index


@dataclass(frozen=True, eq=False, init=False, repr=False, slots=True, weakref_slot=True)
class Expression:
    """One node. Equal trees are the same object, so `is`, `==` and hash() look at no child."""

    op: str
    args: tuple["Expression", ...]
    value: float | str | None
    type: str
    _text: str | None

    def __new__(
        cls, op: str, args: tuple["Expression", ...] = (), value: float | str | None = None
    ) -> "Expression":
        """Return the one object for this node. Checks nothing: see `operation`."""
        key = (op, args, value)
        found = _known.get(key)
        if found is None:
            found = object.__new__(cls)
            if op == "column":
                kind = GROUP if value in GROUP_COLUMNS else NUMBER
            else:
                kind = NUMBER if op == "constant" else OPERATORS[op].result
            for name, content in zip(
                ("op", "args", "value", "type", "_text"), (op, args, value, kind, None), strict=True
            ):
                object.__setattr__(found, name, content)
            _known[key] = found
        return found

    def __reduce__(self) -> tuple:
        return Expression, (self.op, self.args, self.value)

    def __copy__(self) -> "Expression":
        return self

    def __deepcopy__(self, memo: dict) -> "Expression":
        return self

    def __str__(self) -> str:
        # children first, in a loop: a sum of a thousand terms is a thousand levels deep
        for node in walk(self):
            if node._text is None:
                object.__setattr__(node, "_text", _written(node))
        return self._text

    def __repr__(self) -> str:
        return f"Expression({str(self)!r})"

    def named(self) -> dict[str, "Expression"]:
        """The arguments by the names in the operator's table; of several `x, ...` the last."""
        matched = OPERATORS[self.op].matched(len(self.args))
        return {argument.name: given for argument, given in zip(matched, self.args, strict=True)}


def column(name: str) -> Expression:
    """A column of the panel, or `feed.column`."""
    return Expression("column", (), name.lower())


def constant(number: float) -> Expression:
    """A finite number; -0.0 is 0.0."""
    number = float(number) + 0.0
    if not math.isfinite(number):
        raise ArgumentError(f"{number} is not a finite number")
    return Expression("constant", (), number)


def operation(op: str, *args: Expression | float) -> Expression:
    """Apply the operator of that name in the table; numbers stand for constants.

    Puts in defaults, floors windows, writes what has two spellings in one way (the minus of a
    constant, `min(x, 5)`, the paper's order of sum_if, the window of reg_beta) and raises
    ArgumentError where an argument is missing, left over or of the wrong type.
    """
    operator = OPERATORS[op]
    args = tuple(arg if isinstance(arg, Expression) else constant(arg) for arg in args)
    _check_arity(operator, len(args))
    places = range(len(args))  # where each argument was given
    if op == "negate" and args[0].op == "constant":
        return constant(-args[0].value)
    if op in ("min", "max"):
        first, second = (normalise(arg) for arg in args)
        if second.op == "constant" and first.op != "constant" and first.type != GROUP:
            if second.value >= 1:
                return operation(f"ts_{op}", args[0], second)
            # the other way round it can be read in one way only
            args, places = (second, args[0]), (1, 0)
    if op == "sum_if" and args[1].type != CONDITION and args[2].type == CONDITION:
        args, places = (args[0], args[2], args[1]), (0, 2, 1)
    if op == "reg_beta":
        args = _with_window(args)
    matched = operator.matched(len(args))
    places = (*places, *range(len(places), len(args)))
    args = tuple(
        _checked(operator, argument, arg, place)
        for argument, arg, place in zip(matched, args, places, strict=True)
    )
    for argument in operator.arguments[len(args) :]:
        if argument.default is not None:
            args = (*args, constant(argument.default))
    if op == "sma" and args[2].value > args[1].value:
        raise ArgumentError(f"m = {args[2]} of sma is more than n = {args[1]}", 2)
    if op == "reg_residual" and args[-1].value < len(args):
        raise ArgumentError(
            f"a window of {args[-1]} is too short for {len(args) - 2} regressors and an intercept: "
            f"it takes {len(args)} rows",
            len(args) - 1,
        )
    return Expression(op, args)


def _check_arity(operator: Operator, count: int) -> None:
    least, most = operator.arity
    if least <= count <= most:
        return
    if most == math.inf:
        takes = f"at least {least}"
    else:
        takes = f"{least}" if least == most else f"{least} to {most}"
    noun = "argument" if takes == "1" else "arguments"
    raise ArgumentError(f"{operator.signature} takes {takes} {noun}, found {count}")


def _with_window(args: tuple[Expression, ...]) -> tuple[Expression, ...]:
    """The arguments of reg_beta with the window last, which may stand inside `sequence` instead."""
    y, x, *window = args
    if x.op == "sequence" and x.args:
        if window and normalise(window[0]) is not x.args[0]:
            raise ArgumentError(f"the window is {window[0]} here and {x.args[0]} in sequence", 2)
        window = x.args
        x = Expression("sequence")
    if not window:
        raise ArgumentError("reg_beta(y, x, n) has no window n")
    return y, x, window[0]


def _checked(operator: Operator, argument: Argument, arg: Expression, index: int) -> Expression:
    """The argument as it goes into the tree, if it is of the kind that the operator takes."""
    where = f"{argument.name} of {operator.name}"
    if argument.kind in ("window", "constant"):
        given, arg = arg, normalise(arg)
        if arg.op != "constant":
            noun = "the window " if argument.kind == "window" else ""
            raise ArgumentError(f"{noun}{where} is not constant: {_short(given)}", index)
        if argument.kind == "window":
            arg = constant(math.floor(arg.value))
            if arg.value < argument.least:
                raise ArgumentError(
                    f"the window {where} is {given}, the least is {argument.least}", index
                )
        if arg.value <= argument.above:
            raise ArgumentError(f"{where} is {given}, it must be more than {argument.above}", index)
        return arg
    if arg.type not in ACCEPTED[argument.kind]:
        if arg.op in ("sequence", "filter"):
            cause = f"{arg.op} stands only inside reg_beta, not as {where}"
        elif argument.kind == "group":
            cause = f"{where} must be a group such as IndClass.sector, found {_short(arg)}"
        elif argument.kind == "condition":
            cause = f"{where} must be a condition, found the {arg.type} {_short(arg)}"
        else:
            cause = f"{where} must be a number, found the {arg.type} {_short(arg)}"
        raise ArgumentError(cause, index)
    return arg


def _short(expression: Expression) -> str:
    text = str(expression)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _level(expression: Expression) -> int:
    if expression.op == "constant" and expression.value < 0:
        return NEGATION
    return LEVELS.get(expression.op, CALL)


def _written(node: Expression) -> str:
    """The canonical text, from that of the arguments."""

    def part(index: int, least: int) -> str:
        arg = node.args[index]
        return arg._text if _level(arg) >= least else f"({arg._text})"

    if node.op == "column":
        return node.value
    if node.op == "constant":
        whole = node.value.is_integer() and abs(node.value) < 1e15
        return str(int(node.value)) if whole else repr(node.value)
    if node.op == "if":
        return f"{part(0, TERNARY + 1)} ? {part(1, TERNARY + 1)} : {part(2, TERNARY + 1)}"
    if node.op == "negate":
        return f"-{part(0, NEGATION + 1)}"
    if node.op in LEVELS:
        level = LEVELS[node.op]
        # a chain of comparisons has no meaning, so the left one stands in parentheses too
        left = level + 1 if level == COMPARISON else level
        return f"{part(0, left)} {node.op} {part(1, level + 1)}"
    if not node.args:
        return node.op
    return f"{node.op}({', '.join(arg._text for arg in node.args)})"


def walk(*expressions: Expression) -> Iterator[Expression]:
    """Yield every node once, children before parents, the same order in every run."""
    seen = set()
    for expression in expressions:
        waiting = [(expression, False)]
        while waiting:
            node, ready = waiting.pop()
            if ready:
                yield node
            elif node not in seen:
                seen.add(node)
                waiting.append((node, True))
                waiting.extend((arg, False) for arg in reversed(node.args) if arg not in seen)


def columns(*expressions: Expression) -> list[str]:
    """Names of the columns read, sorted; groups included."""
    return sorted(node.value for node in walk(*expressions) if node.op == "column")


def look_back(expression: Expression) -> float:
    """How many rows before today the value can depend on; math.inf where on all of them.

    Counted in rows of one stock: a cross section of a value needs the rows that the value needs.
    """
    reached: dict[Expression, float] = {}
    for node in walk(expression):
        deepest = max((reached[arg] for arg in node.args), default=0)
        reach = OPERATORS[node.op].reach if node.op in OPERATORS else ""
        if reach == "all":
            deepest = math.inf
        elif reach:
            deepest += int(node.args[-1].value) - (reach == "window")
        reached[node] = deepest
    return reached[expression]


def normalise(expression: Expression) -> Expression:
    """An expression of the same values, to the last bit, that equal formulas have in common.

    Folds constants; drops what changes nothing (x * 1, x + 0, a window of one row, the rank of a
    rank); writes -1 * x and 0 - x as -x, a > b as b < a and sum(x, n) / n as mean(x, n); puts the
    two arguments of a symmetric operator in order. Which terms of a longer sum are added first
    stays as written: its last bits depend on that.
    """
    simplified: dict[Expression, Expression] = {}
    for node in walk(expression):
        args = tuple(simplified[arg] for arg in node.args)
        simplified[node] = _simplified(node if args == node.args else Expression(node.op, args))
    return simplified[expression]


def _power(base: float, exponent: float) -> float | None:
    if (base < 0 and not exponent.is_integer()) or (base == 0 and exponent < 0):
        return None
    return math.pow(base, exponent)


_FOLDS: dict[str, Callable[..., float | None]] = {
    "+": lambda x, y: x + y,
    "-": lambda x, y: x - y,
    "*": lambda x, y: x * y,
    "/": lambda x, y: x / y if y else None,
    "^": _power,
    "negate": lambda x: -x,
    "abs": abs,
    "sign": lambda x: (x > 0) - (x < 0),
    "min": min,
    "max": max,
}
_SAME_IN_ONE_ROW = ("sum", "mean", "ts_min", "ts_max", "product", "median", "decay_linear", "wma")
_TURNED = {">": "<", ">=": "<="}


def _is(expression: Expression, number: float) -> bool:
    return expression.op == "constant" and expression.value == number


def _simplified(node: Expression) -> Expression:
    """One node whose arguments are normalised already."""
    op, args = node.op, node.args
    if op in _TURNED:
        return _simplified(Expression(_TURNED[op], args[::-1]))
    if op in _FOLDS and all(arg.op == "constant" for arg in args):
        try:
            folded = _FOLDS[op](*(arg.value for arg in args))
        except OverflowError:
            folded = None
        # what has no value stays as it is written: a formula has no word for NULL
        if folded is not None and math.isfinite(folded):
            return constant(folded)
        return node
    same = _unchanged(op, args)
    # a condition and the number it stands for differ in type
    if same is not None and same.type == NUMBER:
        return same
    negated = _negated(op, args)
    if negated is not None:
        return _simplified(Expression("negate", (negated,)))
    if op == "/" and args[0].op == "sum" and args[0].args[1] is args[1]:
        return Expression("mean", args[0].args)
    if op == "rank" and args[0].op == "rank":
        return args[0]
    return _in_order(node)


def _unchanged(op: str, args: tuple[Expression, ...]) -> Expression | None:
    """The argument that the operation leaves as it is, if it does."""
    if op in ("+", "*"):
        neutral = 0 if op == "+" else 1
        for one, other in (args, args[::-1]):
            if _is(other, neutral):
                return one
    if op in ("/", "^") and _is(args[1], 1):
        return args[0]
    if op in ("-", "delay") and _is(args[1], 0):
        return args[0]
    if op in _SAME_IN_ONE_ROW and _is(args[1], 1):
        return args[0]
    if op == "negate" and args[0].op == "negate":
        return args[0].args[0]
    return None


def _negated(op: str, args: tuple[Expression, ...]) -> Expression | None:
    """The argument that the operation changes the sign of, if it does no more."""
    if op == "-" and _is(args[0], 0):
        return args[1]
    if op in ("*", "/") and _is(args[1], -1):
        return args[0]
    if op == "*" and _is(args[0], -1):
        return args[1]
    return None


def _in_order(node: Expression) -> Expression:
    if node.op not in OPERATORS or not OPERATORS[node.op].symmetric:
        return node
    first, second, *rest = node.args

    def place(arg: Expression) -> tuple[bool, bool, str]:
        # constants first where a constant at the end would be a window, last elsewhere; then what
        # needs no parentheses on the left, so that a long sum stays as flat as it was written
        constant_first = node.op in ("min", "max")
        return (
            (arg.op == "constant") != constant_first,
            _level(arg) != _level(node),
            str(arg),
        )

    return Expression(node.op, (*sorted((first, second), key=place), *rest))
