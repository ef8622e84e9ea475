"""The factor catalog against the published texts, the registry, the language and the models."""

import csv
import math
import re
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import yaml

from wavehouse.factors.expression import Expression, columns, look_back, normalise, walk
from wavehouse.factors.language import FormulaError, parse

REPO = Path(__file__).parents[2]
REFERENCE = REPO.parent / "shared" / "reference"
PUBLISHED = {
    "alpha_": ("alpha101_published_formulas.csv", 101),
    "gtja_": ("gtja191_published_formulas.csv", 191),
}
NAME = re.compile(r"[A-Za-z_]\w*(?:\.\w+)?", re.ASCII)
# what factors of other kinds are made of; the papers' own are counted by number
FACTORS_OF_FAMILY = {
    "alpha101": 101 + 6,
    "gtja191": 191,
    "technical": 30 + 8,
    "cmf": 2,
    "limit_up": 6,
    "money_flow": 14 + 6,
    "money_flow_position": 12,
    "chip_distribution": 3,
    "hong_kong_holding": 5,
    "margin_trading": 3,
    "fundamental": 4,
    "industry": 2,
    "market": 2,
    "hot_money": 6,
    "institution_seats": 3,
    "sentiment": 3,
    "shareholders": 2,
}


def seed(name: str) -> list[dict[str, str]]:
    with (REPO / "seeds" / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def described(path: Path) -> list[dict]:
    return yaml.safe_load(path.read_text(encoding="utf-8")).get("models", [])


def stock_day_columns(model: dict) -> list[str]:
    """Columns of a model of one row per stock and day; none where it may have several."""
    keys = [
        test["unique_combination"]["arguments"]["columns"]
        for test in model.get("data_tests", [])
        if "unique_combination" in test
    ]
    return (
        [column["name"] for column in model["columns"]] if ["ts_code", "trade_date"] in keys else []
    )


@pytest.fixture(scope="module")
def known_columns() -> set[str]:
    """What a formula may name: columns of the panel, relation.column of others."""
    panel = described(REPO / "models/factors/daily/daily_panel.yml")
    known = {column for model in panel for column in stock_day_columns(model)}
    for folder in ("factors", "staging", "universe"):
        for path in sorted((REPO / "models" / folder / "daily").glob("*.yml")):
            for model in described(path):
                relation = model["name"].removeprefix("stg_")
                if relation != "daily_panel" and not relation.startswith("factor_"):
                    known |= {f"{relation}.{column}" for column in stock_day_columns(model)}
    return known


def resolved(terms: dict[str, str]) -> dict[str, Expression]:
    """The expression of every term, those it names put in."""
    spelled = {name.lower(): name for name in terms}
    needs = {
        name: {word.lower() for word in NAME.findall(terms[spelled[name]])} & set(spelled)
        for name in spelled
    }
    found: dict[str, Expression] = {}
    for name in TopologicalSorter(needs).static_order():
        own = {needed: found[needed] for needed in needs[name]}
        found[name] = parse(terms[spelled[name]], f"term {spelled[name]}", own)
    return found


@pytest.fixture(scope="module")
def terms() -> dict[str, Expression]:
    return resolved({row["term"]: row["formula"] for row in seed("factor_terms")})


@pytest.fixture(scope="module")
def catalog() -> list[dict[str, str]]:
    return seed("factor_catalog")


@pytest.fixture(scope="module")
def expressions(catalog, terms) -> dict[str, Expression]:
    faults, found = [], {}
    for row in catalog:
        try:
            found[row["factor_id"]] = parse(row["formula"], row["factor_id"], terms)
        except FormulaError as fault:
            faults.append(str(fault))
    assert not faults, "\n".join(faults)
    return found


def test_every_factor_is_there_once(catalog):
    ids = [row["factor_id"] for row in catalog]
    assert [name for name, count in Counter(ids).items() if count > 1] == []
    for prefix, (_, count) in PUBLISHED.items():
        numbered = {name for name in ids if re.fullmatch(prefix + r"\d+", name)}
        assert numbered == {f"{prefix}{number:03}" for number in range(1, count + 1)}
    assert sum(name.startswith("alpha_custom_") for name in ids) == 6
    assert sum(name.startswith("tech_evt_") and name.endswith("_decay10") for name in ids) == 8
    assert Counter(row["family"] for row in catalog) == FACTORS_OF_FAMILY
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in ids)


def test_every_prefix_is_registered_once_and_used(catalog):
    families = seed("factor_families")
    prefixes = [row["prefix"] for row in families]
    for row in catalog:
        matching = [prefix for prefix in prefixes if row["factor_id"].startswith(prefix)]
        assert len(matching) == 1, f"{row['factor_id']}: registered prefixes {matching}"
        registered = next(family for family in families if family["prefix"] == matching[0])
        assert row["family"] == registered["family"], row["factor_id"]
    assert {row["family"] for row in catalog} == {row["family"] for row in families}
    for column in ("prefix", "family", "relation"):
        assert len({row[column] for row in families}) == len(families), column
    assert all(prefix.endswith("_") for prefix in prefixes)


