"""Factors of minute bars: by SQL and by the evaluator, on runs of minutes without a gap."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from daily_sql import model_sql, new_connection
from factor_panels import compare, differ
from markets import MINUTE_MS, START_MS, random_bars
from warehouse import REAL_MINUTE_DATA, REPO
from wavehouse.factors import catalog
from wavehouse.factors.expression import columns, walk

PERPETUALS = REAL_MINUTE_DATA / "binance_um_perp_1m_2025.parquet"
INPUTS, ALPHAS = "minute_factor_inputs", "minute_alpha101"
KEYS = ["symbol", "open_time_ms"]
PRICES = ["open", "high", "low", "close"]
# they neutralise by industry, or weigh by market value
NOT_OF_MINUTES = {48, 56, 58, 59, 63, 67, 69, 70, 76, 79, 80, 82, 87, 89, 90, 91, 93, 97, 100}
# made-up panel: cells that rounding decides, of over a hundred thousand
LEFT_OUT = 100


@pytest.fixture(scope="module")
def read() -> catalog.Catalog:
    return catalog.read_catalog(REPO)


@pytest.fixture(scope="module")
def alphas(read) -> dict:
    """Expressions that minute bars suffice for."""
    members = read.of_family("alpha101").items()
    return {name: each for name, each in members if catalog.MINUTES.computes(each)}


# ---- bars, and what SQL makes of them


def made_up_bars() -> pd.DataFrame:
    """Six symbols whose minutes are missing, still, without volume, or of unknown volume."""
    bars = random_bars(11, 6, 330, tick=1.0, band_bps=300.0)
    minute = (bars["open_time_ms"] - START_MS) // MINUTE_MS
    symbol = bars["symbol"]

    def of(name: str, first: int, last: int) -> pd.Series:
        return (symbol == name) & minute.between(first, last)

    bars["volume"] = np.round(np.exp(np.random.default_rng(11).normal(5, 1, len(bars))))
    bars.loc[of("S01", 280, 300), PRICES] = 9_987.25
    bars.loc[of("S01", 290, 295), "volume"] = 0.0
    bars.loc[of("S02", 295, 295), "volume"] = np.nan
    bars.loc[symbol == "S03", "volume"] = np.nan
    # a lone minute, a pair, and runs of some length; a symbol that begins late
    gaps = of("S04", 30, 30) | of("S04", 32, 33) | of("S04", 36, 60) | of("S04", 120, 125)
    return bars[~gaps & ~of("S05", 0, 39)].reset_index(drop=True)


def real_bars() -> pd.DataFrame:
    """Some hours of the perpetuals, from before the first bars of most."""
    bars = pd.read_parquet(PERPETUALS).sort_values(KEYS)
    first = bars["open_time_ms"].min()
    chosen = sorted(bars["symbol"].unique())[-7:]
    mine = bars["symbol"].isin(chosen) & (bars["open_time_ms"] < first + 290 * MINUTE_MS)
    return bars[mine].reset_index(drop=True)


def computed(
    bars: pd.DataFrame, select_sql: dict[str, str], change=lambda sql: sql
) -> pd.DataFrame:
    """What some selects give of bars, beside the columns that factors read."""
    connection = new_connection()
    connection.register("given", bars[[*KEYS, *PRICES, "volume"]])
    connection.execute(
        """
        create table staging.base_minute_bars as
        select
            *, null::double as spread_bps, false as is_spread_invalid, 0 as duplicate_count,
            '' as source_file, null::varchar as reject_reason, false as is_repeat
        from given
        """
    )
    connection.execute(f"create table staging.stg_minute_bars as {model_sql('stg_minute_bars')}")
    connection.execute(f"create view factors.{INPUTS} as {change(model_sql(INPUTS))}")
    parts = [connection.sql(f"from factors.{INPUTS} order by all").df()]
    for names, sql in select_sql.items():
        rows = f"select {names} from ({change(sql)}) order by symbol, open_time_ms"
        parts.append(connection.sql(rows).df())
    return pd.concat(parts, axis=1)


def model_computed(bars: pd.DataFrame) -> pd.DataFrame:
    """The alphas of the model, some at a time: all at once take longer than their windows."""
    sql = model_sql(ALPHAS)
    (last,) = re.findall(r"\nSELECT\n(.*?)\nFROM \w+\n?$", sql, re.DOTALL)
    names = re.findall(r" AS (\w+),?$", last, re.MULTILINE)
    some = [", ".join(names[place : place + 15]) for place in range(0, len(names), 15)]
    return computed(bars, dict.fromkeys(some, sql))


def frame_of(bars: pd.DataFrame) -> dict:
    """What the evaluator reads: a stock is a run of minutes without a gap, a day is a minute."""
    bars = bars.sort_values(KEYS)
    run, before, runs, returns = -1, None, [], []
    for bar in bars.itertuples():
        follows = before is not None and (
            before.symbol == bar.symbol and before.open_time_ms + MINUTE_MS == bar.open_time_ms
        )
        run += not follows
        runs.append(run)
        returns.append(bar.close / before.close - 1 if follows else np.nan)
        before = bar
    frame = {name: bars[name].to_numpy(float) for name in (*PRICES, "volume")}
    frame["vwap"] = (frame["high"] + frame["low"] + frame["close"]) / 3
    frame["amount"] = frame["volume"] * frame["vwap"]
    frame["returns"] = np.array(returns)
    return {"stock": np.array(runs), "day": bars["open_time_ms"].to_numpy() // MINUTE_MS, **frame}


def wrong_ones(alphas: dict, bars: pd.DataFrame, found: pd.DataFrame):
    frame = frame_of(bars)
    values = {name: found[name].to_numpy(float, na_value=np.nan) for name in alphas}
    return compare(alphas, frame, values)


@pytest.fixture(scope="module")
def made_up() -> tuple[pd.DataFrame, pd.DataFrame]:
    bars = made_up_bars()
    return bars, model_computed(bars)


# ---- tests


def test_every_alpha_that_minute_bars_suffice_for_is_there(read, alphas, made_up):
    absent = {f"alpha_{number:03}" for number in NOT_OF_MINUTES}
    assert alphas.keys() == read.of_family("alpha101").keys() - absent
    _, found = made_up
    of_inputs = {*KEYS, "run_id", "stock_row", "day_rows", *catalog.MINUTES.columns}
    assert set(found.columns) == of_inputs | alphas.keys()
    for name in absent:
        needs = columns(read.of_family("alpha101")[name])
        assert any(each.startswith(("industry_", "market_cap")) for each in needs), name


def test_inputs_are_runs_of_minutes(made_up):
    bars, found = made_up
    frame = frame_of(bars)
    run = pd.Series(frame["stock"])
    assert (found.groupby("run_id").ngroup() == run).all()
    assert (found["stock_row"] == run.groupby(run).cumcount() + 1).all()
    minute = pd.Series(frame["day"])
    assert (found["day_rows"] == minute.map(minute.value_counts())).all()
    assert run.max() == 9
    for name in catalog.MINUTES.columns:
        assert not differ(found[name].to_numpy(float, na_value=np.nan), frame[name]).any(), name


def test_alphas_of_made_up_bars(alphas, made_up):
    bars, found = made_up
    wrong, left_out, expected = wrong_ones(alphas, bars, found)
    assert not wrong, "\n".join(f"{name}: {said}" for name, said in wrong.items())
    assert sum(left_out.values()) <= LEFT_OUT, left_out
    # nothing is compared in vain; the catalog says that alpha 96 is NULL nearly everywhere
    known = {name: int(np.sum(~np.isnan(values))) for name, values in expected.items()}
    assert {name for name, count in known.items() if not count} <= {"alpha_096"}
    assert sum(known.values()) > 90_000


@pytest.mark.skipif(not PERPETUALS.exists(), reason=f"no real bars at {PERPETUALS}")
def test_alphas_of_real_bars(alphas):
    bars = real_bars()
    wrong, left_out, expected = wrong_ones(alphas, bars, model_computed(bars))
    assert not wrong, "\n".join(f"{name}: {said}" for name, said in wrong.items())
    assert sum(left_out.values()) <= LEFT_OUT, left_out
    assert sum(int(np.sum(~np.isnan(values))) for values in expected.values()) > 90_000


def test_unknown_volume_leaves_what_prices_give(alphas, made_up):
    _, found = made_up
    mine = found[found["symbol"] == "S03"]
    for name, expression in alphas.items():
        if not {"volume", "amount"} & set(columns(expression)):
            assert mine[name].notna().any(), name
        elif "if" not in {node.op for node in walk(expression)}:  # a branch may do without
            assert mine[name].isna().all(), name


def sql_of(read: catalog.Catalog, names: str) -> dict[str, str]:
    """The select of some alphas, as `computed` takes it."""
    some = names.split(", ")
    return {names: catalog.factor_sql(read, some, f"factors.{INPUTS}", "duckdb", catalog.MINUTES)}


SOME = "alpha_001, alpha_004, alpha_006, alpha_012, alpha_028, alpha_032, alpha_045, alpha_101"


def test_later_bars_change_nothing(read, made_up):
    bars, whole = made_up
    cut = START_MS + 200 * MINUTE_MS
    early = computed(bars[bars["open_time_ms"] <= cut], sql_of(read, SOME))
    until = whole[whole["open_time_ms"] <= cut].reset_index(drop=True)
    assert len(early) == len(until) > 1000
    for name in SOME.split(", "):
        found, known = (each[name].to_numpy(float, na_value=np.nan) for each in (early, until))
        assert not differ(found, known).any(), name


FAULTS = {
    "windows that jump gaps": (r"(?i)partition by run_id", "partition by symbol", "alpha_012"),
    "a cross section of all minutes": (r"PARTITION BY\s+open_time_ms", "PARTITION BY 1",
                                       "alpha_004"),
    "one run of all symbols": (r"bar_id - contiguous_minutes \+ 1", "1", "alpha_012"),
    "another price for the mean": (r"\(high \+ low \+ close\) / 3", "close", "alpha_041"),
    "volume for amount": (r"volume \* vwap", "volume", "alpha_028"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(fault, read, alphas, made_up):
    pattern, replacement, names = FAULTS[fault]
    bars, _ = made_up
    given = {name: alphas[name] for name in names.split(", ")}
    right, _, _ = wrong_ones(given, bars, computed(bars, sql_of(read, names)))
    assert not right
    changed = []

    def change(sql: str) -> str:
        changed.append(re.sub(pattern, replacement, sql) != sql)
        return re.sub(pattern, replacement, sql)

    wrong, _, _ = wrong_ones(given, bars, computed(bars, sql_of(read, names), change))
    assert any(changed)
    assert wrong


def test_the_registry_says_which_families_are_of_minutes(read):
    of_minutes = {family.family for family in read.families if family.minute_relation}
    assert of_minutes == {"alpha101"}
    (family,) = (each for each in read.families if each.family == "technical")
    families = (dataclasses.replace(family, minute_relation="minute_technical"),)
    files = catalog.generated_files(dataclasses.replace(read, families=families))
    mine = {path for path in files if path.parent == catalog.MINUTES.folder}
    assert {path.name for path in mine} == {"minute_technical.sql", "minute_technical.yml"}
    (sql,) = (files[path] for path in mine if path.suffix == ".sql")
    assert set(re.findall(r"AS (tech_\w+)", sql)) == read.of_family("technical").keys()
    assert "ref('minute_factor_inputs')" in sql
    assert "ts_code" not in sql
