"""Operators of the language as the few window functions and scalar expressions that SQL has.

`lower` turns an expression into primitives: nodes whose SQL is a short template over their
arguments. Equal primitives are one object, so that all factors share them.

Two facts are kept of each primitive. One whose value is `total` is unknown in the first `warm` rows
of a stock and nowhere else. Then nothing has to be counted: windows run over the first rows too,
and `known` blanks them once, where a cross section or a factor reads the value. Any other
primitive is NULL wherever it is unknown.
"""

import math
import re
from dataclasses import dataclass, field

from wavehouse.factors.expression import Expression, walk
from wavehouse.factors.operators import CONDITION, OPERATORS

COLUMN, CONSTANT, ELEMENT = "column", "constant", "element"
SERIES, SECTION, RECURSION = "series", "section", "recursion"
PLACE = re.compile(r"\{(\d+)\}")  # of an argument in the SQL of a primitive
ROUNDED = "({0} * 8193 - ({0} * 8193 - {0}))"  # to 40 significant bits, if nothing overflows
UNROLLED = 12  # rows up to which a weighted window is cheaper as so many lags
LEAST_WEIGHT = 1e-17  # of a value in a recursion, below which it no longer counts
BLOCK_ROWS = 1_100
WMA_RATE = 0.9
# numbers from 2^a to 2^b, times 2^c, are integers whose sum over 16,000 rows is one of 128 bits
BINS = ((-80, -20, 132), (-20, 40, 72), (40, 100, 12))


@dataclass(frozen=True, eq=False)
class Primitive:
    """One node: `sql` with {0}, {1}, ... for the arguments.

    `frame` of a series primitive is the number of rows of its window, or `before` (all rows up to
    today), `earlier` (all rows up to the one before), `row` (no frame), or of a lag over an ordered
    table the range of rows back that it reads. `frame` of a section
    primitive is `place` (among the day's rows by value), `value` (all rows of the day, by value) or
    `group` (aggregates of all, in any order, with {over} behind each). The argument `group` is what
    divides them, or a stock's rows, further.
    """

    kind: str
    sql: str
    args: tuple["Primitive", ...] = ()
    frame: int | str | range | None = None
    group: "Primitive | None" = None
    total: bool = True
    warm: int = 0
    is_condition: bool = False

    @property
    def reads(self) -> tuple["Primitive", ...]:
        """Every primitive that this one reads."""
        return self.args if self.group is None else (*self.args, self.group)


def doublings(rows: int) -> list[tuple[int, int]]:
    """Blocks that rows consist of, the largest and newest first: rows back, power of 2."""
    found, back = [], 0
    for power in reversed(range(rows.bit_length())):
        if rows >> power & 1:
            found.append((back, power))
            back += 2**power
    return found


def tree(terms: list[str], sign: str = "+") -> str:
    """Terms joined in blocks of 2, 4, 8, ..., then the blocks: nearly as exact as in pairs."""
    joined = ""
    for back, power in doublings(len(terms)):
        block = terms[back : back + 2**power]
        while len(block) > 1:
            block = [f"({a} {sign} {b})" for a, b in zip(block[::2], block[1::2], strict=True)]
        joined = f"({joined} {sign} {block[0]})" if joined else block[0]
    return joined


def places(rows: int, start: int = 0) -> list[str]:
    """Arguments of a primitive, as its SQL names them."""
    return [f"{{{place}}}" for place in range(start, start + rows)]


def products_of_distances(rows: int) -> list[str]:
    """Of rows of x, then as many of y, from their means, which are the two arguments after them."""
    return [
        f"({x} - {{{2 * rows}}}) * ({y} - {{{2 * rows + 1}}})"
        for x, y in zip(places(rows), places(rows, rows), strict=True)
    ]


