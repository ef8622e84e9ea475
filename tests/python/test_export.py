"""`wavehouse export` and `wavehouse report`: what they write is the warehouse, byte for byte."""

import csv
import hashlib
import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from wavehouse.cli import main

FILES = {
    "SHA256SUMS",
    "backtest/backtest_manifest.json",
    "backtest/backtest_report.md",
    "backtest/backtest_trades.parquet",
    "backtest/direction_ablation_backtest_report.md",
    "backtest/equity_curve.csv",
    "backtest/executed_positions.parquet",
    "backtest/failure_cases.md",
    "backtest/regime_metrics.csv",
    "diagnostics/gate_funnel.csv",
    "diagnostics/training_failure_diagnostics.json",
    "diagnostics/training_failure_diagnostics.md",
    "label/continue_labels.manifest.json",
    "label/direction_labels.manifest.json",
    "label/entry_labels.manifest.json",
    "label/exit_labels.manifest.json",
    "label/position_state_samples.manifest.json",
    "label/risk_labels.manifest.json",
    "pm-search/pm_backtest_trades.parquet",
    "pm-search/pm_equity_curve.csv",
    "pm-search/pm_regime_metrics.csv",
    "pm-search/pm_search_candidates.csv",
    "pm-search/pm_search_report.md",
    "pm-search/pm_threshold_config.json",
    "pm-search/pm_threshold_report.md",
    "pm-search/position_manager_config.json",
    "release/deployment_decisions.csv",
    "release/drift_check.csv",
    "release/model_gating.csv",
    "release/walk_forward_folds.csv",
}


