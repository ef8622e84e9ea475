"""`wavehouse heads`: what it lists and shows, its SQL in a plain DuckDB, what it verifies."""

import contextlib
import datetime as dt
import math
import re
import shutil

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner

from heads_fixtures import TARGETS, plain_query, trained_warehouse
from wavehouse.cli import main
from wavehouse.heads import cli, replay, torch_export
from wavehouse.heads.base import HeadsError
from wavehouse.heads.cli import Registered, find, heads_command
from wavehouse.heads.model import load
from wavehouse.heads.torch_member import TorchMember

NAMES = [row["target"] for row in TARGETS]
TREES = [name for name in NAMES if name != "market_risk"]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return trained_warehouse(tmp_path_factory.getbasetemp() / "trained_heads")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("WAREHOUSE_MODEL_STORE", raising=False)
    monkeypatch.delenv("WAREHOUSE_DB", raising=False)


@pytest.fixture
def moved(file, tmp_path):
    """A copy of the warehouse whose store a test may damage."""
    shutil.copytree(file.parent, tmp_path / "moved")
    return tmp_path / "moved" / file.name


def heads(file, *args):
    result = CliRunner().invoke(heads_command, [*args, "--db", str(file)])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def models_of(file, target):
    """The model ids of a target by the time they are known from, the champion of today last."""
    rows = plain_query(
        file,
        f"from heads.model_aliases select model_id where target = '{target}' order by valid_from",
    )
    return [row[0] for row in rows]


# ---- list and show


def test_list_has_every_model_and_champions_of_today_first(file):
    head, _, *lines = heads(file, "list").stdout.splitlines()
    assert head.split()[:4] == ["target", "head", "outputs", "state"]
    assert head.split()[-1] == "model_id"
    first, rest = lines[: len(NAMES)], lines[len(NAMES) :]
    assert sorted(line.split()[0] for line in first) == sorted(NAMES)
    assert sorted(line.split()[0] for line in rest) == sorted(NAMES)
    assert all(re.search(" champion  +expanding_2 ", line) for line in first)
    assert all(re.search(" earlier  +expanding_1 ", line) for line in rest)
    (line,) = (line for line in first if line.startswith("direction "))
    assert "long_prob, short_prob, neutral_prob" in line
    assert line.endswith(models_of(file, "direction")[-1][:12])
    assert "mean_average_precision" in line
    (line,) = (line for line in first if line.startswith("market_risk "))
    assert " torch " in line


def test_tune_metric_is_the_mean_over_members(file):
    line = heads(file, "list").stdout.splitlines()[2]
    values = plain_query(
        file, f"select tune_value from heads.model_fits where model_id ^@ '{line.split()[-1]}'"
    )
    assert len(values) == 2
    assert float(line.split()[-2]) == pytest.approx(np.mean(values), abs=1e-4)


def test_show_takes_an_output_a_target_or_an_id(file):
    before, now = models_of(file, "long_entry")
    answers = {name: heads(file, "show", name).stdout for name in (now, before)}
    assert heads(file, "show", "long_entry").stdout == answers[now]
    assert heads(file, "show", " Long_Entry_Prob").stdout == answers[now]
    assert heads(file, "show", now[:10]).stdout == answers[now]
    assert heads(file, "show", before[:10]).stdout == answers[before]
    assert answers[now] != answers[before]


def test_show_tells_what_is_known(file):
    text = heads(file, "show", "long_entry").stdout
    model_id = models_of(file, "long_entry")[-1]
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in text.split("\n\n")[0].splitlines())
    assert facts["model_id"] == model_id
    assert facts["state"] == "champion"
    assert facts["label_column"] == "entry"
    assert facts["features"] == "5 of list all"
    assert facts["never_null"].startswith("strong, whole, constant, noise (")
    assert facts["files"].startswith(str(file.parent / "model_store" / model_id))
    sections = [part.splitlines() for part in text.split("\n\n")[1:]]
    assert [lines[0] for lines in sections] == [
        "rows",
        "members",
        "features, the first 10 by permutation",
        "calibration",
    ]
    assert [line.split()[0] for line in sections[0][3:]] == ["fit", "tune", "calibrate", "test"]
    assert sections[2][3].split()[0] == "strong"
    assert sections[3][3].split()[:2] == ["long_entry_prob", "isotonic"]
    text = heads(file, "show", "long_entry_edge").stdout
    assert "\nintervals\noutput " in text


def test_show_without_store_or_some_relations_shows_the_rest(moved):
    shutil.rmtree(moved.parent / "model_store")
    with contextlib.closing(duckdb.connect(str(moved))) as con:
        con.execute("drop table heads.feature_importance")
    text = heads(moved, "show", "long_entry").stdout
    assert re.search(r"^files .* is not there$", text, re.MULTILINE)
    assert "\nrows\n" in text
    assert "\nfeatures, the first" not in text


# ---- names


