"""Heads as functions of a row: equal to the relations, safe, light to connect, clear when amiss."""

import contextlib
import dataclasses
import math
import re
import shutil
import subprocess
import sys

import duckdb
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import wavehouse
from heads_fixtures import plain_query, trained_warehouse
from heads_market import FEATURES
from wavehouse import warehouse
from wavehouse.heads import udf
from wavehouse.heads.model import load
from wavehouse.shell import sql_command

HEADS = {
    "direction": ("long_prob", "short_prob", "neutral_prob"),
    "entry": (
        *("long_entry_prob", "short_entry_prob"),
        *(
            f"{end}{side}_expected_net_edge_bps"
            for side in ("long", "short")
            for end in ("", "lower_", "upper_")
        ),
    ),
}
HEAVY = "lightgbm, onnx, onnxruntime, pandas, scipy, sklearn, torch"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return trained_warehouse(tmp_path_factory.getbasetemp() / "trained_heads")


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("WAREHOUSE_MODEL_STORE", raising=False)
    monkeypatch.delenv("WAREHOUSE_DB", raising=False)


@pytest.fixture
def con(file):
    with contextlib.closing(wavehouse.connect(file)) as connection:
        yield connection


@pytest.fixture
def moved(file, tmp_path):
    """A copy of the warehouse whose store a test may damage."""
    shutil.copytree(file.parent, tmp_path / "moved")
    return tmp_path / "moved" / file.name


def champion_of(file, target):
    ((model_id,),) = plain_query(
        file,
        f"""
        select model_id from heads.model_aliases
        where target = '{target}' and valid_to_ms is null
        """,
    )
    return model_id


def one(con, sql, **params):
    ((value,),) = con.execute(sql, params).fetchall()
    return value


# ---- equal to the relations


def differing(con, head, called="struct", since=True):
    """How many rows of a head's relation are other than the functions say, in any bit.

    `since`: of the rows from the day the champions of today were known, else of those before.
    """
    checks = [
        f"{name}(features) is distinct from predictions.{name}"
        if called == "one by one"
        else f"answer.{name} is distinct from predictions.{name}"
        for name in HEADS[head]
        if called == "struct" or not name.startswith(("lower", "upper"))
    ]
    source = "factors.minute_features"
    if called == "struct":
        source = f"(select *, {head}_predictions(f) as answer from factors.minute_features as f)"
    return one(
        con,
        f"""
        select count(*) filter (where {" or ".join(checks)})
        from heads.{head}_predictions as predictions
        inner join {source} as features using (sample_id)
        where
            (predictions.event_time >= (
                select max(valid_from) from heads.model_aliases where alias = 'champion'
            )) = {since}
        """,
    )


@pytest.mark.parametrize("called", ["struct", "one by one"])
@pytest.mark.parametrize("head", HEADS)
def test_functions_give_the_rows_of_the_relations(con, head, called):
    assert differing(con, head, called) == 0
    # the champions of today score every row, in the relation older ones scored the older rows
    assert differing(con, head, called, since=False) > 100


def test_columns_are_those_of_the_relation(con):
    for head, expected in HEADS.items():
        rows = con.execute(
            f"describe select unnest({head}_predictions(f)) from factors.minute_features as f"
        ).fetchall()
        assert {row[:2] for row in rows} == {(name, "DOUBLE") for name in expected}


def changed_model(monkeypatch, **changes):
    """Make every function see a model that was changed after it was read."""
    read = udf.StoredModel._loaded

    def loaded(self):
        model = read(self)
        return dataclasses.replace(model, **{name: of(model) for name, of in changes.items()})

    monkeypatch.setattr(udf.StoredModel, "_loaded", loaded)


@pytest.mark.parametrize(
    "changes",
    [
        {"manifest": lambda model: model.manifest | {"unseen_nulls": []}},
        {"members": lambda model: model.members[:1]},
        {"members": lambda model: model.members[:1] * 2},
        {"calibrators": lambda _: {}},
        {"intervals": lambda _: {}},
    ],
)
def test_comparison_notices_another_model(con, monkeypatch, changes):
    changed_model(monkeypatch, **changes)
    assert differing(con, "entry") > 0


