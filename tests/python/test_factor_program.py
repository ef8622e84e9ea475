"""factors.factor_panel: all factors over an ordered table, and day by day from what is kept."""

import math
import shutil
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factor_panels import (
    compare,
    differ,
    part_of,
    put_inputs,
    random_panel,
    side_by_side,
    values_of,
)
from test_factor_sql import FORMS, computed, random_frame, sample, trees_of_every_operator
from warehouse import REPO, Warehouse, memory_connection
from wavehouse.factors import primitives, program, unrolled
from wavehouse.factors.catalog import WARM_UP, read_catalog
from wavehouse.factors.expression import Expression, columns, walk
from wavehouse.factors.language import parse

PANEL = "ts_code, trade_date"


@pytest.fixture(scope="module")
def catalog():
    return read_catalog(REPO)


def planned(expressions: dict[str, Expression], warm: dict[str, int]) -> program.Program:
    read = columns(*expressions.values())
    return program.Program(expressions, {name: warm.get(name) for name in read})


def run(connection, steps: list[program.Step]) -> None:
    for step in steps:
        for statement in step.statements:
            connection.execute(statement)


def put_history(connection, made: program.Program, inputs: str = "inputs") -> None:
    """Tables `panel` and `state` of all rows of the inputs."""
    steps, tables, state = program.history(made, inputs)
    run(connection, steps)
    source = " positional join ".join(("factor_base", *tables))
    listed = ", ".join(made.roots)
    connection.execute(f"create or replace table panel as select {PANEL}, {listed} from {source}")
    connection.execute(f"create or replace table state as {state}")


def add_day(connection, made: program.Program, day: int, inputs: str = "inputs") -> None:
    """The rows of one day more, and the state after it."""
    steps, table, state = program.next_day(made, inputs, "state", str(day))
    run(connection, steps)
    listed = ", ".join(made.roots)
    connection.execute(
        f"insert into panel select {PANEL}, {listed} from factor_today positional join {table}"
    )
    connection.execute(f"create or replace table state as {state}")


def by_program(connection, expressions: dict, warm: dict) -> dict[str, np.ndarray]:
    put_history(connection, planned(expressions, warm))
    return values_of(connection, "from panel")


@pytest.mark.parametrize("form", FORMS)
def test_random_expressions(form: str, monkeypatch):
    unknown, warm, _ = FORMS[form]
    if "long" in form:  # windows in parts, no macros, every column on its own
        monkeypatch.setattr(unrolled, "PART", 2)
        monkeypatch.setattr(program, "LAGS_OF_A_MACRO", 10**6)
        monkeypatch.setattr(program, "FACTORS_TOGETHER", 5)
        monkeypatch.setattr(program, "LARGE", 4)
    seed = 1000 + 100 * list(FORMS).index(form)
    frame, _ = side_by_side(*(random_frame(seed + each, unknown) for each in range(12)))
    expressions = trees_of_every_operator(seed)
    connection = memory_connection(1)
    put_inputs(connection, frame)
    found = by_program(connection, expressions, warm)
    wrong, left_out, expected = compare(expressions, frame, found)
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())
    cells = sum(np.sum(~np.isnan(values)) for values in expected.values())
    assert sum(left_out.values()) < 0.02 * cells, left_out


def test_every_factor_is_what_its_view_says(catalog):
    expressions = {factor.factor_id: factor.expression for factor in catalog.factors}
    frame = random_panel(11, catalog.columns(), stocks=9)
    connection = memory_connection(2)
    put_inputs(connection, frame, shuffled=5)
    found = by_program(connection, expressions, WARM_UP)
    put_inputs(connection, frame)
    views = computed(connection, expressions, WARM_UP)
    found = values_of(connection, "from panel")
    apart = {name: expressions[name] for name in found if differ(found[name], views[name]).any()}
    assert len(apart) < 30
    # where they differ, the evaluator has the word: rounding decides those few cells
    wrong, _, _ = compare(apart, frame, found)
    assert not wrong, "\n".join(wrong.values())
    assert sum(np.sum(~np.isnan(values)) for values in found.values()) > 500_000


def carries_a_state(expression: Expression) -> bool:
    return any(node.op in ("sma", "self") for node in walk(expression))


