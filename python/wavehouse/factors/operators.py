"""The one table of operators: names, arguments, kind and meaning.

The parser, the checks of an expression's arguments, its canonical text, its look-back and the table
in docs/factor_language.md all read it. Sources: "A101" is Kakushadze, 101 Formulaic Alphas (2016),
appendix A.1; "GTJA" is Guotai Junan Securities, Multi-factor stock selection from short-term price
and volume (2017), list of functions; "ours" is neither.
"""

import math
from dataclasses import dataclass

NUMBER, CONDITION, GROUP = "number", "condition", "group"
FILTERED, SEQUENCE = "filtered", "sequence"

# what each kind of argument takes; a condition stands for 1 or 0 wherever a number may stand
ACCEPTED = {
    "value": (NUMBER, CONDITION),
    "condition": (CONDITION,),
    "window": (NUMBER,),
    "constant": (NUMBER,),
    "group": (GROUP,),
    "sample": (NUMBER, CONDITION, FILTERED),
    "regressor": (NUMBER, CONDITION, FILTERED, SEQUENCE),
}

# columns that hold a group instead of a number, and the papers' names of them
GROUP_ALIASES = {
    "indclass.sector": "industry_l1",
    "indclass.industry": "industry_l2",
    "indclass.subindustry": "industry_l3",
}
GROUP_COLUMNS = frozenset(GROUP_ALIASES.values())

# how strongly an operator binds, weakest first; what is not listed is written as a call
TERNARY, COMPARISON, NEGATION, CALL = 0, 3, 6, 8
LEVELS = {
    "if": TERNARY,
    "or": 1,
    "and": 2,
    **dict.fromkeys(("<", "<=", ">", ">=", "==", "!="), COMPARISON),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/"), 5),
    "negate": NEGATION,
    "^": 7,
}


@dataclass(frozen=True)
class Argument:
    """One argument of an operator.

    `kind` is a key of ACCEPTED. A window is a constant that is floored and is then at least
    `least`; a constant is more than `above`. `many` stands for one or more arguments.
    """

    name: str
    kind: str = "value"
    least: int = 1
    above: float = -math.inf
    default: float | None = None
    optional: bool = False
    many: bool = False


@dataclass(frozen=True)
class Operator:
    """One line of the table.

    `kind` says where the value comes from: `element` the same row, `series` earlier rows of the
    same stock, `section` all rows of the same day. `reach` is how many rows back a series operator
    looks itself: `window` n - 1, `rows` n, `all` every row before. The order of a `symmetric`
    operator's first two arguments does not matter.
    """

    name: str
    arguments: tuple[Argument, ...]
    kind: str
    meaning: str
    source: str
    aliases: tuple[str, ...] = ()
    result: str = NUMBER
    reach: str = ""
    symmetric: bool = False

    @property
    def signature(self) -> str:
        """How it is written, as `scale(x, a = 1)` or `x + y`."""
        names = [argument.name for argument in self.arguments]
        if self.name == "if":
            return "c ? x : y"
        if self.name == "negate":
            return "-x"
        if self.name in LEVELS:
            return f" {self.name} ".join(names)
        written = []
        for argument in self.arguments:
            text = argument.name
            if argument.many:
                text += ", ..."
            if argument.default is not None:
                text += f" = {argument.default:g}"
            elif argument.optional:
                text = f"[{text}]"
            written.append(text)
        return f"{self.name}({', '.join(written)})" if written else self.name

    @property
    def arity(self) -> tuple[int, float]:
        """The least and the largest number of arguments."""
        least = sum(not argument.optional for argument in self.arguments)
        endless = any(argument.many for argument in self.arguments)
        return least, math.inf if endless else len(self.arguments)

    def matched(self, count: int) -> list[Argument]:
        """The argument that each of `count` given ones stands for."""
        extra = max(0, count - len(self.arguments))
        matched = []
        for argument in self.arguments:
            matched += [argument] * (1 + extra if argument.many else 1)
        return matched[:count]


