"""`wavehouse.warehouse`: opening the file, what it says when it cannot, settings and catalog."""

import contextlib
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from wavehouse import warehouse
from wavehouse.warehouse import WarehouseError, columns, connect, near_names, relations

HOLD = """
import duckdb, sys
con = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "reader")
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def file(tmp_path):
    """A small warehouse with a table, a view and descriptions."""
    path = tmp_path / "small.duckdb"
    with contextlib.closing(duckdb.connect(str(path))) as con:
        con.execute("""
            create schema labels;
            create table labels.entry_labels as select range as id, 1.5 as edge_bps from range(3);
            create view labels.wins as select * from labels.entry_labels where edge_bps > 0;
            comment on table labels.entry_labels is E'One row per\n  sample.\n';
            comment on view labels.wins is 'One row per win.';
            comment on column labels.entry_labels.edge_bps is E'Edge,\nbps.\n';
        """)
    return path


@contextlib.contextmanager
def held(path: Path, *words: str):
    """Another process that has `path` open while the block runs."""
    command = [sys.executable, "-c", HOLD, str(path), *words]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "open\n"
        yield holder
    finally:
        holder.communicate("")


def refusal(*args, **kwargs) -> WarehouseError:
    with pytest.raises(WarehouseError) as caught:
        connect(*args, **kwargs)
    return caught.value


def with_storage_version(path: Path, number: int) -> None:
    """Rewrite the header of `path` so that it names another storage version, checksum included."""
    content = bytearray(path.read_bytes())
    content[12:20] = struct.pack("<Q", number)
    path.write_bytes(content)
    with pytest.raises(duckdb.Error) as caught:
        duckdb.connect(str(path), read_only=True)
    computed = re.search(r"computed checksum (\d+)", str(caught.value))[1]
    content[:8] = struct.pack("<Q", int(computed))
    path.write_bytes(content)


@pytest.mark.parametrize("read_only", [True, False])
def test_settings_of_the_house_reach_cursors_too(file, read_only):
    with contextlib.closing(connect(file, read_only=read_only, memory_limit="1GB")) as con:
        query = """
            select current_setting('TimeZone'), current_setting('disabled_optimizers'),
                current_setting('memory_limit'), current_setting('async_threads')
        """
        expected = [("UTC", "column_lifetime", "953.6 MiB", 0)]
        assert con.execute(query).fetchall() == expected
        assert con.cursor().execute(query).fetchall() == expected


def test_settings_are_those_of_the_dbt_profile():
    profile = (Path(__file__).parents[2] / "profiles.yml").read_text()
    for name, value in warehouse.PROFILE_SETTINGS.items():
        assert re.search(rf"^\s+{name}: {value}$", profile, re.MULTILINE), name


def test_reader_cannot_write_and_writer_can(file):
    with contextlib.closing(connect(file)) as con, pytest.raises(duckdb.Error, match="read-only"):
        con.execute("create table labels.mine as select 1")
    with contextlib.closing(connect(file, read_only=False)) as con:
        con.execute("create table labels.mine as select 1")
        assert con.execute("from labels.mine").fetchall() == [(1,)]


def test_path_comes_from_argument_then_environment_then_folder(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WAREHOUSE_DB", raising=False)
    assert refusal().reason == "missing"
    file.rename("warehouse.duckdb")
    connect().close()
    monkeypatch.setenv("WAREHOUSE_DB", "elsewhere.duckdb")
    assert "elsewhere.duckdb" in str(refusal())
    connect("warehouse.duckdb").close()


def test_missing_file_says_where_it_looked_and_how_to_build(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = refusal("absent.duckdb", read_only=False)
    assert error.reason == "missing"
    assert "`dbt build`" in str(error)
    assert str(tmp_path) in str(error)
    assert not Path("absent.duckdb").exists()


@pytest.mark.parametrize(
    ("words", "read_only", "said"),
    [
        (["writer", "/usr/bin/dbt", "build"], True, "locked: dbt (PID"),
        (["writer"], True, "most likely a dbt build"),
        (["reader"], False, "a writer must be alone"),
    ],
)
def test_lock_names_its_holder_and_the_remedy(file, words, read_only, said):
    with held(file, *words) as holder:
        error = refusal(file, read_only=read_only)
    assert error.reason == "locked"
    assert said in str(error)
    assert str(holder.pid) in str(error)
    assert "Try again" in str(error)
    connect(file).close()


def test_two_readers_share_the_file(file):
    with held(file, "reader"):
        connect(file).close()


def test_same_process_with_other_settings_is_told_apart_from_a_lock(file):
    with contextlib.closing(connect(file)):
        assert refusal(file, read_only=False).reason == "in_use"
        connect(file).close()


@pytest.mark.parametrize("number", [63, 68_000])
def test_other_storage_version_says_rebuild(file, number):
    with_storage_version(file, number)
    error = refusal(file)
    assert error.reason == "version"
    assert str(number) in str(error)
    assert f"DuckDB {duckdb.__version__} cannot read" in str(error)
    assert "`dbt build`" in str(error)
    assert warehouse.file_version(file)[0] == number


@pytest.mark.parametrize("content", [b"", b"hello", b"no database " * 1000, None])
def test_what_is_no_warehouse_is_unreadable(tmp_path, content):
    path = tmp_path / "other.duckdb"
    path.mkdir() if content is None else path.write_bytes(content)
    assert refusal(path).reason == "unreadable"
    assert warehouse.file_version(path) is None


def test_unreadable_memory_limit_leaves_nothing_open(file):
    with pytest.raises(duckdb.Error, match="Memory"):
        connect(file, memory_limit="plenty")
    duckdb.connect(str(file)).close()  # refused while another connection is open


def test_file_version_names_the_writer_even_when_locked(file):
    with held(file, "writer"):
        assert warehouse.file_version(file)[1] == f"v{duckdb.__version__}"


def test_relations_and_columns_carry_descriptions_on_one_line(file):
    with contextlib.closing(connect(file)) as con:
        assert relations(con) == [
            ("labels", "entry_labels", "table", 3, "One row per sample."),
            ("labels", "wins", "view", None, "One row per win."),
        ]
        assert columns(con, "labels.entry_labels") == [
            ("id", "BIGINT", None),
            ("edge_bps", "DECIMAL(2,1)", "Edge, bps."),
        ]
        assert [name for name, _, _ in columns(con)] == ["id", "edge_bps"] * 2
        assert columns(con, "labels.nothing") == []


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("labels.entry_lables", "labels.entry_labels"),
        ("lables.entry_labels", "labels.entry_labels"),
        ("ENTRYLABELS", "labels.entry_labels"),
        ("factors.entry_labels", "labels.entry_labels"),
        ("minute_bars", "staging.stg_minute_bars"),
        ("features", "factors.minute_features"),
        ("zzz", None),
    ],
)
def test_near_names(name, best):
    names = [
        *("labels.entry_labels", "labels.exit_labels", "labels.price_plan"),
        *("staging.stg_minute_bars", "factors.minute_features"),
    ]
    assert next(iter(near_names(name, names)), None) == best


def test_declared_relations_prefer_a_manifest_that_is_not_outdated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = ("models/labels/one.sql", "models/heads/two.py", "seeds/three.csv")
    for name in (*files, "models/labels/daily/four.sql"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    Path("models/labels/one.yml").touch()
    by_name = ["heads.two", "labels.four", "labels.one", "seeds.three"]
    assert warehouse.declared_relations() == by_name
    node = {"resource_type": "model", "config": {"materialized": "view"}, "schema": "marts"}
    ephemeral = node | {"config": {"materialized": "ephemeral"}, "alias": "hidden"}
    nodes = {"a": node | {"alias": "shown"}, "b": ephemeral, "c": {"resource_type": "test"}}
    Path("target").mkdir()
    manifest = Path("target/manifest.json")
    manifest.write_text(json.dumps({"nodes": nodes}))
    assert warehouse.declared_relations() == ["marts.shown"]
    os.utime(manifest, (0, 0))
    assert warehouse.declared_relations() == by_name
    manifest.write_text('{"nodes": {"a"')
    assert warehouse.declared_relations() == by_name


def test_whole_file_keeps_the_old_one_when_writing_fails(tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("old")
    with contextlib.suppress(ZeroDivisionError), warehouse.whole_file(path) as name:
        Path(name).write_text("half")
        raise ZeroDivisionError
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]
    with warehouse.whole_file(path) as name:
        Path(name).write_text("new")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["new"]