@pytest.mark.parametrize(("days", "first", "last"), [(300, 294, 297), (140, 2, 12)])
def test_a_day_more_is_a_full_build(catalog, days, first, last):
    """Among old stocks, and where most are new: to the bit, but for values that carry a state."""
    expressions = sample(catalog)
    frame = random_panel(3, columns(*expressions.values()), days=days)
    frame = part_of(frame, frame["day"] <= last)
    started = {stock: frame["day"][frame["stock"] == stock].min() for stock in range(12)}
    if first < 10:
        assert sum(first < day <= last for day in started.values()) >= 2
    connection = memory_connection(2)
    put_inputs(connection, frame)
    made = planned(expressions, WARM_UP)
    put_history(connection, made)
    whole = values_of(connection, "from panel")
    until = "(select * from inputs where trade_date <= {})"
    put_history(connection, made, until.format(first))
    for _, day in pairwise(range(first, last + 1)):
        add_day(connection, made, day)
    stepwise = values_of(connection, "from panel")
    for name, expression in expressions.items():
        if carries_a_state(expression):
            assert not differ(stepwise[name], whole[name]).any(), name
        else:
            assert stepwise[name].tobytes() == whole[name].tobytes(), name
    assert sum(carries_a_state(expression) for expression in expressions.values()) > 5


def exact_ranks(values: np.ndarray) -> np.ndarray:
    """Place among whole numbers, from 1; of equal ones the mean."""
    return np.array([((values < one).sum() * 2 + (values == one).sum() + 1) / 2 for one in values])


def test_ties_of_covariances_of_ranks_are_ties():
    """Against whole numbers: 5 (n-1) times the covariance of twice the ranks is one."""
    text, rows = "rank(covariance(rank(close), rank(volume), 5))", 5
    expressions = {"factor": parse(text)}
    random = np.random.default_rng(7)
    stocks, days = 60, 500
    stock, day = (each.ravel() for each in np.indices((stocks, days)))
    frame = {"stock": stock, "day": day}
    frame |= {name: random.permutation(day.size) + 1.0 for name in ("close", "volume")}
    connection = memory_connection(2)
    put_inputs(connection, frame)
    by_row = {"panel": by_program(connection, expressions, WARM_UP)}
    by_row["view"] = computed(connection, expressions, WARM_UP)
    places = {
        name: np.array([2 * exact_ranks(of_day) for of_day in frame[name].reshape(stocks, days).T])
        for name in ("close", "volume")
    }
    ties = wrong = 0
    for last in range(rows - 1, days):
        x, y = (places[name][last - rows + 1 : last + 1] for name in ("close", "volume"))
        whole = rows * (x * y).sum(axis=0) - x.sum(axis=0) * y.sum(axis=0)
        ties += stocks - len(np.unique(whole))
        for found in by_row.values():
            ranks = found["factor"].reshape(stocks, days)[:, last] * stocks
            wrong += np.sum(np.abs(ranks - exact_ranks(whole)) > 1e-6)
    assert ties > 80
    assert wrong == 0


NUMBERS = st.floats(-1e38, 1e38, allow_subnormal=False) | st.sampled_from([1e-7, 1.5, -1e13, 1e31])


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.randoms())
def test_a_sum_across_a_day_does_not_depend_on_the_order(sum_of, values, random):
    exact = math.fsum(values)
    least = 1e-15 * math.fsum(map(abs, values))
    small = [value for value in values if value == 0 or 2**-80 <= abs(value) < 2**100]
    found = sum_of(small)
    random.shuffle(small)
    assert sum_of(small) == found
    assert sum_of(values) == pytest.approx(exact, abs=least, rel=0)


@pytest.fixture(scope="module")
def sum_of():
    connection = memory_connection(1)
    sql = primitives.exact_sum("value").format(over="")

    def found(values: list[float]) -> float:
        listed = {"values": values}
        query = f"select {sql} from (select unnest($values::double[]) as value)"
        return connection.execute(query, listed).fetchall()[0][0]

    return found


def test_what_is_kept_of_the_past_is_read():
    """A wrong list of the past shows: the day's values are made of it."""
    expressions = {"moved": parse("mean(close, 3) + delay(volume, 2)")}
    connection = memory_connection(1)
    put_inputs(connection, random_panel(3, ["close", "volume"], stocks=3, days=140))
    made = planned(expressions, WARM_UP)
    put_history(connection, made)
    connection.execute("create table whole as from panel where trade_date = 31")
    found = []
    for spoilt in ("p_close", "[p_volume[1], p_volume[2] + 1]", "p_volume"):
        put_history(connection, made, "(select * from inputs where trade_date <= 30)")
        name = "p_close" if "close" in spoilt else "p_volume"
        connection.execute(f"update state set {name} = {spoilt}")
        add_day(connection, made, 31)
        same = connection.execute(
            f"select bool_and(panel.moved = whole.moved) from panel join whole using ({PANEL})"
        )
        found.append(same.fetchall()[0][0])
    assert found == [True, False, True]


