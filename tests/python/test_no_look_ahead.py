"""Labels look exactly as far as they say: bars further away than their horizon change nothing."""

import numpy as np
import pandas as pd
import pytest

from markets import MINUTE_MS, START_MS, random_bars
from warehouse import UP_TO_LABELS, new_warehouse

LAST_MS = START_MS + 1_200 * MINUTE_MS
HORIZON_MINUTES = {
    "direction_labels": 45,
    "entry_labels": 45,
    "executed_paths": 45,
    "position_state_samples": 45,
    "continue_labels": 30,
    "exit_labels": 30,
    "risk_labels": 30,
}
# boundaries as dates: fractions of the bars move when bars are taken away
DATES = {
    "split_tune_start": "2025-01-06 06:00",
    "split_validation_start": "2025-01-06 10:00",
    "split_stress_start": "2025-01-06 14:00",
}


@pytest.fixture(scope="module")
def markets(tmp_path_factory):
    """The same market whole, cut off after LAST_MS, and with other prices after LAST_MS."""
    bars = random_bars(31, symbols=2, minutes=1_500, gap_rate=0.001, tick=1.0, move_bps=3)
    later = bars["open_time_ms"] > LAST_MS
    noisy = bars.copy()
    factor = np.random.default_rng(4).uniform(0.9, 1.1, later.sum())
    for price in ("open", "high", "low", "close"):
        noisy.loc[later, price] *= factor
    warehouses = {}
    for name, market in {"whole": bars, "cut": bars[~later], "noisy": noisy}.items():
        warehouses[name] = new_warehouse(tmp_path_factory.mktemp(name), market)
        warehouses[name].dbt("run", *UP_TO_LABELS, settings=DATES)
    return warehouses


def rows(warehouse, label_set: str, condition: str) -> pd.DataFrame:
    return warehouse.query(
        f"""
        from labels.{label_set}
        where epoch_ms(event_time) + {HORIZON_MINUTES[label_set] * MINUTE_MS} {condition} {LAST_MS}
        order by all
        """
    )


@pytest.mark.parametrize("other", ["cut", "noisy"])
@pytest.mark.parametrize("label_set", HORIZON_MINUTES)
def test_bars_beyond_the_horizon_change_no_label(markets, label_set, other):
    whole = rows(markets["whole"], label_set, "<=")
    assert len(whole) > 500
    pd.testing.assert_frame_equal(whole, rows(markets[other], label_set, "<="), rtol=1e-12)


@pytest.mark.parametrize("label_set", HORIZON_MINUTES)
def test_bars_within_the_horizon_do_change_labels(markets, label_set):
    assert rows(markets["cut"], label_set, ">").empty
    assert len(rows(markets["whole"], label_set, ">")) > 0
    assert not rows(markets["noisy"], label_set, ">").equals(rows(markets["whole"], label_set, ">"))