def model(model_id, target="entry"):
    return Registered(
        **{"model_id": model_id, "head": "trade", "target": target, "outputs": [f"{target}_prob"]},
        **{"state": "none", "fold": "anchor", "trainer": "lightgbm", "members": 1},
        **{"valid_from": dt.datetime(2024, 1, 1), "tune_metric": None, "tune_value": None},
    )


def test_find_takes_the_first_of_a_target():
    models = [model("abc1"), model("abd2"), model("ffff", "exit")]
    assert find(models, "entry") is models[0]
    assert find(models, "EXIT_prob") is models[2]
    assert find(models, "abd") is models[1]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ab", "2 models begin with 'ab': abc1, abd2. Give more digits."),
        ("entri", "Near names: entry"),
        ("xyz", "No name is near that"),
        ("", "No model has the output, target or id ''"),
        ("trade", "trade is a head of several models. Name one: entry, exit."),
    ],
)
def test_find_explains_what_it_cannot_find(name, said):
    models = [model("abc1"), model("abd2"), model("ffff", "exit")]
    with pytest.raises(HeadsError, match=re.escape(said)):
        find(models, name)


@pytest.mark.parametrize("command", ["show", "sql", "verify"])
def test_unknown_name_is_one_line(file, command):
    result = heads(file, command, "long_entri")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: No model has the output, target or id 'long_entri'.")
    assert "Near names: long_entry" in result.stderr


def test_without_warehouse_or_heads_it_says_what_to_do(tmp_path):
    result = heads(tmp_path / "none.duckdb", "list")
    assert result.exit_code == 1
    assert "There is no warehouse" in result.stderr
    empty = tmp_path / "empty.duckdb"
    duckdb.connect(str(empty)).close()
    for command in (["list"], ["show", "x"], ["sql", "x"], ["verify"]):
        result = heads(empty, *command)
        assert result.exit_code == 1
        assert "No head is trained in this warehouse yet" in result.stderr
        assert "dbt build --select head_samples+" in result.stderr
    with contextlib.closing(duckdb.connect(str(empty))) as con:
        con.execute("create schema heads; create table heads.model_registry (model_id varchar)")
    assert heads(empty, "list").exit_code == 1


@pytest.mark.parametrize("command", ["list", "show", "sql", "verify"])
def test_help_teaches_with_an_example(command):
    result = CliRunner().invoke(main, ["heads", command, "--help"])
    assert result.exit_code == 0
    assert f"    wavehouse heads {command}" in result.stdout


# ---- sql


def sql_of(file, *args):
    result = heads(file, "sql", *args)
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith(";")
    return result.stdout.strip()[:-1]


def differing(file, model_id, text, raw=False):
    """How many of the rows that a model predicted in the warehouse its SQL answers otherwise."""
    ((head, target),) = plain_query(
        file, f"select head, target from heads.model_registry where model_id = '{model_id}'"
    )
    with contextlib.closing(duckdb.connect(str(file), read_only=True)) as con:
        con.execute(f"create temp table answers as {text}")
        first, *names = [row[0] for row in con.execute("describe answers").fetchall()]
        assert first == "sample_id"
        if raw:
            relation, where = "heads.raw_scores", f"models.{target}"
            parts = [name.rpartition("_seed_") for name in names]
            expected = [f"known.scores.{output}[{seed}]" for output, _, seed in parts]
        else:
            relation, where = f"heads.{head}_predictions", f"{target}_model_id"
            expected = [f"known.{name}" for name in names]
        checks = [
            f"answers.{name} is distinct from {value}"
            for name, value in zip(names, expected, strict=True)
        ]
        ((count, different),) = con.execute(
            f"""
            select count(*), count(*) filter (where {" or ".join(checks)})
            from {relation} as known
            inner join answers using (sample_id)
            where known.{where} = '{model_id}'
            """
        ).fetchall()
    assert count > 100
    return different


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("target", TREES)
def test_sql_of_trees_gives_the_bits_of_the_relation(file, target, raw):
    for model_id in models_of(file, target)[-1 if raw else 0 :]:
        text = sql_of(file, model_id, *(["--raw"] if raw else []))
        assert f"-- model {model_id}\n" in text
        assert differing(file, model_id, text, raw) == 0


@pytest.mark.parametrize(
    ("target", "old", "new"),
    [
        ("long_entry", "not has_unseen_null", "true"),
        ("long_entry", " / 2 end", " / 3 end"),
        ("long_entry", " then 0.", " then 1.0e0 - 0."),
        ("direction", "* ln(", "* exp("),
        ("direction", 'else "long_prob" /', 'else "short_prob" /'),
        ("long_entry_edge", '"long_expected_net_edge_bps" + ', ""),
        ("long_entry_edge", "when isfinite(", "when isnan("),
    ],
)
def test_comparison_notices_other_sql(file, target, old, new):
    model_id, text = models_of(file, target)[-1], sql_of(file, target)
    assert old in text
    assert differing(file, model_id, text.replace(old, new)) > 0


