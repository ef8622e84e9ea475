"""What is made of the panel of factors: z-scores, ranks, the mask, the counts of what was cut."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from daily_sql import rendering_context
from warehouse import memory_connection
from wavehouse.factors import panel as panel_models

CLIP = 1e6
VALUES = st.floats(-CLIP, CLIP) | st.sampled_from([0.0, 1.0, 2.0, 1e-150, 1e-300, None])
ROWS = st.lists(st.tuples(st.integers(1, 3), st.booleans(), VALUES), min_size=1, max_size=40)


@pytest.fixture(scope="module")
def connection():
    return memory_connection(1)


def frame_of(rows: list[tuple]) -> pd.DataFrame:
    panel = pd.DataFrame(rows, columns=["trade_date", "in_universe", "x"])
    return panel.astype({"x": float}).assign(place=range(len(panel)))


def of_panel(connection, panel: pd.DataFrame, expression: str) -> np.ndarray:
    """The expression of column x, in the order of the rows."""
    sql = f"select place, {expression} as found from panel order by place"
    return connection.execute(sql).df()["found"].astype(float).to_numpy()


def in_universe(panel: pd.DataFrame) -> list[tuple[list[int], np.ndarray]]:
    """The places and values of each day's rows of the universe that know the factor."""
    known = panel[panel["in_universe"] & panel["x"].notna()]
    return [(list(day["place"]), day["x"].to_numpy()) for _, day in known.groupby("trade_date")]


@settings(deadline=None)
@given(ROWS)
def test_a_z_score_is_among_the_universe_of_its_day(connection, rows):
    panel = frame_of(rows)
    expected = np.full(len(panel), np.nan)
    for places, x in in_universe(panel):
        if max(x) - min(x) > 1e-140:
            scale = max(abs(x))  # so that nothing small is lost
            deviation = math.sqrt(math.fsum((x / scale - math.fsum(x / scale) / len(x)) ** 2))
            distance = x / scale - math.fsum(x / scale) / len(x)
            expected[places] = 2.5 * distance / deviation * math.sqrt(len(x))
    sql = rendering_context()["factor_z_score"]("x", "no_such_", 2.5)
    found = of_panel(connection, panel, sql)
    # values that differ by noise alone are as good as the same
    noise = np.zeros(len(panel), bool)
    for places, x in in_universe(panel):
        noise[places] = max(x) - min(x) < 1e-6 * max(abs(x))
    np.testing.assert_allclose(found[~noise], expected[~noise], rtol=1e-8, atol=1e-8)
    assert np.isfinite(found[noise & ~np.isnan(found)]).all()


@settings(deadline=None)
@given(ROWS)
def test_a_normalised_rank_is_among_the_universe_of_its_day(connection, rows):
    panel = frame_of(rows)
    expected = np.full(len(panel), np.nan)
    for places, x in in_universe(panel):
        rounded = x * 8193 - (x * 8193 - x)  # to 40 bits: noise decides no tie
        places_of = stats.rankdata(rounded)
        expected[places] = 0.0 if len(x) == 1 else 2 * (places_of - 1) / (len(x) - 1) - 1
    found = of_panel(connection, panel, rendering_context()["factor_normalised_rank"]("x"))
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_a_weight_of_a_family_is_its_own(connection):
    panel = frame_of([(1, True, 1.0), (1, True, 3.0)])
    weighted = rendering_context({"factor_weights": {"mf_": 0.5}})["factor_z_score"]
    assert list(of_panel(connection, panel, weighted("x", "mf_", 2.0))) == [-0.5, 0.5]
    assert list(of_panel(connection, panel, weighted("x", "mfp_", 2.0))) == [-2.0, 2.0]


EDGES = [math.nan, math.inf, -math.inf, None, CLIP, -CLIP, 0.0, 1.5, math.nextafter(CLIP, 2e6),
         -math.nextafter(CLIP, 2e6), 1e300, -1e300, 2e9, -2e9]  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), *[st.sampled_from(EDGES)] * 2), min_size=1))
def test_what_is_cut_is_counted(rows):
    connection = memory_connection(1)
    values = "select unnest($d) as trade_date, unnest($a) as a, unnest($b) as b"
    day, a, b = map(list, zip(*rows, strict=True))
    connection.execute(
        f"create table rows as select 's' as ts_code, true as in_universe, * from ({values})",
        {"d": day, "a": a, "b": b},
    )
    parts = {"a": "a", "b": "b / 1000.0::double"}
    for statement in (*panel_models._macros(), panel_models._counted(parts, "rows")):
        clipped = statement.replace("{{ factor_panel_settings().factor_clip }}", str(CLIP))
        connection.execute(clipped)
    found = connection.execute(panel_models._panel(parts, "rows")).fetchall()
    counts: dict[tuple[str, int], list[int]] = {}
    for (day, first, second), row in zip(rows, found, strict=True):
        values = first, None if second is None else second / 1000
        assert row[:3] == ("s", day, True)
        nonfinite = [value is not None and not math.isfinite(value) for value in values]
        beyond = [value is not None and CLIP < abs(value) < math.inf for value in values]
        assert row[3:5] == (sum(nonfinite), sum(beyond))
        for name, value, is_none, is_far, kept in zip(
            "ab", values, nonfinite, beyond, row[5:], strict=True
        ):
            if value is None or is_none:
                assert kept is None
            else:
                assert kept == max(-CLIP, min(CLIP, value))
            if is_none or is_far:
                of_day = counts.setdefault((name, day), [0, 0])
                of_day[0] += is_none
                of_day[1] += is_far
    sanitized = connection.execute(panel_models._sanitized(parts, "rows")).fetchall()
    assert sorted(sanitized) == sorted((*key, *value) for key, value in counts.items())


def test_z_scores_ranks_and_the_mask(sample_warehouse):
    """Against pandas: many ties, values that are missing, one value for all stocks of a day."""
    names = ("zt_streak", "mf_net_5d", "mkt_index_pct_chg_5d", "alpha_012")
    keys = "select ts_code, trade_date, in_universe"
    frames = {
        form: sample_warehouse.query(
            f"{keys}, {', '.join(names)} from factors.factor_panel{form}"
            " where trade_date >= '2021-09-01' order by ts_code, trade_date"
        )
        for form in ("", "_z", "_rank", "_missing")
    }
    panel = frames[""]
    assert panel["in_universe"].all()
    constant = 0
    for name in names:
        values = panel[name].astype(float)
        day = values.groupby(panel["trade_date"])
        assert (frames["_missing"][name] == values.isna()).all()
        spread = day.transform("max") > day.transform("min")
        constant += (~spread).sum()
        z = ((values - day.transform("mean")) / day.transform("std", ddof=0)).where(spread)
        np.testing.assert_allclose(frames["_z"][name].astype(float), z, rtol=1e-9, atol=1e-12)
        known = day.transform("count")
        rounded = values * 8193 - (values * 8193 - values)  # to 40 bits: noise decides no tie
        place = rounded.groupby(panel["trade_date"]).rank()
        rank = ((place - 1) / (known - 1) * 2 - 1).where(known > 1, 0.0).where(values.notna())
        np.testing.assert_allclose(frames["_rank"][name].astype(float), rank, rtol=1e-9, atol=1e-12)
    assert constant > 100
    assert panel["mf_net_5d"].isna().any()