X, Y, C = Argument("x"), Argument("y"), Argument("c", "condition")
N, N2 = Argument("n", "window"), Argument("n", "window", least=2)


def _element(
    name: str, signature: tuple, meaning: str, source: str = "A101, GTJA", **more
) -> Operator:
    return Operator(name, signature, "element", meaning, source, **more)


def _series(
    name: str, signature: tuple, meaning: str, source: str = "A101, GTJA", **more
) -> Operator:
    return Operator(name, signature, "series", meaning, source, **{"reach": "window", **more})


def _section(name: str, signature: tuple, meaning: str, source: str = "ours", **more) -> Operator:
    return Operator(name, signature, "section", meaning, source, **more)


_OPERATORS = (
    _element("+", (X, Y), "Sum of two.", symmetric=True),
    _element("-", (X, Y), "Difference."),
    _element("*", (X, Y), "Product of two.", symmetric=True),
    _element("/", (X, Y), "Quotient; NULL where y is 0."),
    _element(
        "^",
        (X, Y),
        "x to the power y; NULL where x < 0 and y is no integer, and where x = 0 and y < 0.",
    ),
    _element("negate", (X,), "x with the other sign."),
    _element("<", (X, Y), "Whether x is less than y.", result=CONDITION),
    _element("<=", (X, Y), "Whether x is at most y.", result=CONDITION),
    _element(">", (X, Y), "Whether x is more than y.", result=CONDITION),
    _element(">=", (X, Y), "Whether x is at least y.", result=CONDITION),
    _element(
        "==",
        (X, Y),
        "Whether both are equal, to the last bit.",
        aliases=("=",),
        result=CONDITION,
        symmetric=True,
    ),
    _element(
        "!=",
        (X, Y),
        "Whether they differ.",
        "ours",
        aliases=("<>",),
        result=CONDITION,
        symmetric=True,
    ),
    _element(
        "and",
        (C, Argument("d", "condition")),
        "Whether both hold; NULL where either is, even if the other is false.",
        aliases=("&", "&&"),
        result=CONDITION,
        symmetric=True,
    ),
    _element(
        "or",
        (C, Argument("d", "condition")),
        "Whether one holds; NULL where either is, even if the other is true.",
        aliases=("|", "||"),
        result=CONDITION,
        symmetric=True,
    ),
    _element(
        "if",
        (C, X, Y),
        "x where c holds, y where it does not, NULL where c is unknown; the branch not taken may "
        "be NULL. Also `if(c, x, y)`.",
    ),
    _element("abs", (X,), "Absolute value."),
    _element("sign", (X,), "1, 0 or -1."),
    _element("log", (X,), "Natural logarithm; NULL where x <= 0."),
    _element("sqrt", (X,), "Square root; NULL where x < 0.", "ours"),
    _element("exp", (X,), "e to the power x; NULL where that is too large for a double.", "ours"),
    _element(
        "signed_power",
        (X, Argument("e")),
        "sign(x) * abs(x)^e; NULL where x = 0 and e < 0. A101 writes x^a and means this.",
        "A101",
        aliases=("signedpower",),
    ),
    _element(
        "min",
        (X, Y),
        "The lesser of two. With a constant >= 1 second and no constant first it is ts_min.",
        symmetric=True,
    ),
    _element(
        "max",
        (X, Y),
        "The greater of two. With a constant >= 1 second and no constant first it is ts_max.",
        symmetric=True,
    ),
    _series(
        "delay",
        (X, Argument("n", "window", least=0, default=1, optional=True)),
        "x of n rows back; NULL on the first n rows.",
        reach="rows",
    ),
    _series(
        "delta",
        (X, Argument("n", "window", default=1, optional=True)),
        "x - delay(x, n).",
        reach="rows",
    ),
    _series("sum", (X, N), "Sum.", aliases=("ts_sum",)),
    _series("mean", (X, N), "Mean.", "GTJA", aliases=("ma", "ts_mean")),
    _series(
        "stddev",
        (X, N2),
        "Standard deviation, ddof 1; exactly 0 where x is constant.",
        aliases=("std", "ts_std"),
    ),
    _series(
        "variance",
        (X, N2),
        "Variance, ddof 1; exactly 0 where x is constant.",
        "ours",
        aliases=("var",),
    ),
    _series("ts_min", (X, N), "Least value.", aliases=("tsmin",)),
    _series("ts_max", (X, N), "Greatest value.", aliases=("tsmax",)),
    _series(
        "ts_argmax",
        (X, N),
        "Where the greatest value is: 1 (oldest row) to n (today); the oldest of equal ones.",
        "A101",
        aliases=("tsargmax",),
    ),
    _series(
        "ts_argmin",
        (X, N),
        "Where the least value is: 1 (oldest row) to n (today); the oldest of equal ones.",
        "A101",
        aliases=("tsargmin",),
    ),
    _series(
        "high_day",
        (X, N),
        "Rows since the greatest value, 0 to n - 1: n - ts_argmax(x, n).",
        "GTJA",
        aliases=("highday",),
    ),
    _series(
        "low_day",
        (X, N),
        "Rows since the least value, 0 to n - 1: n - ts_argmin(x, n).",
        "GTJA",
        aliases=("lowday",),
    ),
    _series(
        "ts_rank",
        (X, N),
        "Average rank of today's value among the n, divided by n: in (0, 1]. Values are rounded to "
        "40 significant bits first.",
        aliases=("tsrank",),
    ),
    _series("product", (X, N), "Product.", aliases=("prod", "ts_product")),
    _series(
        "correlation",
        (X, Y, N2),
        "Pearson correlation, rounded to 12 decimals; NULL where x or y is constant.",
        aliases=("corr", "ts_corr"),
        symmetric=True,
    ),
    _series(
        "covariance",
        (X, Y, N2),
        "Covariance, ddof 1; exactly 0 where x or y is constant, or where it is below 1e-12 of the "
        "product of both deviations.",
        aliases=("coviance", "cov", "ts_cov"),
        symmetric=True,
    ),
    _series("count", (C, N), "In how many rows c holds.", "GTJA"),
    _series(
        "sum_if",
        (X, C, N),
        "Sum over the rows where c holds; x may be NULL in the others. Also in the paper's order, "
        "`SUMIF(x, n, c)`.",
        "GTJA",
        aliases=("sumif",),
    ),
    _series(
        "decay_linear",
        (X, N),
        "Weighted mean, weights n (today) to 1 (oldest), divided by n (n + 1) / 2.",
        aliases=("decaylinear", "ts_decay_linear"),
    ),
    _series(
        "wma",
        (X, N),
        "Weighted mean, weight 0.9^i for the row i back, divided by the sum of the weights.",
        "GTJA",
    ),
    _series(
        "sma",
        (X, Argument("n", "constant", above=0), Argument("m", "constant", above=0)),
        "Y = (m x + (n - m) Y') / n with Y' the value before, from Y = the first known x on; "
        "m <= n. A row with unknown x is NULL and leaves Y' as it was.",
        "GTJA",
        reach="all",
    ),
    _series(
        "skew",
        (X, N2),
        "Skewness of the population; NULL where x is constant.",
        "ours",
        aliases=("ts_skew",),
    ),
    _series(
        "kurt",
        (X, N2),
        "Excess kurtosis of the population; NULL where x is constant.",
        "ours",
        aliases=("ts_kurt",),
    ),
    _series("median", (X, N), "Median: the mean of the middle two where n is even.", "ours"),
    _series(
        "reg_beta",
        (
            Argument("y", "sample"),
            Argument("x", "regressor"),
            Argument("n", "window", least=2, optional=True),
        ),
        "Slope of y on x; NULL where x is constant. x may be `sequence`: 1 (oldest row) to n "
        "(today); `sequence(n)` gives the window. With `filter`, over the rows that it leaves; "
        "NULL where these are fewer than 3.",
        "GTJA",
        aliases=("regbeta",),
    ),
    _series(
        "reg_residual",
        (Argument("y"), Argument("x", many=True), N2),
        "Residual of today's row in the regression of y on an intercept and x, ...; n is at least "
        "their number + 2. NULL where an x is constant, or follows from those before it (R squared "
        "of at least 1 - 1e-10).",
        "GTJA",
        aliases=("regresi",),
    ),
    _series(
        "filter",
        (X, C),
        "The rows of a window where c holds, in `reg_beta` only: c must be known in all rows, x "
        "where c holds. With one on both sides, the rows where both hold.",
        "GTJA",
        result=FILTERED,
        reach="",
    ),
    _series(
        "sequence",
        (Argument("n", "window", least=2, optional=True),),
        "1 (oldest row) to n (today), as the x of `reg_beta` only.",
        "GTJA",
        result=SEQUENCE,
        reach="",
    ),
    _series(
        "self",
        (Argument("initial", "constant"), Argument("factor")),
        "Y = Y' * factor with Y' the value before, `initial` before the first known factor. A row "
        "with unknown factor is NULL and leaves Y' as it was.",
        "GTJA 143",
        reach="all",
    ),
    _series(
        "event_decay",
        (C, Argument("tau", "constant", above=0), Argument("n", "window", least=0)),
        "Sum over the n + 1 rows i = 0 (today) to n back of exp(-i / tau) where c holds; an "
        "unknown c counts as no event. NULL before there are n + 1 rows.",
        "ours",
        reach="rows",
    ),
    _section(
        "rank",
        (X,),
        "Average rank among the day's known values, divided by their number: in (0, 1]. Values are "
        "rounded to 40 significant bits first.",
        "A101, GTJA",
        aliases=("cs_rank",),
    ),
    _section(
        "scale",
        (X, Argument("a", "constant", default=1, optional=True)),
        "a x / the sum of abs(x); NULL where that sum is 0.",
        "A101",
        aliases=("cs_scale",),
    ),
    _section(
        "ind_neutralize",
        (X, Argument("g", "group")),
        "x - its mean over the day's rows of the same group; NULL where the group is unknown.",
        "A101",
        aliases=("indneutralize",),
    ),
    _section(
        "zscore",
        (X,),
        "(x - mean) / standard deviation of the population; NULL where x is constant that day.",
        aliases=("cs_zscore",),
    ),
    _section("cs_mean", (X,), "Mean of the day's known values, in all rows of the day."),
    _section("cs_median", (X,), "Median of the day's known values, in all rows of the day."),
    _section(
        "cs_mean_if",
        (X, C),
        "Mean of the day's known values where c holds, in all rows of the day; NULL where it holds "
        "nowhere.",
    ),
)

OPERATORS = {operator.name: operator for operator in _OPERATORS}
CALLED = {
    name: operator.name
    for operator in _OPERATORS
    if operator.name == "if" or operator.name not in LEVELS
    for name in (operator.name, *operator.aliases)
}
INFIX = {
    name: operator.name
    for operator in _OPERATORS
    if operator.name in LEVELS and operator.name not in ("if", "negate")
    for name in (operator.name, *operator.aliases)
}


def semantics_table() -> str:
    """The operators as a Markdown table, in the order of OPERATORS."""
    lines = [
        "| written | also | kind | gives | meaning | source |",
        "|---|---|---|---|---|---|",
    ]
    for operator in OPERATORS.values():
        cells = (
            f"`{operator.signature}`",
            ", ".join(f"`{alias}`" for alias in operator.aliases),
            operator.kind,
            operator.result,
            operator.meaning,
            operator.source,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