def exact_sum(value: str) -> str:
    """Sum of numbers that does not depend on their order, as a sum of doubles does.

    Integers are summed: of small, medium and large numbers, each in units that are as small as the
    last bit of the least of them. What is smaller than 2^-80 or at least 2^100 is summed as it is.
    `{over}` is left to be filled in.
    """
    sums, size = [], f"abs({value})"
    for low, high, unit in BINS:
        units = f"{2.0**unit!r}::double"
        inside = f"{size} >= {2.0**low!r}::double and {size} < {2.0**high!r}::double"
        sums.append(
            f"coalesce(sum(case when {inside} then ({value} * {units})::hugeint end)"
            f"{{over}}::double / {units}, 0)"
        )
    least, most = f"{2.0 ** BINS[0][0]!r}::double", f"{2.0 ** BINS[-1][1]!r}::double"
    beyond = f"case when {size} < {least} or {size} >= {most} then {value} end"
    sums.append(f"coalesce(sum({beyond}){{over}}, 0)")
    return f"({' + '.join(sums)})"


def constant_of(primitive: Primitive) -> float:
    """The number that a constant primitive stands for."""
    return float(primitive.sql.strip("()").split("::")[0])


@dataclass
class Lowering:
    """Primitives of expressions over `columns`: {name: first rows without a value, None: any}."""

    columns: dict[str, int | None]
    made: dict[tuple, Primitive] = field(default_factory=dict)
    lowered: dict[Expression, Primitive] = field(default_factory=dict)

    @property
    def longest_unrolled(self) -> int:
        """Rows up to which a weighted window is written as so many lags."""
        return UNROLLED

    def factor(self, expression: Expression) -> Primitive:
        """A factor's value: finite or NULL."""
        value = self.known(self.number(self.lower(expression)))
        return self.finite(value)

    def lower(self, expression: Expression) -> Primitive:
        """The primitive of an expression, which is normalised."""
        for node in walk(expression):
            if node not in self.lowered and node.op not in ("filter", "sequence"):
                self.lowered[node] = self._lower(node)
        return self.lowered[expression]

    # making primitives

    def make(self, kind: str, sql: str, *args: Primitive, **facts) -> Primitive:
        """The one primitive of this kind, SQL and arguments."""
        frame, group = facts.get("frame"), facts.get("group")
        key = (kind, sql, args, frame, group)
        if key not in self.made:
            self.made[key] = Primitive(kind, sql, args, **facts)
        return self.made[key]

    def column(self, name: str) -> Primitive:
        """A column of the inputs."""
        if name not in self.columns:
            raise KeyError(f"there is no column {name} in the inputs of factors")
        warm = self.columns[name]
        return self.make(COLUMN, name.replace(".", "__"), total=warm is not None, warm=warm or 0)

    def element(self, sql: str, *args: Primitive, partial=False, condition=False) -> Primitive:
        """A scalar expression that is NULL where an argument is, and where it says so itself."""
        warm = max((arg.warm for arg in args), default=0)
        if all(arg.total for arg in args) and not partial:
            return self.make(ELEMENT, sql, *args, warm=warm, is_condition=condition)
        if warm:
            sql, args = self.blanked(sql, len(args), warm), (*args, self.stock_row)
        return self.make(ELEMENT, sql, *args, total=False, is_condition=condition)

    def explicit(self, sql: str, *args: Primitive, condition=False) -> Primitive:
        """A scalar expression of values that are NULL where they are unknown."""
        args = tuple(self.known(arg) for arg in args)
        return self.make(ELEMENT, sql, *args, total=False, is_condition=condition)

    def series(self, sql: str, frame: int | str, *args: Primitive, group=None) -> Primitive:
        """A window function over a stock's rows, whatever is unknown in them."""
        warm = max((arg.warm for arg in args), default=0)
        more = frame - 1 if isinstance(frame, int) else 0
        return self.make(SERIES, sql, *args, frame=frame, group=group, warm=warm + more)

    def section(self, sql: str, order: str, *args: Primitive, group=None) -> Primitive:
        """A window function over the rows of a day."""
        args = tuple(self.known(arg) for arg in args)
        facts = {"frame": order, "group": group, "total": False}
        return self.make(SECTION, sql, *args, **facts)

    def aggregates(self, sql: str, x: Primitive, group: Primitive | None = None) -> Primitive:
        """Aggregates over the rows of a day, and of a group there, whose order does not matter."""
        return self.section(sql, "group", x, group=group)

    def day_sum(self, sql: str, x: Primitive) -> Primitive:
        """Exact sum of a scalar expression over the rows of a day, NULL where none is known."""
        return self.aggregates(f"case when count({{0}}){{over}} > 0 then {exact_sum(sql)} end", x)

    def day_mean(self, x: Primitive, group: Primitive | None = None) -> Primitive:
        """Mean, exactly summed, over the rows of a day, and of a group there."""
        return self.aggregates(f"({exact_sum('{0}')} / nullif(count({{0}}){{over}}, 0))", x, group)

    def blanked(self, sql: str, place: int, warm: int) -> str:
        """The SQL, NULL in the stock's first rows; argument `place` is stock_row."""
        return f"case when {{{place}}} > {warm} then {sql} end"

    def known(self, value: Primitive) -> Primitive:
        """The same value, NULL wherever it is unknown."""
        if not value.total or not value.warm:
            return value
        sql = self.blanked("{0}", 1, value.warm)
        facts = {"total": False, "is_condition": value.is_condition}
        return self.make(ELEMENT, sql, value, self.stock_row, **facts)

    def finite(self, value: Primitive) -> Primitive:
        """The same value, NULL where it is NaN or infinite."""
        sql = "case when isfinite({0}) then {0} end"
        return self.make(ELEMENT, sql, value, total=False)

    def moderate(self, value: Primitive) -> Primitive:
        """Numbers whose fourth power is one: DuckDB raises where a higher moment overflows."""
        sql = "case when abs({0}) < 1e75::double then {0} end"
        return self.explicit(sql, self.number(value))

    def number(self, value: Primitive) -> Primitive:
        """A condition as 1 or 0."""
        return self.element("({0})::double", value) if value.is_condition else value

    @property
    def stock_row(self) -> Primitive:
        """1 on the stock's first row, 2 on its second, ..."""
        return self.make(COLUMN, "stock_row")

    def window(self, sql: str, rows: int, *args: Primitive, jointly=False) -> Primitive:
        """A window function that is unknown where one of the rows is.

        jointly: the arguments are unknown on the same rows, so that one of them is counted.
        """
        args = tuple(self.number(arg) for arg in args)
        if all(arg.total for arg in args):
            return self.series(sql, rows, *args)
        args = tuple(self.known(arg) for arg in args)
        value = self.series(sql, rows, *args)
        counted = "count({0})" if len(args) == 1 or jointly else "regr_count({0}, {1})"
        return self.explicit_of(rows, value, self.series(counted, rows, *args))

    def explicit_of(self, rows: int, value: Primitive, count: Primitive) -> Primitive:
        """A value, NULL where fewer of its rows were counted."""
        sql = f"case when {{1}} = {rows} then {{0}} end"
        return self.make(ELEMENT, sql, value, count, total=False)

    # what several operators need

    def of_lags(self, sql: str, rows: int, x: Primitive) -> Primitive:
        """A scalar expression of x today ({0}), on the row before ({1}), ..., NULL where one is."""
        return self.element(sql, *(self.lag(x, back) for back in range(rows)))

    def lag(self, value: Primitive, rows: int) -> Primitive:
        """The value so many rows before."""
        if not rows:
            return value
        facts = {"total": value.total, "warm": value.warm + rows if value.total else 0}
        sql = f"lag({{0}}, {rows})"
        return self.make(SERIES, sql, value, frame="row", is_condition=value.is_condition, **facts)

    def moves(self, n: int, x: Primitive) -> Primitive:
        """Whether x has more than one value in a window, once rounded; of known values only."""
        value = self.rounded(x)
        if 1 < n <= self.longest_unrolled:
            equal = " and ".join(f"{{0}} = {{{back}}}" for back in range(1, n))
            lags = [self.lag(value, back) for back in range(1, n)]
            return self.make(ELEMENT, f"(not ({equal}))", value, *lags)
        least, most = (self.series(f"{name}({{0}})", n, value) for name in ("min", "max"))
        return self.make(ELEMENT, "({0} < {1})", least, most)

    def unless_constant(self, sql: str, rows: int, *args: Primitive, otherwise="null") -> Primitive:
        """sql of args[0], or `otherwise` where one of the others has the same value in all rows."""
        value, *watched = args
        moving = [self.moves(rows, each) for each in watched]
        conditions = " and ".join(f"{{{place + 1}}}" for place in range(len(moving)))
        sql = f"case when {conditions} then {sql} else {otherwise} end"
        if value.total and otherwise != "null":
            return self.make(ELEMENT, sql, value, *moving, warm=value.warm)
        if otherwise != "null":
            sql = f"case when {{0}} is not null then {sql} end"
        return self.make(ELEMENT, sql, self.known(value), *moving, total=False)

    def rounded(self, value: Primitive) -> Primitive:
        """To 40 significant bits, some 12 digits: what lies closer together is float noise."""
        return self.element(ROUNDED, value)

    # one operator each

    def _lower(self, node: Expression) -> Primitive:
        if node.op == "column":
            return self.column(node.value)
        if node.op == "constant":
            whole = node.value.is_integer() and abs(node.value) < 1e15
            text = str(int(node.value)) if whole else f"{node.value!r}::double"
            return self.make(CONSTANT, f"({text})" if node.value < 0 else text)
        if node.op == "reg_beta":
            return self._reg_beta(*node.args)
        matched = OPERATORS[node.op].matched(len(node.args))
        values, constants = [], []
        for argument, arg in zip(matched, node.args, strict=True):
            if argument.kind in ("window", "constant"):
                number = arg.value
                constants.append(int(number) if float(number).is_integer() else number)
            else:
                value = self.lowered[arg]
                if argument.kind != "condition" and arg.type == CONDITION:
                    value = self.number(value)
                values.append(value)
        return getattr(self, f"_{NAMES.get(node.op, node.op)}")(*values, *constants)

    def _add(self, x, y):
        return self.element("({0} + {1})", x, y)

    def _subtract(self, x, y):
        return self.element("({0} - {1})", x, y)

    def _multiply(self, x, y):
        return self.element("({0} * {1})", x, y)

    def _divide(self, x, y):
        if y.kind == CONSTANT and constant_of(y):
            return self.element("({0} / {1})", x, y)
        return self.element("({0} / nullif({1}, 0))", x, y, partial=True)

    def _power(self, x, y):
        power = "power({0}, {1})"
        allowed = (
            "({0} > 0 or ({1} = floor({1}) and ({0} <> 0 or {1} >= 0)) or ({0} = 0 and {1} > 0))"
        )
        if y.kind == CONSTANT and constant_of(y) >= 1 and constant_of(y).is_integer():
            return self.element(power, x, y)
        return self.finite(
            self.element(f"case when {allowed} then {power} end", x, y, partial=True)
        )

    def _signed_power(self, x, e):
        return self._multiply(self._sign(x), self._power(self._abs(x), e))

    def _negate(self, x):
        return self.element("(-{0})", x)

    def _compare(self, sign, x, y):
        return self.element(f"({{0}} {sign} {{1}})", x, y, condition=True)

    def _less(self, x, y):
        return self._compare("<", x, y)

    def _at_most(self, x, y):
        return self._compare("<=", x, y)

    def _more(self, x, y):
        return self._compare(">", x, y)

    def _at_least(self, x, y):
        return self._compare(">=", x, y)

    def _equal(self, x, y):
        return self._compare("=", x, y)

    def _differ(self, x, y):
        return self._compare("<>", x, y)

    def _logical(self, word, c, d):
        if c.total and d.total:
            return self.element(f"({{0}} {word} {{1}})", c, d, condition=True)
        # SQL knows `false and NULL`; the language does not
        sql = f"case when {{0}} is not null and {{1}} is not null then ({{0}} {word} {{1}}) end"
        return self.explicit(sql, c, d, condition=True)

    def _and(self, c, d):
        return self._logical("and", c, d)

    def _or(self, c, d):
        return self._logical("or", c, d)

    def _if(self, c, x, y):
        sql = "case when {0} then {1} when not {0} then {2} end"
        if c.total and x.total and y.total and c.warm >= max(x.warm, y.warm):
            return self.element(sql, c, x, y)
        return self.explicit(sql, c, x, y)

    def _abs(self, x):
        return self.element("abs({0})", x)

    def _sign(self, x):
        return self.element("sign({0})::double", x)

    def _log(self, x):
        return self.element("case when {0} > 0 then ln({0}) end", x, partial=True)

    def _sqrt(self, x):
        return self.element("case when {0} >= 0 then sqrt({0}) end", x, partial=True)

    def _exp(self, x):
        return self.finite(self.element("exp({0})", x, partial=True))

    def _min(self, x, y):
        return self.element("case when {0} < {1} then {0} when {0} >= {1} then {1} end", x, y)

    def _max(self, x, y):
        return self.element("case when {0} > {1} then {0} when {0} <= {1} then {1} end", x, y)

    def _delay(self, x, n):
        return self.lag(x, n)

    def _delta(self, x, n):
        return self._subtract(x, self.lag(x, n))

    def _sum(self, x, n):
        return self.window("sum({0})", n, x)

    def _mean(self, x, n):
        return self.window("avg({0})", n, x)

    def _stddev(self, x, n):
        x = self.number(x)
        return self.unless_constant(
            "{0}", n, self.window("stddev_samp({0})", n, x), x, otherwise="0"
        )

    def _variance(self, x, n):
        x = self.number(x)
        return self.unless_constant("{0}", n, self.window("var_samp({0})", n, x), x, otherwise="0")

    def _ts_min(self, x, n):
        return self.window("min({0})", n, x)

    def _ts_max(self, x, n):
        return self.window("max({0})", n, x)

    def _position(self, function, x, n):
        """Of the oldest extreme: the paper's 1 to n."""
        x = self.known(x) if not x.total else x
        row = self.series(f"{function}({{1}}, {{0}})", n, x, self.stock_row)
        if not x.total:
            row = self.explicit_of(n, row, self.series("count({0})", n, x))
        return self.element(f"({{0}} - {{1}} + {n})::double", row, self.stock_row)

    def _ts_argmax(self, x, n):
        return self._position("arg_max", x, n)

    def _ts_argmin(self, x, n):
        return self._position("arg_min", x, n)

    def _high_day(self, x, n):
        return self.element(f"({n} - {{0}})", self._ts_argmax(x, n))

    def _low_day(self, x, n):
        return self.element(f"({n} - {{0}})", self._ts_argmin(x, n))

    def _ts_rank(self, x, n):
        x = self.rounded(x)
        if n == 1:
            return self.element("case when {0} is not null then 1::double end", x)
        if n <= self.longest_unrolled:
            places = [f"{{{place}}}" for place in range(1, n)]
            less = " + ".join(
                f"case when {place} < {{0}} then 2 when {place} = {{0}} then 1"
                f" when {place} > {{0}} then 0 end"
                for place in places
            )
            return self.of_lags(f"(2 + {less}) / {2 * n}", n, x)
        x = self.known(x) if not x.total else x
        smaller = self.series("rank(order by {0})", n, x)
        upto = self.series("cume_dist(order by {0})", n, x)
        sql = f"({{0}} + {{1}} * {n}) / {2 * n}"
        if x.total:
            return self.element(sql, smaller, upto)
        count = self.series("count({0})", n, x)
        sql = f"case when {{2}} = {n} then {sql} end"
        return self.make(ELEMENT, sql, smaller, upto, count, total=False)

    def _product(self, x, n):
        return self.finite(self.known(self.window("product({0})", n, x)))

    def _correlation(self, x, y, n):
        x, y = self.number(x), self.number(y)
        if n == 2:  # two points lie on a line: its direction is all there is
            before = (self.lag(x, 1), self.lag(y, 1))
            value = self.element("sign({0} - {2}) * sign({1} - {3})", x, y, *before)
            return self.unless_constant("{0}", n, value, x, y)
        value = self.window("corr({0}, {1})", n, x, y)
        sql = "case when isfinite({0}) then round({0}, 12) end"
        return self.unless_constant(sql, n, value, x, y)

    def _covariance(self, x, y, n):
        """Float noise, by the scale of both deviations, is no covariance."""
        x, y = self.number(x), self.number(y)
        deviations = self._multiply(self._stddev(x, n), self._stddev(y, n))
        value = self.element(f"({{0}} / {n - 1})", self.joint(n, x, y))
        sql = "case when {1} = 0 or abs({0}) <= 1e-12::double * {1} then 0 else {0} end"
        return self.explicit(sql, value, deviations)

    def joint(self, n: int, x: Primitive, y: Primitive) -> Primitive:
        """Sum of the products of both distances from the mean in a window."""
        if n > UNROLLED:
            return self.element(f"({{0}} * {n})", self.window("covar_pop({0}, {1})", n, x, y))
        sides = [[self.lag(side, back) for back in range(n)] for side in (x, y)]
        means = [self.element(f"({tree(places(n))} / {n})", *lags) for lags in sides]
        sql = f"({' + '.join(products_of_distances(n))})"
        return self.element(sql, *sides[0], *sides[1], *means)

    def _count(self, c, n):
        return self.window("sum({0})", n, c)

    def _sum_if(self, x, c, n):
        return self._sum(self._if(c, x, self.make(CONSTANT, "0")), n)

    def _decay_linear(self, x, n):
        x, weights = self.number(x), n * (n + 1) // 2
        if n <= self.longest_unrolled:
            terms = " + ".join(f"{n - rows} * {{{rows}}}" for rows in range(n))
            return self.of_lags(f"({terms}) / {weights}", n, x)
        numbered = self.window("sum({0})", n, self.element("{0} * {1}", x, self.stock_row))
        summed = self.window("sum({0})", n, x)
        sql = f"({{0}} - ({{2}} - {n}) * {{1}}) / {weights}"
        return self.element(sql, numbered, summed, self.stock_row)

    def _wma(self, x, n):
        x, whole = self.number(x), math.fsum(WMA_RATE**rows for rows in range(n))
        terms = " + ".join(f"{WMA_RATE**rows!r}::double * {{{rows}}}" for rows in range(n))
        return self.of_lags(f"({terms}) / {whole!r}::double", n, x)

    def _sma(self, x, n, m):
        share = m / n
        if share == 1:
            return x
        keep = math.log1p(-share)
        block_rows = max(2, min(math.ceil(math.log(LEAST_WEIGHT) / keep), 10**6))
        if block_rows <= BLOCK_ROWS and -keep * BLOCK_ROWS < 650:
            block_rows = BLOCK_ROWS
        first = x.warm + 1
        if x.total:
            number = self.stock_row
            is_first = f"{{1}} = {first}"
            given = self.known(x)
        else:
            given = x
            number = self.make(SERIES, "count({0})", x, frame="before")
            is_first = "{1} = 1"
        offset = f"(({{1}} - 1) % {block_rows})"
        weighted = self.make(
            ELEMENT,
            f"case when {is_first} then {{0}} / {share!r}::double else {{0}} end"
            f" * exp({offset} * {-keep!r}::double)",
            given,
            number,
            total=False,
        )
        block = self.make(ELEMENT, f"(({{0}} - 1) // {block_rows})", number)
        summed = self.make(SERIES, "sum({0})", weighted, frame="before", group=block)
        own = self.make(
            ELEMENT,
            f"case when {{2}} is not null then"
            f" {share!r}::double * {{0}} * exp({offset} * {keep!r}::double) end",
            summed,
            number,
            given,
            total=False,
        )
        end = self.make(
            ELEMENT,
            f"case when {offset} = {block_rows - 1} then {{0}} end",
            own,
            number,
            total=False,
        )
        before = self.make(SERIES, "last_value({0} ignore nulls)", end, frame="earlier")
        return self.make(
            ELEMENT,
            f"({{0}} + coalesce({{2}}, 0) * exp(({offset} + 1) * {keep!r}::double))",
            own,
            number,
            before,
            total=x.total,
            warm=x.warm,
        )

    def _skew(self, x, n):
        if n == 2:  # two points lie even
            even = "case when {0} is not null then 0::double end"
            return self.unless_constant(even, n, self.window("avg({0})", n, x), self.number(x))
        # DuckDB's skewness is that of a sample
        biased = f"{{0}} * {(n - 2) / math.sqrt(n * (n - 1))!r}::double"
        x = self.moderate(x)
        return self.unless_constant(biased, n, self.window("skewness({0})", n, x), x)

    def _kurt(self, x, n):
        x = self.moderate(x)
        return self.unless_constant("{0}", n, self.window("kurtosis_pop({0})", n, x), x)

    def _median(self, x, n):
        return self.window("median({0})", n, x)

    def _reg_beta(self, y, x, window):
        n = int(window.value)
        conditions = [self.lowered[side.args[1]] for side in (y, x) if side.op == "filter"]
        if x.op == "sequence" and not conditions:
            return self.window("regr_slope({0}, {1})", n, self.lowered[y], self.stock_row)
        sides = []
        for side in (y, x):
            inner = side.args[0] if side.op == "filter" else side
            sides.append(
                self.stock_row if inner.op == "sequence" else self.number(self.lowered[inner])
            )
        if not conditions:
            slope = self.window("regr_slope({0}, {1})", n, *sides)
            return self.unless_constant("{0}", n, slope, sides[1])
        kept = conditions[0] if len(conditions) == 1 else self._and(*conditions)
        return self.filtered_slope(*sides, self.known(kept), n)

    def filtered_slope(self, y, x, kept, n):
        """Slope of y on x over those of n rows that are kept."""
        y, x = (self.explicit("case when {1} then {0} end", side, kept) for side in (y, x))
        slope = self.series("regr_slope({0}, {1})", n, y, x)
        # every condition known, no value missing where it holds, and something to regress on
        seen = self.explicit(
            "case when {0} is null or ({0} and ({1} is null or {2} is null)) then null else 0 end",
            kept,
            y,
            x,
        )
        usable = self.series("count({0})", n, seen)
        pairs = self.series("regr_count({0}, {1})", n, y, x)
        lowest, highest = self.series("min({0})", n, x), self.series("max({0})", n, x)
        sql = f"case when {{1}} = {n} and {{2}} >= 3 and {{3}} < {{4}} then {{0}} end"
        return self.make(ELEMENT, sql, slope, usable, pairs, lowest, highest, total=False)

    def _reg_residual(self, y, *arguments):
        *regressors, n = arguments
        values = [self.number(value) for value in (y, *regressors)]
        if not all(value.total for value in values):
            known = [self.known(value) for value in values]
            whole = " and ".join(f"{{{place}}} is not null" for place in range(len(known)))
            values = [
                self.make(ELEMENT, f"case when {whole} then {{{place}}} end", *known, total=False)
                for place in range(len(known))
            ]

        y, regressors = values[0], values[1:]
        shares: list[list[Primitive]] = []  # of each regressor, what those before it explain

        def centred(x):
            return self._subtract(x, self.window("avg({0})", n, x))

        def covariance(place, other):
            """Of what is left of a regressor with another value."""
            value = self.window("covar_pop({0}, {1})", n, regressors[place], other, jointly=True)
            for before, share in enumerate(shares[place]):
                value = self._subtract(value, self._multiply(share, covariance(before, other)))
            return value

        left, todays, variances = centred(y), [], []
        for place, x in enumerate(regressors):
            shares.append([])
            explained = [
                self._divide(covariance(before, x), variances[before]) for before in range(place)
            ]
            shares[place] = explained
            today = centred(x)
            for share, before in zip(explained, todays, strict=True):
                today = self._subtract(today, self._multiply(share, before))
            whole = self.window("var_pop({0})", n, x)
            own = self.explicit(
                "case when {0} > 1e-10::double * {1} then {0} end", covariance(place, x), whole
            )
            variances.append(self.unless_constant("{0}", n, own, x))
            todays.append(today)
            slope = self._divide(covariance(place, y), variances[place])
            left = self._subtract(left, self._multiply(slope, today))
        return left

    def _self(self, factor, initial):
        given = self.known(factor)
        product = self.make(SERIES, "product({0})", given, frame="before")
        sql = f"case when {{1}} is not null then {initial!r}::double * {{0}} end"
        return self.make(ELEMENT, sql, product, given, total=False)

    def _event_decay(self, c, tau, n):
        given = self.known(c)
        happened = self.make(ELEMENT, "coalesce({0}, false)", given, is_condition=True)
        terms = " + ".join(
            f"case when {{{rows}}} then {math.exp(-rows / tau)!r}::double else 0 end"
            for rows in range(n + 1)
        )
        return self.of_lags(f"({terms})", n + 1, happened)

    def _rank(self, x):
        x = self.known(self.rounded(self.number(x)))
        smaller = self.section("rank()", "place", x)
        upto = self.section("cume_dist()", "place", x)
        count = self.section("count({0})", "value", x)
        rows = self.make(COLUMN, "day_rows")
        sql = "case when {0} is not null then ({1} + round({2} * {3})) / (2 * {4}) end"
        return self.make(ELEMENT, sql, x, smaller, upto, rows, count, total=False)

    def _scale(self, x, a):
        x = self.known(self.number(x))
        total = self.day_sum("abs({0})", x)
        return self.explicit(f"{{0}} * {a!r}::double / nullif({{1}}, 0)", x, total)

    def _ind_neutralize(self, x, group):
        x = self.known(self.number(x))
        mean = self.day_mean(x, group)
        return self.explicit("case when {2} is not null then {0} - {1} end", x, mean, group)

    def _zscore(self, x):
        x = self.known(self.number(x))
        distance = self.explicit("({0} - {1})", x, self.day_mean(x))
        variance = self.day_mean(self.explicit("({0} * {0})", distance))
        moves = self.aggregates("(min({0}){over} < max({0}){over})", x)
        sql = "case when {2} then {0} / nullif(sqrt({1}), 0) end"
        return self.explicit(sql, distance, variance, moves)

    def _cs_mean(self, x):
        return self.day_mean(self.number(x))

    def _cs_median(self, x):
        return self.aggregates("median({0}){over}", self.number(x))

    def _cs_mean_if(self, x, c):
        kept = self.explicit("case when {1} then {0} end", self.number(x), c)
        return self.day_mean(kept)


NAMES = {
    "+": "add",
    "-": "subtract",
    "*": "multiply",
    "/": "divide",
    "^": "power",
    "<": "less",
    "<=": "at_most",
    ">": "more",
    ">=": "at_least",
    "==": "equal",
    "!=": "differ",
}
