"""Factors as one SQL statement of stages: what all of them share is computed once.

A stage is a select over the one before. Series stages hold windows over a stock's rows, section
stages windows over a day's rows, and what is read more than once in between has a column of its
own. Every stage passes on the columns before it: DuckDB drops those that nobody reads, so a query
for one factor pays for the windows of that factor alone.
"""

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field, replace

import sqlglot

from wavehouse.factors.expression import Expression
from wavehouse.factors.primitives import (
    COLUMN,
    CONSTANT,
    ELEMENT,
    PLACE,
    SECTION,
    SERIES,
    Lowering,
    Primitive,
)

NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)?", re.ASCII)
FRAMES = {"before": "rows between unbounded preceding and current row",
          "earlier": "rows between unbounded preceding and 1 preceding"}  # fmt: skip
WINDOWS = (SERIES, SECTION)
ALL_ROWS = "rows between unbounded preceding and unbounded following"


@dataclass
class Stage:
    """Columns of one select: {name: primitive}."""

    name: str
    columns: dict[str, Primitive] = field(default_factory=dict)


@dataclass
class Plan:
    """Stages in order, and the factors as primitives over them."""

    stages: list[Stage]
    factors: dict[str, Primitive]
    names: dict[Primitive, str]


def plan(factors: Mapping[str, Expression], columns: Mapping[str, int | None]) -> Plan:
    """Order what the factors need into stages.

    factors: normalised expressions by id. columns: of the inputs, with the number of first rows of
    a stock that have no value, None where a value may be missing anywhere.
    """
    lowering = Lowering(dict(columns))
    lowered, depths = placed(
        {name: lowering.factor(expression) for name, expression in factors.items()}
    )
    order = in_order(lowered.values())
    uses: dict[Primitive, int] = {}
    for primitive in (*order, *lowered.values()):
        for place in PLACE.findall(primitive.sql):
            read = primitive.args[int(place)]
            uses[read] = uses.get(read, 0) + 1
        # an order or a group is written beside the function
        beside = [primitive.group] if primitive.group else []
        if primitive.kind == SECTION and primitive.frame != "group":
            beside.append(primitive.args[0])
        for read in beside:
            uses[read] = uses.get(read, 0) + 2
        # one that is carried past a sort is carried as itself, not as what it is made of
        for read in primitive.reads:
            if depths[primitive] - (primitive.kind in WINDOWS) > depths[read]:
                uses[read] = uses.get(read, 0) + 2
    levels: dict[Primitive, int] = {}
    stages: dict[tuple[int, int], Stage] = {}
    names: dict[Primitive, str] = {}
    for primitive in order:
        depth = depths[primitive]
        # levels of columns within a depth: what a select names, the next one reads
        level = max((levels[read] for read in primitive.reads if depths[read] == depth), default=0)
        own = primitive.kind in WINDOWS
        if primitive.kind == ELEMENT and primitive.args and uses.get(primitive, 0) > 1:
            level, own = level + 1, True
        levels[primitive] = level
        if own:
            kind = {0: "sections", 1: "series"}[depth % 2] if not level else "values"
            name = f"{kind}_{depth}" + (f"_{level}" if level else "")
            stage = stages.setdefault((depth, level), Stage(name))
            names[primitive] = f"{kind[:2]}{len(names)}"
            stage.columns[names[primitive]] = primitive
    return Plan([stages[key] for key in sorted(stages)], lowered, names)


def placed(factors: Mapping[str, Primitive]) -> tuple[dict[str, Primitive], dict[Primitive, int]]:
    """The factors over primitives that each have one stage, and these stages.

    Each factor has the stages that it would have alone, since a query for it pays for what every
    sort carries along. What two factors read in the same stage is one primitive.
    """
    made: dict[tuple, Primitive] = {}
    depths: dict[Primitive, int] = {}
    found: dict[str, Primitive] = {}
    for name, root in factors.items():
        here: dict[Primitive, Primitive] = {}
        for primitive, depth in depths_of(root).items():
            args = tuple(here[each] for each in primitive.args)
            group = here[primitive.group] if primitive.group else None
            key = (primitive, depth, args, group)
            if key not in made:
                made[key] = replace(primitive, args=args, group=group)
            here[primitive] = made[key]
            depths[here[primitive]] = depth
        found[name] = here[root]
    return found, depths


def depths_of(root: Primitive) -> dict[Primitive, int]:
    """Stage of each primitive of a factor: odd for series, even for sections, as few as can be.

    What a stage computes is carried along up to its reader. So windows and what is made of one
    value come as late as their readers allow, and what is made of several as early as it can.
    """

    def fits(primitive: Primitive, depth: int) -> bool:
        return primitive.kind not in WINDOWS or depth % 2 == (primitive.kind == SERIES)

    order = in_order([root])
    first: dict[Primitive, int] = {}
    for primitive in order:
        depth = max((first[read] for read in primitive.reads), default=0)
        depth += primitive.kind in WINDOWS
        first[primitive] = depth if fits(primitive, depth) else depth + 1
    last = {root: first[root]}
    for primitive in reversed(order):
        last[primitive] -= not fits(primitive, last[primitive])
        before = last[primitive] - (primitive.kind in WINDOWS)
        for read in primitive.reads:
            last[read] = min(last.get(read, before), before)
    depths: dict[Primitive, int] = {}
    for primitive in order:
        reads = [read for read in primitive.reads if read.sql != "stock_row"]  # that is everywhere
        if primitive.kind in WINDOWS or len(set(reads)) == 1:
            depths[primitive] = last[primitive]
        else:
            depths[primitive] = max((depths[read] for read in reads), default=0)
    return depths


