"""The label floor against the evaluator written from the definitions, on random and real bars."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import oracle_labels as oracle
from markets import random_bars
from warehouse import REAL_MINUTE_DATA, REPO, UP_TO_LABELS, Warehouse, new_warehouse

# A log return is a difference of logs near 11, so the evaluator's volatility is known to 1e-10 bps.
VOLATILITY_FLOOR_BPS = 1e-9
FEATURE_COLUMNS = """
    sample_id, symbol, event_time, open_time_ms, split_id, walk_forward_fold, data_quality_flag,
    spread_bps, spread_rank_24h_pct, ret_15m_bps, realized_vol_15m_bps
"""
LABEL_SETS = (
    "direction_labels",
    "entry_labels",
    "position_state_samples",
    "continue_labels",
    "exit_labels",
    "risk_labels",
)
CORRECTIONS = {
    "entry_label_method": "path_exit_v1",
    "own_exit_risk_horizons": True,
    "exit_horizon_minutes": 7,
    "risk_horizon_minutes": 11,
    "liquidity_deterioration_basis": "future_spread",
    "liquidity_deterioration_ratio": 1.25,
    "market_risk_mode": "directional",
    "entry_price": "next_open",
    "cost_mode": "fixed_plus_spread",
    "label_quality_filter": True,
    "reversal_requires_history": True,
    "direction_requires_contiguity": True,
}
OTHER_NUMBERS = {
    "direction_horizon_minutes": 1,
    "direction_long_threshold_bps": 4.0,
    "direction_short_threshold_bps": -8.0,
    "entry_max_hold_minutes": 2,
    "entry_target_bps": 16,
    "entry_stop_bps": 4,
    "entry_min_expected_net_edge_bps": -1.5,
    "continue_horizon_minutes": 1,
    "continue_min_expected_edge_bps": 0,
    "exit_adverse_move_bps": 5.0,
    "exit_stagnation_abs_return_bps": 4.0,
    "risk_market_drawdown_bps": 9.0,
    "risk_vol_expansion_ratio": 0.9,
    "risk_spike_bps": 12.0,
    "liquidity_spread_rank_threshold_pct": 0.5,
    "cost_fee_bps": 1.0,
    "cost_slippage_bps": 0.25,
    "cost_funding_bps": 0.0,
}
LONGEST = {"entry_max_hold_minutes": 480, "continue_horizon_minutes": 479, "entry_target_bps": 60.0}


def assert_same_rows(found: pd.DataFrame, expected: pd.DataFrame, keys: list[str], what: str):
    """Equal keys, equal columns, integers and text exactly, floats to 1e-11 relative."""
    assert list(found[keys].duplicated()) == [False] * len(found), f"{what}: repeated key"
    both = found.merge(expected, on=keys, how="outer", indicator=True, suffixes=("", "__expected"))
    strays = both[both["_merge"] != "both"]
    assert strays.empty, f"{what}: {len(strays)} rows on one side only\n{strays[[*keys, '_merge']]}"
    for column in expected.columns.difference(keys):
        assert column in found.columns, f"{what}: no column {column}"
        ours, theirs = both[column], both[f"{column}__expected"]
        if pd.api.types.is_float_dtype(theirs) or pd.api.types.is_float_dtype(ours):
            floor = VOLATILITY_FLOOR_BPS if "vol" in column else 1e-11
            np.testing.assert_allclose(
                ours.astype(float), theirs.astype(float), rtol=1e-11, atol=floor, equal_nan=True,
                err_msg=f"{what}.{column}",
            )  # fmt: skip
        else:
            same = (ours == theirs) | (ours.isna() & theirs.isna())
            assert same.all(), f"{what}.{column}: {(~same).sum()} rows differ\n{both[~same].head()}"


def assert_labels_follow_the_definitions(
    warehouse: Warehouse, settings: dict, symbols: str = "true"
):
    """Compare path statistics of every horizon and all label sets with the evaluator."""
    known = {field.name for field in fields(oracle.Settings)}
    rules = oracle.Settings(**{name: value for name, value in settings.items() if name in known})
    bars = warehouse.query(f"from staging.stg_minute_bars where {symbols}")
    features = warehouse.query(
        f"select {FEATURE_COLUMNS} from factors.minute_features where {symbols}"
    )
    assert len(features) == len(bars) > 0

    built = warehouse.query(f"from labels.path_stats where {symbols}")
    horizons = {rules.entry_max_hold_minutes, rules.continue_horizon_minutes}
    if rules.own_exit_risk_horizons:
        horizons |= {rules.exit_horizon_minutes, rules.risk_horizon_minutes}
    assert set(built["horizon_minutes"]) == horizons
    for horizon in horizons:
        assert_same_rows(
            built[built["horizon_minutes"] == horizon],
            oracle.path_stats_windows(
                bars, horizon, rules.entry_target_bps, rules.entry_stop_bps,
                entry_price=rules.entry_price,
            ),
            ["symbol", "open_time_ms", "side"],
            f"path_stats, horizon {horizon}",
        )  # fmt: skip

    plan = warehouse.query("from labels.price_plan").iloc[0]
    for label_set in LABEL_SETS:
        stamps = {"label_version": "trader_labels_v1"}
        if label_set in ("entry_labels", "position_state_samples"):
            stamps |= {name: plan[name] for name in ("price_plan_id", "price_plan_hash")}
        expected = getattr(oracle, label_set)(features, bars, rules, **stamps)
        keys = ["sample_id", "side"] if "side" in expected.columns else ["sample_id"]
        found = warehouse.query(f"from labels.{label_set} where {symbols}")
        assert set(expected.columns) <= set(found.columns)
        assert_same_rows(found, expected, keys, label_set)


def test_reference_settings_on_random_bars(random_warehouse):
    touches = random_warehouse.query(
        "select sum(ambiguous_hit) as ties, sum(target_hit) as targets,"
        " sum(timeout_hit) as timeouts from labels.path_stats"
    ).iloc[0]
    assert touches["ties"] > 20
    assert touches["targets"] > 20
    assert touches["timeouts"] > 20
    assert_labels_follow_the_definitions(random_warehouse, {})


@pytest.mark.parametrize(
    "settings",
    [CORRECTIONS, OTHER_NUMBERS, LONGEST],
    ids=["all corrections", "other numbers, shortest horizons", "longest horizon"],
)
def test_other_settings_on_random_bars(settings, tmp_path):
    bars = random_bars(5, symbols=2, minutes=1_700, gap_rate=0.0015, null_spread_rate=0.1)
    warehouse = new_warehouse(tmp_path, bars)
    warehouse.dbt("run", *UP_TO_LABELS, settings=settings)
    assert_labels_follow_the_definitions(warehouse, settings)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("entry_max_hold_minutes", 481, "whole minutes from 1 to 480"),
        ("continue_horizon_minutes", 0, "whole minutes from 1 to 480"),
        ("entry_target_bps", "twelve", "a number"),
        ("cost_mode", "spread", "one of fixed, fixed_plus_spread"),
        ("label_quality_filter", "yes please", "true or false"),
        ("split_tune_start", 1.5, "between 0 and 1"),
        ("split_stress_start", "next week", "UTC date"),
    ],
)
def test_a_wrong_setting_stops_the_build_by_its_name(setting, value, said, random_warehouse):
    done = random_warehouse.dbt("run", *UP_TO_LABELS, settings={setting: value}, check=False)
    assert done.returncode != 0
    assert said in done.stdout
    assert "START sql" not in done.stdout


def test_price_plan_hash_changes_with_any_setting_but_not_with_its_spelling(random_warehouse):
    def plan_hash(settings):
        shown = random_warehouse.dbt(
            "--quiet", "show", "--inline", "select {{ price_plan_hash() }} as plan_hash",
            "--output", "json", settings=settings,
        ).stdout  # fmt: skip
        return shown.split('"plan_hash": "')[1][:64]

    default = plan_hash({})
    assert default == random_warehouse.query("from labels.price_plan")["price_plan_hash"].item()
    assert plan_hash({"entry_target_bps": 12}) == default
    assert plan_hash({"exit_stagnation_abs_return_bps": 2.5}) != default
    assert plan_hash({"entry_price": "next_open"}) != default


def test_no_entry_rows_is_an_error(tmp_path):
    warehouse = new_warehouse(tmp_path, random_bars(3, symbols=1, minutes=40))
    done = warehouse.dbt("run", *UP_TO_LABELS, check=False)
    assert done.returncode != 0
    assert "labels.entry_labels has no rows" in done.stdout


needs_real_data = pytest.mark.skipif(
    not REAL_MINUTE_DATA.is_dir(), reason=f"no real bars at {REAL_MINUTE_DATA}"
)


@needs_real_data
def test_reference_settings_on_real_perpetuals(tmp_path):
    source = REAL_MINUTE_DATA / "binance_um_perp_1m_2025.parquet"
    bars = pd.read_parquet(source, filters=[("symbol", "in", ["BTCUSDT", "ENAUSDT", "XMRUSDT"])])
    warehouse = new_warehouse(tmp_path, bars)
    warehouse.dbt("run", *UP_TO_LABELS)
    assert_labels_follow_the_definitions(warehouse, {})


@needs_real_data
@pytest.mark.parametrize(
    ("source_format", "file", "symbols", "flags"),
    [
        (
            "lean",
            "lean_minute_trade_bidask.parquet",
            ["SPY.usa.equity", "EURUSD.fxcm.forex", "BTCUSD.coinbase.crypto", "DE30EUR.oanda.cfd"],
            {"SPREAD_INVALID": 436 + 78},
        ),
        ("fxcm", "fxcm_m1_bidask.parquet", ["GBPUSD", "USDJPY"], {"SPREAD_INVALID": 347 + 683}),
    ],
    ids=["trade and quote bars", "currencies with gaps"],
)
def test_reference_settings_on_real_quotes(source_format, file, symbols, flags, tmp_path):
    warehouse = new_warehouse(tmp_path)
    source = REAL_MINUTE_DATA / file
    wavehouse = str(Path(sys.executable).with_name("wavehouse"))
    ingest = [wavehouse, "ingest", source_format, str(source), "--data-dir"]
    subprocess.run([*ingest, str(warehouse.data_dir)], check=True, cwd=REPO, capture_output=True)
    settings = CORRECTIONS if source_format == "lean" else {}
    warehouse.dbt("run", *UP_TO_LABELS, settings=settings)
    warehouse.dbt("run", "--select", "+rejected_rows", settings=settings)

    accounted = warehouse.query(
        """
        select
            (select count(*) from staging.stg_minute_bars)
            + (select count(*) from staging.rejected_rows) as row_count
        """
    )
    assert accounted["row_count"].item() == pq.read_metadata(source).num_rows
    counts = warehouse.query(
        "select data_quality_flag, count(*) as bars from staging.stg_minute_bars group by all"
    )
    found = dict(counts.itertuples(index=False, name=None))
    assert {flag: found[flag] for flag in flags} == flags
    assert_labels_follow_the_definitions(warehouse, settings, f"symbol in {tuple(symbols)}")
