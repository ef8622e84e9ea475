"""Fixtures shared by the tests: a small warehouse up to the labels, and the whole sample."""

import os

# before a test imports a library that loads OpenMP: see wavehouse.heads
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pandas as pd
import pytest
from filelock import FileLock

from markets import random_bars
from warehouse import UP_TO_LABELS, Warehouse, new_warehouse
from wavehouse.daily_sample import DailyOptions, write_daily_sample
from wavehouse.sample import MarketOptions, write_sample


@pytest.fixture(scope="session")
def random_warehouse(tmp_path_factory) -> Warehouse:
    """A calm and a rough market on a coarse tick, gaps, missing spreads, reference settings."""
    holes = {"minutes": 2_000, "gap_rate": 0.002, "null_spread_rate": 0.05}
    calm = random_bars(11, symbols=["CALM", "CALMER"], tick=1.0, move_bps=1.5, **holes)
    rough = random_bars(12, symbols=["ROUGH"], **holes)
    bars = pd.concat([calm, rough])
    warehouse = new_warehouse(tmp_path_factory.mktemp("random"), bars)
    warehouse.dbt("run", *UP_TO_LABELS)
    return warehouse


@pytest.fixture(scope="session")
def sample_warehouse(tmp_path_factory) -> Warehouse:
    """Both sample markets with their defaults, every floor built, without the data tests.

    The first worker that needs it builds it; all of them only read it.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder, done = root / "sample", root / "sample.built"
    warehouse = Warehouse(folder / "data", folder / "warehouse.duckdb")
    with FileLock(root / "sample.lock"):
        if not done.exists():
            write_sample(folder / "data", MarketOptions())
            write_daily_sample(folder / "data", DailyOptions())
            warehouse.dbt("build", "--exclude-resource-type", "test", "unit_test")
            done.touch()
    return warehouse
