"""Panel and label SQL under several settings, compiled once for all tests of the daily labels."""

from dataclasses import fields
from types import SimpleNamespace

import oracle_daily_labels as oracle
from daily_sql import model_sql, new_connection, put, schemas

LABELS = (
    "forward_return_exits", "forward_return_benchmarks", "forward_returns", "main_wave_labels",
    "main_wave_episodes", "wave_proximity_targets",
)  # fmt: skip
# A market this small has small amounts and few waves: thresholds that leave both sides populated.
SMALL = {
    "main_wave_minimum_amount_cny": 1.3e8,
    "wave_episode_minimum_gain": 0.08,
    "wave_episode_minimum_daily_gain": 0.01,
}
REFERENCE = {
    "forward_return_same_close_entry": True,
    "forward_return_suspended_exit": "last_close",
    "main_wave_partial_windows": True,
    "main_wave_unadjusted_close": True,
    "main_wave_amount_from_close": True,
    "main_wave_cut_windows_are_valid": True,
    "main_wave_entry_day_cross": "drop",
    "main_wave_entry_must_be_possible": False,
    "main_wave_minimum_hold_return": -0.5,
}
OTHERS = {
    "daily_adv_basis": "volume",
    "daily_benchmark": "000905.SH",
    "forward_return_days": [4, 1],
    "main_wave_hold_days": 8,
    "main_wave_exit_delay_days": 1,
    "main_wave_volatility_days": 7,
    "main_wave_sigmas": 1.0,
    "main_wave_minimum_threshold": 0.03,
    "main_wave_max_adverse": 0.08,
    "main_wave_amount_days": 6,
    "main_wave_fast_days": 2,
    "main_wave_slow_days": 7,
    "main_wave_entry_price": "next_open",
    "main_wave_path": "to_exit",
    "main_wave_entry_day_cross": "exit",
    "wave_episode_days": 9,
    "wave_episode_first_peak_day": 2,
    "wave_episode_start_gain": 0.0,
    "wave_episode_prior_days": 3,
    "wave_episode_max_prior_gain": 0.10,
    "wave_episode_minimum_gain": 0.05,
    "wave_episode_drawdown_base": 0.05,
    "wave_episode_drawdown_over": "whole_window",
    "wave_quality_reference_days": 4.0,
    "wave_proximity_weights": [1.0, 0.5, 0.25, 0.125, 0.0625],
}
SETS = {
    "default": SMALL,
    "reference": SMALL | REFERENCE,
    "others": SMALL | OTHERS,
    "real": {},  # the defaults themselves
}


def label_models(name: str) -> SimpleNamespace:
    """Vars, the evaluator's settings and the SQL of panel and labels of one of SETS."""
    sql = {
        f"{schemas()[model]}.{model}": model_sql(model, SETS[name])
        for model in ("daily_panel", *LABELS)
    }
    known = {field.name for field in fields(oracle.Settings)}
    assert set(SETS[name]) <= known
    return SimpleNamespace(settings=SETS[name], rules=oracle.Settings(**SETS[name]), sql=sql)


def built(market, models):
    """A warehouse in memory with every relation of the market and of the models."""
    connection = new_connection()
    put(connection, market)
    build(connection, models)
    return connection


def build(connection, models):
    """Create relations from their SQL, in the order given."""
    for relation, sql in models.items():
        connection.execute(f"create or replace table {relation} as {sql}")