def test_a_table_out_of_order_is_refused():
    connection = memory_connection(1)
    connection.execute("create table factor_base as select 3 - i as place from range(3) as t(i)")
    with pytest.raises(Exception, match="out of order"):
        connection.execute(program.IN_ORDER)


@pytest.mark.parametrize("kept", [["b", "a"], ["a", "c"], ["c"]])
def test_lists_of_other_stocks_are_refused(kept):
    connection = memory_connection(1)
    connection.execute("create table factor_today as select unnest(['a', 'b']) as ts_code")
    past = "create or replace table factor_past as select unnest($stocks) as past_ts_code"
    for stocks in (["a", "b"], ["a"]):  # b is new
        connection.execute(past, {"stocks": stocks})
        connection.execute(program.SAME_STOCKS)
    connection.execute(past, {"stocks": kept})
    with pytest.raises(Exception, match="out of order"):
        connection.execute(program.SAME_STOCKS)


def test_columns_are_dropped_after_their_last_reader(catalog):
    made = planned(sample(catalog), WARM_UP)
    steps, tables, state = program.history(made, "inputs")
    alive, most = set(), 0
    for step in steps:
        for statement in step.statements:
            if statement.startswith("drop table"):
                alive.remove(statement.split()[-1])
            elif statement.startswith("create or replace temp table"):
                alive.add(statement.split()[5])
            most = max(most, len(alive))
    assert {table for table in alive if not table.startswith("state_")} == {"factor_base", *tables}
    assert all(table in state for table in alive if table.startswith("state_"))
    assert most < len(alive) + 200


def test_dbt_adds_days_and_leaves_the_others(sample_warehouse, tmp_path):
    """Two days more, made of the last one: dbt computes these, to what a whole history gives."""
    warehouse = Warehouse(sample_warehouse.data_dir, tmp_path / "warehouse.duckdb")
    shutil.copy(sample_warehouse.file, warehouse.file)
    days = ("2099-01-01", "2099-01-02")
    with warehouse.connect(read_only=False) as connection:
        built = "select count(*), sum(hash(panel)::hugeint) from factors.factor_panel as panel"
        before = connection.execute(built).fetchall()
        for number, day in enumerate(days, start=1):
            connection.execute(
                f"""
                insert into factors.factor_inputs
                select * replace (
                    date '{day}' as trade_date,
                    stock_row + {number} as stock_row,
                    close * (1 + 0.01 * (hash(ts_code) % 7)) as close,
                    volume * (1 + hash(ts_code, {number}) % 3) as volume
                )
                from factors.factor_inputs
                where trade_date = (select max(trade_date) from factors.daily_panel)
                """
            )
    warehouse.dbt("run", "--select", "factor_panel")
    chosen = ("alpha_001", "alpha_013", "gtja_042", "tech_rsi_6", "mf_net_5d", "zt_streak")
    everything = {factor.factor_id: factor.expression for factor in read_catalog(REPO).factors}
    expressions = {name: everything[name] for name in chosen}
    units = dict.fromkeys(chosen, 1.0) | {"mf_net_5d": 1e6}
    with warehouse.connect(read_only=False) as connection:
        assert connection.execute(f"{built} where trade_date < '2099-01-01'").fetchall() == before
        inputs = "(select *, true as in_universe from factors.factor_inputs)"
        put_history(connection, planned(expressions, WARM_UP), inputs)
        for name in expressions:
            rows, known, apart = connection.execute(
                f"""
                select
                    count(*),
                    count(expected),
                    count(*) filter (
                        (found is null) <> (expected is null)
                        or abs(found - expected) > 1e-9 * greatest(abs(found), abs(expected))
                    )
                from (
                    select {PANEL},
                        case
                            when {name} is not null
                                then least(greatest({name} / {units[name]}, -1e6), 1e6)
                        end as expected
                    from panel
                )
                inner join (select {PANEL}, {name} as found from factors.factor_panel)
                    using ({PANEL})
                where trade_date >= '2099-01-01'
                """
            ).fetchall()[0]
            assert rows > 100
            assert known > 0, name
            assert apart == 0, name
