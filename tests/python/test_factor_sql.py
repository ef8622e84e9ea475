"""The SQL of factors against the plain evaluator, on made-up and real panels."""

import csv
import itertools
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np
import pytest

from daily_label_models import build, label_models
from daily_real import put_real
from daily_sql import new_connection
from factor_panels import (
    compare,
    differ,
    part_of,
    put_inputs,
    random_panel,
    side_by_side,
    sql_of,
    values_of,
)
from factor_trees import COLUMNS, VALUES, tree
from warehouse import REAL_DAILY_DATA, REPO, memory_connection
from wavehouse.factors import primitives
from wavehouse.factors.catalog import WARM_UP, Catalog, read_catalog
from wavehouse.factors.expression import Expression, columns, normalise, walk
from wavehouse.factors.language import parse
from wavehouse.factors.operators import GROUP_COLUMNS, OPERATORS

with (REPO / "seeds" / "factor_families.csv").open(newline="", encoding="utf-8") as lines:
    FAMILIES = list(csv.DictReader(lines))
TOGETHER = 20  # factors in one statement: what a family carries along takes longer than its windows


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return read_catalog(REPO)


@pytest.fixture(scope="module")
def factors(catalog) -> dict[str, Expression]:
    return {factor.factor_id: factor.expression for factor in catalog.factors}


def computed(connection, expressions: dict, warm: dict) -> dict[str, np.ndarray]:
    """Values of factors over `inputs`, some factors a statement."""
    found, names = {}, iter(expressions)
    while some := list(itertools.islice(names, TOGETHER)):
        found |= values_of(connection, sql_of({name: expressions[name] for name in some}, warm))
    return found


# random expressions


def trees_of_every_operator(seed: int) -> dict[str, Expression]:
    """A normalised tree at most three operators deep for each operator, which it has in it."""
    random, found = Random(seed), {}
    for place, name in enumerate(sorted(set(OPERATORS) - TURNED)):
        while True:
            tried = normalise(tree(random, 3))
            if name in {node.op for node in walk(tried)}:
                break
        found[f"tree_{place}"] = tried
    return found


TURNED = {">", ">="}  # the normal form has their arguments the other way round


def random_frame(seed: int, unknown: tuple[str, ...], stocks: int = 4, days: int = 9) -> dict:
    """Few different values, so many ties, and holes in all columns but those of COLUMNS not named.

    Of `open` the first row of each stock is unknown in any case.
    """
    random = np.random.default_rng(seed)
    stock, day = (part.ravel() for part in np.meshgrid(np.arange(stocks), np.arange(days)))
    kept = random.permutation(np.flatnonzero(random.random(stock.size) < 0.9))
    frame = {"stock": stock[kept], "day": day[kept]}
    for name in COLUMNS:
        values = VALUES[: 4 + seed % 8] if random.random() < 0.3 else VALUES
        values = [value for value in values if name in unknown or not np.isnan(value)]
        frame[name] = random.choice(values, kept.size)
    first = {each: frame["day"][frame["stock"] == each].min() for each in set(frame["stock"])}
    is_first = frame["day"] == [first[each] for each in frame["stock"]]
    frame["open"] = np.where(is_first, np.nan, frame["open"])
    for name in sorted(GROUP_COLUMNS):
        frame[name] = random.choice(np.array(["a", "b", None], dtype=object), kept.size)
    return frame


