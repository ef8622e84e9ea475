"""The model store: named by content, written whole or not at all, every damaged byte noticed.

And the models in it: asked again what they were asked when they were stored, they answer the same.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import heads_market as market
from heads_market import MINUTE
from wavehouse.heads import data, lightgbm_trainer, model, replay, store, training
from wavehouse.heads.base import HeadsError
from wavehouse.heads.config import read_targets
from wavehouse.heads.store import SUMS, ModelStoreError

FILES = {"manifest.json": b"{}\n", "seed_1/member.txt": b"tree\n", "seed_1/member.onnx": b"\0\1"}


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A store with a model of every objective and of both trainers, and their rows."""
    root = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAREHOUSE_THREADS", "1")
        trees = training.train(market.warehouse(), MINUTE, root)
        nets = training.train(market.warehouse(trainer="torch"), MINUTE, root)
    return root, trees, nets


def folder_of(kept, target, trainer="lightgbm"):
    root, trees, nets = kept
    rows = (trees if trainer == "lightgbm" else nets).to_pylist()
    return root / next(row["model_id"] for row in rows if row["target"] == target)


# Names


def id_of(files):
    """The definition: the hash of the list that sha256sum would write for the files by name."""
    lines = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def test_a_model_is_named_by_all_it_holds(tmp_path):
    model_id = store.write(tmp_path, FILES)
    assert model_id == id_of(FILES) == store.model_id_of(FILES)
    assert store.read(tmp_path, model_id) == FILES
    assert store.model_ids(tmp_path) == [model_id]


NAMES = st.text("ab_1", min_size=1, max_size=4)


@given(
    left=st.dictionaries(NAMES, st.binary(max_size=5), min_size=1, max_size=3),
    right=st.dictionaries(NAMES, st.binary(max_size=5), min_size=1, max_size=3),
)
def test_two_models_share_a_name_only_when_they_hold_the_same(left, right):
    assert (store.model_id_of(left) == store.model_id_of(right)) == (left == right)
    backwards = dict(reversed(left.items()))
    assert store.model_id_of(left) == store.model_id_of(backwards)


def test_every_stored_model_is_named_by_its_files(kept):
    root, *tables = kept
    for table in tables:
        for row in table.to_pylist():
            folder = root / row["model_id"]
            paths = [path for path in folder.rglob("*") if path.is_file() and path.name != SUMS]
            files = {str(path.relative_to(folder)): path.read_bytes() for path in paths}
            assert id_of(files) == row["model_id"]
            assert {each["file"]: each["sha256"] for each in row["artifacts"]} == {
                name: hashlib.sha256(content).hexdigest() for name, content in files.items()
            }
            assert {each["file"]: each["size_bytes"] for each in row["artifacts"]} == {
                name: len(content) for name, content in files.items()
            }


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this machine")
def test_sha256sum_checks_a_model(kept):
    folder = folder_of(kept, "entry")
    command = ["sha256sum", "--check", "--strict", SUMS]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    assert run.stdout.count(": OK\n") == len(list(folder.rglob("*.*")))


# Writing


def test_writing_again_changes_nothing(tmp_path):
    folder = tmp_path / store.write(tmp_path, FILES)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert store.write(tmp_path, FILES) == folder.name
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


@pytest.mark.parametrize("damage", ["change", "remove"])
def test_writing_again_mends_a_damaged_model(tmp_path, damage):
    folder = tmp_path / store.write(tmp_path, FILES)
    path = folder / "seed_1" / "member.txt"
    path.write_bytes(b"") if damage == "change" else path.unlink()
    with pytest.raises(ModelStoreError):
        store.read(tmp_path, folder.name)
    assert store.write(tmp_path, FILES) == folder.name
    assert store.read(tmp_path, folder.name) == FILES


class PowerCut(BaseException):
    """What no handler of ours catches."""


