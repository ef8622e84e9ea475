"""`wavehouse doctor`: each check made to pass and to fail, on small folders and files."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
import yaml
from click.testing import CliRunner

from warehouse import REPO
from wavehouse import doctor
from wavehouse.doctor import doctor_command

MODELS = ("staging/load_audit", "staging/rejected_rows", "labels/entry_labels")
BARS = """
    select 'BTC' as symbol, 1735689600000 + 60000 * range as open_time_ms, 1.0 as open, 2.0 as high,
        0.5 as low, 1.5 as close, 10.0 as volume, if(range < 7, 0.8, null) as spread_bps
    from range(10)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder to stand in, with no wavehouse variables and no home set."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("WAREHOUSE_DATA", "WAREHOUSE_DB", "WAREHOUSE_MEMORY_LIMIT", "DBT_PROFILES_DIR"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def project(here):
    """A project of three models and a seed in which nothing is amiss; data, and a warehouse."""
    Path("dbt_project.yml").write_text("vars: {data_dir: ''}\n")
    Path("profiles.yml").touch()
    for name in (*(f"models/{model}.sql" for model in MODELS), "seeds/reject_reasons.csv"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    write_bars(f"{BARS} union all by name select * replace ('ETH' as symbol) from ({BARS})")
    build(
        "create table staging.load_audit as select 'minute_bars' as source_name, 20 as rows_read",
        "create table staging.rejected_rows (reason varchar)",
        "create view labels.entry_labels as select 1 as a",
        "create table seeds.reject_reasons as select 1 as a",
    )
    return here


def write_bars(query: str, name: str = "data/sample/minute_bars/bars.parquet") -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(duckdb.connect()) as con:
        con.execute(f"copy ({query}) to '{name}'")


def build(*statements: str) -> None:
    """Run statements on the warehouse file; it is then newer than the data."""
    with contextlib.closing(duckdb.connect("warehouse.duckdb")) as con:
        for schema in ("staging", "labels", "seeds"):
            con.execute(f"create schema if not exists {schema}")
        for statement in statements:
            con.execute(statement)


def checks(exit_code: int = 0) -> dict[str, dict]:
    """Run `wavehouse doctor --json` and return its checks by name."""
    result = CliRunner().invoke(doctor_command, ["--json"])
    assert isinstance(result.exception, SystemExit | None), result.output
    report = json.loads(result.stdout)
    found = {check["name"]: check for check in report["checks"]}
    statuses = [check["status"] for check in report["checks"]]
    assert report["counts"] == {s: statuses.count(s) for s in ("ok", "warning", "problem")}
    assert result.exit_code == exit_code == int("problem" in statuses), report
    assert all(check["status"] != "ok" or not check["remedy"] for check in found.values())
    return found


def test_sound_project_has_nothing_amiss(project):
    found = checks()
    assert {name: c["detail"] for name, c in found.items() if c["status"] != "ok"} == {}
    assert found["minute bars"]["detail"] == (
        "files 1, rows 20, symbols 2, 2025-01-01 00:00 UTC to 2025-01-01 00:09 UTC, with spread 14"
    )
    assert found["relations"]["detail"] == "4 of 4 built"
    assert found["last build"]["facts"]["rows_read"] == 20
    assert "storage v" in found["warehouse"]["detail"]
    assert found["rejected rows"]["detail"] == "0 rows"
    assert found["data folder"]["facts"]["origin"].startswith("the sample's folder")


def test_report_is_one_line_a_check(project):
    Path("models/labels/exit_labels.sql").touch()
    result = CliRunner().invoke(doctor_command)
    lines = result.stdout.splitlines()
    assert result.exit_code == 0  # a warning only
    assert lines[-1] == "problems: 0, warnings: 1"
    assert len(lines) == len(doctor.examine()) + 1
    warnings = [line for line in lines if line.startswith("warning  relations ")]
    assert len(warnings) == 1
    assert warnings[0].endswith("4 of 5 built, without labels.exit_labels -> "
                                "`dbt build --select +exit_labels`")  # fmt: skip
    assert all(line.startswith("ok ") for line in lines[:-1] if line not in warnings)


def test_empty_folder_says_what_to_do_first(here):
    found = checks(exit_code=1)
    assert found["project"]["status"] == found["profile"]["status"] == "problem"
    assert found["project"]["remedy"] == "cd to the wavehouse folder"
    assert found["data folder"]["status"] == "problem"
    assert "`wavehouse sample`, then `dbt build`" in found["data folder"]["remedy"]
    assert found["warehouse"]["status"] == "warning"
    assert "`dbt build`" in found["warehouse"]["detail"]
    assert not {"minute bars", "relations", "last build"} & set(found)
    assert list(here.iterdir()) == []


# ---- software and machine


def test_packages_are_held_against_what_wavehouse_asks_for(project, monkeypatch):
    real = doctor._version
    wrong = {"duckdb": "1.5.0", "rich": None, "numpy": "99.1"}
    monkeypatch.setattr(doctor, "_version", lambda name: wrong.get(name, real(name)))
    found = checks(exit_code=1)
    assert found["duckdb"]["status"] == "problem"
    assert found["duckdb"]["remedy"] == "`pip install 'duckdb==2.0.0'`"
    assert found["duckdb in dbt"]["status"] == "problem"
    assert found["rich"]["detail"].startswith("not installed (wanted >=")
    assert found["numpy"]["status"] == found["dbt-core"]["status"] == "ok"
    assert {"dbt-duckdb", "pyarrow", "click", "python"} <= set(found)
    assert "pandas" not in found  # for the tests only


def test_lock_is_told_where_it_differs(project):
    marked = "click==0.2 ; python_version >= '3'\nclick==0.1 ; python_version < '3'\n"
    Path("requirements.lock").write_text(f"# comment\n{marked}duckdb==2.0.0\n    # via x\n")
    found = checks()
    assert found["click"]["detail"].endswith("; requirements.lock has 0.2")
    assert "lock" not in found["duckdb"]["detail"]


def test_old_python_is_a_problem(project, monkeypatch):
    monkeypatch.setattr(doctor.platform, "python_version", lambda: "3.10.4")
    assert checks(exit_code=1)["python"]["status"] == "problem"


def test_training_packages_are_missed_once_there_are_heads(project, monkeypatch):
    monkeypatch.setattr(doctor, "_requirements", lambda name: [])
    monkeypatch.setattr(doctor, "_gpu", lambda: None)
    monkeypatch.setattr(doctor, "_version", {"torch": "9.9", "duckdb": duckdb.__version__}.get)
    found = checks()
    assert found["lightgbm"]["detail"] == "not installed: needed from the heads floor on"
    assert (found["lightgbm"]["status"], found["torch"]["detail"]) == ("ok", "9.9")
    Path("models/heads").mkdir()
    Path("models/heads/entry_predictions.py").touch()
    found = checks()
    assert (found["lightgbm"]["status"], found["torch"]["status"]) == ("warning", "ok")
    assert found["lightgbm"]["remedy"] == "`pip install lightgbm`"


def test_gpu_is_what_nvidia_smi_lists(project, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor._gpu() is None
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771 MiB'\necho 'NVIDIA T4, 1 MiB'\n")
    program.chmod(0o755)
    assert doctor._gpu() == "NVIDIA H200, 143771 MiB; NVIDIA T4, 1 MiB"
    program.write_text("#!/bin/sh\necho 'no driver'\nexit 9\n")
    assert doctor._gpu() is None


@pytest.mark.parametrize(
    ("limit", "status"), [("1MB", "ok"), ("900TB", "warning"), ("plenty", "problem")]
)
def test_memory_limit_must_fit_the_machine(project, monkeypatch, limit, status):
    monkeypatch.setenv("WAREHOUSE_MEMORY_LIMIT", limit)
    check = checks(exit_code=int(status == "problem"))["memory"]
    assert check["status"] == status
    assert limit in check["detail"]
    assert ("WAREHOUSE_MEMORY_LIMIT" in check["remedy"]) == (status != "ok")


def test_little_disk_is_a_warning(project, monkeypatch):
    monkeypatch.setattr(doctor, "LEAST_DISK_GIB", 10**9)
    found = checks()
    assert found["warehouse disk"]["status"] == found["temp disk"]["status"] == "warning"
    assert "make room" in found["temp disk"]["remedy"]


# ---- data


def test_profile_may_be_where_dbt_looks_for_it(project, tmp_path, monkeypatch):
    Path("profiles.yml").unlink()
    (tmp_path / ".dbt").mkdir()
    assert checks(exit_code=1)["profile"]["status"] == "problem"
    (tmp_path / ".dbt/profiles.yml").touch()
    assert checks()["profile"]["detail"].endswith(".dbt")


def test_origin_of_the_data_folder(project, monkeypatch):
    monkeypatch.setenv("WAREHOUSE_DATA", "elsewhere")
    check = checks(exit_code=1)["data folder"]
    assert check["detail"] == "there is no folder elsewhere ($WAREHOUSE_DATA)"
    assert "`wavehouse ingest`" in check["remedy"]
    Path("dbt_project.yml").write_text("vars: {data_dir: data/sample}\n")
    check = checks()["data folder"]
    assert check["detail"] == "data/sample (the var data_dir in dbt_project.yml)"


@pytest.mark.parametrize("text", ["", "vars: [1, 2", "- 1", "vars: {}"])
def test_project_file_that_says_nothing_of_data(project, text):
    Path("dbt_project.yml").write_text(text)
    assert checks()["data folder"]["detail"].startswith("data/sample (the sample's folder")


def bars(exit_code: int = 0) -> dict:
    return checks(exit_code)["minute bars"]


def test_no_bars(project):
    Path("data/sample/minute_bars/bars.parquet").unlink()
    check = bars(exit_code=1)
    assert check["detail"] == "no .parquet, .csv or .csv.gz in data/sample/minute_bars"
    assert "`wavehouse sample`" in check["remedy"]
    write_bars(f"from ({BARS}) where false")
    assert (bars(exit_code=1)["status"], bars(exit_code=1)["facts"]["rows"]) == ("problem", 0)


def test_bars_of_several_files_and_partitions(project):
    write_bars(f"select * replace (open_time_ms - 60000 as open_time_ms) from ({BARS})",
               "data/sample/minute_bars.parquet")  # fmt: skip
    partition = "data/sample/minute_bars/symbol=DOGE/part.parquet"
    write_bars(f"select * exclude (symbol, spread_bps), close as CLOSE2 from ({BARS})", partition)
    write_bars(f"select spread_bps as SPREAD_BPS, * exclude (spread_bps) from ({BARS})",
               "data/sample/minute_bars/upper.parquet")  # fmt: skip
    facts = bars()["facts"]
    assert len(facts["files"]) == 4
    assert (facts["rows"], facts["symbols"], facts["rows_with_spread"]) == (50, 3, 28)
    assert (facts["first_ms"], facts["last_ms"]) == (1735689540000, 1735690140000)


def test_bars_without_a_spread_are_fine(project):
    for query in (f"select * exclude (spread_bps) from ({BARS})", BARS.replace("0.8", "null")):
        write_bars(query)
        check = bars()
        assert check["status"] == "ok"
        assert "without spread" in check["detail"]


def test_missing_column_names_the_file(project):
    write_bars(f"select * exclude (low, close) from ({BARS})", "data/sample/minute_bars/b.parquet")
    check = bars(exit_code=1)
    assert check["detail"] == "data/sample/minute_bars/b.parquet has no column close, low"
    assert "`wavehouse ingest`" in check["remedy"]


DAYS = """
    select code as ts_code, date '2024-01-02' + range::integer as trade_date, 9.0 as open,
        9.0 as high, 9.0 as low, 9.0 as close, 9.0 as pre_close, 100.0 as volume, 900.0 as amount
    from range(5), (values ('600000.SH'), ('000001.SZ')) as stocks(code)
"""


def test_daily_tables_are_named_beside_their_bars(project):
    assert checks()["daily bars"]["detail"] == "none: no daily track"
    write_bars(DAYS, "data/sample/daily_bars/a.parquet")
    write_bars("select '600000.SH' as ts_code", "data/sample/securities.parquet")
    Path("data/sample/margin").mkdir()
    Path("data/sample/margin/a.csv").write_text("ts_code\n")
    check = checks()["daily bars"]
    assert check["detail"] == (
        "files 1, rows 10, stocks 2, 2024-01-02 to 2024-01-06; with securities, margin; without "
        "security_names, index_daily, index_members, industry_members, trading_calendar, "
        "moneyflow, top_list, top_inst, hk_hold, cyq_perf, daily_basic, limit_list, holders, "
        "ths_hot, northbound, market_margin, market_moneyflow, security_code_changes"
    )
    assert (check["status"], check["facts"]["rows"]) == ("ok", 10)
    Path("data/sample/daily_bars/b.csv").write_text("ts_code\n")
    assert "1 parquet and 1 CSV files" in checks()["daily bars"]["detail"]


def test_daily_tables_are_those_that_staging_reads():
    sources = yaml.safe_load((REPO / "models/staging/daily/_daily_sources.yml").read_text())
    names = {table["name"] for table in sources["sources"][0]["tables"]}
    assert names == {"daily_bars", "ingest_rejects_daily", *doctor.DAILY_TABLES}


def test_daily_tables_without_bars_are_a_warning(project):
    write_bars("select '600000.SH' as ts_code", "data/sample/margin/a.parquet")
    check = checks()["daily bars"]
    assert check["status"] == "warning"
    assert check["detail"] == "margin, but no daily_bars: the daily relations stay empty"
    assert "`wavehouse ingest tushare`" in check["remedy"]


def test_daily_bars_alone_are_enough(project):
    Path("data/sample/minute_bars/bars.parquet").unlink()
    write_bars(DAYS, "data/sample/daily_bars/a.parquet")
    check = bars()
    assert check["status"] == "ok"
    assert "`dbt build --select +tag:daily`" in check["detail"]


def test_missing_daily_column_names_the_file(project):
    write_bars(f"select * exclude (pre_close) from ({DAYS})", "data/sample/daily_bars/b.parquet")
    check = checks(exit_code=1)["daily bars"]
    assert check["detail"] == "data/sample/daily_bars/b.parquet has no column pre_close"
    Path("data/sample/daily_bars/b.parquet").write_bytes(b"PAR1 broken PAR1")
    check = checks(exit_code=1)["daily bars"]
    assert "b.parquet" in check["detail"]


def test_newer_daily_data_make_the_build_stale(project):
    write_bars(DAYS, "data/sample/daily_bars/a.parquet")
    later = Path("warehouse.duckdb").stat().st_mtime + 60
    os.utime("data/sample/daily_bars/a.parquet", (later, later))
    assert checks()["last build"]["status"] == "warning"


def test_unreadable_file_is_named(project):
    Path("data/sample/minute_bars/broken.parquet").write_bytes(b"PAR1 broken PAR1")
    check = bars(exit_code=1)
    assert "broken.parquet" in check["detail"]


def test_csv_rows_are_left_to_the_build(project):
    Path("data/sample/minute_bars/x.csv").write_text("symbol\n")
    found = checks()
    assert "1 parquet and 1 CSV files" in found["minute bars"]["detail"]
    assert "rows" not in found["minute bars"]["facts"]
    assert found["last build"]["status"] == "warning"  # the file is newer than the warehouse


def test_times_that_no_calendar_has(project):
    write_bars(f"select * replace (open_time_ms * 1000000 as open_time_ms) from ({BARS})")
    assert "open_time_ms 1735689600000000000" in bars()["detail"]


def test_ingest_rejects_are_counted(project):
    write_bars("select * from range(3)", "data/sample/ingest_rejects/a.parquet")
    write_bars("select * from range(1234)", "data/sample/ingest_rejects/b.parquet")
    write_bars("select * from range(5)", "data/sample/ingest_rejects_daily/a.parquet")
    check = checks()["ingest rejects"]
    assert (check["status"], check["facts"]) == ("warning", {"rows": 1242})
    assert "staging.rejected_rows" in check["remedy"]


# ---- warehouse


def test_missing_relations_name_the_build(project):
    build("drop view labels.entry_labels", "drop table seeds.reject_reasons")
    check = checks()["relations"]
    assert check["status"] == "warning"
    assert check["facts"]["missing"] == ["labels.entry_labels", "seeds.reject_reasons"]
    assert check["remedy"] == "`dbt build --select +entry_labels +reject_reasons`"
    for number in range(4):
        Path(f"models/labels/more_{number}.sql").touch()
    check = checks()["relations"]
    assert check["detail"].endswith("labels.more_3, ...")
    assert check["remedy"] == "`dbt build`"


def test_refused_rows_are_counted_by_reason(project):
    build("insert into staging.rejected_rows values ('a'), ('b'), ('b'), ('c'), ('b'), ('c')")
    check = checks()["rejected rows"]
    assert (check["status"], check["detail"]) == ("warning", "6 rows, b 3, c 2, a 1")
    assert "staging.rejected_rows" in check["remedy"]


def test_newer_data_makes_the_build_stale(project):
    file = "data/sample/minute_bars/bars.parquet"
    later = Path("warehouse.duckdb").stat().st_mtime + 60
    os.utime(file, (later, later))
    check = checks()["last build"]
    assert (check["status"], check["remedy"]) == ("warning", "stale: `dbt build`")
    assert "newest data file" in check["detail"]
    os.utime(file, (later - 120, later - 120))
    assert checks()["last build"]["status"] == "ok"


def test_other_data_makes_the_build_stale(project):
    os.utime("data/sample/minute_bars/bars.parquet", (0, 0))
    build("update staging.load_audit set rows_read = 19")
    check = checks()["last build"]
    assert check["status"] == "warning"
    assert "from 19 rows" in check["detail"]
    assert check["detail"].endswith("20 rows in the data folder")
    build("insert into staging.load_audit values ('ingest', 5), ('minute_bars', 1)")
    assert checks()["last build"]["status"] == "ok"


def test_foreign_tables_of_our_names_are_told(project):
    build("drop table staging.rejected_rows", "create table staging.rejected_rows (a int)")
    assert "not as this version builds it" in checks()["staging"]["detail"]


def test_no_warehouse_yet(project):
    Path("warehouse.duckdb").unlink()
    check = checks()["warehouse"]
    assert (check["status"], check["facts"]["state"]) == ("warning", "missing")
    assert "`dbt build`" in check["detail"]


def test_locked_warehouse_is_a_warning(project):
    code = (
        "import duckdb; c = duckdb.connect('warehouse.duckdb'); print('open', flush=True); input()"
    )
    command = [sys.executable, "-c", code, "dbt"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as holder:
        assert holder.stdout.readline() == "open\n"
        check = checks()["warehouse"]
        holder.communicate("\n")
    assert (check["status"], check["facts"]["state"]) == ("warning", "locked")
    assert f"dbt (PID {holder.pid})" in check["detail"]
    assert checks()["warehouse"]["facts"]["state"] == "not locked"


def test_unreadable_warehouse_is_a_problem(project, monkeypatch):
    Path("other.duckdb").write_text("no database")
    monkeypatch.setenv("WAREHOUSE_DB", "other.duckdb")
    check = checks(exit_code=1)["warehouse"]
    assert (check["status"], check["facts"]["state"]) == ("problem", "unreadable")
    assert "other.duckdb" in check["detail"]
