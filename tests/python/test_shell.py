"""`wavehouse sql`: every format, limits, errors, and the interactive shell driven through a pty."""

import contextlib
import csv
import fcntl
import gzip
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from wavehouse.shell import fold_columns, format_cell, is_complete, sql_command

COMMAND = [str(Path(sys.executable).parent / "wavehouse"), "sql"]
PROMPT, MORE = "wavehouse> ", "      ...> "
ENDLESS = "select count(*) from range(10000000) a, range(1000000) b where a.range + b.range % 7 = 3"


@pytest.fixture(scope="module")
def db(tmp_path_factory):
    """A warehouse of two schemas with descriptions; nothing here writes to it."""
    path = tmp_path_factory.mktemp("shell") / "small.duckdb"
    wide = ", ".join(f"{number} / 7 as a_rather_long_name_{number:02}" for number in range(30))
    with contextlib.closing(duckdb.connect(str(path))) as con:
        con.execute(f"""
            create schema labels;
            create schema factors;
            create table labels.entry_labels as
                select * from (values ('BTC@1', 1 / 3, 7), ('ETH@22', null, 1234567))
                    as t (sample_id, edge_bps, row_count);
            create table labels.many as select range as id from range(200);
            create view factors.wide as select 'BTC@' || range as sample_id, {wide} from range(2);
            comment on table labels.entry_labels is 'One row per sample and side.';
            comment on column labels.entry_labels.edge_bps is 'Edge before costs, bps.';
        """)
    return path


