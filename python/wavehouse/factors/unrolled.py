"""Operators of the language over a table in the order of stocks and days, row after row.

Where the rows of a stock lie one after the other, `lag(x, 5) over ()` needs no sort: DuckDB reads
the table once and remembers some rows. A window of n rows is then a scalar expression of n lags. It
costs a fraction of a window function, its last bits depend on the rows of the window alone (not on
where a partition begins), and what it needs of the past is a list of values: so a new day can be
computed from such lists, by the same expressions.

Lags at the head of a stock reach into the stock before; what they give is blanked there.

A sum of 20 rows is that of 16 rows and, 16 rows back, of 4; that of 16 rows is that of 8 rows and,
8 rows back, of 8. So a history needs one lag per doubling (`folded`). A day has the past of a stock
as a list, and what DuckDB's list functions say of it (`days`) is the same to the last bit: they
sum from today on, as `added` does, and a sum that is folded is joined in the same order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from wavehouse.factors.compiler import in_order
from wavehouse.factors.primitives import (
    COLUMN,
    CONSTANT,
    ELEMENT,
    PLACE,
    RECURSION,
    ROUNDED,
    SECTION,
    SERIES,
    Lowering,
    Primitive,
    doublings,
    places,
    products_of_distances,
    tree,
)

BLOCK = "block"  # frame of what is computed anew in every select that reads it
SUM, PRODUCT = "({0} + {1})", "({0} * {1})"
SIGNS = {SUM: "+", PRODUCT: "*"}
LEAST_FOLDED = 5  # rows
LIST_NAMES = {"greatest": "max", "least": "min"}
PART = 32  # rows of a window that are one expression: with more, lags no longer fit the cache


def _if_whole(sql: str, rows: int) -> str:
    """What a list function that passes over NULL says of a list without one."""
    return f"case when list_count({{0}}) = {rows} then {sql} end"


def _parts(terms: Sequence) -> list[Sequence]:
    """Terms that are summed in one expression: all, or PART of them at a time."""
    size = len(terms) if len(terms) <= PART + PART // 2 else PART
    return [terms[start : start + size] for start in range(0, len(terms), size)]


def is_constant(x: Primitive) -> bool:
    """Whether it has the same value in all rows, and no past that is kept."""
    return x.kind == CONSTANT or (x.kind == ELEMENT and not x.args)


@dataclass
class Unrolled(Lowering):
    """Primitives of which those over a stock's rows are lags and recursions."""

    longest_unrolled = 10**6
    days: dict[Primitive, Primitive] = field(default_factory=dict)  # a day's form of others
    blocks: set[Primitive] = field(default_factory=set)  # what is made of blocks of rows

    def of_day(self, roots: Iterable[Primitive]) -> dict[Primitive, Primitive]:
        """Every primitive that is read, as a day has it."""
        found: dict[Primitive, Primitive] = {}

        def put(wanted: Iterable[Primitive]) -> None:
            for each in in_order(wanted, found):
                args = tuple(found[arg] for arg in each.args)
                found[each] = each if args == each.args else replace(each, args=args)

        for each, other in self.days.items():  # the inner ones first, as they were made
            put([other])
            found[each] = found[other]
        put(roots)
        return found

    # lags, and what is made of them

    def past(self, x: Primitive, rows: int) -> Primitive:
        """x so many rows back, whatever stock that is."""
        if not rows:
            return x
        if x.kind == CONSTANT:
            return self.make(ELEMENT, x.sql, frame=rows, warm=rows)
        facts = {"total": x.total, "warm": x.warm + rows if x.total else 0}
        facts |= {"frame": range(rows, rows + 1), "is_condition": x.is_condition}
        return self.make(SERIES, "lag({0})", x, **facts)

    def lag(self, value: Primitive, rows: int) -> Primitive:
        """The value so many rows before."""
        return self.rows_of("{0}", rows + 1, self.past(value, rows)) if rows else value

    def rows_of(self, sql: str, rows: int, *read: Primitive) -> Primitive:
        """A scalar expression of values of the last `rows` rows, NULL where one of them is."""
        warm = max((each.warm for each in read if each.total), default=0)
        if all(each.total for each in read):
            return self.make(ELEMENT, sql, *read, warm=warm)
        blank = max(warm, rows - 1)
        if not blank:
            return self.make(ELEMENT, sql, *read, total=False)
        garbled = self.make(ELEMENT, sql, *read, total=False, frame="garbled")
        blanked = self.blanked("{0}", 1, blank)
        return self.make(ELEMENT, blanked, garbled, self.stock_row, total=False)

    def last(self, x: Primitive, rows: int, begin: int = 0) -> Primitive:
        """The rows before today from `begin` on, up to `rows` in all, as a list: only of a day."""
        facts = {"total": x.total, "warm": x.warm + rows - 1 if x.total else 0}
        return self.make(SERIES, "list({0})", x, frame=range(begin, rows), **facts)

    def by_list(
        self, whole: Primitive, sql: str, rows: int, x: Primitive, *read: Primitive, parts=()
    ) -> Primitive:
        """`whole`, which a day writes as `sql` over a list of the last rows of x, today first.

        parts: ranges of rows, with a list for each. A constant has no list: of that a day writes
        lags as well.
        """
        if rows > 1 and not is_constant(x):
            lists = [self.last(x, part.stop, part.start) for part in parts or [range(rows)]]
            self.days[whole] = self.rows_of(sql, rows, *lists, *read)
        return whole

    def folded(self, rows: int, join: str, x: Primitive, form: str = "{}") -> Primitive:
        """The last rows of x joined by blocks; `form` has the outcome as {}.

        Blocks may overlap where joining a row twice does no harm: for all but sums and products,
        which a day joins lag by lag in the same order.
        """
        blocks = [x]
        for power in range(rows.bit_length() - 1):
            newer, older = blocks[-1], self.past(blocks[-1], 2**power)
            facts = {"total": x.total, "warm": older.warm, "frame": BLOCK}
            blocks.append(self.make(ELEMENT, join, newer, older, **facts))
        found = doublings(rows)
        if join not in SIGNS and len(found) > 1:
            largest = found[0][1]
            found = [(0, largest), (rows - 2**largest, largest)]
        text = "{0}"
        for place in range(1, len(found)):
            sides = (text, f"{{{place}}}")
            text = PLACE.sub(lambda which, sides=sides: sides[int(which[1])], join)
        parts = [self.past(blocks[power], back) for back, power in found]
        whole = self.rows_of(form.format(text), rows, *parts)
        self.blocks.add(whole)
        if join in SIGNS:
            self.days[whole] = self.of_lags(tree(places(rows), SIGNS[join]), rows, x)
        return whole

    def added(self, terms: list[str], rows: int, *read: Primitive) -> Primitive:
        """Sum of a term per row, today's first: a column for every PART of them if many."""
        if len(terms) == len(_parts(terms)[0]):
            return self.rows_of(f"({' + '.join(terms)})", rows, *read)
        parts = []
        for some in _parts(terms):
            text = f"({' + '.join(some)})"
            used = list(dict.fromkeys(int(place) for place in PLACE.findall(text)))
            moved = PLACE.sub(lambda place, used=used: f"{{{used.index(int(place[1]))}}}", text)
            parts.append(self.rows_of(moved, rows, *(read[place] for place in used)))
        return self.rows_of(tree(places(len(parts))), rows, *parts)

    def of_lags(self, sql: str, rows: int, x: Primitive) -> Primitive:
        """A scalar expression of x today ({0}), on the row before ({1}), ..., NULL where one is."""
        return self.rows_of(sql, rows, *(self.past(x, back) for back in range(rows)))

    def window(self, sql: str, rows: int, *args: Primitive, jointly=False) -> Primitive:
        """What an aggregate says of the last rows; NULL where one of them is."""
        function = sql.partition("(")[0]
        return getattr(self, f"_window_{function}")(rows, *(self.number(arg) for arg in args))

    def moves(self, n, x):
        """Whether x has more than one value in a window, once rounded."""
        if n == 1 or is_constant(x):
            return self.element("({0} <> {0})", x)
        facts = {"frame": BLOCK, "total": x.total}
        value = self.make(ELEMENT, ROUNDED, x, warm=x.warm, **facts)
        before = self.past(value, 1)
        equal = self.make(ELEMENT, "({0} = {1})", value, before, warm=before.warm, **facts)
        whole = self.folded(n - 1, "({0} and {1})", equal, "(not {})")
        rounded = ROUNDED.replace("{0}", "value")
        listed = f"(len(list_filter({{0}}, lambda value: {rounded} <> {{1}})) > 0)"
        return self.by_list(whole, listed, n, x, self.rounded(x))

    # the aggregates

    def _window_sum(self, n, x):
        if n < LEAST_FOLDED:
            return self.of_lags(tree(places(n)), n, x)
        return self.folded(n, SUM, x)

    def _window_avg(self, n, x):
        return self.element(f"({{0}} / {n})", self._window_sum(n, x))

    def _window_product(self, n, x):
        return self.folded(n, PRODUCT, x)

    def _extreme(self, function, n, x):
        if n == 1:
            return x
        if is_constant(x):
            return self.lag(x, n - 1)
        join, form = f"{function}({{0}}, {{1}})", f"list_{LIST_NAMES[function]}({{0}})"
        if not x.total:  # these pass over NULL
            join = f"(case when {{0}} + {{1}} is not null then {join} end)"
            form = _if_whole(form, n)
        return self.by_list(self.folded(n, join, x), form, n, x)

    def _window_max(self, n, x):
        return self._extreme("greatest", n, x)

    def _window_min(self, n, x):
        return self._extreme("least", n, x)

    def _window_median(self, n, x):
        whole = self.of_lags(
            f"case when {tree(places(n))} is not null"
            f" then list_aggregate([{', '.join(places(n))}], 'median') end",
            n,
            x,
        )
        return self.by_list(whole, _if_whole("list_aggregate({0}, 'median')", n), n, x)

    def _moment(self, power, n, x):
        """Sum of so many powers of the distances from the mean."""
        terms = [" * ".join([f"({place} - {{{n}}})"] * power) for place in places(n)]
        mean = self._window_avg(n, x)
        whole = self.added(terms, n, *(self.past(x, back) for back in range(n)), mean)
        parts = _parts(range(n))
        powers = " * ".join([f"(value - {{{len(parts)}}})"] * power)
        sums = [
            f"list_sum(list_transform({place}, lambda value: {powers}))"
            for place in places(len(parts))
        ]
        return self.by_list(whole, tree(sums), n, x, mean, parts=parts)

    def joint(self, n, x, y):
        """Sum of the products of both distances from the mean."""
        if x is y:
            return self._moment(2, n, x)
        read = [self.past(side, back) for side in (x, y) for back in range(n)]
        means = (self._window_avg(n, x), self._window_avg(n, y))
        return self.added(products_of_distances(n), n, *read, *means)

    def _window_var_samp(self, n, x):
        return self.element(f"({{0}} / {n - 1})", self._moment(2, n, x))

    def _window_var_pop(self, n, x):
        return self.element(f"({{0}} / {n})", self._moment(2, n, x))

    def _window_stddev_samp(self, n, x):
        return self.element(f"sqrt({{0}} / {n - 1})", self._moment(2, n, x))

    def _window_covar_pop(self, n, x, y):
        return self.element(f"({{0}} / {n})", self.joint(n, x, y))

    def _window_corr(self, n, x, y):
        sql = "({0} / nullif(sqrt({1}) * sqrt({2}), 0))"
        sums = (self.joint(n, x, y), self._moment(2, n, x), self._moment(2, n, y))
        return self.element(sql, *sums, partial=True)

    def _window_regr_slope(self, n, y, x):
        if x is self.stock_row:
            weights = [(n - 1) / 2 - back for back in range(n)]
            terms = [
                f"{weight!r}::double * {place}"
                for weight, place in zip(weights, places(n), strict=True)
            ]
            whole = sum(weight * weight for weight in weights)
            return self.of_lags(f"({tree(terms)} / {whole!r}::double)", n, y)
        sums = (self.joint(n, y, x), self._moment(2, n, x))
        return self.element("({0} / nullif({1}, 0))", *sums, partial=True)

    def _window_skewness(self, n, x):
        """Of a sample, as DuckDB's."""
        adjusted = (n * (n - 1)) ** 0.5 / (n - 2)
        sql = f"({adjusted!r}::double * ({{1}} / {n}) / nullif({{0}} / {n} * sqrt({{0}} / {n}), 0))"
        return self.element(sql, self._moment(2, n, x), self._moment(3, n, x), partial=True)

    def _window_kurtosis_pop(self, n, x):
        sql = f"({{1}} * {n} / nullif({{0}} * {{0}}, 0) - 3)"
        return self.element(sql, self._moment(2, n, x), self._moment(4, n, x), partial=True)

    # operators whose window functions have another form

    def _position(self, function, x, n):
        extreme = self._extreme("greatest" if function == "arg_max" else "least", n, x)
        cases = " ".join(
            f"when {{{back}}} = {{{n}}} then {n - back}" for back in range(n - 1, 0, -1)
        )
        sql = f"(case when {{{n}}} is not null then case {cases} else {n} end end)::double"
        if n == 1:
            sql = "case when {0} is not null then 1::double end"
        whole = self.rows_of(sql, n, *(self.past(x, back) for back in range(n)), extreme)
        oldest = "list_position(list_reverse({0}), {1})::double"  # which finds NULL as well
        return self.by_list(whole, f"case when {{1}} is not null then {oldest} end", n, x, extreme)

    def _ts_rank(self, x, n):
        """By how many values are less than today's, less those that are greater."""
        x = self.rounded(x)
        kind = "" if n <= 100 else "::integer"
        terms = [f"sign({{0}} - {place}){kind}" for place in places(n)]
        whole = self.of_lags(f"(({n + 1} + {tree(terms)}) / {2 * n})", n, x)
        signs = "list_sum(list_transform({0}, lambda value: sign({1} - value)))"
        return self.by_list(whole, _if_whole(f"(({n + 1} + {signs}) / {2 * n})", n), n, x, x)

    def _decay_linear(self, x, n):
        x = self.number(x)
        whole = super()._decay_linear(x, n)
        weighted = f"list_transform({{0}}, lambda value, place: ({n + 1} - place) * value)"
        sql = _if_whole(f"(list_sum({weighted})) / {n * (n + 1) // 2}", n)
        return self.by_list(whole, sql, n, x)

    def filtered_slope(self, y, x, kept, n):
        """Slope of y on x over those of n rows that are kept."""
        own = self.explicit("case when {0} then 1::double when not {0} then 0 end", kept)
        sql = "case when {1} then {0} when not {1} then 0 end"
        sides = [self.explicit(sql, side, kept) for side in (x, y)]
        count = self._window_sum(n, own)
        means = [
            self.element("({0} / nullif({1}, 0))", self._window_sum(n, side), count, partial=True)
            for side in sides
        ]
        (xs, ys), flags = (places(n, start) for start in (0, n)), places(n, 2 * n)
        mean_x, mean_y = f"{{{3 * n}}}", f"{{{3 * n + 1}}}"
        across = [f"({a} - {mean_x} * {flag})" for a, flag in zip(xs, flags, strict=True)]
        along = [f"({b} - {mean_y} * {flag})" for b, flag in zip(ys, flags, strict=True)]
        read = [self.past(side, back) for side in (*sides, own) for back in range(n)]
        terms = [f"{a} * {b}" for a, b in zip(across, along, strict=True)]
        joint = self.added(terms, n, *read, *means)
        squares = self.added([f"{a} * {a}" for a in across], n, *read, *means)
        only = self.explicit("case when {1} then {0} end", x, kept)
        lags = [self.past(only, back) for back in range(n)]
        reach = [
            self.make(ELEMENT, f"{function}({', '.join(places(n))})", *lags, total=False)
            for function in ("least", "greatest")
        ]
        sql = "case when {2} >= 3 and {3} < {4} then {0} / nullif({1}, 0) end"
        return self.rows_of(sql, n, joint, squares, count, *reach)

    def _sma(self, x, n, m):
        share = m / n
        if share == 1:
            return x
        return self.recursion(x, share)

    def _self(self, factor, initial):
        return self.recursion(factor, initial, is_product=True)

    def recursion(self, x, number, is_product=False):
        """Of the known values: share * x + (1 - share) * before, or the product and a number."""
        kind = "product" if is_product else "average"
        facts = {"frame": (kind, x.warm if x.total else None), "total": False}
        return self.make(RECURSION, repr(number), self.known(x), **facts)

    def _rank(self, x):
        x = self.known(self.rounded(self.number(x)))
        sql = (
            "case when {0} is not null then (rank() over {place} + round(cume_dist() over {place}"
            " * {1})) / (2 * count({0}) over {value}) end"
        )
        day_rows = self.make(COLUMN, "day_rows")
        return self.make(SECTION, sql, x, day_rows, frame="place", total=False)
