"""The statements that compute every factor: of a whole history at once, or of one more day.

A whole history is a sequence of narrow tables in one order, that of stocks and days. A table reads
those before it side by side (`positional join`), what several factors share stands in one of them,
and each is dropped after its last reader. Series are lags over such a table, so they need no sort;
a cross section sorts one column by day and value, and its result back.

Of the past a new day needs the last values of what lags read. They are kept as a list per stock and
column (`state`), so that the day's rows are computed by the same expressions over one row a stock.
"""

import math
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from wavehouse.factors.compiler import ALL_ROWS, in_order, read_by
from wavehouse.factors.expression import Expression
from wavehouse.factors.operators import GROUP_COLUMNS
from wavehouse.factors.primitives import (
    COLUMN,
    CONSTANT,
    ELEMENT,
    LEAST_WEIGHT,
    PLACE,
    RECURSION,
    SECTION,
    SERIES,
    Primitive,
)
from wavehouse.factors.unrolled import BLOCK, Unrolled

KEYS = ("ts_code", "trade_date", "stock_row")
FACTORS_TOGETHER = 24  # whose tables are made before those of the next ones
DAY_COLUMNS_TOGETHER = 16  # of a statement over one day, whose cost is its planning
DAY_SECTIONS_TOGETHER = 8  # across a day, each with a sort that moves all columns of the statement
WORK = re.compile(r"[-+*/<>=]|\b(?:case|lag|least|greatest|sqrt|ln|power)\b")
LARGE = 60  # operations of an expression that is better a column of its own
CHEAP = 16  # operations that cost less than a column written and read
LAGS_OF_A_MACRO = 3  # from which on an expression of lags is a macro
LONGEST_HISTORY = 14  # doublings: rows of a stock, as a power of 2
IN_ORDER = """select
    case
        when count(*) filter (place <> rowid + 1) > 0
            then error('rows of factor_base are out of order: leave preserve_insertion_order on')
    end
from factor_base"""
SAME_STOCKS = """select
    case
        when count(*) filter (ts_code <> past_ts_code) > 0
            then error('stocks of factor_past are out of order: leave preserve_insertion_order on')
    end
from factor_today positional join factor_past"""
PLACE_COLUMN = Primitive(COLUMN, "place")  # number of the row in the order of all tables
KEY_COLUMNS = (PLACE_COLUMN, Primitive(COLUMN, "day"))


class Columns:
    """Primitives of factors, and the names of those that become columns."""

    roots: dict[str, Primitive]
    names: dict[Primitive, str]

    @property
    def inputs(self) -> list[str]:
        """Columns of factor_inputs that are read, keys aside."""
        found = {each.sql for each in in_order(self.roots.values()) if each.kind == COLUMN}
        return sorted(found - set(KEYS) | {"day_rows"})

    def read_by(self, primitives: Iterable[Primitive]) -> list[Primitive]:
        """Columns that these are written with: named ones, and those of the inputs."""
        return read_by(primitives, self.names)

    def together(self, each: Primitive) -> list[list[Primitive]]:
        """What is computed with a column, in steps, itself the last one; nothing if elsewhere."""
        return [[each]]

    def stages(
        self, wanted: Iterable[Primitive], there: Iterable[Primitive] = ()
    ) -> list[list[Primitive]]:
        """Named primitives that `wanted` needs beyond those there, in steps."""
        levels = dict.fromkeys(there, 0)
        steps: dict[int, list[Primitive]] = {}
        for each in in_order(wanted):
            if each in self.names and each not in levels:
                mine = [one for step in self.together(each) for one in step]
                if mine:
                    read = [one for one in self.read_by(mine) if one in levels]
                    levels[each] = 1 + max((levels[one] for one in read), default=0)
                    steps.setdefault(levels[each], []).append(each)
        return [steps[level] for level in sorted(steps)]


@dataclass
class Day(Columns):
    """Columns of a day, whose past is kept in lists."""

    roots: dict[str, Primitive]
    names: dict[Primitive, str]
    needs: dict[Primitive, int]