@pytest.fixture
def sql(db, tmp_path, monkeypatch):
    """A function that runs `wavehouse sql` on the small warehouse, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args: str, stdin: str = "") -> Result:
        result = CliRunner().invoke(sql_command, ["--db", str(db), *args], input=stdin)
        assert "Traceback" not in result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    return run


# ---- tables


def test_table_aligns_numbers_right_and_shows_null(sql):
    result = sql("from labels.entry_labels")
    assert result.stdout == (
        "sample_id  edge_bps  row_count\n"
        "---------  --------  ---------\n"
        "BTC@1       0.33333          7\n"
        "ETH@22         NULL    1234567\n"
    )
    assert result.stderr == ""


def test_expanded_table_has_one_line_a_column(sql):
    assert sql("--expanded", "from labels.entry_labels limit 1").stdout == (
        "-- row 1\nsample_id  BTC@1\nedge_bps   0.33333\nrow_count  7\n"
    )


def test_table_without_rows_says_so(sql):
    result = sql("from labels.many where id < 0")
    assert result.stdout == "id\n--\n"
    assert result.stderr == "0 rows\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((None, "NULL"), (True, "true"), (7, "7"), ("x", "x"), ("", "")),
        *((1 / 3, "0.33333"), (98500.123456, "98500.1235"), (2.0, "2"), (1.5, "1.5")),
        *((-21.46654321, "-21.4665"), (1e-9, "1e-09"), (1e20, "1e+20"), (-0.0, "0"), (0.0, "0")),
        *((float("nan"), "nan"), (float("-inf"), "-inf"), (0.99999999, "1")),
        *(("two\nlines\tand tab", r"two\nlines\tand tab"), ("日本", "日本"), ([1, 2], "[1, 2]")),
    ],
)
def test_format_cell(value, shown):
    assert format_cell(value) == shown


def test_wide_characters_keep_columns_straight(sql):
    lines = sql("select '日本' as a, 1 as b union all select 'xyzäö', 22").stdout.splitlines()
    assert lines[2:] == ["日本    1", "xyzäö  22"]


@pytest.mark.parametrize(
    ("widths", "width", "blocks"),
    [
        ([5, 5, 5], 15, [[0, 1, 2]]),
        ([5, 5, 5], 14, [[0, 1], [0, 2]]),
        ([5, 50, 5], 14, [[0, 1], [0, 2]]),
        ([50, 5, 5], 14, [[0, 1], [0, 2]]),
        ([5], 1, [[0]]),
    ],
)
def test_fold_columns(widths, width, blocks):
    assert fold_columns(widths, width) == blocks


def test_plan_is_printed_as_drawn(sql):
    plan = sql("explain select 42").stdout
    assert plan.count("\n") > 2
    assert "explain_key" not in plan
    assert r"\n" not in plan


# ---- limits


@pytest.mark.parametrize(
    ("args", "shown", "said"),
    [
        ([], 40, "40 rows shown, 160 more: --limit 0 shows all\n"),
        (["--limit", "3"], 3, "3 rows shown, 197 more: --limit 0 shows all\n"),
        (["--limit", "199"], 199, "199 rows shown, 1 more: --limit 0 shows all\n"),
        (["--limit", "200"], 200, ""),
        (["--limit", "0"], 200, ""),
    ],
)
def test_limit_of_a_table_and_what_it_leaves_out(sql, args, shown, said):
    result = sql(*args, "from labels.many")
    assert len(result.stdout.splitlines()) == shown + 2
    assert result.stderr == said


def test_endless_result_is_not_read_to_its_end(db):
    command = [*COMMAND, "--db", str(db), "from range(1000000000000); select 7 as after"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.stderr == "40 rows shown, more than 10,000 more: --limit 0 shows all\n"
    assert done.stdout.splitlines()[2] == "    0"
    assert done.stdout.endswith("    7\n")


@pytest.mark.parametrize("form", ["csv", "jsonl", "markdown"])
def test_other_formats_are_whole_unless_limited(sql, form):
    header = {"csv": 1, "jsonl": 0, "markdown": 2}[form]
    everything = sql("--format", form, "from labels.many").stdout.splitlines()
    assert len(everything) == 200 + header
    some = sql("--format", form, "--limit", "3", "from labels.many").stdout.splitlines()
    assert some == everything[: 3 + header]


# ---- formats


def test_csv_keeps_every_digit(sql):
    assert sql("--format", "csv", "from labels.entry_labels").stdout == (
        "sample_id,edge_bps,row_count\nBTC@1,0.3333333333333333,7\nETH@22,,1234567\n"
    )


@pytest.mark.parametrize("form", ["json", "jsonl"])
def test_json_keeps_every_digit_and_is_strict(sql, form):
    query = """
        select 1 / 3 as "a ""third"" of", 'nan'::double as a, 'inf'::float as b, [1, 2] as c,
            date '2025-01-01' as d, null as e
    """
    text = sql("--format", form, query).stdout
    found = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    row = {'a "third" of': 1 / 3, "a": None, "b": None, "c": [1, 2], "d": "2025-01-01", "e": None}
    assert found == ([row] if form == "json" else row)


def test_json_without_rows_is_an_empty_list(sql):
    assert json.loads(sql("--format", "json", "from labels.many where id < 0").stdout) == []


def test_markdown_is_a_table_with_escaped_bars(sql):
    result = sql("--format", "markdown", "select 'a|b' as name, 1.25::double as x")
    assert result.stdout == "| name | x |\n| --- | ---: |\n| a\\|b | 1.25 |\n"


def test_file_is_in_the_format_of_its_suffix(sql, tmp_path):
    query = "select *, event_time::timestamptz as at from labels.entry_labels, (select timestamp "
    query += "'2025-01-01 00:01' as event_time) order by row_count desc"
    names = ("a.csv", "b.json", "c.jsonl", "d.ndjson", "e.parquet", "f.arrow", "g.md", "h.txt")
    for name in (*names, "i.csv.gz"):
        result = sql("--output", name, query)
        assert (result.exit_code, result.output) == (0, ""), name
    assert sorted(path.name for path in tmp_path.iterdir()) == [*names, "i.csv.gz"]
    expected = [["ETH@22", None, 1234567], ["BTC@1", 1 / 3, 7]]
    table = pq.read_table("e.parquet")
    arrow = pa.ipc.open_file("f.arrow").read_all()
    for found in (table, arrow):
        assert [list(row.values())[:3] for row in found.to_pylist()] == expected
        assert found.schema.field("at").type == pa.timestamp("us", "UTC")
    texts = {name: Path(name).read_text() for name in names if name[0] not in "ef"}
    rows = list(csv.DictReader(io.StringIO(texts["a.csv"])))
    assert [float(row["edge_bps"] or "nan") for row in rows][1] == 1 / 3
    assert rows[0]["at"] == "2025-01-01 00:01:00+00"
    assert gzip.decompress(Path("i.csv.gz").read_bytes()).decode() == texts["a.csv"]
    assert [row["edge_bps"] for row in json.loads(texts["b.json"])] == [None, 1 / 3]
    assert texts["c.jsonl"] == texts["d.ndjson"]
    assert [json.loads(line)["row_count"] for line in texts["c.jsonl"].splitlines()] == [1234567, 7]
    assert texts["g.md"].startswith("| sample_id |")
    assert texts["h.txt"].splitlines()[2].startswith("ETH@22         NULL    1234567")


def test_format_option_wins_over_the_suffix(sql):
    sql("--output", "x.txt", "--format", "jsonl", "--limit", "1", "from labels.many")
    assert Path("x.txt").read_text() == '{"id":0}\n'


@pytest.mark.parametrize(
    "query",
    [
        *("describe labels.many", "show tables from labels", "summarize labels.many"),
        *("pragma database_size", "explain select 1", "values (1)", "call pragma_version()"),
        "pivot labels.entry_labels on sample_id using sum(row_count)",
        "select 1 as a order by a; -- a comment; or two\n /* and; more */",
        "select '--' as \"/* ; */\", $$;$$ as b -- '",
    ],
)
def test_statements_that_give_rows_can_be_written(sql, query):
    rows = json.loads(sql("--format", "json", query).stdout)
    table = sql("--expanded", query).stdout
    assert all(name in table or name.startswith("explain") for name in rows[0])
    result = sql("--output", "out.arrow", query)
    assert result.exit_code == 0, result.output
    assert pa.ipc.open_file("out.arrow").read_all().num_rows == len(rows)


def test_redirected_results_follow_one_another(db, tmp_path):
    path = tmp_path / "out.csv"
    path.write_text("kept\n")
    command = [*COMMAND, "--db", str(db), "--format", "csv", "select 1 as a; select 2 as b"]
    with path.open("a") as stream:
        subprocess.run(command, stdout=stream, check=True, timeout=20)
    assert path.read_text() == "kept\na\n1\nb\n2\n"


def test_closed_pipe_ends_a_large_result_quietly(db):
    command = [*COMMAND, "--db", str(db), "--format", "csv", "from range(100000000000)"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdout.readline() == "range\n"
        process.stdout.close()
        process.wait(timeout=20)
        assert process.stderr.read() == ""


# ---- where a query comes from


def test_query_from_standard_input_or_file(sql):
    expected = sql("select 42 as answer").stdout
    assert "42" in expected
    assert sql(stdin="select 42 as answer\n").stdout == expected
    Path("query.sql").write_text("-- a question; of course\nselect 42 as answer;\n")
    assert sql("--file", "query.sql").stdout == expected
    assert sql("--file", "-", stdin="select 42 as answer").stdout == expected


def test_statements_run_in_order_and_share_a_session(sql):
    query = """
        use labels; create temp table mine as select max(id) as top from many;
        select ';' as semicolon; -- not; here
        from mine
    """
    result = sql("--format", "csv", query)
    assert result.stdout == "semicolon\n;\ntop\n199\n"
    assert result.stderr == "changed rows: 1\n"


def test_first_failing_statement_stops_the_rest(sql):
    result = sql("select 1 as a; select error('no luck'); select 3 as c")
    assert result.exit_code == 1
    assert "no luck" in result.stderr
    assert result.stdout == "a\n-\n1\n"


def test_syntax_error_anywhere_runs_nothing(sql):
    result = sql("select 1 as a; selct 2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert 'syntax error at or near "selct"' in result.stderr


def test_timing_tells_the_seconds_of_each_statement(sql):
    result = sql("--timing", "select 1; select 2")
    assert re.fullmatch(r"(\d+\.\d{3} s\n){2}", result.stderr)


# ---- errors


def test_unknown_relation_names_those_near(sql):
    result = sql("select * from lables.entry_label")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Near names: labels.entry_labels" in result.stderr
    assert "pg_" not in sql("from nope").stderr  # what DuckDB itself would suggest
    assert ".tables" in sql("from zzz").stderr
    assert "Near names: labels.many" in sql("--format", "csv", "from manny").stderr


def test_unknown_relation_in_a_transaction_is_still_told(sql):
    result = sql("begin; from nope")
    assert result.exit_code == 1
    assert "nope does not exist" in result.stderr


@pytest.mark.parametrize(
    "query",
    [
        *("create table labels.x as select 1", "drop table labels.many"),
        *("insert into labels.many values (1)", "delete from labels.many"),
    ],
)
def test_writing_is_refused_and_explained(sql, query):
    result = sql(query)
    assert result.exit_code == 1
    assert "This shell is read-only" in result.stderr
    assert "200 more" not in result.stderr
    assert sql("--format", "csv", "select count(*) as n from labels.many").stdout == "n\n200\n"


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--format", "parquet", "select 1"], "needs --output"),
        (["--format", "arrow", "select 1"], "needs --output"),
        (["--output", "x.xlsx", "select 1"], "Give --format"),
        (["--output", "x", "select 1"], "Give --format"),
        (["--output", "x.csv", "select 1; select 2"], "one statement that gives rows"),
        (["--output", "x.csv", "use labels"], "one statement that gives rows"),
        (["--file", "query.sql", "select 1"], "not both"),
        ([" "], "No query"),
        ([], "No query"),
    ],
)
def test_wrong_usage(sql, args, said):
    Path("query.sql").write_text("select 1")
    result = sql(*args)
    assert result.exit_code == 2
    assert said in result.stderr
    assert not Path("x.csv").exists()


@pytest.mark.parametrize("name", ["x.csv", "x.parquet", "x.arrow", "x.json", "x.txt"])
def test_failing_query_leaves_the_old_file(sql, tmp_path, name):
    Path(name).write_text("old")
    query = "select case when range = 150000 then error('late') end from range(200000)"
    result = sql("--output", name, "--limit", "0", query)
    assert result.exit_code == 1
    assert "late" in result.stderr
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_folder_that_is_not_there(sql):
    for name in ("no/x.csv", "no/x.txt", "no/x.arrow"):
        result = sql("--output", name, "select 1")
        assert result.exit_code == 1
        assert "No such file" in result.stderr


def test_missing_warehouse_says_how_to_build_it(tmp_path):
    result = CliRunner().invoke(sql_command, ["--db", str(tmp_path / "none.duckdb"), "select 1"])
    assert result.exit_code == 1
    assert "`dbt build`" in result.stderr


# ---- meta commands


def test_tables_lists_relations_with_descriptions(sql):
    lines = sql(".tables").stdout.splitlines()
    assert lines[0].split() == ["schema", "relation", "kind", "rows", "description"]
    assert [line.split()[:4] for line in lines[2:]] == [
        ["factors", "wide", "view", "NULL"],
        ["labels", "entry_labels", "table", "2"],
        ["labels", "many", "table", "200"],
    ]
    assert lines[3].endswith("One row per sample and side.")
    assert len(sql(".tables MANY").stdout.splitlines()) == 3


def test_schema_shows_types_and_descriptions(sql):
    for name in ("entry_labels", "labels.entry_labels", "LABELS.Entry_Labels;"):
        lines = sql(f".schema {name}").stdout.splitlines()
        assert lines[0] == "labels.entry_labels: One row per sample and side."
        assert lines[4] == "edge_bps   DOUBLE   Edge before costs, bps."
    result = sql(".schema entry_lables")
    assert result.exit_code == 1
    assert "Near names: labels.entry_labels" in result.stderr


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        *(("select 1", False), ("select 1;", True), ("select 1; -- done", True)),
        *(("select ';", False), ("select ';'", False), ("select 'it''s';", True)),
        *(('select 1 as ";', False), ('select 1 as ";";', True), ("-- why;", False)),
        *(("/* ; */", False), ("/* ; ", False), ("/* ' */ select 1;", True)),
        *((r"select e'\';", False), (r"select e'\'';", True), ("select $$;", False)),
        *(("select $$;$$;", True), ("select $a$ $$ ;$a$;", True), (".tables", True)),
    ],
)
def test_is_complete(text, complete):
    assert is_complete(text) is complete


# ---- on a terminal


def _take_terminal() -> None:
    """In the new process: the terminal is its own, and Ctrl-C is heard as in a terminal.

    A test run in the background ignores the signal, which its children would inherit.
    """
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A process on a pseudo-terminal of 80 columns."""

    def __init__(self, *args: str, **env: str) -> None:
        self.side, inner = pty.openpty()
        self.process = subprocess.Popen(
            [*COMMAND, *args],
            **{"stdin": inner, "stdout": inner, "stderr": inner, "start_new_session": True},
            preexec_fn=_take_terminal,
            env={**os.environ, "TERM": "dumb", "PYTHONUNBUFFERED": "1", **env},
        )
        os.close(inner)

    def press_control_c(self) -> str:
        """Interrupt, and read until the next prompt.

        Python misses a signal between the prompt and its wait for a key: nothing is said then, and
        the key is pressed again.
        """
        for _ in range(10):
            os.write(self.side, b"\x03")
            if select.select([self.side], [], [], 3)[0]:
                break
        return self.until(PROMPT)

    def until(self, end: str | None, seconds: float = 60) -> str:
        """Read until `end`, or to the end of the process, and return what was read."""
        read, deadline = b"", time.monotonic() + seconds
        while end is None or not read.endswith(end.encode()):
            ready, _, _ = select.select([self.side], [], [], deadline - time.monotonic())
            assert ready, f"waited {seconds} s for {end!r}, read {read.decode()!r}"
            try:
                read += os.read(self.side, 65_536)
            except OSError:  # the process has ended
                assert end is None, read.decode()
                break
        return read.decode().replace("\r\n", "\n")

    def ask(self, text: str, end: str | None = PROMPT) -> str:
        """Type a line and return what follows it up to the next prompt."""
        os.write(self.side, text.encode() + b"\n")
        return self.until(end).partition("\n")[2]


