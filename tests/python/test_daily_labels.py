"""Daily forward returns, main waves, episodes and their targets against the plain evaluator."""

import pandas as pd
import pytest

import oracle_daily_labels as oracle
from daily_compare import assert_same_rows
from daily_label_models import build, built, label_models
from daily_market import market_of_closes, random_daily_market, shuffled, until
from daily_real import BARS, put_real
from daily_sql import new_connection
from warehouse import REAL_DAILY_DATA

KEYS = ["ts_code", "trade_date"]


def assert_follows_the_definitions(connection, rules):
    """Every label relation against the evaluator, on the panel as built."""
    panel = connection.sql("from factors.daily_panel").df()
    eligibility = connection.sql("from universe.entry_eligibility").df()
    expected = {
        "forward_returns": oracle.forward_returns(panel, eligibility, rules),
        "main_wave_labels": oracle.main_wave_labels(panel, eligibility, rules),
        "main_wave_episodes": oracle.main_wave_episodes(panel, rules),
    }
    expected["wave_proximity_targets"] = oracle.wave_proximity_targets(
        panel, expected["main_wave_episodes"], rules
    )
    for name, rows in expected.items():
        found = connection.sql(f"from labels.{name}").df()
        keys = ["ts_code", "start_date"] if name == "main_wave_episodes" else KEYS
        assert_same_rows(found, rows, keys, name)
    return expected


@pytest.mark.parametrize("name", ["default", "reference", "others"])
@pytest.mark.parametrize("seed", [1, 2])
def test_labels_follow_the_definitions(name, seed):
    models = label_models(name)
    connection = built(random_daily_market(seed), models.sql)
    expected = assert_follows_the_definitions(connection, models.rules)
    waves = expected["main_wave_labels"]
    assert waves["is_label_valid"].sum() > 100
    assert 5 < (waves["is_main_wave"] == True).sum() < 0.8 * waves["is_label_valid"].sum()  # noqa: E712
    assert len(expected["main_wave_episodes"]) > 5
    assert set(expected["wave_proximity_targets"]["proximity"].dropna()) >= {0, 1, 2, 3}


def test_the_made_up_market_has_the_days_that_matter():
    connection = built(random_daily_market(1), label_models("default").sql)
    count = connection.sql(
        """
        select
            count(*) filter (where exit_reason = 'death_cross' and exit_day = 1) as early_exits,
            count(*) filter (where is_death_cross) as crosses,
            count(*) filter (where not is_label_known) as cut,
            count(*) filter (where is_eligible and not is_entry_possible) as no_entry,
            count(*) filter (where exit_date > window_day) as late_exits
        from labels.main_wave_labels
        left join (
            select ts_code, trade_date,
                lead(trade_date, 5) over (partition by ts_code order by trade_date) as window_day
            from factors.daily_panel
        ) using (ts_code, trade_date)
        """
    ).df()
    assert (count.iloc[0] > 0).all(), count.to_string()


@pytest.mark.parametrize("name", ["default", "others"])
def test_known_labels_do_not_change_when_later_days_are_deleted(name):
    models = label_models(name)
    market = random_daily_market(4)
    days = market["staging.stg_trading_calendar"]["trade_date"]
    whole = built(market, models.sql)
    for day in (days[60], days[101], days[158]):
        past = built(until(market, day), models.sql)
        for label in (
            "forward_returns",
            "main_wave_labels",
            "wave_proximity_targets",
            "main_wave_episodes",
        ):
            known = f"from labels.{label} where label_end_date <= date '{day}' order by all"
            ours, theirs = past.sql(known).df(), whole.sql(known).df()
            pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
            assert len(ours) > 0
        for h in models.rules.forward_return_days:
            known = f"""
                select ts_code, trade_date, exit_date_{h}d, columns('return.*_{h}d$')
                from labels.forward_returns where exit_date_{h}d <= date '{day}' order by all
            """
            pd.testing.assert_frame_equal(
                past.sql(known).df(), whole.sql(known).df(), check_exact=True
            )


