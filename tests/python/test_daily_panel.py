"""factors.daily_panel against the plain evaluator, and what it must not depend on."""

import pandas as pd
import pytest

import oracle_daily_labels as oracle
from daily_compare import assert_same_rows
from daily_label_models import built, label_models
from daily_market import random_daily_market, shuffled, until

KEYS = ["ts_code", "trade_date"]


def panel_of(market, models):
    only = {"factors.daily_panel": models.sql["factors.daily_panel"]}
    return built(market, only).sql("from factors.daily_panel order by ts_code, trade_date").df()


@pytest.mark.parametrize("name", ["default", "others"])
@pytest.mark.parametrize("seed", [11, 12])
def test_panel_follows_the_definition(name, seed):
    models, market = label_models(name), random_daily_market(seed, days=210)
    expected = oracle.daily_panel(
        market["universe.daily_gates"],
        market["staging.stg_daily_bars"],
        market["staging.stg_daily_basic"],
        market["staging.stg_industry_members"],
        market["staging.stg_index_daily"],
        models.rules,
    )
    found = panel_of(market, models)
    assert_same_rows(found, expected, KEYS, "daily_panel")
    assert set(found.columns) == set(expected.columns)
    assert expected["is_suspended"].sum() > 50
    assert expected["vwap"].isna().sum() > expected["close"].isna().sum() + 5
    assert expected["adv180"].notna().sum() > 20
    assert expected["industry_l1"].isna().any()


def test_a_day_stays_as_it_was_when_days_are_added():
    models, market = label_models("default"), random_daily_market(14, days=210)
    whole = panel_of(market, models)
    for day in market["staging.stg_trading_calendar"]["trade_date"][[40, 120, 199]]:
        known = whole[whole["trade_date"] <= pd.Timestamp(day)].reset_index(drop=True)
        pd.testing.assert_frame_equal(panel_of(until(market, day), models), known, check_exact=True)


def test_order_of_rows_and_other_stocks_change_nothing():
    models, market = label_models("default"), random_daily_market(15)
    whole = panel_of(market, models)
    pd.testing.assert_frame_equal(panel_of(shuffled(market, 3), models), whole, check_exact=True)
    kept = sorted(whole["ts_code"].unique())[3:7]
    fewer = {
        relation: frame[frame["ts_code"].isin([*kept, "000300.SH"])].reset_index(drop=True)
        if "ts_code" in frame
        else frame
        for relation, frame in market.items()
    }
    known = whole[whole["ts_code"].isin(kept)].reset_index(drop=True)
    pd.testing.assert_frame_equal(panel_of(fewer, models), known, check_exact=True)


def test_a_suspended_day_is_the_same_with_and_without_a_row():
    models, market = label_models("default"), random_daily_market(16)
    bars = market["staging.stg_daily_bars"]
    assert bars["is_suspended"].sum() > 10
    without = {
        **market,
        "staging.stg_daily_bars": bars[~bars["is_suspended"]].reset_index(drop=True),
    }
    pd.testing.assert_frame_equal(
        panel_of(without, models), panel_of(market, models), check_exact=True
    )