def in_order(roots: Iterable[Primitive], there: Container[Primitive] = ()) -> list[Primitive]:
    """Every primitive once, what it reads before it; none of those that are there."""
    found: dict[Primitive, None] = {}
    waiting = [(root, False) for root in reversed(list(roots))]
    while waiting:
        primitive, ready = waiting.pop()
        if ready:
            found.setdefault(primitive)
        elif primitive not in found and primitive not in there:
            waiting.append((primitive, True))
            waiting.extend((read, False) for read in reversed(primitive.reads))
    return list(found)


def read_by(primitives: Iterable[Primitive], names: Mapping[Primitive, str]) -> list[Primitive]:
    """Columns that primitives are written with: those that have names, and those of the inputs."""
    found: dict[Primitive, None] = {}
    waiting = list(primitives)
    while waiting:
        for read in waiting.pop().reads:
            if read in names or read.kind == COLUMN:
                found.setdefault(read)
            else:
                waiting.append(read)
    return list(found)


def statement(
    planned: Plan,
    inputs: str,
    keys: tuple[str, ...] = ("ts_code", "trade_date"),
    stock: str = "ts_code",
    day: str = "trade_date",
) -> str:
    """The select of all factors of a plan, one row per row of `inputs`, in DuckDB's dialect."""

    def written(primitive: Primitive, whole: bool = False) -> str:
        if primitive in planned.names and not whole:
            return planned.names[primitive]
        if primitive.kind in (COLUMN, CONSTANT):
            return primitive.sql
        text = PLACE.sub(lambda place: written(primitive.args[int(place[1])]), primitive.sql)
        if primitive.kind == ELEMENT:
            return f"({text})" if text.startswith("case") else text
        if primitive.frame == "group":
            return text.replace("{over}", f" over {window(primitive)}")
        return f"{text} over {window(primitive)}"

    def window(primitive: Primitive) -> str:
        if primitive.kind == SECTION:
            parts = [day] + ([written(primitive.group)] if primitive.group else [])
            divided = f"partition by {', '.join(parts)}"
            if primitive.frame == "group":
                return f"({divided})"
            frame = "" if primitive.frame == "place" else f" {ALL_ROWS}"
            return f"({divided} order by {written(primitive.args[0])}{frame})"
        if primitive.group:
            group = written(primitive.group)
            return f"(partition by {stock}, {group} order by stock_row {FRAMES[primitive.frame]})"
        return f"rows_{primitive.frame}"

    def definition(frame: int | str) -> str:
        if isinstance(frame, int):
            rows = f" rows between {frame - 1} preceding and current row"
        else:
            rows = f" {FRAMES[frame]}" if frame in FRAMES else ""
        return f"rows_{frame} as (partition by {stock} order by stock_row{rows})"

    def named(primitive: Primitive) -> str:
        return planned.names.get(primitive, primitive.sql)

    chosen = planned.factors
    wanted = {each for each in chosen.values() if each in planned.names or each.kind == COLUMN}
    wanted.update(read_by([each for each in chosen.values() if each not in wanted], planned.names))
    needed = [wanted]  # what each select has to pass on, the last one first
    for stage in reversed(planned.stages):
        mine = set(stage.columns.values())
        needed.append((needed[-1] - mine).union(read_by(mine, planned.names)))
    needed.reverse()
    always = dict.fromkeys((*keys, stock, day, "stock_row"))

    parts, last = [], inputs
    for stage, passed in zip(planned.stages, needed[1:], strict=True):
        mine = set(stage.columns.values())
        carried = dict.fromkeys((*always, *sorted(named(each) for each in passed - mine)))
        columns = [f"{written(each, True)} as {name}" for name, each in stage.columns.items()]
        frames = sorted(
            {
                each.frame
                for each in stage.columns.values()
                if each.kind == SERIES and each.group is None
            },
            key=lambda frame: (isinstance(frame, str), frame),
        )
        windows = f" window {', '.join(definition(frame) for frame in frames)}" if frames else ""
        parts.append(
            f"{stage.name} as (select {', '.join((*carried, *columns))} from {last}{windows})"
        )
        last = stage.name
    selected = [f"{written(each)} as {name}" for name, each in chosen.items()]
    select = f"select {', '.join((*keys, *selected))} from {last}"
    return f"with {', '.join(parts)} {select}" if parts else select


def printed(sql: str, dialect: str = "duckdb") -> str:
    """The statement laid out for reading, in any dialect that sqlglot writes."""
    return sqlglot.parse_one(sql, read="duckdb").sql(dialect=dialect, pretty=True)