@dataclass
class Program(Columns):
    """Every primitive that becomes a column, and the statements that make them.

    needs: rows that are kept of a column's past. day: the same columns as a day computes them.
    """

    factors: Mapping[str, Expression]
    columns: Mapping[str, int | None]
    roots: dict[str, Primitive] = field(init=False)
    names: dict[Primitive, str] = field(init=False, default_factory=dict)
    owners: dict[Primitive, Primitive] = field(init=False, default_factory=dict)
    sizes: dict[Primitive, int] = field(init=False, default_factory=dict)
    needs: dict[Primitive, int] = field(init=False, default_factory=dict)
    day: Day = field(init=False)

    def __post_init__(self):
        lowering = Unrolled(dict(self.columns))
        self.roots = {
            name: lowering.known(lowering.number(lowering.lower(expression)))
            for name, expression in self.factors.items()
        }
        order = in_order(self.roots.values())
        of_day = lowering.of_day(self.roots.values())
        needs = self._rows_kept(of_day[root] for root in self.roots.values())
        self.needs = {each: needs[day] for each, day in of_day.items() if day in needs}
        asked = {each for each in self.needs if each.kind == ELEMENT and each.args}
        asked.update(
            read
            for each in order
            if each.kind == RECURSION
            for read in each.reads
            if read.kind == ELEMENT and read.args
        )
        self._name(order, asked | lowering.blocks)
        self._own(order, asked)
        roots = {name: of_day[root] for name, root in self.roots.items()}
        names = {of_day[each]: name for each, name in self.names.items() if each in of_day}
        self.day = Day(roots, names, needs)

    @staticmethod
    def _rows_kept(roots: Iterable[Primitive]) -> dict[Primitive, int]:
        """How many rows back anything reads of each primitive."""
        found: dict[Primitive, int] = {}
        for each in in_order(roots):
            if each.kind == SERIES:
                found[each.args[0]] = max(found.get(each.args[0], 0), each.frame[-1])
        return found

    def _name(self, order: list[Primitive], asked: Container[Primitive]) -> None:
        """Name what has a value of its own, is asked for, or is dear and read more than once."""
        uses: dict[Primitive, int] = {}
        for each in (*order, *self.roots.values()):
            for place in set(PLACE.findall(each.sql)):
                read = each.args[int(place)]
                # what a section compares is a column of its select
                times = 1 if each.kind == SECTION else each.sql.count(f"{{{place}}}")
                uses[read] = uses.get(read, 0) + times
        sizes = self.sizes
        for each in order:
            inner = sum(
                sizes[each.args[int(place)]]
                for place in PLACE.findall(each.sql)
                if each.args[int(place)] not in self.names
            )
            sizes[each] = len(WORK.findall(each.sql)) + inner
            large = sizes[each] >= LARGE
            again = uses.get(each, 0) - 1
            shared = large or (again > 0 and sizes[each] * again > CHEAP)
            own = each.kind in (SECTION, RECURSION) or each.frame == BLOCK
            shared = shared and each.kind == ELEMENT and each.args and each.frame != "garbled"
            if own or each in asked or shared:
                self.names[each] = f"c{len(self.names)}"

    def _own(self, order: list[Primitive], asked: set[Primitive]) -> None:
        """Give each named primitive to the one that alone reads it, or to itself.

        Blocks belong to every column that reads them.
        """
        tables = [each for each in order if each in self.names and each.frame != BLOCK]
        readers: dict[Primitive, set[Primitive]] = {}
        public = asked | set(self.needs) | set(self.roots.values())
        for each in tables:
            waiting = [each]
            while waiting:
                for read in self.read_by([waiting.pop()]):
                    if read.frame == BLOCK:
                        waiting.append(read)
                    else:
                        readers.setdefault(read, set()).add(each)
        for root in self.roots.values():
            if root not in self.names:  # a factor's own select reads these
                public.update(self.read_by([root]))
        for each in reversed(tables):
            owners = {self.owners[reader] for reader in readers.get(each, ())}
            alone = len(owners) == 1 and each not in public and each.kind == ELEMENT
            alone = alone and self.sizes[each] < LARGE  # large ones do not fit the cache together
            owner = owners.pop() if alone else each
            self.owners[each] = owner if owner.kind in (ELEMENT, SECTION) else each

    def together(self, each: Primitive) -> list[list[Primitive]]:
        """What is computed for one column alone, and the blocks of rows that it is made of."""
        if self.owners.get(each) is not each:
            return []
        mine, waiting = {each}, [each]
        while waiting:
            for read in self.read_by([waiting.pop()]):
                if read not in mine and (read.frame == BLOCK or self.owners.get(read) is each):
                    mine.add(read)
                    waiting.append(read)
        levels: dict[Primitive, int] = {}
        steps: dict[int, list[Primitive]] = {}
        for one in in_order([each]):
            if one in mine:
                read = [other for other in self.read_by([one]) if other in mine]
                levels[one] = 1 + max((levels[other] for other in read), default=0)
                steps.setdefault(levels[one], []).append(one)
        return [steps[level] for level in sorted(steps)]