def test_sql_of_a_net_gives_its_scores(file):
    model_id = models_of(file, "market_risk")[-1]
    net, _ = load(file.parent / "model_store", model_id)
    with contextlib.closing(duckdb.connect(str(file), read_only=True)) as con:
        rows = con.sql("from factors.minute_features order by sample_id").to_arrow_table()
        answers = con.sql(f"from ({sql_of(file, 'market_risk')}) order by sample_id")
        found = answers.to_arrow_table()["market_risk_prob"]
    columns = {}
    for name in net.features:
        values = rows[name].to_numpy()
        columns[name] = np.where(np.isfinite(values), values, np.nan).astype(np.float32)
    expected = net.predictions(net.seed_scores(rows.schema.empty_table().from_pydict(columns)))
    for name in net.manifest["unseen_nulls"]:
        expected[np.isnan(columns[name])] = np.nan
    assert 0 < np.isnan(expected).sum() < 100
    np.testing.assert_allclose(found.to_numpy(), expected[:, 0], rtol=0, atol=1e-5)


def test_sql_needs_nothing_but_the_rows(file, tmp_path):
    rows = tmp_path / "new rows.parquet"
    query = "select * exclude sample_id from factors.minute_features limit 20"
    plain_query(file, f"copy ({query}) to '{rows}' (format parquet)")
    text = sql_of(file, "direction", "--relation", f"read_parquet('{rows}')")
    with contextlib.closing(duckdb.connect()) as con:
        answer = con.sql(text)
        assert answer.columns == ["long_prob", "short_prob", "neutral_prob"]
        assert [sum(row) for row in answer.fetchall()] == pytest.approx([1.0] * 20)
    text = sql_of(file, "direction", "--relation", f"({query})")
    assert len(plain_query(file, text)) == 20


@pytest.mark.parametrize(
    ("relation", "said"),
    [
        ("heads.model_rows", "heads.model_rows lacks 5 of the 5 features: strong, gaps"),
        ("factors.minute_feature", "Near names: factors.minute_features"),
        ("factors minute features", "Parser Error"),
    ],
)
def test_sql_needs_a_relation_with_the_features(file, relation, said):
    result = heads(file, "sql", "long_entry", "--relation", relation)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert said in result.stderr


def test_large_net_is_refused_in_words(file, monkeypatch):
    monkeypatch.setattr(torch_export, "SQL_WEIGHTS_MAX", 10)
    result = heads(file, "sql", "market_risk")
    assert result.exit_code == 1
    assert re.match(r"Error: the net has \d+ weights", result.stderr)
    assert result.stdout == ""


# ---- verify


def verdicts(result):
    return {tuple(line.split()[:3]): line.split()[-1] for line in result.stdout.splitlines()[2:]}


def test_verify_finds_every_model_as_it_was(file):
    result = heads(file, "verify")
    assert result.exit_code == 0, result.output
    assert len(verdicts(result)) == 2 * len(NAMES)
    assert set(verdicts(result).values()) == {"ok"}
    trees_of = [line.split() for line in result.stdout.splitlines()[2:] if "market" not in line]
    assert {(words[3], words[5]) for words in trees_of} == {("0", "0")}  # native and SQL
    assert result.stderr == ""
    assert len(verdicts(heads(file, "verify", "long_entry"))) == 1


def test_verify_names_what_was_changed_or_lost(moved):
    store = moved.parent / "model_store"
    damaged, lost = models_of(moved, "long_entry")[-1], models_of(moved, "direction")[0]
    path = store / damaged / "calibrator.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    shutil.rmtree(store / lost)
    result = heads(moved, "verify")
    assert result.exit_code == 1
    failed = [words[2] for words, verdict in verdicts(result).items() if verdict == "failed"]
    assert sorted(failed) == sorted([damaged[:12], lost[:12]])
    assert re.search(rf"^long_entry {damaged[:12]}: .*calibrator\.parquet", result.stderr, re.M)
    assert re.search(rf"^direction {lost[:12]}: model {lost} is not in", result.stderr, re.M)
    assert heads(moved, "verify", "short_entry").exit_code == 0


@pytest.mark.parametrize("by", [1e-9, math.nan])
def test_verify_notices_another_answer(file, monkeypatch, by):
    scores = replay.sql_scores
    monkeypatch.setattr(replay, "sql_scores", lambda *args: scores(*args) + by)
    result = heads(file, "verify", "long_entry")
    assert result.exit_code == 1
    assert set(verdicts(result).values()) == {"failed"}
    assert re.search(r"sql, seed 1: a score differs by (1e-09|nan).*, 0 is allowed", result.stderr)


def test_verify_tells_a_route_that_a_net_has_not(file, monkeypatch):
    def refuse(_):
        raise HeadsError("the net is too large.")

    monkeypatch.setattr(TorchMember, "sql", refuse)
    result = heads(file, "verify", "market_risk")
    assert result.exit_code == 0
    assert result.stdout.splitlines()[2].split()[-2:] == ["-", "ok"]
    assert result.stderr.endswith(": sql: the net is too large.\n")


def test_digits_of_an_id_are_enough(file):
    ids = [row[0] for row in plain_query(file, "select model_id from heads.model_registry")]
    assert len({each[: cli.ID_DIGITS] for each in ids}) == len(ids)
