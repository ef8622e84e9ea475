"""Staging: each delivered row is staged, collapsed into its twin, or refused with a reason."""

import gzip
import json
from pathlib import Path

import duckdb
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from markets import MINUTE_MS, START_MS, random_bars
from warehouse import BEYOND_STAGING, UP_TO_LABELS, Warehouse, new_warehouse, write_bars

T0 = START_MS
GOOD = {"open": 10, "high": 11, "low": 9, "close": 10.5, "volume": 1, "spread_bps": 2}


def bar(symbol="A", minute=0, **changes) -> dict:
    """One sound bar with some fields changed."""
    return {"symbol": symbol, "open_time_ms": T0 + minute * MINUTE_MS, **GOOD, **changes}


def write_csv(folder: Path, rows: list[dict], name: str = "bars.csv") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / name, index=False)


def stage(warehouse: Warehouse) -> None:
    """Build the staging floor and test it."""
    warehouse.dbt("build", "--select", "reject_reasons", "staging", "--exclude", *BEYOND_STAGING)


REFUSED = [
    (bar(None, 1), "null_or_unparsable_key"),
    (bar("  ", 1), "null_or_unparsable_key"),
    (bar(open_time_ms=None), "null_or_unparsable_key"),
    (bar(open_time_ms="yesterday"), "null_or_unparsable_key"),
    (bar(open_time_ms=T0 + 1), "time_not_on_minute"),
    (bar(open_time_ms=T0 * 1000), "time_out_of_range"),
    (bar(open_time_ms=-60000), "time_out_of_range"),
    (bar(minute=2, open=None), "null_or_unparsable_price"),
    (bar(minute=2, close="ten"), "null_or_unparsable_price"),
    (bar(minute=2, high="inf"), "non_finite_price"),
    (bar(minute=2, low="nan"), "non_finite_price"),
    (bar(minute=2, low=0), "non_positive_price"),
    (bar(minute=2, open=-1, low=-1), "non_positive_price"),
    (bar(minute=2, high=8), "high_below_low"),
    (bar(minute=2, open=12), "open_or_close_outside_range"),
    (bar(minute=2, close=8.9), "open_or_close_outside_range"),
    (bar(minute=2, volume=-0.1), "negative_volume"),
    (bar(minute=2, volume="nan"), "non_finite_volume"),
    (bar(minute=2, volume="many"), "unparsable_volume"),
    (bar("B", 3), "conflicting_duplicate_key"),
    (bar("B", 3, volume=2), "conflicting_duplicate_key"),
    (bar("B", 3), "conflicting_duplicate_key"),
]
KEPT = [
    (bar(minute=0), 2.0, False, 0),
    (bar(minute=1, spread_bps=-1), None, True, 0),
    (bar(minute=2, spread_bps="wide"), None, True, 0),
    (bar(minute=3, spread_bps="inf"), None, True, 0),
    (bar(minute=4, spread_bps=None), None, False, 0),
    (bar(minute=5, spread_bps=0), 0.0, False, 0),
    (bar(minute=6, volume=0), 2.0, False, 0),
    (bar(minute=7, volume=None), 2.0, False, 0),
    (bar(minute=8, open=9, high=11, low=9, close=11), 2.0, False, 0),
    (bar("C", 9), 2.0, False, 2),
    (bar(" D", 9), 2.0, False, 0),
]


def test_each_fault_has_its_reason_and_each_sound_row_is_kept(tmp_path):
    warehouse = new_warehouse(tmp_path)
    good = [row for row, *_ in KEPT]
    repeats = [bar("C", 9), bar("C", 9, close="10.50")]
    write_csv(warehouse.data_dir / "minute_bars", [row for row, _ in REFUSED] + good + repeats)
    stage(warehouse)

    rejected = warehouse.query("from staging.rejected_rows")
    assert sorted(rejected["reason"]) == sorted(reason for _, reason in REFUSED)
    assert rejected["source_file"].str.endswith("minute_bars/bars.csv").all()
    for row, reason in REFUSED:
        as_read = {
            name: None if value is None else str(value).strip() or None
            for name, value in row.items()
        }
        found = [
            json.loads(text) for text in rejected.loc[rejected["reason"] == reason, "row_json"]
        ]
        matching = [
            candidate
            for candidate in found
            if all(
                (candidate[name] or "").strip() in {value or "", f"{value}.0"}
                for name, value in as_read.items()
            )
        ]
        assert matching, (reason, as_read, found)

    staged = warehouse.query("from staging.stg_minute_bars order by bar_id")
    assert len(staged) == len(KEPT)
    for row, spread_bps, is_invalid, duplicates in KEPT:
        one = staged[
            (staged["symbol"] == row["symbol"]) & (staged["open_time_ms"] == row["open_time_ms"])
        ]
        assert len(one) == 1, row
        found = one.iloc[0]
        assert found["is_spread_invalid"] == is_invalid
        assert found["duplicate_count"] == duplicates
        assert (
            pd.isna(found["spread_bps"])
            if spread_bps is None
            else found["spread_bps"] == spread_bps
        )
        flagged = found["data_quality_flag"] == "SPREAD_INVALID"
        assert flagged == is_invalid

    audit = warehouse.query("from staging.load_audit").iloc[0]
    assert audit["rows_read"] == len(REFUSED) + len(KEPT) + len(repeats)
    assert audit["rows_staged"] == len(KEPT)
    assert audit["rows_collapsed"] == 2
    assert audit["rows_rejected"] == len(REFUSED)