@pytest.fixture
def start(db, tmp_path):
    """A function that starts `wavehouse sql` on a terminal and ends it after the test."""
    started = []

    def run(*args: str) -> Terminal:
        started.append(Terminal("--db", str(db), *args, XDG_STATE_HOME=str(tmp_path)))
        return started[-1]

    yield run
    for terminal in started:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.side)


def test_shell_reads_statements_until_a_semicolon_and_survives_errors(start):
    shell = start()
    assert "read-only" in shell.until(PROMPT)
    assert shell.ask("select 6 *", MORE) == MORE
    answer = shell.ask("7 as answer;")
    assert re.search(r"answer\s.*\n.*─\n\s+42\s*\n1 row\n", answer)
    assert "\n     22 \n      7 \n" in shell.ask("select unnest([22, 7]) as number;")
    assert "Near names: labels.entry_labels" in shell.ask("from entry_lable;")
    assert "This shell is read-only" in shell.ask("drop table labels.many;")
    assert "syntax error" in shell.ask("selct;")
    assert "No relation has a name" not in shell.ask("")
    assert "entry_labels" in shell.ask(".tables entry")
    assert "Edge before costs, bps." in shell.ask(".schema entry_labels")
    assert "expected .tables" in shell.ask(".nonsense")
    assert ".schema NAME" in shell.ask(".help")
    assert shell.ask(".expanded") == PROMPT
    assert "-- row 1\nid  0\n" in shell.ask("from labels.many limit 1;")
    shell.ask("create temp table mine as select 5 as five;")
    assert "five" in shell.ask("from mine;")
    shell.ask(".quit", None)
    assert shell.process.wait(10) == 0


