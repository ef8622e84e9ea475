"""The house rules, read from dbt's own manifest: floors, documentation, keys, whole files."""

import json
import re
import shutil

import duckdb
import pytest

from warehouse import REPO, UP_TO_LABELS, Warehouse, new_warehouse

FLOORS = ["staging", "universe", "factors", "labels", "heads", "pm", "backtest", "diagnostics",
          "release"]  # fmt: skip


@pytest.fixture(scope="module")
def manifest(random_warehouse) -> dict:
    return json.loads((random_warehouse.file.parent / "target/manifest.json").read_text())


@pytest.fixture(scope="module")
def models(manifest) -> dict:
    return {
        name: node for name, node in manifest["nodes"].items() if node["resource_type"] == "model"
    }


def floor(node: dict) -> int:
    return FLOORS.index(node["fqn"][1])


def test_a_model_reads_only_floors_below_it_or_its_own(models):
    for node in models.values():
        assert node["schema"] == node["fqn"][1], node["name"]
        for parent in node["depends_on"]["nodes"]:
            if parent in models:
                assert floor(models[parent]) <= floor(node), f"{node['name']} reads {parent}"
            if parent.startswith("source."):
                assert node["fqn"][1] == "staging", f"{node['name']} reads {parent}"


def test_every_model_column_seed_and_source_is_described(manifest, models, sample_warehouse):
    with sample_warehouse.connect() as connection:
        found = connection.execute(
            "select schema_name || '.' || coalesce(table_name, ''), list(column_name)"
            " from duckdb_columns() where not internal group by all"
        ).fetchall()
    columns = dict(found)
    for node in models.values():
        assert len(node["description"]) > 20, node["name"]
        described = {name for name, column in node["columns"].items() if column["description"]}
        assert described == set(columns[f"{node['schema']}.{node['name']}"]), node["name"]
    for source in manifest["sources"].values():
        assert source["description"]
        assert all(column["description"] for column in source["columns"].values())


def test_every_macro_and_argument_is_described(manifest):
    for macro in manifest["macros"].values():
        name = macro["name"]
        if macro["package_name"] != "wavehouse" or name.startswith(
            ("_", "test_", "materialization_")
        ):
            continue
        assert macro["description"], name
        signature = re.search(r"{%-? macro " + name + r"\((.*?)\)", macro["macro_sql"])[1]
        arguments = [part.split("=")[0].strip() for part in signature.split(",") if part]
        assert [argument["name"] for argument in macro["arguments"]] == arguments, name
        assert all(argument["description"] for argument in macro["arguments"]), name


def test_every_model_that_others_may_join_has_a_tested_key(manifest, models):
    keyed = {
        test["attached_node"]
        for test in manifest["nodes"].values()
        if test["resource_type"] == "test"
        and test.get("test_metadata", {}).get("name") in ("unique", "unique_combination")
    }
    # rows as delivered have no key
    without_key = {"base_minute_bars", "base_daily_bars", "base_daily_refusals", "rejected_rows"}
    assert {node["name"] for key, node in models.items() if key not in keyed} == without_key


def test_a_copied_and_renamed_file_is_read_whole_by_a_bare_client(sample_warehouse, tmp_path):
    copy = tmp_path / "elsewhere.duckdb"
    shutil.copy(sample_warehouse.file, copy)
    with duckdb.connect(str(copy), read_only=True) as connection:
        relations = connection.execute(
            "select table_schema || '.' || table_name from information_schema.tables"
        ).fetchall()
        assert len(relations) >= 45
        # a view of a hundred factors is bound, not computed
        factors = {f"factors.{file.stem}" for file in REPO.glob("models/**/generated/*.sql")}
        for (relation,) in relations:
            rows = 0 if relation in factors - {"factors.factor_inputs"} else 1
            connection.execute(f"from {relation} limit {rows}").fetchall()


def test_rebuilding_and_other_thread_counts_give_the_same_labels(random_warehouse, tmp_path):
    before = random_warehouse.query("from labels.label_manifest order by label_set")
    again = Warehouse(random_warehouse.data_dir, tmp_path / "again.duckdb")
    again.dbt("run", *UP_TO_LABELS, threads=1)
    after = again.query("from labels.label_manifest order by label_set")
    assert list(after["data_hash"]) == list(before["data_hash"])
    assert list(after["row_count"]) == list(before["row_count"])


def test_a_seed_with_a_new_column_loads_into_a_warehouse_from_before(tmp_path):
    warehouse = new_warehouse(tmp_path)
    warehouse.dbt("seed", "--select", "factor_catalog")
    with warehouse.connect(read_only=False) as connection:
        connection.execute("alter table factors.factor_catalog drop column panel_unit")
    warehouse.dbt("seed", "--select", "factor_catalog")
    found = warehouse.query("select panel_unit from factors.factor_catalog where panel_unit > 1")
    assert len(found) > 0