def test_comparison_notices_that_infinity_counts(con, monkeypatch):
    def careless(rows, features, name):
        return udf.pa.table({each: rows.field(each).cast("float") for each in features})

    monkeypatch.setattr(udf, "features_of", careless)
    assert differing(con, "entry") > 0


def test_functions_are_the_same_on_many_threads(con):
    con.execute("set threads = 4")
    assert (
        one(
            con,
            """
            with rows as (
                from factors.minute_features
                where event_time >= (select max(valid_from) from heads.model_aliases)
            )

            select count(*) filter (
                where long_entry_prob(rows) is distinct from predictions.long_entry_prob
            )
            from rows
            inner join heads.entry_predictions as predictions using (sample_id)
            cross join range(200)
            """,
        )
        == 0
    )


# ---- equal to the definition


def slow_prediction(model, row):
    """The one output of a binary tree model for a row of Python numbers, step by step."""
    inputs = []
    for name in model.features:
        value = None if row[name] is None else float(np.float32(row[name]))
        if value is None or math.isnan(value) or math.isinf(value):
            if name in model.manifest["unseen_nulls"]:
                return None
            value = math.nan
        inputs.append(value)
    total = 0.0
    for member in model.members:
        total += float(member.booster.predict([inputs])[0])
    score = total / len(model.members)
    (pieces,) = model.calibrators.values()
    number = 0
    for candidate, start in enumerate(pieces.score_from):
        if score >= start:
            number = candidate
    if pieces.slope[number] > 0:
        step = score - pieces.score_from[number]
        return float(pieces.probability_from[number] + pieces.slope[number] * step)
    return float(pieces.probability_from[number])


VALUES = st.one_of(
    st.none(),
    st.floats(),
    st.floats(-4, 4, width=32),
    st.sampled_from([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-35, -1e-36, 3e38]),
)


@settings(max_examples=60, deadline=None)
@given(row=st.fixed_dictionaries(dict.fromkeys(FEATURES, VALUES)))
def test_any_row_gives_what_the_definition_says(file, row):
    with np.errstate(over="ignore"):
        expected = slow_prediction(entry_model(file), row)
    fields = ", ".join(f"'{name}': ${name}::double" for name in row)
    with contextlib.closing(wavehouse.connect(file)) as con:
        found = one(con, f"select long_entry_prob({{{fields}}})", **row)
    assert found == expected


def entry_model(file, models={}):  # noqa: B006, read once
    if file not in models:
        models[file] = load(file.parent / "model_store", champion_of(file, "long_entry"))[0]
    return models[file]


# ---- what may stand for the row

ROW = "{'strong': 1.5, 'gaps': null, 'whole': 2, 'constant': 7, 'noise': true}"


@pytest.mark.parametrize(
    "row",
    [
        "{'noise': 1::hugeint, 'WHOLE': 2::decimal(9, 4), 'Constant': 7::tinyint,"
        " 'gaps': null::float, 'strong': 1.5::double, 'name': 'extra', 'when': now()}",
        "struct_update({'strong': 9, 'gaps': null, 'whole': 2, 'constant': 7, 'noise': 1},"
        " strong := 1.5)",
    ],
)
def test_features_are_found_by_name_and_may_be_any_number(con, row):
    known = one(con, f"select long_entry_prob({ROW})")
    assert isinstance(known, float)
    assert one(con, f"select long_entry_prob({row})") == known
    assert one(con, f"select f.r.long_entry_prob() from (select {row} as r) as f") == known
    assert one(con, f"select entry_predictions({row}).long_entry_prob") == known


def test_row_is_unknown_where_it_is_null(con):
    assert one(con, f"select long_entry_prob(if(false, {ROW}, null))") is None
    answer = one(con, f"select entry_predictions(if(false, {ROW}, null))")
    assert set(answer.values()) == {None}