@dataclass
class Writer:
    """SQL of primitives: lags of a table's rows, or of what is kept of the past."""

    program: Columns
    is_day: bool = False
    macros: dict[str, str] = field(default_factory=dict)
    aliases: dict[Primitive, str] = field(default_factory=dict)

    def definitions(self) -> list[str]:
        """Statements that define the macros which the expressions written so far call."""
        return [
            f"create or replace temp macro {call} as {body}" for body, call in self.macros.items()
        ]

    def listed(self, found: Iterable[Primitive]) -> str:
        """Named primitives as the columns of a select."""
        names = self.program.names
        return ",\n    ".join(f"{self.expression(each, True)} as {names[each]}" for each in found)

    def expression(self, primitive: Primitive, whole: bool = False) -> str:
        """A primitive over the columns that have names; `whole` is its own definition."""
        names = self.program.names
        if primitive in self.aliases:
            return self.aliases[primitive]
        if primitive in names and not whole:
            return names[primitive]
        if primitive.kind in (COLUMN, CONSTANT):
            return primitive.sql
        if primitive.kind == SERIES:
            return self._series(primitive)
        if sum(arg.kind == SERIES for arg in primitive.args) >= LAGS_OF_A_MACRO:
            return self._call(primitive)
        text = PLACE.sub(
            lambda place: self.expression(primitive.args[int(place[1])]), primitive.sql
        )
        if primitive.kind == SECTION:
            return self._section(primitive, text)
        if primitive.kind == RECURSION:
            return self._next(primitive)
        return f"({text})" if text.startswith("case") else text

    def _series(self, primitive: Primitive) -> str:
        return self._back(primitive, self.expression(primitive.args[0]))

    def _back(self, lag: Primitive, read: str) -> str:
        begin, back = lag.frame[0], lag.frame[-1]
        if lag.sql.startswith("list"):
            past = f"p_{read}[{begin or 1}:{back}]"
            return past if begin else f"list_prepend({read}, {past})"
        return f"p_{read}[{back}]" if self.is_day else f"lag({read}, {back}) over ()"

    def _call(self, primitive: Primitive) -> str:
        """A window's expression as the call of a macro that equal windows of others share."""
        read = [arg.args[0] if arg.kind == SERIES else arg for arg in primitive.args]
        known = list(dict.fromkeys(read))
        lagged = {arg.args[0] for arg in primitive.args if arg.kind == SERIES}

        def placed(place: re.Match) -> str:
            number = int(place[1])
            name = f"x{known.index(read[number])}"
            arg = primitive.args[number]
            return self._back(arg, name) if arg.kind == SERIES else name

        body = PLACE.sub(placed, primitive.sql)
        names, values = [], []
        for number, each in enumerate(known):
            names.append(f"x{number}")
            values.append(self.expression(each))
            if self.is_day and each in lagged:
                names.append(f"p_x{number}")
                values.append(f"p_{values[-1]}")
        if body not in self.macros:
            self.macros[body] = f"rows_{len(self.macros)}({', '.join(names)})"
        return f"{self.macros[body].partition('(')[0]}({', '.join(values)})"

    def _section(self, primitive: Primitive, text: str) -> str:
        """A section's function over its frame, or an aggregate."""
        if primitive.frame == "group" and not self.is_day:
            return text.replace("{over}", "")
        parts = [] if self.is_day else ["day"]
        parts += [self.expression(primitive.group)] if primitive.group else []
        divided = f"partition by {', '.join(parts)} " if parts else ""
        value = self.expression(primitive.args[0])
        frames = {
            "over": f" over ({divided.strip()})",
            "place": f"({divided}order by {value})",
            "value": f"({divided}order by {value} {ALL_ROWS})",
        }
        for name, frame in frames.items():
            text = text.replace(f"{{{name}}}", frame)
        return text if " over " in text else f"{text} over {frames[primitive.frame]}"

    def _next(self, primitive: Primitive) -> str:
        """A recursion, one step further."""
        x, before = (
            self.expression(primitive.args[0]),
            f"k_{self.program.names[primitive]}",
        )
        number = float(primitive.sql)
        if primitive.frame[0] == "product":
            step = f"{x} * coalesce({before}, {number!r}::double)"
        else:
            step = (
                f"case when {before} is null then {x} else"
                f" {number!r}::double * {x} + {1 - number!r}::double * {before} end"
            )
        return f"case when {x} is not null then {step} end"


