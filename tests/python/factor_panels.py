"""Panels of the columns that factors read, and their factors by SQL and by the evaluator.

A frame is what oracle_factors reads: {column: array} with `stock` and `day`, a column of a feed by
its name in formulas (`feed.column`), nan or None where a value is unknown.
"""

from collections.abc import Mapping

import duckdb
import numpy as np
import pandas as pd

import oracle_factors
from wavehouse.factors import compiler
from wavehouse.factors.expression import Expression, columns

RELATIVE = 1e-9
DRAWS = 8


def random_panel(seed: int, read: list[str], stocks: int = 12, days: int = 300) -> dict:
    """Prices, volumes and feeds of a market with all that makes factors unknown or undecided.

    A third of the stocks is listed late, others miss days; one does not move for a month, one is of
    no industry; prices are whole cents and volumes whole lots, so that ties are many. Feeds have
    holes. Size and book value are spread over the stocks so that every sort of both has members.
    """
    random = np.random.default_rng(seed)
    market = random.normal(0, 0.01, days)
    parts = []
    for stock in range(stocks):
        first = int(random.integers(1, days // 8)) if stock % 3 == 2 else 0
        day = np.arange(first, days)
        day = day[random.random(day.size) > (0.02 if stock % 4 == 1 else 0)]
        count = day.size
        level = _levels(market[day] + random.normal(0, 0.03, count))
        still = slice(100, 130) if stock == 1 else slice(0, 0)
        level[still] = level[still.start]
        close = np.round(20 * np.exp(level), 2)
        open_ = np.round(close * np.exp(random.normal(0, 0.01, count)), 2)
        open_[still] = close[still]
        spread = np.abs(random.normal(0, 0.01, (2, count)))
        spread[:, still] = 0
        part = {
            "stock": np.full(count, stock),
            "day": day,
            "open": open_,
            "high": np.round(np.maximum(open_, close) * (1 + spread[0]), 2),
            "low": np.round(np.minimum(open_, close) * (1 - spread[1]), 2),
            "close": close,
            "volume": np.round(np.exp(random.normal(14, 0.6, count)), -2),
            "returns": np.r_[np.nan, close[1:] / close[:-1] - 1],
            "market_cap": close * 1e8 * (1 + stock % 2 * 9 + stock * 0.1),
            "daily_basic.pb": np.exp(stock // 2 % 3 + random.normal(0, 0.1, count)),
            "trading_day": day.astype(float),
        }
        prices = part["open"] + part["high"] + part["low"] + part["close"]
        part["amount"] = np.round(part["volume"] * prices / 4, 2)
        unknown = random.random(count) < (0.01 if stock % 4 == 3 else 0)
        part["vwap"] = np.where(unknown, np.nan, part["amount"] / part["volume"])
        for level, groups in (("l1", 3), ("l2", 4), ("l3", 6)):
            name = None if stock == 5 else f"{level}_{stock % groups}"
            part[f"industry_{level}"] = np.full(count, name, dtype=object)
        parts.append(part)
    frame = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    index = 3000 * np.exp(np.cumsum(market))
    opened = index * np.exp(random.normal(0, 0.004, days))
    frame |= {
        "benchmark_close": index[frame["day"]],
        "benchmark_open": opened[frame["day"]],
        "benchmark_return": np.r_[np.nan, index[1:] / index[:-1] - 1][frame["day"]],
    }
    for name in read:
        if name in frame:
            continue
        if name.rpartition(".")[2].startswith(("is_", "touched_")):
            values = (random.random(frame["day"].size) < 0.3).astype(float)
        else:
            values = np.round(random.normal(0.6, 0.3, frame["day"].size) * 20, 1)
        frame[name] = np.where(random.random(values.size) < 0.004, np.nan, values)
    return {name: frame[name] for name in ("stock", "day", *read)}


def _levels(moves: np.ndarray) -> np.ndarray:
    """Log prices that come back to 0, so that the ranks of prices change often."""
    levels, level = [], 0.0
    for move in moves:
        level = 0.9 * level + move
        levels.append(level)
    return np.array(levels)


def part_of(frame: dict, rows: np.ndarray) -> dict:
    return {name: values[rows] for name, values in frame.items()}


def side_by_side(*frames: dict) -> tuple[dict, list[slice]]:
    """Frames as one, of other stocks and other days each, and the rows of each in it."""
    stocks = days = rows = 0
    moved, places = [], []
    for frame in frames:
        moved.append({**frame, "stock": frame["stock"] + stocks, "day": frame["day"] + days})
        stocks, days = moved[-1]["stock"].max() + 1, moved[-1]["day"].max() + 1
        places.append(slice(rows, rows + frame["day"].size))
        rows = places[-1].stop
    return {name: np.concatenate([frame[name] for frame in moved]) for name in moved[0]}, places


def put_inputs(connection: duckdb.DuckDBPyConnection, frame: dict, shuffled: int = 0) -> None:
    """Write a frame as the relation `inputs`, in stored order or shuffled by a seed."""
    rows = pd.DataFrame({name.replace(".", "__"): values for name, values in frame.items()})
    rows["place"] = np.arange(len(rows))
    if shuffled:
        rows = rows.sample(frac=1, random_state=shuffled)
    numbers = [name for name in rows if rows[name].dtype == float]
    known = ", ".join(f"case when not isnan({name}) then {name} end as {name}" for name in numbers)
    connection.register("rows_of_frame", rows)
    connection.execute(
        f"""
        create or replace table inputs as
        select
            place,
            stock as ts_code,
            day as trade_date,
            row_number() over (partition by stock order by day) as stock_row,
            count(*) over (partition by day) as day_rows,
            true as in_universe,
            * exclude (place, stock, day) replace ({known})
        from rows_of_frame
        order by {"place" if shuffled else "stock, day"}
        """
    )
    connection.unregister("rows_of_frame")


def sql_of(expressions: Mapping[str, Expression], warm: Mapping[str, int]) -> str:
    """The statement of factors over `inputs`; `warm` as in compiler.plan, others may be NULL."""
    read = columns(*expressions.values())
    planned = compiler.plan(expressions, {name: warm.get(name) for name in read})
    return compiler.statement(planned, "inputs")


def values_of(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, np.ndarray]:
    """Each factor's values on the rows of the frame, nan where NULL."""
    connection.execute(f"create or replace table found as {sql}")
    rows = connection.sql(
        "select found.* from found join inputs using (ts_code, trade_date) order by inputs.place"
    ).fetchnumpy()
    factors = {name: values for name, values in rows.items() if name not in KEYS}
    return {
        name: np.ma.filled(np.ma.asarray(values, dtype=float), np.nan)
        for name, values in factors.items()
    }


KEYS = ("ts_code", "trade_date")


def differ(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """Where one value is unknown or infinite and the other is not, or both lie apart."""
    least = RELATIVE * np.maximum(np.abs(found), np.abs(expected))
    finite = np.isfinite(found) & np.isfinite(expected)
    apart = np.abs(np.subtract(found, expected, out=np.zeros(found.shape), where=finite)) > least
    return apart | ~(finite | (found == expected) | (np.isnan(found) & np.isnan(expected)))


def compare(
    expressions: Mapping[str, Expression], frame: dict, found: Mapping[str, np.ndarray]
) -> tuple[dict[str, str], dict[str, int], dict[str, np.ndarray]]:
    """Wrong factors with an example, cells left out of each factor, and the values expected.

    Left out is a cell that the evaluator itself finds otherwise when what it calculates with
    changes in its last digits: such a value says how the arithmetic rounds and nothing else.
    """
    known, wrong, left_out, expected = {}, {}, {}, {}
    draws = [(np.random.default_rng(draw), {}) for draw in range(DRAWS)]
    for name, expression in expressions.items():
        expected[name] = oracle_factors.evaluate(expression, frame, known)
        apart = differ(found[name], expected[name])
        undecided = np.zeros_like(apart)
        for noise, shaken_known in draws:
            if not np.any(apart & ~undecided):
                break
            shaken = oracle_factors.evaluate(expression, frame, shaken_known, noise)
            undecided |= differ(shaken, expected[name])
        if np.any(apart & undecided):
            left_out[name] = int(np.sum(apart & undecided))
        if np.any(apart & ~undecided):
            row = np.flatnonzero(apart & ~undecided)[0]
            wrong[name] = (
                f"{np.sum(apart & ~undecided)} of {apart.size} rows, as stock "
                f"{frame['stock'][row]} day {frame['day'][row]}: {found[name][row]!r}, expected "
                f"{expected[name][row]!r}: {str(expression)[:300]}"
            )
    return wrong, left_out, expected