def test_families_need_files_that_are_staged():
    for row in seed("factor_families"):
        for file in row["needs"].split():
            assert (REPO / f"models/staging/daily/stg_{file}.yml").exists(), (
                f"{row['prefix']} {file}"
            )


def test_every_formula_names_what_is_known(expressions, terms, known_columns):
    named = {**{f"term {name}": term for name, term in terms.items()}, **expressions}
    unknown = {
        name: missing
        for name, expression in named.items()
        if (missing := set(columns(expression)) - known_columns)
    }
    assert unknown == {}


def test_what_has_several_rows_a_day_is_not_known(known_columns):
    assert {"close", "industry_l1", "moneyflow.net_amount_cny"} <= known_columns
    assert {"price_limits.is_limit_up_close", "holder_days.holder_count"} <= known_columns
    several = {"top_list", "top_inst", "holders", "ths_hot", "limit_list", "northbound"}
    assert not several & {name.split(".")[0] for name in known_columns}


def test_terms_are_used_and_agree_with_the_language(catalog, terms):
    rows = seed("factor_terms")
    names = [row["term"].lower() for row in rows]
    assert len(set(names)) == len(names)
    texts = [row["formula"] for row in [*catalog, *rows]]
    used = {word.lower() for text in texts for word in NAME.findall(text)}
    # every average that the papers' notation has is there, used or not
    assert {name for name in set(names) - used if not re.fullmatch(r"adv\d+", name)} == set()
    for row in rows:
        alone = parse(row["term"])
        if alone.value != row["term"].lower():  # the language knows another name of it
            assert alone is terms[row["term"].lower()], row["term"]


def test_terms_may_not_name_each_other_in_a_ring():
    with pytest.raises(CycleError):
        resolved({"HD": "LD + 1", "LD": "HD - 1"})


@pytest.mark.parametrize("prefix", PUBLISHED)
def test_published_texts_are_there_word_for_word(prefix, catalog):
    file, count = PUBLISHED[prefix]
    if not (REFERENCE / file).exists():
        pytest.skip(f"no published formulas beside the checkout: ../shared/reference/{file}")
    with (REFERENCE / file).open(newline="", encoding="utf-8") as lines:
        texts = {
            f"{prefix}{int(row['alpha']):03}": row["published_formula"]
            for row in csv.DictReader(lines)
        }
    assert len(texts) == count
    found = {
        row["factor_id"]: row["published_formula"] or row["formula"]
        for row in catalog
        if row["factor_id"] in texts
    }
    assert found == texts


def test_readings_of_ours_are_explained(catalog):
    for row in catalog:
        factor_id, formula, published = (
            row[column] for column in ("factor_id", "formula", "published_formula")
        )
        assert row["source"], factor_id
        assert row["direction"] in ("-1", "0", "1"), factor_id
        assert published != formula, f"{factor_id}: the published text is the formula"
        if published:
            assert "Read:" in row["note"], f"{factor_id}: what is read, and what was published"
            assert re.match(r"(Printed|Published)", row["note"]), factor_id
    assert all(
        row["direction"] == "1"
        for row in catalog
        if re.fullmatch(r"(alpha|gtja)_\d+", row["factor_id"])
    )


def test_only_running_averages_look_back_without_end(expressions):
    running = {
        factor_id
        for factor_id, expression in expressions.items()
        if any(node.op in ("sma", "self") for node in walk(expression))
    }
    endless = {
        name for name, expression in expressions.items() if look_back(expression) == math.inf
    }
    assert endless == running
    longest = max(look_back(expressions[name]) for name in expressions.keys() - endless)
    assert longest == 252  # gtja_149: 252 returns


def test_every_event_decays_over_eleven_rows(expressions):
    for factor_id, expression in expressions.items():
        if factor_id.startswith("tech_evt_"):
            (decay,) = [node for node in walk(expression) if node.op == "event_decay"]
            assert [arg.value for arg in decay.args[1:]] == [10, 10], factor_id
            known, value, otherwise = expression.args
            assert (known.args[0], value, otherwise.value) == (decay.args[0], decay, 0), factor_id


def test_every_net_flow_has_a_log_form(expressions):
    nets = [name for name in expressions if re.fullmatch(r"mf_net_\d+d", name)]
    assert len(nets) == 6
    for name in nets:
        net, log_form = expressions[name], normalise(expressions[f"{name}_log"])
        assert normalise(net) in set(walk(log_form)), name
        assert "log" in {node.op for node in walk(log_form)}, name
