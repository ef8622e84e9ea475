"""Random expressions of every operator in the table, and random frames to evaluate them on."""

from random import Random

import numpy as np
from hypothesis import strategies as st

from wavehouse.factors.expression import Expression, column, constant, operation
from wavehouse.factors.operators import CONDITION, GROUP_COLUMNS, NUMBER, OPERATORS, Argument

COLUMNS = ("close", "open", "volume", "moneyflow.net_cny")
CONSTANTS = (-2.5, -1.0, 0.0, 0.1, 1.0, 2.0, 3.0)
VALUES = (np.nan, -2.0, -1.0, 0.0, 0.1, 0.3, 1.0, 1.0, 2.0, 7.5, 1e-3, 1e9)
BY_RESULT = {
    kind: sorted(name for name, operator in OPERATORS.items() if operator.result == kind)
    for kind in (NUMBER, CONDITION)
}


def expressions() -> st.SearchStrategy[Expression]:
    """Trees at most three operators deep, every operator as likely as any other."""
    return st.integers(0, 2**32 - 1).map(lambda seed: tree(Random(seed), 3))


def tree(random: Random, depth: int, result: str = NUMBER) -> Expression:
    if depth <= 0 and result == NUMBER:
        if random.random() < 0.6:
            return column(random.choice(COLUMNS))
        return constant(random.choice(CONSTANTS))
    operator = OPERATORS[random.choice(BY_RESULT[result])]
    args = [given for argument in operator.arguments for given in chosen(random, argument, depth)]
    if operator.name == "reg_residual":
        args[-1] = constant(len(args) + random.randrange(3))
    if operator.name == "sma":
        args[1:] = sorted(args[1:], key=lambda arg: -arg.value)
    return operation(operator.name, *args)


def chosen(random: Random, argument: Argument, depth: int) -> list[Expression]:
    """What stands for one argument of an operator, mostly one expression."""
    match argument.kind:
        case "window":
            return [constant(random.randint(max(argument.least, 1), 4))]
        case "constant":
            return [constant(random.choice((0.5, 1.0, 2.0)))]
        case "group":
            return [column(random.choice(sorted(GROUP_COLUMNS)))]
        case "condition":
            return [tree(random, depth - 1, CONDITION)]
        case "regressor" if random.random() < 0.3:
            return [operation("sequence")]
        case "sample" | "regressor" if random.random() < 0.3:
            return [operation("filter", tree(random, 0), tree(random, 0, CONDITION))]
    count = random.randint(1, 3) if argument.many else 1
    kinds = (NUMBER, NUMBER, NUMBER, CONDITION)
    return [tree(random, depth - 1, random.choice(kinds)) for _ in range(count)]


@st.composite
def frames(draw, stocks: int = 4, days: int = 9, present: float = 0.9) -> dict:
    """Values with ties, zeros and holes; stocks miss days; the rows come in any order.

    `present` is the chance that a stock has a row on a day.
    """
    seed = draw(st.integers(0, 2**32 - 1))
    random = np.random.default_rng(seed)
    stock, day = (part.ravel() for part in np.meshgrid(np.arange(stocks), np.arange(days)))
    kept = random.permutation(np.flatnonzero(random.random(stock.size) < present))
    frame = {"stock": stock[kept], "day": day[kept]}
    known = 1 + random.integers(len(VALUES) - 1)  # some frames have few values, so many ties
    for name in COLUMNS:
        frame[name] = random.choice(VALUES[:known] if random.random() < 0.3 else VALUES, kept.size)
    for name in sorted(GROUP_COLUMNS):
        frame[name] = random.choice(np.array(["a", "b", None], dtype=object), kept.size)
    return frame