def test_a_cut_window_is_unknown_and_not_zero():
    connection = built(random_daily_market(5), label_models("default").sql)
    unknown = connection.sql(
        """
        with last_days as (
            select ts_code, trade_date,
                row_number() over (partition by ts_code order by trade_date desc) as days_left
            from factors.daily_panel
        )
        select
            count(*) filter (where days_left <= 5 and waves.is_main_wave is not null) as waves,
            count(*) filter (where days_left <= 23 and targets.target_quality is not null)
                as targets,
            count(*) filter (where days_left <= 6 and returns.forward_return_5d is not null)
                as returns,
            count(*) filter (where days_left = 24 and targets.target_quality is null)
                as missing_targets
        from last_days
        inner join labels.main_wave_labels as waves using (ts_code, trade_date)
        inner join labels.wave_proximity_targets as targets using (ts_code, trade_date)
        inner join labels.forward_returns as returns using (ts_code, trade_date)
        """
    ).df()
    assert (unknown.iloc[0] == 0).all(), unknown.to_string()


def test_rows_in_another_order_give_the_same_labels():
    models = label_models("default")
    market = random_daily_market(6)
    one, other = built(market, models.sql), built(shuffled(market, 9), models.sql)
    for relation in models.sql:
        pd.testing.assert_frame_equal(
            one.sql(f"from {relation} order by all").df(),
            other.sql(f"from {relation} order by all").df(),
            check_exact=True,
        )


def test_ties_of_a_main_wave():
    rise = [16 + 0.4 * k for k in range(1, 11)]
    paths = {
        "TIE": [20] * 31 + [21.2] * 5,
        "LOW": [16] * 20 + rise + [19, 21, 22, 22.2],
        "LOWER": [16] * 20 + rise + [19.01, 21, 22, 22.2],
        "THIN": [20] * 31 + [21.2] * 5,
    }
    amounts = {"TIE": 1.01e8, "LOW": 2e8, "LOWER": 2e8, "THIN": 1e8}
    connection = built(market_of_closes(paths, amounts), label_models("real").sql)
    days = {"TIE": 30, "LOW": 29, "LOWER": 29, "THIN": 30}
    found = connection.sql("from labels.main_wave_labels").df()
    calendar = sorted(found["trade_date"].unique())
    found = found.set_index(["ts_code", "trade_date"])
    rows = {name: found.loc[(name, calendar[day - 1])] for name, day in days.items()}
    # 21.2 is a gain of 0.06, the threshold of a stock that did not move
    assert rows["TIE"]["threshold"] == 0.06
    assert rows["TIE"]["max_gain"] == 0.06
    assert rows["TIE"]["peak_day"] == 1
    assert bool(rows["TIE"]["is_main_wave"])
    assert rows["LOW"]["max_adverse_excursion"] == -0.05
    assert rows["LOW"]["hold_return"] == 0.11
    assert bool(rows["LOW"]["is_label_valid"])
    assert not bool(rows["LOW"]["is_main_wave"])
    assert bool(rows["LOWER"]["is_main_wave"])
    assert not bool(rows["THIN"]["is_eligible"])


def test_edges_of_an_episode():
    wave = [20.2, 20.8, 21.6, 22.4]
    paths = {
        "WHOLE": [20] * 30 + wave + [22.0] * 17,
        "CUT": [20] * 30 + wave + [22.0] * 16,
        "TIES": [20] * 30 + [20.6] + [20.7030, 21, 22, 23.5] + [23.0] * 17,
        "THIN": [20] * 30 + wave + [22.0] * 17,
    }
    amounts = {"WHOLE": 1.01e8, "CUT": 2e8, "TIES": 2e8, "THIN": 1e8}
    market = market_of_closes(paths, amounts)
    gates = market["universe.daily_gates"]
    # the jump to 20.6 is no start itself
    gates.loc[(gates["ts_code"] == "TIES") & (gates["trading_day"] == 31), "passes_all"] = False
    connection = built(market, label_models("real").sql)
    found = connection.sql("from labels.main_wave_episodes").df().set_index("ts_code")
    assert list(found.index) == ["TIES", "WHOLE"]
    assert found.loc["WHOLE", "start_trading_day"] == 31
    assert found.loc["WHOLE", "peak_day"] == 3
    # 20.6 from 20 is a prior gain of 0.03, 20.703 from 20.6 a first gain of 0.005: both may be
    assert found.loc["TIES", "prior_gain"] == 0.03
    assert found.loc["TIES", "start_gain"] == 0.005


@pytest.mark.skipif(not REAL_DAILY_DATA.is_dir(), reason=f"no real bars at {REAL_DAILY_DATA}")
@pytest.mark.parametrize("file", list(BARS))
def test_labels_follow_the_definitions_on_real_bars(file):
    models = label_models("real")
    connection = new_connection()
    put_real(connection, file, count=2)
    build(connection, models.sql)
    expected = assert_follows_the_definitions(connection, models.rules)
    assert expected["main_wave_labels"]["is_label_valid"].any()
