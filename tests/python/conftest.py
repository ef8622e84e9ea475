"""Fixtures shared by the tests: one small warehouse built with the reference's settings."""

import pandas as pd
import pytest

from markets import random_bars
from warehouse import Warehouse, new_warehouse


@pytest.fixture(scope="session")
def random_warehouse(tmp_path_factory) -> Warehouse:
    """A calm and a rough market on a coarse tick, gaps, missing spreads, reference settings."""
    holes = {"minutes": 2_000, "gap_rate": 0.002, "null_spread_rate": 0.05}
    calm = random_bars(11, symbols=["CALM", "CALMER"], tick=1.0, move_bps=1.5, **holes)
    rough = random_bars(12, symbols=["ROUGH"], **holes)
    bars = pd.concat([calm, rough])
    warehouse = new_warehouse(tmp_path_factory.mktemp("random"), bars)
    warehouse.dbt("run")
    return warehouse
