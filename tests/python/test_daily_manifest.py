"""labels.daily_label_manifest and daily_label_distribution against plain counting."""

import random
from collections import Counter
from datetime import date, timedelta

import pandas as pd
import pytest

from daily_sql import build, new_connection, put

EVENT_SETS = [
    f"{name}_labels"
    for name in ("excess_adaptive", "trend_scanning", "triple_barrier", "directional_change")
]
TARGETS = {name: ["t1", "t3", "t5", "e20"] for name in EVENT_SETS} | {
    "anchor_labels": ["anchor_t1", "anchor_t3", "anchor_t5", "is_background"],
    "main_wave_labels": ["is_main_wave"],
    "wave_proximity_targets": ["proximity"],
}
MODELS = ("daily_label_manifest", "daily_label_distribution")


def made_up_labels(seed: int) -> dict[str, list[dict]]:
    """Rows of every label set around a turn of the year, in no order, a third unknown."""
    draw = random.Random(seed)
    keys = [
        {"ts_code": code, "trade_date": date(2020, 12, 20) + timedelta(days=day)}
        for code in ("600000.SH", "000001.SZ") for day in range(25)
    ]  # fmt: skip
    found = {}
    for name, targets in TARGETS.items():
        values = [0, 1, 2, 3, None] if name == "wave_proximity_targets" else [0, 1, None]
        rows = [key | {target: draw.choice(values) for target in targets} for key in keys]
        for row in rows:
            row["is_in_universe"] = draw.random() < 0.7
            if name == "main_wave_labels":
                row["is_label_known"] = row["is_main_wave"] is not None
                row["is_label_valid"] = row["is_label_known"] and draw.random() < 0.8
                row["is_eligible"] = draw.random() < 0.7
        found[name] = draw.sample(rows, len(rows))
    returns = [f"forward_return_{entry}{days}d" for entry in ("", "next_open_") for days in (1, 5)]
    found["forward_returns"] = [
        key | {column: draw.choice([0.1, None]) for column in returns} | {"passes_all": day % 2 > 0}
        for day, key in enumerate(keys)
    ]
    found["main_wave_episodes"] = [
        {"ts_code": key["ts_code"], "start_date": key["trade_date"], "target_quality": 0.5}
        for key in keys[:3]
    ]
    return found


def counts(name: str, row: dict) -> bool:
    """Whether the row may be decided on."""
    if name == "main_wave_labels":
        return row["is_eligible"] and (row["is_label_valid"] or not row["is_label_known"])
    if name == "forward_returns":
        return row["passes_all"]
    return row["is_in_universe"] if name in (*EVENT_SETS, "anchor_labels") else True


def relations(labels: dict[str, list[dict]], settings: dict | None = None) -> list[pd.DataFrame]:
    connection = new_connection()
    put(connection, {f"labels.{name}": pd.DataFrame(rows) for name, rows in labels.items()})
    settings = {"forward_return_days": [1, 5]} | (settings or {})
    build(connection, MODELS, settings)
    return [connection.sql(f"from labels.{model}").df() for model in MODELS]


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_are_counted_as_the_definition_says(seed):
    labels = made_up_labels(seed)
    manifest, distribution = relations(labels)
    assert set(manifest["label_set"]) == set(labels)
    mains = {name: targets[0] for name, targets in TARGETS.items()}
    mains |= {"forward_returns": "forward_return_1d", "main_wave_episodes": "target_quality"}
    for row in manifest.itertuples():
        rows, main = labels[row.label_set], mains[row.label_set]
        known = [r[main] for r in rows if counts(row.label_set, r) and r[main] is not None]
        assert (row.main_target, row.row_count) == (main, len(rows))
        assert row.known_count == len(known)
        days = [each.get("trade_date", each.get("start_date")) for each in rows]
        assert (row.first_trade_date.date(), row.last_trade_date.date()) == (min(days), max(days))
        if row.label_set in TARGETS:
            assert row.base_rate == pytest.approx(known.count(1) / len(known), rel=1e-14)
        else:
            assert pd.isna(row.base_rate)
    expected = Counter(
        (name, target, target == targets[0], row["trade_date"].year,
         "unknown" if row[target] is None else str(row[target]))
        for name, targets in TARGETS.items() for target in targets
        for row in labels[name] if counts(name, row)
    )  # fmt: skip
    columns = ["label_set", "target_name", "is_main_target", "trade_year", "target_value"]
    found = {tuple(row[name] for name in columns): row for _, row in distribution.iterrows()}
    assert {key: row["row_count"] for key, row in found.items()} == expected
    for key, row in found.items():
        whole = sum(n for other, n in expected.items()
                    if other[:4] == key[:4] and other[4] != "unknown")  # fmt: skip
        if key[4] == "unknown":
            assert pd.isna(row["known_share"])
        else:
            assert row["known_share"] == pytest.approx(expected[key] / whole, rel=1e-14)


def test_hashes_follow_content_and_settings_alone():
    labels = made_up_labels(3)
    before = relations(labels)[0].set_index("label_set")
    shuffled = {name: rows[::-1] for name, rows in labels.items()}
    after = relations(shuffled)[0].set_index("label_set")
    assert (after["data_hash"] == before["data_hash"]).all()
    assert before["settings_hash"].nunique() == 1
    labels["trend_scanning_labels"][7]["e20"] = 9
    labels["forward_returns"][7]["forward_return_next_open_5d"] = 9
    after = relations(labels, {"daily_fit_end": "2021-01-01"})[0].set_index("label_set")
    changed = after.index[after["data_hash"] != before["data_hash"]]
    assert set(changed) == {"trend_scanning_labels", "forward_returns"}
    assert (after["settings_hash"] != before["settings_hash"]).all()


def test_empty_label_sets_have_rows_and_no_rates():
    labels = made_up_labels(4)
    connection = new_connection()
    put(connection, {f"labels.{name}": pd.DataFrame(rows) for name, rows in labels.items()})
    for name in labels:
        connection.execute(f"delete from labels.{name}")
    build(connection, MODELS, {"forward_return_days": [1, 5]})
    found = connection.sql("select sum(row_count), count(base_rate), count(*) from "
                           "labels.daily_label_manifest").fetchall()  # fmt: skip
    assert found == [(0, 0, len(labels))]
    assert connection.sql("select count(*) from labels.daily_label_distribution").fetchall() == [
        (0,)
    ]