@dataclass
class Step:
    """Statements that are run together, and what to say of them meanwhile."""

    title: str
    statements: list[str]


@dataclass
class _Tables:
    """Tables made so far, the columns in each, and which statement reads each last."""

    of: dict[Primitive, str] = field(default_factory=dict)
    statements: list[str] = field(default_factory=list)
    titles: dict[int, str] = field(default_factory=dict)
    last: dict[str, int] = field(default_factory=dict)

    def source(self, program: Columns, primitives: Iterable[Primitive], base: str, more=()) -> str:
        """The tables side by side that have what these read."""
        read = program.read_by(primitives) + list(more)
        tables = dict.fromkeys(self.of[each] for each in read if each in self.of)
        if not tables or any(each.kind == COLUMN for each in read):
            tables = dict.fromkeys((base, *tables))
        for table in tables:
            self.last[table] = len(self.statements)
        return " positional join ".join(tables)

    def make(self, table: str, select: str, columns: Iterable[Primitive] = ()) -> None:
        self.of.update(dict.fromkeys(columns, table))
        self.last[table] = len(self.statements)
        self.statements.append(f"create or replace temp table {table} as\n{select}")

    def columns(self, writer: Writer, found: list[Primitive], base: str) -> str:
        """A table of columns that need no sort; its name."""
        table = f"t{len(self.statements)}"
        listed = writer.listed(found)
        # values of the past stand beside the day's
        source = self.source(writer.program, found, base, [PLACE_COLUMN] if writer.is_day else ())
        self.make(table, f"select\n    {listed}\nfrom {source}", found)
        return table

    def nested(
        self, writer: Writer, steps: list[list[Primitive]], wanted: Iterable[Primitive], base: str
    ) -> str:
        """The tables that these steps read, and their columns computed in selects over them.

        wanted: what is read of the outcome.
        """
        program, names = writer.program, writer.program.names
        text = self.source(program, [each for step in steps for each in step], base, wanted)
        for place, step in enumerate(steps):
            rest = steps[place + 1 :]
            later = {*wanted, *(one for each in rest for one in program.read_by(each))}
            made = {one for each in steps[place:] for one in each}
            carried = sorted(names.get(one, one.sql) for one in later if one not in made)
            listed = ",\n    ".join([*carried, writer.listed(step)])
            text = f"(\nselect\n    {listed}\nfrom {text}\n)"
        return text

    def column(self, writer: Writer, owner: Primitive, base: str) -> str:
        """A table of one column, and within its select what is computed for it alone."""
        steps = writer.program.together(owner)[:-1]
        source = self.nested(writer, steps, writer.program.read_by([owner]), base)
        table = f"t{len(self.statements)}"
        self.make(table, f"select\n    {writer.listed([owner])}\nfrom {source}", [owner])
        return table

    def section(self, writer: Writer, found: list[Primitive], base: str) -> str:
        """A table of columns across a day, back in the order of the rows; its name."""
        program = writer.program
        compared = list(dict.fromkeys(each.args[0] for each in found))
        beside = [read for each in found for read in (*each.args[1:], each.group) if read]
        own = [program.together(each)[:-1] for each in found]
        steps = [
            list(dict.fromkeys(one for step in some for one in step))
            for some in zip_longest(*own, fillvalue=[])
        ]
        direct = [each for each in compared if each in program.names or each.kind == COLUMN]
        indirect = [each for each in compared if each not in direct]
        wanted = dict.fromkeys((*direct, *program.read_by(indirect), *beside, *KEY_COLUMNS))
        source = self.nested(writer, steps, wanted, base)
        carried = dict.fromkeys(
            program.names.get(each, each.sql) for each in (*beside, *KEY_COLUMNS)
        )
        values = [f"{writer.expression(each)} as v{place}" for place, each in enumerate(compared)]
        inner = ",\n    ".join([*carried, *values])
        writer.aliases = {each: f"v{place}" for place, each in enumerate(compared)}
        listed = writer.listed(found)
        writer.aliases = {}
        values = f"(\nselect\n    {inner}\nfrom {source}\n)"
        group = [writer.expression(found[0].group)] if found[0].group else []
        if found[0].frame == "group" and not writer.is_day:
            keys = ", ".join(["day", *group])
            rows = (
                f"(select place, {keys} from factor_base)\nleft join (\n"
                f"select\n    {keys},\n    {listed}\nfrom {values}\ngroup by {keys}\n)"
                f" using ({keys})"
            )
        else:
            rows = f"(\nselect\n    place,\n    {listed}\nfrom {values}\n)"
        table = f"t{len(self.statements)}"
        mine = ", ".join(program.names[each] for each in found)
        self.make(table, f"select {mine}\nfrom {rows}\norder by place", found)
        return table

    def values(
        self, writer: Writer, roots: Mapping[str, Primitive], table: str, base: str, more=()
    ) -> None:
        """A table of factors, each by its name."""
        listed = ",\n    ".join(
            f"{writer.expression(root)} as {name}" for name, root in roots.items()
        )
        # named roots are read themselves, not only what they are made of
        named = [r for r in roots.values() if r in writer.program.names or r.kind == COLUMN]
        others = [root for root in roots.values() if root not in named]
        source = self.source(writer.program, others, base, [*named, *more])
        self.make(table, f"select\n    {listed}\nfrom {source}")

    def steps(self, keep: Iterable[str]) -> list[Step]:
        """The statements, each temporary table dropped after its last reader."""
        kept, found = set(keep), []
        ends: dict[int, list[str]] = {}
        for table, place in self.last.items():
            if table not in kept:
                ends.setdefault(place, []).append(table)
        for place, statement in enumerate(self.statements):
            if place in self.titles:
                found.append(Step(self.titles[place], []))
            found[-1].statements.append(statement)
            found[-1].statements.extend(f"drop table {table}" for table in ends.get(place, ()))
        return found