def test_lines_longer_or_shorter_than_the_header_are_refused(tmp_path):
    warehouse = new_warehouse(tmp_path)
    folder = warehouse.data_dir / "minute_bars"
    folder.mkdir()
    (folder / "bars.csv").write_text(
        "symbol,open_time_ms,open,high,low,close,volume\n"
        f"A,{T0},10,11,9,10,1\n"
        f"A,{T0 + MINUTE_MS},10,11\n"
        f"A,{T0 + 2 * MINUTE_MS},10,11,9,10,1,surplus\n"
    )
    stage(warehouse)
    rejected = warehouse.query("select reason, row_json from staging.rejected_rows order by reason")
    assert list(rejected["reason"]) == ["malformed_line", "null_or_unparsable_price"]
    assert "surplus" in rejected["row_json"][0]
    assert warehouse.query("select count(*) as n from staging.stg_minute_bars")["n"].item() == 1


def test_the_same_bars_in_any_layout_give_the_same_table(tmp_path):
    bars = random_bars(9, symbols=["A", "B"], minutes=60, gap_rate=0.05)
    shuffled = bars.sample(frac=1, random_state=1)

    def single_parquet(folder):
        bars.to_parquet(folder / "minute_bars.parquet", index=False)

    def single_csv(folder):
        shuffled.to_csv(folder / "minute_bars.csv", index=False)

    def compressed_semicolons(folder):
        (folder / "minute_bars").mkdir()
        with gzip.open(folder / "minute_bars/x.csv.gz", "wt") as file:
            shuffled.to_csv(file, index=False, sep=";")

    def partitioned(folder):
        path = folder / "minute_bars"
        duckdb.from_df(shuffled).write_parquet(str(path), partition_by=["symbol"])

    def mixed(folder):
        (folder / "minute_bars/deep/er").mkdir(parents=True)
        shuffled[::2].drop(columns="spread_bps").assign(Extra="x").rename(
            columns={"open": "OPEN"}
        ).to_parquet(folder / "minute_bars/deep/er/half.parquet", index=False)
        shuffled[1::2].drop(columns="spread_bps").to_csv(
            folder / "minute_bars/other.csv", index=False
        )

    tables = []
    for layout in (single_parquet, single_csv, compressed_semicolons, partitioned, mixed):
        warehouse = new_warehouse(tmp_path / layout.__name__)
        layout(warehouse.data_dir)
        warehouse.dbt("run", "--select", "base_minute_bars", "stg_minute_bars")
        table = warehouse.query("select * exclude source_file from staging.stg_minute_bars")
        if layout is mixed:
            assert table["spread_bps"].isna().all()
            table["spread_bps"] = tables[0]["spread_bps"]
        tables.append(table)
        assert len(table) == len(bars)
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_dtype=False)