@pytest.mark.parametrize("written", range(len(FILES) + 2))
def test_a_crash_leaves_no_half_model(tmp_path, monkeypatch, written):
    """Cut before each file in turn, and before the folder gets its name."""
    count, write_bytes, replace = [0], Path.write_bytes, os.replace

    def cut():
        count[0] += 1
        if count[0] > written:
            raise PowerCut

    monkeypatch.setattr(Path, "write_bytes", lambda path, text: (cut(), write_bytes(path, text)))
    monkeypatch.setattr(os, "replace", lambda *paths: (cut(), replace(*paths)))
    with pytest.raises(PowerCut):
        store.write(tmp_path, FILES)
    monkeypatch.undo()
    model_id = store.model_id_of(FILES)
    assert not (tmp_path / model_id).exists()
    assert store.model_ids(tmp_path) == []
    with pytest.raises(ModelStoreError, match="is not in the store"):
        store.read(tmp_path, model_id)
    assert store.write(tmp_path, FILES) == model_id  # and the rest of the crash is no hindrance
    assert store.model_ids(tmp_path) == [model_id]


# Reading


def copy_of(kept, tmp_path, target="entry", trainer="lightgbm"):
    """A copy of a stored model, to be damaged: the store and the model_id."""
    folder = folder_of(kept, target, trainer)
    shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path, folder.name


def refused(root, model_id):
    """The text of the refusal, which says what to do."""
    with pytest.raises(ModelStoreError) as caught:
        model.load(root, model_id)
    text = str(caught.value)
    assert "dbt build --select training_runs+" in text
    assert "WAREHOUSE_MODEL_STORE" in text
    return text


@pytest.mark.parametrize("trainer", ["lightgbm", "torch"])
@pytest.mark.parametrize("damage", ["first byte", "last byte", "one byte less", "empty", "missing"])
def test_a_damaged_file_is_refused_by_its_name(kept, tmp_path, trainer, damage):
    target = "edge_bps" if damage == "first byte" else "direction"
    root, model_id = copy_of(kept, tmp_path, target, trainer)
    assert model.load(root, model_id)
    paths = [path for path in (root / model_id).rglob("*") if path.is_file()]
    names = {path.name for path in paths}
    member = {"member.txt"} if trainer == "lightgbm" else {"member.safetensors", "member.json"}
    other = {"calibrator.parquet"} if target == "direction" else {"intervals.parquet"}
    assert names == {SUMS, "manifest.json", "member.onnx", "golden_in.parquet"} | member | other | {
        "golden_out.parquet"
    }
    for path in paths:
        content = path.read_bytes()
        damaged = {
            "first byte": bytes([content[0] ^ 1]) + content[1:],
            "last byte": content[:-1] + bytes([content[-1] ^ 1]),
            "one byte less": content[:-1],
            "empty": b"",
            "missing": None,
        }[damage]
        path.unlink() if damaged is None else path.write_bytes(damaged)
        text = refused(root, model_id)
        assert str(path) in text
        assert ("No such file" if damaged is None else "SHA-256") in text
        path.write_bytes(content)
    assert model.load(root, model_id)  # whole again


def test_a_missing_model_is_refused(kept, tmp_path):
    text = refused(tmp_path, "0" * 64)
    assert "0" * 64 in text
    assert str(tmp_path) in text


def test_a_list_that_was_changed_with_its_file_is_refused(kept, tmp_path):
    """Whoever changes a file and its hash in the list has another model, not this one."""
    root, model_id = copy_of(kept, tmp_path)
    folder = root / model_id
    text = (folder / "seed_1" / "member.txt").read_text()
    (folder / "seed_1" / "member.txt").write_text(text.replace("leaf_value=", "leaf_value=9", 1))
    sums = subprocess.run(
        "find . -type f ! -name SHA256SUMS -printf '%P\\n' | sort | xargs sha256sum",
        shell=True,
        cwd=folder,
        capture_output=True,
        check=True,
    ).stdout
    (folder / SUMS).write_bytes(sums)
    assert str(folder / SUMS) in refused(root, model_id)


