"""labels.path_stats grows by what a delivery changes, and equals a full build row for row."""

import pandas as pd
import pytest

from markets import MINUTE_MS, START_MS, random_bars
from warehouse import Warehouse, new_warehouse, write_bars

DAY_MS = 86_400_000
FIRST_DAY = START_MS // DAY_MS


class History:
    """A warehouse that is built again after each delivery.

    Rows are marked before a build by negating a column that is always positive: a row that is
    computed again loses its mark.
    """

    def __init__(self, warehouse: Warehouse):
        self.warehouse = warehouse
        self.build()
        ran = warehouse.file.parent / "target/run/wavehouse/models/labels/path_stats.sql"
        statement = ran.read_text()
        self.full_sql = statement[statement.index("with days_to_build") :].rstrip().rstrip(";")
        self.full_sql = self.full_sql.removesuffix(")")

    def build(self, settings: dict | None = None) -> None:
        models = ["base_minute_bars", "stg_minute_bars", "path_stats"]
        self.warehouse.dbt("run", "--select", *models, settings=settings)

    def negate_spreads(self, where: str) -> None:
        with self.warehouse.connect(read_only=False) as connection:
            connection.execute(
                f"update labels.path_stats set future_spread_p80 = -future_spread_p80 where {where}"
            )

    def days_recomputed_by(self, delivery: pd.DataFrame | None, name: str) -> set[tuple[str, int]]:
        """Build after the delivery; return (symbol, day from the first) of the rows made anew."""
        self.negate_spreads("true")
        if delivery is not None:
            write_bars(self.warehouse.data_dir, delivery, name)
        self.build()
        days = self.warehouse.query(
            f"""
            select distinct symbol, open_time_ms // {DAY_MS} - {FIRST_DAY} as day_number
            from labels.path_stats
            where future_spread_p80 > 0
            """
        )
        self.negate_spreads("future_spread_p80 < 0")
        self.assert_equals_a_full_build()
        return set(days.itertuples(index=False, name=None))

    def assert_equals_a_full_build(self) -> None:
        with self.warehouse.connect() as connection:
            connection.execute(f"create temp table full_build as {self.full_sql}")
            rows, differences = connection.execute(
                """
                select
                    (select count(*) from full_build),
                    (select count(*) from (
                        (from full_build except all from labels.path_stats)
                        union all
                        (from labels.path_stats except all from full_build)
                    ))
                """
            ).fetchone()
        assert rows > 1_000
        assert differences == 0


@pytest.fixture(scope="module")
def market() -> pd.DataFrame:
    """Four days of two symbols with short gaps; no NULL spread, so that every row can be marked."""
    return random_bars(
        21, symbols=["A", "B"], minutes=4 * 1_440, gap_rate=0.001, tick=1.0, move_bps=2
    )


def test_each_delivery_recomputes_only_what_it_can_change(market, tmp_path):
    day = market["open_time_ms"] // DAY_MS - FIRST_DAY
    minute = market["open_time_ms"] % DAY_MS // MINUTE_MS
    is_late = (market["symbol"] == "A") & (day == 1) & minute.between(700, 720)
    first_three_days = market[(day < 3) & ~is_late]
    history = History(new_warehouse(tmp_path, first_three_days))

    # a day more: its own labels, and those of the evening before that now see their whole path
    new_day = market[(day == 3) & (market["symbol"] == "A")]
    assert history.days_recomputed_by(new_day, "day3.parquet") == {("A", 2), ("A", 3)}

    # bars that come late fill a hole in the middle of a day
    assert history.days_recomputed_by(market[is_late], "late.parquet") == {("A", 1)}

    # late bars at the start of a day also change the end of the day before
    early = market[(day == 3) & (market["symbol"] == "B") & (minute < 200)]
    assert history.days_recomputed_by(early, "early.parquet") == {("B", 2), ("B", 3)}

    # the same bars delivered twice change nothing
    assert history.days_recomputed_by(new_day, "again.parquet") == set()

    # nor does a build without any delivery
    assert history.days_recomputed_by(None, "") == set()

    # a correction replaces its day
    corrected = first_three_days.copy()
    row = market[(market["symbol"] == "B") & (day == 1)].index[600]
    corrected.loc[row, "high"] = corrected.loc[row, "high"] * 1.01
    assert history.days_recomputed_by(corrected, "bars.parquet") == {("B", 1)}

    # a conflicting delivery withdraws the bar: both are refused, its paths disappear
    conflicting = corrected.loc[[row]].assign(volume=lambda bars: bars["volume"] + 1)
    before = history.warehouse.query("select count(*) as n from labels.path_stats")["n"].item()
    assert history.days_recomputed_by(conflicting, "conflict.parquet") == {("B", 1)}
    after = history.warehouse.query("select count(*) as n from labels.path_stats")["n"].item()
    assert before - 400 < after < before

    # a whole day withdrawn
    is_withdrawn = (market["symbol"] == "A") & (day == 0)
    without_day = corrected.drop(index=market.index[is_withdrawn])
    assert history.days_recomputed_by(without_day, "bars.parquet") == set()
    days_of_a = history.warehouse.query(
        f"select min(open_time_ms) // {DAY_MS} - {FIRST_DAY} as d from labels.path_stats"
        " where symbol = 'A'"
    )
    assert days_of_a["d"].item() == 1


def test_other_settings_rebuild_every_row_without_a_full_refresh(market, tmp_path):
    history = History(new_warehouse(tmp_path, market[market["open_time_ms"] < START_MS + DAY_MS]))
    history.negate_spreads("true")
    history.build({"entry_target_bps": 20.0, "entry_max_hold_minutes": 20})
    rebuilt = history.warehouse.query(
        "select min(future_spread_p80) as smallest, list(distinct horizon_minutes) as horizons,"
        " max(gross_edge_bps) filter (where target_hit = 1) as target from labels.path_stats"
    ).iloc[0]
    assert rebuilt["smallest"] > 0
    assert set(rebuilt["horizons"]) == {20, 30}
    assert rebuilt["target"] == 20.0