def _chunks(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _ordered(program: Program, inputs: str) -> str:
    """The statement that sorts the inputs, once, and numbers rows, days and groups."""
    groups = [name for name in program.inputs if name in GROUP_COLUMNS]
    listed = [
        f"numbers_{name}.number as {name}" if name in groups else f"inputs.{name}"
        for name in program.inputs
    ]
    joined = "".join(
        f"\n    left join (\n        select {name}, row_number() over (order by {name}) as number\n"
        f"        from {inputs} as inputs\n        where {name} is not null\n"
        f"        group by {name}\n    ) as numbers_{name} on inputs.{name} = numbers_{name}.{name}"
        for name in groups
    )
    columns = "".join(f",\n        {name}" for name in listed)
    return (
        "create or replace temp table factor_base as\n"
        "select row_number() over ()::integer as place, *\nfrom (\n    select\n"
        "        days.number::smallint as day,\n"
        "        stocks.last_row - inputs.stock_row as rows_left,\n"
        "        inputs.ts_code,\n        inputs.trade_date,\n        inputs.in_universe,\n"
        f"        inputs.stock_row{columns}\n"
        f"    from {inputs} as inputs\n"
        "    inner join (\n"
        "        select trade_date, row_number() over (order by trade_date) as number\n"
        f"        from {inputs} as inputs\n        group by trade_date\n"
        "    ) as days on inputs.trade_date = days.trade_date\n"
        "    inner join (\n        select ts_code, max(stock_row) as last_row\n"
        f"        from {inputs} as inputs\n        group by ts_code\n"
        f"    ) as stocks on inputs.ts_code = stocks.ts_code{joined}\n"
        "    order by inputs.ts_code, inputs.stock_row\n)"
    )


def history(program: Program, inputs: str) -> tuple[list[Step], list[str], str]:
    """Steps that compute all factors of all rows, the tables with the factors, and the state.

    The tables stand in the order of the rows of `factor_base`: stock by stock, day by day.
    """
    writer, tables = Writer(program), _Tables()
    names, states = program.names, []
    tables.titles[0] = "inputs"
    tables.statements.append(_ordered(program, inputs))
    tables.statements.append(IN_ORDER)

    def keep(table: str, found: Iterable[Primitive]) -> None:
        """What the next day needs of the past of these columns."""
        items, longest = [], 1
        for each in found:
            name, need = names.get(each, each.sql), program.needs.get(each, 0)
            if need:
                longest = max(longest, need)
                items.append(
                    f"list({name} order by place desc) filter (rows_left < {need}) as p_{name}"
                )
            if each.kind == RECURSION and each.frame[1] is not None:
                items.append(f"max({name}) filter (rows_left = 0) as k_{name}")
            if each.kind == RECURSION and each.frame[1] is None:
                made = f"state_{len(states)}"
                states.append(made)
                tables.make(
                    made,
                    f"select arg_max({name}, place) as k_{name}\n"
                    f"from factor_base positional join {table}\n"
                    "group by place - stock_row order by place - stock_row",
                )
                tables.last[table] = len(tables.statements)
        if items:
            made = f"state_{len(states)}"
            states.append(made)
            source = table if table == "factor_base" else f"factor_base positional join {table}"
            listed = ",\n    ".join(items)
            tables.make(
                made,
                f"select\n    {listed}\nfrom {source}\nwhere rows_left < {longest}\n"
                "group by place - stock_row\norder by place - stock_row",
            )
            tables.last[table] = len(tables.statements) - 1

    keep("factor_base", [each for each in program.needs if each.kind == COLUMN])

    def recursion(each: Primitive) -> None:
        table = f"t{len(tables.statements)}"
        source = tables.source(program, [each], "factor_base", [PLACE_COLUMN])
        tables.make(table, _doubled(writer, each, names[each], source), [each])
        keep(table, [each])

    made, done = [], 0
    for group in _chunks(list(program.roots), FACTORS_TOGETHER):
        done += len(group)
        tables.titles[len(tables.statements)] = f"factor {done} of {len(program.roots)}"
        roots = [program.roots[name] for name in group]
        for step in program.stages(roots, tables.of):
            for each in step:
                if each.kind == ELEMENT:
                    keep(tables.column(writer, each, "factor_base"), [each])
            alike: dict[tuple, list[Primitive]] = {}
            for each in step:
                if each.kind == SECTION:
                    alike.setdefault((each.args[0], each.group, each.frame), []).append(each)
                elif each.kind == RECURSION:
                    recursion(each)
            for found in alike.values():
                keep(tables.section(writer, found, "factor_base"), found)
        table = f"f{len(made)}"
        tables.values(writer, dict(zip(group, roots, strict=True)), table, "factor_base")
        made.append(table)
    tables.titles[len(tables.statements)] = "state"
    keys = "select ts_code from factor_base where rows_left = 0 order by place"
    tables.make("state_keys", keys)
    state = " positional join ".join(("state_keys", *states))
    kept = ("factor_base", "state_keys", *made, *states)
    steps = [Step("macros", writer.definitions()), *tables.steps(kept)]
    return steps, made, f"select * from {state}"


def _doubled(writer: Writer, recursion: Primitive, name: str, source: str) -> str:
    """A recursion over all rows: of the last 1, 2, 4, ... known values, until no more count."""
    x, number = writer.expression(recursion.args[0]), float(recursion.sql)
    kind, warm = recursion.frame
    if kind == "product":
        first, levels = f"{number!r}::double * x", LONGEST_HISTORY
        later = "x"
    else:
        first, later = "x", f"{number!r}::double * x"
        rows = math.log(LEAST_WEIGHT) / math.log1p(-number)
        levels = min(LONGEST_HISTORY, math.ceil(math.log2(rows)))
    start = f"case when i = 1 then {first} else {later} end as y"
    if warm is not None:
        parts = [
            f"with known as (select stock_row - {warm} as i, {x} as x from {source})",
            f"from_0 as (select i, {start} from known)",
        ]
    else:
        parts = [
            f"with known as (select place, place - stock_row as stock, {x} as x from {source}"
            f" where {x} is not null)",
            "counted as (select *, row_number() over () as i,"
            " stock is distinct from lag(stock) over () as is_first from known)",
            "numbered as (select place, x, i + 1 -"
            " max(case when is_first then i end) over (rows unbounded preceding) as i"
            " from counted)",
            f"from_0 as (select place, i, {start} from numbered)",
        ]
    keys = "i" if warm is not None else "place, i"
    for level in range(levels):
        back = 2**level
        before = f"lag(y, {back}) over ()"
        if kind == "product":
            joined = f"y * case when i > {back} then {before} else 1 end"
        else:
            share = (1 - number) ** back
            joined = f"y + {share!r}::double * case when i > {back} then {before} else 0 end"
        parts.append(f"from_{level + 1} as (select {keys}, {joined} as y from from_{level})")
    text = ",\n".join(parts)
    if warm is not None:
        return f"{text}\nselect case when i > 0 then y end as {name} from from_{levels}"
    return (
        f"{text}\nselect y as {name}\nfrom factor_base\n"
        f"left join from_{levels} using (place)\norder by place"
    )


def next_day(program: Program, inputs: str, state: str, day: str) -> tuple[list[Step], str, str]:
    """Steps that compute all factors of one day more, the table with them, the new state.

    The table stands in the order of `factor_today`.
    """
    program = program.day
    writer, tables, names = Writer(program, is_day=True), _Tables(), program.names
    columns = "".join(f",\n    inputs.{name}" for name in program.inputs)
    kept = f"(select ts_code, row_number() over () as number from {state}) as kept"
    tables.statements += [
        # stocks in the order of the state, whose lists then need no join
        "create or replace temp table factor_today as\nselect\n"
        "    row_number() over (order by kept.number, inputs.ts_code)::integer as place,\n"
        "    1::smallint as day,\n"
        "    inputs.ts_code,\n    inputs.trade_date,\n"
        "    inputs.in_universe,\n"
        f"    inputs.stock_row{columns}\nfrom {inputs} as inputs\n"
        f"left join {kept}\n"
        "    on inputs.ts_code = kept.ts_code\n"
        f"where inputs.trade_date = {day}\norder by place",
        "create or replace temp table factor_traded as\n"
        "select kept.number, today.ts_code is not null as traded\n"
        f"from {kept}\n"
        "left join factor_today as today on kept.ts_code = today.ts_code\norder by kept.number",
        "create or replace temp table factor_past as\n"
        "select state.* rename (ts_code as past_ts_code)\n"
        f"from {state} as state positional join factor_traded\nwhere factor_traded.traded",
        "create or replace temp table factor_absent as\nselect state.*\n"
        f"from {state} as state positional join factor_traded\nwhere not factor_traded.traded",
        SAME_STOCKS,
    ]
    base = "factor_today positional join factor_past"
    for step in program.stages(program.roots.values()):
        sections = [each for each in step if each.kind == SECTION]
        others = [each for each in step if each.kind != SECTION]
        for some in _chunks(others, DAY_COLUMNS_TOGETHER):
            tables.columns(writer, some, base)
        for some in _chunks(sections, DAY_SECTIONS_TOGETHER):
            tables.section(writer, some, base)
    tables.values(writer, program.roots, "factor_values", base, [PLACE_COLUMN])
    items = ["ts_code"]
    read: dict[Primitive, None] = {}
    for each in (*program.needs, *names):
        name, need = names.get(each, each.sql), program.needs.get(each, 0)
        if each in read:
            continue
        if need:
            items.append(f"list_concat([{name}], p_{name}[1:{need - 1}]) as p_{name}")
        if each.kind == RECURSION:
            items.append(f"coalesce({name}, k_{name}) as k_{name}")
        if need or each.kind == RECURSION:
            read.setdefault(each)
    source = tables.source(program, [], base, [*read, PLACE_COLUMN])
    listed = ",\n    ".join(items)
    renewed = (
        f"select\n    {listed}\nfrom {source}\n\nunion all by name\n\nselect *\nfrom factor_absent"
    )
    steps = [Step("macros", writer.definitions()), Step("factors", tables.statements)]
    return steps, "factor_values", renewed