def test_names_of_functions_and_columns_live_side_by_side(con):
    rows = con.execute(
        """
        select long_entry_prob, long_entry_prob(f), predictions.long_entry_prob
        from heads.entry_predictions as predictions
        inner join factors.minute_features as f using (sample_id)
        where f.event_time >= (select max(valid_from) from heads.model_aliases)
        """
    ).fetchall()
    assert len(rows) > 100
    assert all(len(set(row)) == 1 for row in rows)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("long_entry_prob(1)", "was given int32, expected a row, as in `select long_entry_prob(f)"),
        ("long_entry_prob({'strong': 1, 'x': 2})", "lacks 4 of them: gaps, whole, constant, noise"),
        (f"long_entry_prob(struct_update({ROW}, strong := 'high'))", "feature strong is string"),
        ("entry_predictions({'strong': 1})", "entry_predictions needs 5 features"),
    ],
)
def test_wrong_rows_are_explained(con, call, said):
    with pytest.raises(duckdb.Error, match=re.escape(said)):
        con.execute(f"select {call}")
    assert one(con, "select 1") == 1


# ---- connections


def test_head_function_asks_each_model_once(con, monkeypatch):
    asked = []
    predict = udf.StoredModel.predictions
    monkeypatch.setattr(
        udf.StoredModel,
        "predictions",
        lambda self, *args: asked.append(self.champion.target) or predict(self, *args),
    )
    con.execute(
        "select unnest(direction_predictions(f)) from factors.minute_features as f limit 1"
    ).fetchall()
    assert asked == ["direction"]
    con.execute(
        """
        select sum(p.long_prob), sum(p.short_prob)
        from (
            select direction_predictions(f) as p from factors.minute_features as f limit 50
        )
        """
    ).fetchall()
    assert asked == ["direction"] * 2


def test_cursors_and_writers_have_the_functions(file, moved):
    query = f"select long_entry_prob({ROW})"
    with contextlib.closing(wavehouse.connect(file)) as con:
        expected = one(con, query)
        assert one(con.cursor(), query) == expected
    with contextlib.closing(wavehouse.connect(moved, read_only=False)) as con:
        con.execute(f"create table heads.scored as {query} as long_entry_prob")
        assert one(con, "from heads.scored") == expected
    with contextlib.closing(duckdb.connect(str(moved))) as con:  # nothing was left in the file
        assert one(con, "from heads.scored") == expected
        with pytest.raises(duckdb.CatalogException):
            con.execute(query)


SCRIPT = f"""
import gc, sys
import wavehouse

assert not {{"duckdb", "pyarrow"}} & set(sys.modules)
file, query = sys.argv[1], "select long_entry_prob({ROW})"
con, other = wavehouse.connect(file), wavehouse.connect(file)
con.execute("from heads.entry_predictions").fetchall()
print(sorted(set("{HEAVY}".split(", ")) & set(sys.modules)))
print(con.cursor().execute(query).fetchall())
print("torch" in sys.modules)
con.close()
del con
gc.collect()
print(other.execute(query).fetchall())
"""