def test_a_file_that_no_list_names_is_not_read(kept, tmp_path):
    root, model_id = copy_of(kept, tmp_path)
    _, expected = model.load(root, model_id)
    (root / model_id / "seed_1" / "member.pkl").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    (root / model_id / "seed_9").mkdir()
    (root / model_id / "seed_9" / "member.txt").write_text("no tree")
    (root / model_id / ".DS_Store").write_text("")
    found, files = model.load(root, model_id)
    assert files == expected
    assert [member.seed for member in found.members] == [1, 2]


@pytest.mark.parametrize("name", ["../secret", "seed_1/../../secret", "absolute", "..", ""])
def test_a_list_cannot_reach_outside_its_folder(tmp_path, name):
    """Even a list whose hash is its name, which only its writer can make."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"not yours")
    name = str(secret) if name == "absolute" else name
    sums = f"{hashlib.sha256(b'not yours').hexdigest()}  {name}\n".encode()
    model_id = hashlib.sha256(sums).hexdigest()
    (tmp_path / model_id).mkdir()
    (tmp_path / model_id / SUMS).write_bytes(sums)
    with pytest.raises(ModelStoreError, match="outside its folder" if name else "cannot be read"):
        store.read(tmp_path, model_id)


@pytest.mark.parametrize("sums", [b"\n", b"no hash\n", b"0  \n"])
def test_a_list_that_is_none_is_refused(tmp_path, sums):
    model_id = hashlib.sha256(sums).hexdigest()
    (tmp_path / model_id).mkdir()
    (tmp_path / model_id / SUMS).write_bytes(sums)
    with pytest.raises(ModelStoreError):
        model.load(tmp_path, model_id)


def test_a_model_of_an_unknown_trainer_is_refused(kept, tmp_path):
    root, model_id = copy_of(kept, tmp_path)
    files = store.read(root, model_id)
    manifest = json.loads(files["manifest.json"]) | {"trainer": "forest"}
    other = store.write(root, files | {"manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(HeadsError, match="'forest', expected one of lightgbm, torch"):
        model.load(root, other)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("\nleaf_value=", "\nleaf_value=9"),  # the tree is longer than the header says
        ("\ntree_sizes=", "\nsizes="),
        ("\nend of trees", "\n"),
        ("tree\nversion", "forest\nversion"),
        ("\nnum_leaves=", "\nnum_leaves=x"),
    ],
)
def test_trees_that_are_none_are_refused_before_lightgbm_aborts(kept, old, new):
    """With hashes that hold, as only its writer can make them."""
    text = (folder_of(kept, "entry") / "seed_1" / "member.txt").read_text()
    assert old in text
    with pytest.raises(HeadsError):
        lightgbm_trainer.load({"member.txt": text.replace(old, new, 1).encode()})


def test_nothing_stored_can_run_code(kept):
    """Text, JSON, parquet, safetensors and ONNX, each opened by a reader of its kind alone."""
    root, *_ = kept
    seen = set()
    for path in root.rglob("*"):
        if path.is_dir():
            continue
        content = path.read_bytes()
        seen.add(path.suffix or path.name)
        if path.name == SUMS:
            assert re.fullmatch(r"([0-9a-f]{64}  [\w./]+\n)+", content.decode())
        elif path.suffix == ".json":
            assert isinstance(json.loads(content), dict)
        elif path.suffix == ".parquet":
            assert pq.read_table(path).num_rows > 0
        elif path.suffix == ".txt":
            assert content.startswith(b"tree\nversion=")
        elif path.suffix == ".safetensors":
            size = int.from_bytes(content[:8], "little")
            assert isinstance(json.loads(content[8 : 8 + size]), dict)
        elif path.suffix == ".onnx":
            onnx.checker.check_model(onnx.load_from_string(content))
        else:
            raise AssertionError(f"a file of a kind nobody decided on: {path}")
    assert seen == {SUMS, ".json", ".parquet", ".txt", ".safetensors", ".onnx"}


def test_a_model_comes_back_as_it_was(kept):
    """What was trained on which rows is in the manifest, in the same words as in the row."""
    root, *tables = kept
    for table in tables:
        for row in table.to_pylist():
            found, _ = model.load(root, row["model_id"])
            same = ("track", "head", "target", "fold", "trainer", "objective", "outputs", "seeds")
            for name in (*same, "feature_list", "schema_hash", "order_hash"):
                assert found.manifest[name] == row[name], name
            assert found.manifest["params"] == json.loads(row["params_json"])
            assert found.features == market.FEATURES
            rounds = [each["best_iteration"] for each in row["members"]]
            assert [member.best_iteration for member in found.members] == rounds
            assert len(found.calibrators) == (len(found.outputs) if row["calibration"] else 0)
            assert len(found.intervals) == (1 if row["objective"] == "regression" else 0)


# Golden cases


@pytest.mark.parametrize("trainer", ["lightgbm", "torch"])
@pytest.mark.parametrize("target", ["direction", "entry", "edge_bps"])
def test_a_fresh_model_answers_as_it_did_by_every_route(kept, trainer, target):
    root, model_id = kept[0], folder_of(kept, target, trainer).name
    rows = replay.replay_model(root, model_id)
    assert [(row["seed"], row["route"]) for row in rows] == [
        (seed, route) for seed in (1, 2) for route in ("native", "onnx", "sql")
    ]
    for row in rows:
        assert row["case_count"] >= market.SETTINGS["golden_rows"]
        assert "refusal" not in row
        assert row["largest_difference"] <= row["tolerance"], row
        if row["route"] == "native" or (trainer == "lightgbm" and row["route"] == "sql"):
            assert row["largest_difference"] == 0
        assert row["tolerance"] <= 1e-5


def test_golden_cases_span_the_scores_and_hold_a_row_of_unknowns(kept):
    con = market.warehouse()
    calibrate = data.read_fold(con, MINUTE, "anchor", market.FEATURES, read_targets(con, MINUTE))
    calibrate = calibrate.kept["calibrate"]
    for row in [*kept[1].to_pylist(), *kept[2].to_pylist()]:
        found, files = model.load(kept[0], row["model_id"])
        ins = model.read_parquet(files[model.GOLDEN_IN])
        assert ins["gaps"].null_count > 0
        scores = model.ensemble_scores(found.seed_scores(ins))[:, 0]
        every = model.ensemble_scores(found.seed_scores(calibrate))[:, 0]
        assert (scores.min(), scores.max()) == pytest.approx((every.min(), every.max()), abs=1e-9)
        outs = model.read_parquet(files[model.GOLDEN_OUT])
        first = outs.filter(pa.compute.equal(outs["output"], row["outputs"][0]))
        stored = np.array(first.sort_by("case_id")["seed_scores"].to_pylist()).mean(axis=1)
        np.testing.assert_allclose(stored, scores, rtol=0, atol=1e-12)


def rewritten(kept, tmp_path, target, trainer, change):
    """The model with one of its files changed and every hash made to fit; the new model_id."""
    root, model_id = copy_of(kept, tmp_path, target, trainer)
    files = store.read(root, model_id)
    changed = change(dict(files))
    assert changed != files
    return root, store.write(root, changed)


def another_digit(number):
    """A number as text with its first digit but 0 changed: the length stays, as LightGBM asks."""
    return re.sub(r"[1-9]", lambda digit: "2" if digit.group() == "1" else "1", number, count=1)


def leaf_changed(files):
    """The leaves of the first tree of seed 1 have other values: every case falls in one."""
    text = files["seed_1/member.txt"].decode()
    line = re.search(r"\nleaf_value=[^\n]+", text).group()
    text = text.replace(line, re.sub(r"\S+\d", lambda n: another_digit(n.group()), line), 1)
    return files | {"seed_1/member.txt": text.encode()}


def threshold_changed(files):
    """The root of every tree of seed 1 splits elsewhere."""
    text = files["seed_1/member.txt"].decode()
    text = re.sub(r"(?<=\nthreshold=)\S+", lambda n: another_digit(n.group()), text)
    return files | {"seed_1/member.txt": text.encode()}


def onnx_of_the_other_seed(files):
    return files | {"seed_1/member.onnx": files["seed_2/member.onnx"]}


def weights_changed(files):
    """One number of the weights of seed 1: the last four bytes of the file."""
    content = files["seed_1/member.safetensors"]
    number = np.frombuffer(content[-4:], np.float32) + np.float32(0.5)
    return files | {"seed_1/member.safetensors": content[:-4] + number.tobytes()}


@pytest.mark.parametrize(
    ("target", "trainer", "change", "routes"),
    [
        ("direction", "lightgbm", leaf_changed, {"native", "sql"}),
        ("entry", "lightgbm", leaf_changed, {"native", "sql"}),
        ("edge_bps", "lightgbm", leaf_changed, {"native", "sql"}),
        ("entry", "lightgbm", threshold_changed, {"native", "sql"}),
        ("entry", "lightgbm", onnx_of_the_other_seed, {"onnx"}),
        ("direction", "torch", onnx_of_the_other_seed, {"onnx"}),
        ("edge_bps", "torch", weights_changed, {"native", "sql"}),
    ],
)
def test_a_changed_model_does_not_answer_as_it_did(kept, tmp_path, target, trainer, change, routes):
    """Changed with care, so that every hash holds: the golden cases still tell."""
    root, model_id = rewritten(kept, tmp_path, target, trainer, change)
    rows = replay.replay_model(root, model_id)
    wrong = {
        (row["seed"], row["route"])
        for row in rows
        if not row["largest_difference"] <= row["tolerance"]
    }
    assert wrong == {(1, route) for route in routes}


def test_a_model_without_a_route_says_so(kept, tmp_path):
    def without_onnx(files):
        return {name: each for name, each in files.items() if not name.endswith(".onnx")}

    root, model_id = rewritten(kept, tmp_path, "entry", "lightgbm", without_onnx)
    refusals = {row["route"]: row.get("refusal") for row in replay.replay_model(root, model_id)}
    assert refusals == {"native": None, "onnx": "the model has no ONNX form.", "sql": None}


def test_replay_asks_the_models_of_the_last_training_and_those_before_them(kept):
    root, trees, _ = kept
    con = market.warehouse()
    con.execute(
        """
        create table heads.training_runs as
        select track, model_id, head, target, fold from trees;
        create table heads.model_aliases as
        select track, head, target, alias, model_id, fold
        from heads.training_runs cross join (values ('champion'), ('previous')) as of (alias);
        insert into heads.training_runs values ('daily', 'none', 'x', 'x', 'anchor');
        insert into heads.model_aliases values
            ('minute', 'entry', 'entry', 'previous', 'gone', 'anchor'),
            ('daily', 'x', 'x', 'previous', 'none', 'anchor')
        """
    )
    table = replay.replay(con, MINUTE, root)
    assert table.schema == replay.SCHEMA
    rows = table.to_pylist()
    (gone,) = [row for row in rows if row["model_id"] == "gone"]
    assert (gone["case_count"], gone["target"], gone["largest_difference"]) == (0, "entry", None)
    assert "model gone is not in the store" in gone["refusal"]
    kept_rows = [row for row in rows if row["model_id"] != "gone"]
    found = {(row["model_id"], row["seed"], row["route"]) for row in kept_rows}
    assert {row["model_id"] for row in kept_rows} == set(trees["model_id"].to_pylist())
    assert len(found) == len(kept_rows) == len(trees) * 2 * 3
    con.execute("insert into heads.training_runs values ('minute', 'none', 'x', 'x', 'anchor')")
    with pytest.raises(ModelStoreError, match="model none is not in the store"):
        replay.replay(con, MINUTE, root)