def wavehouse(warehouse, *arguments: object):
    return CliRunner().invoke(main, [*map(str, arguments), "--db", str(warehouse.file)])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def exported(sample_warehouse, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    done = wavehouse(sample_warehouse, "export", "first", "--output", folder)
    assert done.exit_code == 0, done.output
    return folder / "first"


def test_every_file_is_there_and_its_checksum_holds(exported):
    found = contents(exported)
    assert set(found) == FILES
    sums = dict(reversed(line.split("  ")) for line in found["SHA256SUMS"].decode().splitlines())
    assert set(sums) == FILES - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256(found[name]).hexdigest() == digest


def test_another_export_differs_in_its_name_alone(sample_warehouse, exported, tmp_path):
    # a file copied elsewhere, read by a new process state: nothing but the run's name may differ
    shutil.copy(sample_warehouse.file, tmp_path / "copy.duckdb")
    arguments = ["export", "other", "-o", str(tmp_path), "--db", str(tmp_path / "copy.duckdb")]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    first, other = contents(exported), contents(tmp_path / "other")
    named = {
        "SHA256SUMS",
        "backtest/backtest_manifest.json",
        "diagnostics/training_failure_diagnostics.json",
    }
    assert {name for name in FILES if first[name] != other[name]} == named
    for name in named - {"SHA256SUMS"}:
        assert first[name].replace(b"first", b"other") == other[name]


def test_the_configuration_is_the_one_that_was_frozen(sample_warehouse, exported):
    payload = json.loads((exported / "pm-search/position_manager_config.json").read_text())
    canonical = json.dumps(payload["config"], sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(canonical.encode()).hexdigest() == payload["config_hash_sha256"]
    frozen = sample_warehouse.query("from pm.pm_config").iloc[0]
    assert payload["config_hash_sha256"] == frozen["config_hash"]
    assert payload["config"]["open"]["longOpenProb"] == frozen["long_open_prob"]
    assert payload["config"]["sizing"]["minEdgeBps"] == frozen["min_expected_edge_bps"]
    assert list(payload["config"]) == ["add", "exit", "open", "pmConfigVersion", "sizing"]
    manifest = json.loads((exported / "backtest/backtest_manifest.json").read_text())
    assert manifest["backtest_manifest_id"] == "backtest-first"
    assert manifest["pm_config_hash_sha256"] == payload["config_hash_sha256"]
    assert set(manifest["metrics"]) >= {"tune_inner", "validation_locked", "latest_stress"}


def test_the_candidates_are_all_there_best_first(sample_warehouse, exported):
    with (exported / "pm-search/pm_search_candidates.csv").open() as file:
        candidates = list(csv.DictReader(file))
    assert len(candidates) == 14_000
    scores = [float(row["score"]) for row in candidates]
    assert scores == sorted(scores, reverse=True)
    best = sample_warehouse.query("select best_score from pm.pm_config").iloc[0, 0]
    assert scores[0] == best


def test_trades_and_positions_are_the_relations(sample_warehouse, exported):
    for name, relation in {
        "pm-search/pm_backtest_trades.parquet": "pm.pm_trades",
        "backtest/backtest_trades.parquet": "backtest.backtest_trades",
        "backtest/executed_positions.parquet": "backtest.executed_positions",
    }.items():
        table = pq.read_table(exported / name)
        totals = sample_warehouse.query(f"select count(*), sum(weighted_edge_bps) from {relation}")
        assert table.num_rows == totals.iloc[0, 0] > 0
        assert sum(table["weighted_edge_bps"].to_pylist()) == pytest.approx(totals.iloc[0, 1])


def test_json_holds_no_number_that_json_has_no_word_for(exported):
    def refuse(name: str):
        raise AssertionError(name)

    for path in exported.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=refuse)


def test_label_manifests_count_their_rows(sample_warehouse, exported):
    manifest = json.loads((exported / "label/entry_labels.manifest.json").read_text())
    rows = sample_warehouse.query("select count(*) from labels.entry_labels").iloc[0, 0]
    assert manifest["row_count"] == rows
    assert sum(each["row_count"] for each in manifest["distribution"]) == rows


@pytest.mark.parametrize("run", ["../up", "", ".hidden", "a b", "a/b"])
def test_a_run_is_a_plain_name(sample_warehouse, tmp_path, run):
    done = wavehouse(sample_warehouse, "export", run, "--output", tmp_path)
    assert done.exit_code == 2
    assert "expected a name of letters" in done.output
    assert not list(tmp_path.iterdir())


def test_a_failed_export_leaves_the_earlier_one(random_warehouse, sample_warehouse, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/kept.txt").write_text("earlier")
    done = wavehouse(random_warehouse, "export", "run", "--output", tmp_path)  # labels alone
    assert done.exit_code == 1
    assert "does not exist" in done.output
    assert contents(tmp_path) == {"run/kept.txt": b"earlier"}
    assert wavehouse(sample_warehouse, "export", "run", "--output", tmp_path).exit_code == 0
    assert set(contents(tmp_path / "run")) == FILES


@pytest.fixture(scope="module")
def page(sample_warehouse, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("report") / "deep" / "run.html"
    done = wavehouse(sample_warehouse, "report", "run", "--output", path)
    assert done.exit_code == 0, done.output
    return path.read_text()


def test_the_page_needs_no_network_and_no_script(page):
    addresses = set(re.findall(r"(?:https?:)?//[\w./-]+", page))
    names = ("http://www.w3.org/", "http://purl.org/", "http://creativecommons.org/")
    assert all(address.startswith(names) for address in addresses), addresses
    assert "<script" not in page
    assert "<link" not in page
    assert "@import" not in page


def test_the_page_shows_what_the_relations_say(page, sample_warehouse):
    manifest = sample_warehouse.query("from backtest.backtest_manifest").iloc[0]
    assert manifest["backtest_manifest_id"] in page
    total = sample_warehouse.query(
        "select total_weighted_edge_bps from backtest.backtest_metrics"
        " where accounting = 'executed' and eval_split = 'validation_locked'"
    ).iloc[0, 0]
    assert f"{total:,.1f}" in page
    assert (
        page.count("✗")
        == sample_warehouse.query(
            "select count(*) from backtest.backtest_rule_checks where is_violated"
        ).iloc[0, 0]
    )
    worst = sample_warehouse.query(
        "select symbol, signal_time from backtest.failure_cases"
        " where accounting = 'executed' and failure_rank = 1"
    ).iloc[0]
    assert f"{worst['signal_time']:%Y-%m-%d %H:%M}" in page


def test_every_plot_is_a_picture_of_its_own(page):
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(pictures) >= 20
    identities = []
    for picture in pictures:
        ElementTree.fromstring(picture)
        identities += re.findall(r'\bid="([^"]+)"', picture)[:1]
    assert len(set(identities)) == len(pictures)


def test_the_same_warehouse_gives_the_same_page(page, sample_warehouse, tmp_path):
    wavehouse(sample_warehouse, "report", "run", "--output", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == page


def test_a_warehouse_without_a_run_says_what_is_missing(random_warehouse, tmp_path):
    done = wavehouse(random_warehouse, "report", "run", "--output", tmp_path / "none.html")
    assert done.exit_code == 1
    assert "dbt build" in done.output
    assert not list(tmp_path.iterdir())