def test_connecting_loads_nothing_and_functions_outlive_their_connection(file, con):
    """Unless a reference is kept, DuckDB calls a function that is gone: the process ends."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(file)], capture_output=True, text=True, check=False
    )
    answer = str(con.execute(f"select long_entry_prob({ROW})").fetchall())
    assert done.stdout.splitlines() == ["[]", answer, "False", answer], done.stderr
    assert (done.returncode, done.stderr) == (0, "")


def test_warehouse_without_heads_has_no_functions(tmp_path):
    path = tmp_path / "small.duckdb"
    duckdb.connect(str(path)).close()
    with contextlib.closing(wavehouse.connect(path)) as con:
        assert udf.champions(con) == []
        with pytest.raises(duckdb.CatalogException):
            con.execute("select long_entry_prob(1)")


@pytest.mark.parametrize(
    "change",
    [
        "delete from heads.model_aliases",
        "update heads.model_aliases set valid_to_ms = 0",
        "alter table heads.model_registry drop column outputs",
        "drop table heads.model_registry",
    ],
)
def test_without_champions_of_today_there_are_no_functions(moved, change):
    with contextlib.closing(duckdb.connect(str(moved))) as con:
        con.execute(change)
    with contextlib.closing(wavehouse.connect(moved)) as con:
        assert udf.champions(con) == []


# ---- a store that is amiss


def test_missing_model_is_told_when_it_is_asked_for(moved):
    model_id = champion_of(moved, "long_entry")
    folder = moved.parent / "model_store" / model_id
    folder.rename(folder.with_name("elsewhere"))
    with contextlib.closing(wavehouse.connect(moved)) as con:
        assert isinstance(one(con, f"select short_entry_prob({ROW})"), float)
        for call in ("long_entry_prob", "entry_predictions"):
            with pytest.raises(duckdb.Error, match=f"model {model_id} is not in the store"):
                con.execute(f"select {call}({ROW})")
        folder.with_name("elsewhere").rename(folder)
        assert isinstance(one(con, f"select long_entry_prob({ROW})"), float)


def test_damaged_model_is_refused(moved):
    path = moved.parent / "model_store" / champion_of(moved, "long_entry") / "seed_1/member.txt"
    path.write_text(path.read_text().replace("leaf_value=", "leaf_value=1", 1))
    with (
        contextlib.closing(wavehouse.connect(moved)) as con,
        pytest.raises(duckdb.Error, match=r"member\.txt has SHA-256 .* damaged"),
    ):
        con.execute(f"select long_entry_prob({ROW})")


def test_store_is_beside_the_file_or_where_the_environment_says(file, moved, monkeypatch):
    store = moved.parent / "model_store"
    store.rename(store.with_name("kept"))
    with contextlib.closing(wavehouse.connect(moved)) as con, pytest.raises(duckdb.Error):
        con.execute(f"select long_entry_prob({ROW})")
    monkeypatch.setenv("WAREHOUSE_MODEL_STORE", str(store.with_name("kept")))
    with contextlib.closing(wavehouse.connect(moved)) as con:
        assert isinstance(one(con, f"select long_entry_prob({ROW})"), float)


def test_store_is_found_after_a_change_of_folder(moved, tmp_path, monkeypatch):
    monkeypatch.chdir(moved.parent)
    with contextlib.closing(wavehouse.connect(moved.name)) as con:
        monkeypatch.chdir(tmp_path)
        assert isinstance(one(con, f"select long_entry_prob({ROW})"), float)


# ---- where people meet them


def test_connect_is_the_package_s_own(file):
    assert wavehouse.connect is warehouse.connect
    with pytest.raises(AttributeError, match="has no attribute 'disconnect'"):
        _ = wavehouse.disconnect


def shell(file, text):
    return CliRunner().invoke(sql_command, ["--db", str(file), text])


def test_shell_lists_and_runs_the_functions(file, tmp_path):
    lines = [line.split(None, 2) for line in shell(file, ".functions").stdout.splitlines()]
    text = f"probability, target long_entry, model {champion_of(file, 'long_entry')[:12]}"
    assert lines[0] == ["function", "type", "gives"]
    assert ["long_entry_prob(row)", "DOUBLE", text] in lines
    text = "8 columns as in heads.entry_predictions"
    assert ["entry_predictions(row)", "STRUCT", text] in lines
    assert len(shell(file, ".functions direction").stdout.splitlines()) == 3
    result = shell(file, f"select long_entry_prob({ROW}) is not null as known")
    assert result.stdout.split() == ["known", "-----", "true"]
    empty = tmp_path / "empty.duckdb"
    duckdb.connect(str(empty)).close()
    assert "No head is trained yet: `dbt build" in shell(empty, ".functions").stderr