def test_a_time_of_another_type_is_refused_row_by_row(tmp_path):
    bars = random_bars(2, symbols=1, minutes=6)
    warehouse = new_warehouse(tmp_path, bars[:3])
    times = bars[3:].assign(open_time_ms=pd.to_datetime(bars["open_time_ms"][3:], unit="ms"))
    write_bars(warehouse.data_dir, times, "timestamps.parquet")
    stage(warehouse)
    assert warehouse.query("select count(*) as n from staging.stg_minute_bars")["n"].item() == 3
    rejected = warehouse.query("from staging.rejected_rows")
    assert list(rejected["reason"]) == ["null_or_unparsable_key"] * 3
    assert "2025-01-06" in rejected["row_json"][0]


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (
            {"close": "cloze"},
            "no column close. Found: symbol, open_time_ms, open, high, low, cloze, volume",
        ),
        ({"volume": "vol", "symbol": "ticker"}, "no column symbol, volume. Found: ticker"),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_missing_column_stops_the_build_with_file_found_and_expected(
    columns, said, suffix, tmp_path
):
    warehouse = new_warehouse(tmp_path)
    write_bars(warehouse.data_dir, random_bars(1, minutes=5), "fine.parquet")
    wrong = random_bars(1, minutes=5).rename(columns=columns)
    path = warehouse.data_dir / f"minute_bars/wrong.{suffix}"
    wrong.to_parquet(path, index=False) if suffix == "parquet" else wrong.to_csv(path, index=False)
    done = warehouse.dbt("run", "--select", "base_minute_bars", check=False)
    assert done.returncode != 0
    assert f"wrong.{suffix}: {said}" in done.stdout
    assert "Expected: symbol, open_time_ms, open, high, low, close, volume" in done.stdout
    assert "wavehouse ingest" in done.stdout


def test_no_data_at_all_says_where_it_looked_and_what_to_do(tmp_path):
    warehouse = new_warehouse(tmp_path)
    done = warehouse.dbt("run", *UP_TO_LABELS, check=False)
    assert done.returncode != 0
    assert f"{warehouse.data_dir}/minute_bars.parquet" in done.stdout
    assert "wavehouse sample" in done.stdout


def test_labels_on_an_empty_warehouse_stop_with_the_missing_relations_and_the_remedy(tmp_path):
    warehouse = new_warehouse(tmp_path, random_bars(1, minutes=200))
    done = warehouse.dbt("build", "--select", "labels+", *UP_TO_LABELS, check=False)
    assert done.returncode != 0
    assert (
        "Not built yet: factors.minute_features, factors.split_boundaries, staging.stg_minute_bars."
        " Build them first with `dbt build --select +labels+`"
    ) in done.stdout
    assert "Catalog Error" not in done.stdout
    assert " START sql" not in done.stdout
    warehouse.dbt("build", "--select", "+labels+", *UP_TO_LABELS)
    warehouse.dbt("build", "--select", "labels+", *UP_TO_LABELS)


ODD = st.sampled_from(["", "abc", "nan", "-inf", "-1", "0", "1e400", "60000.5", " ", "NULL"])


@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    cells=st.lists(
        st.tuples(st.integers(0, 299), st.sampled_from([*GOOD, "symbol", "open_time_ms"]), ODD),
        max_size=200,
    ),
    repeats=st.lists(st.integers(0, 299), max_size=60),
)
def test_no_row_is_ever_lost(cells, repeats, tmp_path_factory):
    bars = random_bars(3, symbols=["A", "B"], minutes=150).astype(object).reset_index(drop=True)
    for row, column, value in cells:
        bars.loc[row, column] = value
    delivered = pd.concat([bars, bars.loc[repeats]])
    warehouse = new_warehouse(tmp_path_factory.mktemp("rows"))
    (warehouse.data_dir / "minute_bars").mkdir()
    delivered.to_csv(warehouse.data_dir / "minute_bars/bars.csv", index=False)
    warehouse.dbt("run", "--select", "staging", "--exclude", *BEYOND_STAGING)
    counts = warehouse.query(
        """
        select
            (select count(*) + sum(duplicate_count) from staging.stg_minute_bars) as staged,
            (select count(*) from staging.rejected_rows) as rejected,
            (select sum(rows_read) from staging.load_audit) as audited,
            (select count(*) from staging.stg_minute_bars where not isfinite(close)) as bad
        """
    ).iloc[0]
    assert counts["staged"] + counts["rejected"] == len(delivered) == counts["audited"]
    assert counts["bad"] == 0


def test_rejects_of_ingest_are_rejected_rows_too(tmp_path):
    warehouse = new_warehouse(tmp_path, random_bars(1, minutes=5))
    folder = warehouse.data_dir / "ingest_rejects"
    folder.mkdir()
    pd.DataFrame(
        [{"source_file": "x.csv", "source_row": 7, "symbol": "A", "open_time_ms": None,
          "reason": "null_or_unparsable_time", "raw_row": '{"Date": "?"}'}]
    ).astype({"open_time_ms": "Int64"}).to_parquet(folder / "x.parquet", index=False)  # fmt: skip
    stage(warehouse)
    one = warehouse.query("from staging.rejected_rows").iloc[0]
    assert (one["source_name"], one["source_file"], one["row_key"]) == ("ingest", "x.csv:7", "A@")
    assert json.loads(one["row_json"]) == {"Date": "?"}
