"""The generated models are what the seeds say; a wrong line of a seed is refused by its place."""

import re
import shutil

import pytest
import yaml
from click.testing import CliRunner

from warehouse import REPO
from wavehouse.cli import main
from wavehouse.factors import catalog

SUFFIXES = ("sql", "yml")
LINE = "tech_new,technical,{formula},0,Ours,,,\n"


@pytest.fixture
def project(tmp_path):
    """The seeds and the descriptions of the models that formulas read."""
    (tmp_path / "seeds").mkdir()
    for file in (REPO / "seeds").glob("factor_*.csv"):
        shutil.copy(file, tmp_path / "seeds")
    for file in (REPO / "models").rglob("daily/*.yml"):
        target = tmp_path / file.relative_to(REPO)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return tmp_path


def append(project, seed: str, line: str) -> int:
    """Add a line to a seed; return its number."""
    file = project / "seeds" / f"{seed}.csv"
    text = file.read_text(encoding="utf-8")
    file.write_text(text + line, encoding="utf-8")
    return text.count("\n") + 1


def test_the_models_are_what_the_seeds_say():
    files = catalog.generated_files(catalog.read_catalog(REPO))
    assert catalog.stale_files(REPO, files) == []


def test_a_new_line_is_a_new_column_with_its_description(project):
    catalog.write_files(project, catalog.generated_files(catalog.read_catalog(project)))
    append(project, "factor_catalog", LINE.format(formula='"mean(high / low, 7)"'))
    files = catalog.generated_files(catalog.read_catalog(project))
    folder = catalog.FOLDER
    stale = catalog.stale_files(project, files)
    views = ("factor_panel", "factor_panel_z", "factor_panel_rank", "factor_panel_missing")
    changed = [f"{name}.{end}" for name in ("technical", *views) for end in ("sql", "yml")]
    changed.append("factor_health_days.sql")
    assert sorted(stale) == sorted(f"{folder}/{name} is not what the seeds say" for name in changed)
    assert set(catalog.write_files(project, files)) == {folder / name for name in changed}
    assert "AS tech_new\n" in (project / folder / "technical.sql").read_text()
    described = (project / folder / "technical.yml").read_text()
    assert "`mean(high / low, 7)`. Ours. Looks 6 rows back." in described
    (project / folder / "stranger.sql").write_text("select 1")
    assert catalog.stale_files(project, files) == [f"{folder}/stranger.sql belongs to no family"]


@pytest.mark.parametrize(
    ("seed", "line", "said"),
    [
        ("factor_catalog", LINE.format(formula='"mean(clse, 7)"'), "reads clse (did you mean clos"),
        ("factor_catalog", LINE.format(formula='"maen(close, 7)"'), "unknown operator maen"),
        ("factor_catalog", LINE.format(formula='"mean(close, x)"'), "is not constant"),
        ("factor_catalog", LINE.format(formula="top_inst.x"), "one row per stock and day"),
        ("factor_catalog", LINE.format(formula="factor_inputs.close"), "one row per stock and"),
        ("factor_catalog", "new_one,technical,close,0,Ours,,,\n", "prefix"),
        ("factor_catalog", "alpha_001,alpha101,close,0,Ours,,,\n", "stands in line 2 already"),
        ("factor_catalog", "tech_new,technical,close,0,Ours,,,x\n", "'x' is no number above 0"),
        ("factor_catalog", "tech_new,technical,close,0,Ours,,,-1\n", "'-1' is no number above 0"),
        ("factor_terms", "ring_a,ring_b + 1,Ours,\nring_b,ring_a,Ours,\n", "in a ring"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_refused_by_its_place(project, seed, line, said):
    number = append(project, seed, line)
    with pytest.raises(catalog.CatalogError) as error:
        catalog.read_catalog(project)
    assert said in str(error.value)
    assert f"{seed}.csv" in str(error.value)
    if "ring" not in said:
        assert f"line {number}" in str(error.value)


def test_the_command_checks_lists_and_shows(project, monkeypatch):
    monkeypatch.chdir(project)
    run = CliRunner().invoke
    stale = run(main, ["factors", "compile", "--check"])
    assert stale.exit_code == 1
    assert "alpha101.sql is missing" in stale.output
    assert run(main, ["factors", "compile"]).exit_code == 0
    assert run(main, ["factors", "compile", "--check"]).exit_code == 0
    read = catalog.read_catalog(project)
    count = f"{len(read.factors)} factors of {len(read.families)} families, 0 files changed"
    assert count in run(main, ["factors", "compile"]).output
    assert len(run(main, ["factors", "list", "cmf_"]).output.splitlines()) == 2
    shown = run(main, ["factors", "show", "gtja_014"]).output
    assert "CLOSE-DELAY(CLOSE,5)" in shown
    assert "looks back  5 rows" in shown
    assert "LAG(close, 5)" in shown
    wrong = run(main, ["factors", "show", "gtja_14"])
    assert wrong.exit_code == 1
    assert "did you mean gtja_" in wrong.output


def test_no_registered_prefix_is_missing_anywhere(monkeypatch):
    """The registry is the one truth: what it names is compiled, listed, measured and documented."""
    monkeypatch.chdir(REPO)
    read = catalog.read_catalog(REPO)
    files = catalog.generated_files(read)
    daily = {path.name: text for path, text in files.items() if path.parent == catalog.FOLDER}
    page = (REPO / "docs" / "factors.md").read_text(encoding="utf-8")
    for family in read.families:
        members = list(read.of_family(family.family))
        assert members, f"{family.prefix} has no factor"
        described = yaml.safe_load(daily[f"{family.relation}.yml"])["models"][0]["columns"]
        assert [each["name"] for each in described][2:] == members
        for view in ("factor_panel", "factor_panel_z", "factor_panel_rank", "factor_panel_missing"):
            columns = yaml.safe_load(daily[f"{view}.yml"])["models"][0]["columns"]
            assert set(members) <= {each["name"] for each in columns}, view
            assert all(re.search(rf"\bas {name}\b", daily[f"{view}.sql"]) for name in members), view
        assert all(f"'{name}'" in daily["factor_health_days.sql"] for name in members)
        listed = CliRunner().invoke(main, ["factors", "list", family.prefix]).output
        assert len(listed.splitlines()) == len(members)
        assert f"| `{family.prefix}` | `factors.{family.relation}` |" in page, family.prefix
    assert sum(len(read.of_family(family.family)) for family in read.families) == len(read.factors)