# which columns may be unknown anywhere, first unknown rows of the others, forms of the operators
FORMS = {
    "anything unknown": (COLUMNS, {}, {}),
    "first rows unknown": (
        ("moneyflow.net_cny",),
        {"close": 0, "volume": 0, "open": 1},
        {},
    ),
    "long windows": (COLUMNS, {}, {"UNROLLED": 1}),
    "long windows, first rows unknown": (
        ("moneyflow.net_cny",),
        {"close": 0, "volume": 0, "open": 1},
        {"UNROLLED": 1},
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_random_expressions(form: str, monkeypatch):
    unknown, warm, forms = FORMS[form]
    for name, value in forms.items():
        monkeypatch.setattr(primitives, name, value)
    seed = 100 * list(FORMS).index(form)
    frame, _ = side_by_side(*(random_frame(seed + each, unknown) for each in range(12)))
    expressions = trees_of_every_operator(seed)
    used = {node.op for expression in expressions.values() for node in walk(expression)}
    assert used >= OPERATORS.keys() - TURNED
    connection = memory_connection(1)
    put_inputs(connection, frame)
    found = computed(connection, expressions, warm)
    wrong, left_out, expected = compare(expressions, frame, found)
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())
    cells = sum(np.sum(~np.isnan(values)) for values in expected.values())
    assert sum(left_out.values()) < 0.02 * cells, left_out


# every factor of the catalog

NO_REAL_DATA = f"no real bars at {REAL_DAILY_DATA}"
# made-up panel of all factors: cells that rounding decides, of over a million
LEFT_OUT = 250


def real_panel(read: list[str], stocks: int = 8, days: int = 270) -> dict:
    """Traded rows of factors.daily_panel from real bars; what the files lack is unknown."""
    connection = new_connection()
    put_real(connection, "baostock_hs300_2020_2025", count=3)
    build(connection, {"factors.daily_panel": label_models("real").sql["factors.daily_panel"]})
    rows = connection.execute(
        """
        select *
        from factors.daily_panel
        where
            not is_suspended
            and columns(['open', 'high', 'low', 'close', 'volume', 'amount']) is not null
            and ts_code in (
                select distinct ts_code from factors.daily_panel order by ts_code limit $stocks
            )
            and trade_date in (
                select distinct trade_date
                from factors.daily_panel
                where trade_date >= '2023-06-01'
                order by trade_date
                limit $days
            )
        order by ts_code, trade_date
        """,
        {"stocks": stocks, "days": days},
    ).df()
    stock = rows["ts_code"].astype("category").cat.codes.to_numpy(int)
    rows["returns"] = rows["close"] / rows.groupby("ts_code")["close"].shift() - 1
    frame = {"stock": stock, "day": rows["trade_date"].rank(method="dense").to_numpy(int)}
    for name in read:
        if name in GROUP_COLUMNS:
            frame[name] = np.array([None] * len(rows), dtype=object)
        elif name in rows:
            frame[name] = rows[name].to_numpy(float, na_value=np.nan)
        else:
            frame[name] = np.full(len(rows), np.nan)
    return frame


@dataclass
class Compared:
    """Factors on two panels side by side, by SQL and by the evaluator."""

    frame: dict
    places: list[slice]
    found: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    wrong: dict[str, str]
    left_out: dict[str, int]


@pytest.fixture(scope="module")
def compared(catalog, factors) -> Compared:
    """All factors on a made-up panel and, where there are real bars, on these beside it."""
    panels = [random_panel(5, catalog.columns())]
    if REAL_DAILY_DATA.is_dir():
        panels.append(real_panel(catalog.columns()))
    frame, places = side_by_side(*panels)
    connection = memory_connection(1)
    put_inputs(connection, frame)
    found = computed(connection, factors, WARM_UP)
    wrong, left_out, expected = compare(factors, frame, found)
    return Compared(frame, places, found, expected, wrong, left_out)


def test_the_made_up_panel_has_what_matters(compared):
    frame = part_of(compared.frame, compared.places[0])
    assert {frame["day"].size} <= set(range(3000, 3600))
    assert 5 < np.isnan(frame["vwap"]).sum() < 30
    assert 200 < sum(group is None for group in frame["industry_l1"]) < 400
    first = [frame["day"][frame["stock"] == stock].min() for stock in range(12)]
    assert sum(day > 0 for day in first) == 4
    days = frame["stock"].size - sum(300 - day for day in first)
    assert -40 < days < 0
    still = (frame["stock"] == 1) & (frame["high"] == frame["low"])
    assert still.sum() > 20
    # nothing is compared in vain: every factor is known somewhere
    known = {
        name: np.sum(~np.isnan(values[compared.places[0]]))
        for name, values in compared.expected.items()
    }
    assert {name for name, count in known.items() if count == 0} == set()
    assert sum(known.values()) > 1_000_000


@pytest.mark.parametrize("family", [row["family"] for row in FAMILIES])
def test_every_factor_of_the_catalog(family: str, compared, catalog):
    members = catalog.of_family(family)
    assert members.keys() <= compared.found.keys()
    wrong = [f"{name}: {compared.wrong[name]}" for name in members if name in compared.wrong]
    assert not wrong, "\n".join(wrong)


def test_few_cells_are_left_out(compared, catalog):
    assert compared.found.keys() == {factor.factor_id for factor in catalog.factors}
    assert sum(compared.left_out.values()) <= LEFT_OUT, compared.left_out
    cells = compared.frame["day"].size
    assert all(count < 0.02 * cells for count in compared.left_out.values()), compared.left_out


@pytest.mark.skipif(not REAL_DAILY_DATA.is_dir(), reason=NO_REAL_DATA)
def test_every_price_factor_on_real_bars(compared, catalog):
    real = compared.places[1]
    assert compared.frame["day"][real].size > 1500
    price = {**catalog.of_family("alpha101"), **catalog.of_family("gtja191")}
    known = {name for name in price if not np.isnan(compared.expected[name][real]).all()}
    needs = ("market_cap", "industry", "daily_basic.", "float_market_cap")
    unknown = {
        name
        for name, expression in price.items()
        if name not in known and not any(each.startswith(needs) for each in columns(expression))
    }
    # windows of correlations of ranks, which among a few stocks stay as they are for days
    assert unknown <= {"alpha_092", "alpha_096", "gtja_064"}
    assert not compared.wrong.keys() & price.keys()


# what values may not depend on


def sample(catalog: Catalog) -> dict[str, Expression]:
    """Some factors of each family, and a tree of each operator."""
    some = {}
    for family in catalog.families:
        members = list(catalog.of_family(family.family).items())
        some |= dict(members[:: max(1, len(members) // 4)])
    return some | trees_of_every_operator(7)


CUTS = (70, 141)


def test_later_days_order_of_rows_and_threads_change_nothing(catalog):
    expressions = sample(catalog)
    read = columns(*expressions.values())
    whole = random_panel(5, read, stocks=6, days=160)
    cuts = [part_of(whole, whole["day"] <= day) for day in CUTS]
    frame, places = side_by_side(whole, *cuts)
    one, two = memory_connection(1), memory_connection(2)
    put_inputs(one, frame)
    found = computed(one, expressions, WARM_UP)
    for cut, place, day in zip(cuts, places[1:], CUTS, strict=True):
        known = {name: values[places[0]][whole["day"] <= day] for name, values in found.items()}
        for name, expression in expressions.items():
            apart = differ(found[name][place], known[name])
            if apart.any():
                wrong, _, _ = compare({name: expression}, cut, {name: found[name][place]})
                assert not wrong, f"{name} knew days after {day}: {wrong}"
                wrong, _, _ = compare({name: expression}, whole, {name: found[name][places[0]]})
                assert not wrong, f"{name}: {wrong}"
    put_inputs(two, frame)
    by_two = computed(two, expressions, WARM_UP)
    put_inputs(two, frame, shuffled=3)
    turned = computed(two, expressions, WARM_UP)
    for name, values in found.items():
        assert values.tobytes() == by_two[name].tobytes(), f"{name} depends on the threads"
        assert values.tobytes() == turned[name].tobytes(), f"{name} depends on the order of rows"


def test_running_averages_beyond_a_block_of_rows(monkeypatch):
    monkeypatch.setattr(primitives, "BLOCK_ROWS", 1)
    texts = [
        *("sma(close, 2, 1)", "sma(close, 3, 1)", "sma(volume, 20, 19)", "sma(vwap, 4, 3)"),
        *("sma(sma(returns, 5, 2), 3, 2)", "sma(close > open, 7, 4)", "self(1, 1 + returns)"),
    ]
    expressions = {f"running_{place}": parse(text) for place, text in enumerate(texts)}
    frame = random_panel(5, columns(*expressions.values()))
    connection = memory_connection(1)
    put_inputs(connection, frame)
    for warm in (WARM_UP, {}):
        wrong, left_out, _ = compare(expressions, frame, computed(connection, expressions, warm))
        assert not wrong, wrong
        assert not left_out


# faults that must be noticed


@dataclass
class Fault:
    """A change of the SQL, by pattern and replacement, that a formula's values must show."""

    text: str
    pattern: str
    replacement: str | Callable


FAULTS = {
    "a window of one row more": Fault(
        "sum(close, 5)", r"between 4 preceding", "between 5 preceding"
    ),
    "a window that ends a row early": Fault(
        "mean(close, 5)", r"4 preceding and current row", "5 preceding and 1 preceding"
    ),
    "a window across stocks": Fault("sum(close, 5)", r"partition by ts_code order", "order"),
    "a lag across stocks": Fault(
        "delay(moneyflow.net_cny, 2)",
        r"\(partition by ts_code order by stock_row\)",
        "(order by ts_code, stock_row)",
    ),
    "a lag of one row more": Fault("delay(close, 2)", r"lag\(close, 2\)", "lag(close, 3)"),
    "a lead for a lag": Fault("delay(close, 1)", r"\blag\(", "lead("),
    "no guard of the first rows": Fault("sum(close, 5)", r"stock_row > \d+", "stock_row > 0"),
    "a guard that is a row short": Fault(
        "rank(sum(returns, 5))", r"stock_row > 5", "stock_row > 4"
    ),
    "an unknown row inside a window": Fault(
        "sum(moneyflow.net_cny, 5)", r"when \w+ = 5 then", "when true then"
    ),
    "an unknown row in a correlation": Fault(
        "correlation(moneyflow.net_cny, close, 5)", r"when \w+ = 5 then", "when true then"
    ),
    "ranks without ties": Fault("rank(volume > 1000000)", r"\brank\(\) over", "row_number() over"),
    "the highest rank of ties": Fault(
        "rank(volume > 1000000)", r"\(\w+ \+ round\((.*?)\)\) / \(2", r"(2 * round(\1)) / (2"
    ),
    "a rank that counts unknown rows": Fault(
        "rank(moneyflow.net_cny)", r"count\(\w+\) over", "count(*) over"
    ),
    "a rank without rounding": Fault(
        "rank(close / volume * volume / close)", r"(\w+) \* 8193 - \(\w+ \* 8193 - \w+\)", r"\1"
    ),
    "a rank within the stock": Fault(
        "rank(close)", r"partition by trade_date", "partition by ts_code"
    ),
    "a mean of all days": Fault("cs_mean(close)", r"partition by trade_date", ""),
    "a mean up to the own row": Fault(
        "cs_mean(close)", r"partition by trade_date", "partition by trade_date order by ts_code"
    ),
    "groups that are not told apart": Fault(
        "ind_neutralize(close, IndClass.sector)", r"trade_date, industry_l1", "trade_date"
    ),
    "the group of those without one": Fault(
        "ind_neutralize(close, IndClass.sector)",
        r"case when industry_l1 is not null then (.*?) end",
        r"\1",
    ),
    "a recursion across stocks": Fault(
        "sma(close, 3, 1)", r"\(partition by ts_code, ", "(partition by "
    ),
    "a recursion that starts at 0": Fault(
        "sma(close, 3, 1)", r"case when stock_row = 1 then", "case when false then"
    ),
    "the other weight of a recursion": Fault("sma(close, 3, 1)", r"0\.405465\d+", "0.2"),
    "correlation of a constant": Fault(
        "correlation(close / volume / 3 * volume * 3, volume, 5)",
        r"\(not \([^()]*\)\)",
        "true",
    ),
    "correlation of what is constant in a long window": Fault(
        "correlation(close / volume / 3 * volume * 3, volume, 15)",
        r"\(\w+ < \w+\)",
        "true",
    ),
    "deviation of the population": Fault("stddev(close, 5)", r"stddev_samp", "stddev_pop"),
    "the other extreme": Fault("ts_argmax(close, 5)", r"arg_max\(", "arg_min("),
    "the newest of equal extremes": Fault(
        "ts_argmax(sign(returns), 5)",
        r"sign\(returns\)::double",
        "sign(returns) + stock_row * 1e-6",
    ),
    "weights the other way round": Fault(
        "decay_linear(close, 3)",
        r"3 \* (\w+) \+ 2 \* (\w+) \+ 1 \* (\w+)",
        r"1 * \1 + 2 * \2 + 3 * \3",
    ),
    "weights of the whole history": Fault(
        "decay_linear(close, 15)", r"\(stock_row - 15\)", "(stock_row - 14)"
    ),
    "an unknown condition is false": Fault(
        "moneyflow.net_cny > 5 ? 1 : 2", r"when not .*? then 2 end", "else 2 end"
    ),
    "false and unknown is false": Fault(
        "(moneyflow.net_cny > 5 and close > 20) * 1",
        r"case when .*? is not null and .*? is not null then (\(.*? and .*?\)) end",
        r"\1",
    ),
    "ranks in time without ties": Fault(
        "ts_rank(volume > 1000000, 4)", r"= (\w+) then 1", r"= \1 then 0"
    ),
    "another row's residual": Fault(
        "reg_residual(close, volume, 9)", r"avg\(close\)", "first_value(close)"
    ),
}


@pytest.fixture(scope="module")
def small_panel() -> dict:
    """Rows for every fault: holes, ties, and a month without a move."""
    read = sorted({name for fault in FAULTS.values() for name in columns(parse(fault.text))})
    return random_panel(5, read, stocks=6, days=140)


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_noticed(name: str, small_panel):
    fault = FAULTS[name]
    expressions = {"factor": normalise(parse(fault.text))}
    connection = memory_connection(1)
    put_inputs(connection, small_panel)
    sound = sql_of(expressions, WARM_UP)
    wrong, _, _ = compare(expressions, small_panel, values_of(connection, sound))
    assert not wrong
    faulty = re.sub(fault.pattern, fault.replacement, sound)
    assert faulty != sound, sound
    wrong, _, _ = compare(expressions, small_panel, values_of(connection, faulty))
    assert wrong, faulty


# what one factor of a family costs


def windows_of(connection, query: str) -> tuple[Counter, int]:
    """Window functions of a query's plan by name, and how many operators compute them."""
    text = connection.execute(f"explain (format json) {query}").fetchall()[0][1]
    functions, operators = Counter(), 0
    waiting = json.loads(text)
    while waiting:
        node = waiting.pop()
        waiting += node.get("children", [])
        if "WINDOW" in node["name"].upper():
            operators += 1
            functions.update(functions_of(json.dumps(node["extra_info"])))
    return functions, operators


def functions_of(written: str) -> list[str]:
    """Names of the functions before `OVER`, whose arguments may have parentheses."""
    names = []
    for end in (match.start() for match in re.finditer(r"\) OVER", written)):
        start, depth = end, 1
        while depth:
            start -= 1
            depth += {")": 1, "(": -1}.get(written[start], 0)
        names.append(re.search(r"\w+$", written[:start])[0].lower())
    return names


@pytest.mark.parametrize(
    ("family", "names"),
    [
        ("technical", ("tech_ma5_ratio", "tech_cci_14", "tech_macd_dea")),
        ("alpha101", ("alpha_002", "alpha_046", "alpha_061")),
    ],
)
def test_one_factor_of_a_view_costs_its_own_windows(family: str, names: tuple, catalog):
    expressions = catalog.of_family(family)
    connection = memory_connection(1)
    put_inputs(connection, random_panel(5, columns(*expressions.values()), stocks=2, days=140))
    connection.execute(f"create view family as {sql_of(expressions, WARM_UP)}")
    for name in names:
        alone = sql_of({name: expressions[name]}, WARM_UP)
        one, operators = windows_of(connection, f"select ts_code, trade_date, {name} from family")
        own, own_operators = windows_of(connection, alone)
        assert own.total() > 0
        assert one == own
        assert operators == own_operators