def test_shell_completes_names_and_keeps_history(start, tmp_path):
    shell = start()
    shell.until(PROMPT)
    os.write(shell.side, b"select count(edge_\t) as n from labels.ent\t")
    shell.until("labels.entry_labels")
    assert re.search(r"\n\s+1\s*\n1 row", shell.ask(";"))
    os.write(shell.side, b".sch\t labels.man\t")
    shell.until(".schema labels.many")
    assert "BIGINT" in shell.ask("")
    os.write(shell.side, b"\x04")  # Ctrl-D
    shell.until(None)
    assert shell.process.wait(10) == 0
    lines = (tmp_path / "wavehouse/history").read_text().splitlines()
    assert lines[-2:] == [
        "select count(edge_bps) as n from labels.entry_labels;",
        ".schema labels.many",
    ]
    again = start()
    again.until(PROMPT)
    os.write(again.side, b"\x10\x10")  # Ctrl-P, twice: two lines back
    again.until("labels.entry_labels;")


def test_control_c_stops_the_query_or_drops_the_line_and_nothing_else(start):
    shell = start()
    shell.until(PROMPT)
    os.write(shell.side, ENDLESS.encode() + b";\n")
    shell.until("= 3;\n".replace("\n", "\r\n"))
    time.sleep(0.5)
    assert "stopped" in shell.press_control_c()
    assert shell.ask("select 1 +", MORE) == MORE
    assert "stopped" in shell.press_control_c()
    assert "42" in shell.ask("select 42 as answer;")


def test_interrupt_ends_a_single_query(db, tmp_path):
    command = [*COMMAND, "--db", str(db), "--output", str(tmp_path / "x.csv"), "--timing"]
    process = subprocess.Popen(
        [*command, f"set threads = 2; {ENDLESS}"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr.readline().endswith(" s\n")  # the first statement is done
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 1
    assert said.strip() == "Aborted!"
    assert list(tmp_path.iterdir()) == []


def test_wide_rows_are_folded_to_the_terminal(start):
    text = start("from factors.wide").until(None)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.split()[:1] == ["sample_id"] for line in lines) > 5
    assert all(f"a_rather_long_name_{number:02}" in text for number in range(30))
    assert "…" not in text


def test_single_wide_row_is_shown_down_the_page(start):
    lines = start("from factors.wide limit 1").until(None).splitlines()
    assert lines[:2] == ["-- row 1", "sample_id              BTC@0"]
    assert lines[-2:] == ["a_rather_long_name_29  4.1429", "1 row"]
