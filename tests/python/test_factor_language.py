"""The factor language: what a formula means, what it is written as, what is wrong with it."""

import copy
import csv
import gc
import math
import pickle
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings

from factor_trees import expressions, frames
from oracle_factors import evaluate
from wavehouse.factors import operators
from wavehouse.factors.expression import (
    ArgumentError,
    Expression,
    column,
    columns,
    constant,
    look_back,
    normalise,
    operation,
    walk,
)
from wavehouse.factors.language import COLUMN_ALIASES, FormulaError, parse
from wavehouse.factors.operators import CALLED, OPERATORS, semantics_table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "factor_language.md"
REFERENCE = ROOT.parent / "shared" / "reference"

WRITTEN = [
    # numbers
    ("2.", "2"),
    (".001", "0.001"),
    ("1e-3", "0.001"),
    ("0.00817205", "0.00817205"),
    ("-1", "-1"),
    ("- 2.5", "-2.5"),
    ("1e30", "1e+30"),
    # names, in any case
    ("CLOSE", "close"),
    ("VOL + RET", "volume + returns"),
    ("HGIH - BANCHMARKINDEXCLOSE", "high - benchmark_close"),
    ("cap", "market_cap"),
    ("MoneyFlow.Buy_Elg_Amount_CNY", "moneyflow.buy_elg_amount_cny"),
    # precedence
    ("a + b * c", "a + b * c"),
    ("(a + b) * c", "(a + b) * c"),
    ("a - b - c", "a - b - c"),
    ("a - (b - c)", "a - (b - c)"),
    ("a / b * c", "a / b * c"),
    ("a / (b * c)", "a / (b * c)"),
    ("a ^ b ^ c", "a ^ b ^ c"),
    ("a ^ (b ^ c)", "a ^ (b ^ c)"),
    ("-a ^ 2", "-a ^ 2"),
    ("(-a) ^ 2", "(-a) ^ 2"),
    ("-2 ^ 2", "-2 ^ 2"),
    ("(-2) ^ 2", "(-2) ^ 2"),
    ("-a * b", "-a * b"),
    ("-(a * b)", "-(a * b)"),
    ("a * -b", "a * -b"),
    ("a - -1", "a - -1"),
    ("a ^ -1", "a ^ (-1)"),
    ("2 ^ -a ^ 3", "2 ^ (-a) ^ 3"),
    ("-(-a)", "-(-a)"),
    ("-20* (20-1 )^1.5", "-20 * (20 - 1) ^ 1.5"),
    ("a < b + 1", "a < b + 1"),
    ("(a < b) * -1", "(a < b) * -1"),
    ("(a < b) < c", "(a < b) < c"),
    ("a < b & c < d | e == f", "a < b and c < d or e == f"),
    ("a < b && (c < d || e = f)", "a < b and (c < d or e == f)"),
    ("a <> b AND c != d", "a != b and c != d"),
    # choices
    ("a < b ? c : d", "a < b ? c : d"),
    ("a<b?1:c<d?2:3", "a < b ? 1 : (c < d ? 2 : 3)"),
    ("a<b?c<d?1:2:3", "a < b ? (c < d ? 1 : 2) : 3"),
    ("(a<b?1:2)*3", "(a < b ? 1 : 2) * 3"),
    ("a<b?1:2*3", "a < b ? 1 : 2 * 3"),
    ("if(a < b, c, d)", "a < b ? c : d"),
    ("rank(a < b ? 1 : 2)", "rank(a < b ? 1 : 2)"),
    # both papers' names
    ("Ts_ArgMax(SignedPower(x, 2.), 5)", "ts_argmax(signed_power(x, 2), 5)"),
    ("TSRANK(CORR(x, y, 4), 15)", "ts_rank(correlation(x, y, 4), 15)"),
    ("COVIANCE(x, y, 5)", "covariance(x, y, 5)"),
    ("MA(x, 3) + MEAN(x, 3)", "mean(x, 3) + mean(x, 3)"),
    ("WMA(x, 3)", "wma(x, 3)"),
    ("SMA(x, 13, 2)", "sma(x, 13, 2)"),
    ("IndNeutralize(x, IndClass.sector)", "ind_neutralize(x, industry_l1)"),
    ("indneutralize(x, IndClass.subindustry)", "ind_neutralize(x, industry_l3)"),
    # windows
    ("delta(x, 1.29456)", "delta(x, 1)"),
    ("ts_rank(x, 3.99)", "ts_rank(x, 3)"),
    ("sum(x, 2 * 5)", "sum(x, 10)"),
    ("DELAY(x)", "delay(x, 1)"),
    ("delay(x, 0)", "delay(x, 0)"),
    ("scale(x)", "scale(x, 1)"),
    # min and max: over time with a constant of 1 or more second, pairwise otherwise
    ("max(x, 5)", "ts_max(x, 5)"),
    ("MIN(x, 9.7)", "ts_min(x, 9)"),
    ("max(x, 1)", "ts_max(x, 1)"),
    ("max(x, y)", "max(x, y)"),
    ("MAX(0, x)", "max(0, x)"),
    ("max(x, 0)", "max(0, x)"),
    ("max(x, 0.5)", "max(0.5, x)"),
    ("max(5, x)", "max(5, x)"),
    ("max(3, 5)", "max(3, 5)"),
    # regressions, conditional sums and the like
    ("REGBETA(MEAN(x, 6), SEQUENCE(6))", "reg_beta(mean(x, 6), sequence, 6)"),
    ("REGBETA(x, SEQUENCE, 20)", "reg_beta(x, sequence, 20)"),
    ("REGBETA(x, SEQUENCE(20), 20)", "reg_beta(x, sequence, 20)"),
    (
        "REGBETA(FILTER(x, a < b), FILTER(y, a < b), 252)",
        "reg_beta(filter(x, a < b), filter(y, a < b), 252)",
    ),
    ("REGRESI(y, MKT, SMB, HML, 60)", "reg_residual(y, mkt, smb, hml, 60)"),
    ("SUMIF(x, 20, a < b)", "sum_if(x, a < b, 20)"),
    ("sum_if(x, a < b, 20)", "sum_if(x, a < b, 20)"),
    ("COUNT(a < b, 20)", "count(a < b, 20)"),
    ("event_decay(a < b, 10, 10)", "event_decay(a < b, 10, 10)"),
    ("self(1, x)", "self(1, x)"),
    ("cs_mean_if(x, a < b)", "cs_mean_if(x, a < b)"),
]


@pytest.mark.parametrize(("text", "canonical"), WRITTEN)
def test_formulas_have_one_canonical_text(text: str, canonical: str):
    expression = parse(text)
    assert str(expression) == canonical
    assert parse(canonical) is expression


# ¦ stands before the character that the error points to
WRONG = [
    ("¦", "the formula is empty"),
    ("¦   ", "the formula is empty"),
    ("a +¦", "missing operand after '+' before the end"),
    ("¦* a", "missing operand before '*'"),
    ("a * ¦/ b", "missing operand after '*' before '/'"),
    ("rank(a, ¦)", "missing operand after ',' before ')'"),
    ("¦)", "missing operand before ')'"),
    ("a ¦@ b", "unexpected character '@'"),
    ("a ¦b", "trailing text: the formula ends before 'b'"),
    ("a ¦: b", "trailing text: the formula ends before ':'"),
    ("rank(a)¦)", "this ) closes no parenthesis"),
    ("¦((a + b) * c", "this ( is never closed"),
    ("1 + rank¦(a * (b + c)", "this ( of rank is never closed"),
    ("(a ¦, b)", "expected ) for the ( at character 1, found ','"),
    ("rank(a ¦b)", "expected , or ) for the ( of rank at character 5, found 'b'"),
    ("2¦x", "a number runs into the name 'x'"),
    ("¦1e400", "inf is not a finite number"),
    ("a < b ? c¦", "the ? at character 7 has no : before the end"),
    ("(a < b ? c¦)", "the ? at character 8 has no : before ')'"),
    ("a < b ¦< c", "a comparison of a comparison: join two with && or set parentheses"),
    ("a + ¦rnak(b)", "unknown operator rnak (did you mean rank?)"),
    ("¦Corelation(a, b, 3)", "unknown operator Corelation (did you mean correlation?)"),
    ("¦qqq(b)", "unknown operator qqq"),
    ("¦close(b)", "unknown operator close"),
    ("1 - ¦rank", "rank is an operator and needs arguments: rank(x)"),
    ("a * ¦SELF", "SELF is the factor's own value of the row before: write self(initial, factor)"),
    ("¦rank()", "rank(x) takes 1 argument, found 0"),
    ("¦rank(a, b)", "rank(x) takes 1 argument, found 2"),
    ("¦CORR(a, b)", "correlation(x, y, n) takes 3 arguments, found 2"),
    ("¦delay(a, 1, 2)", "delay(x, n = 1) takes 1 to 2 arguments, found 3"),
    ("¦MAX(a)", "max(x, y) takes 2 arguments, found 1"),
    ("¦REGRESI(a, b)", "reg_residual(y, x, ..., n) takes at least 3 arguments, found 2"),
    ("sum(a, ¦b)", "the window n of sum is not constant: b"),
    ("sum(a, ¦b + 1)", "the window n of sum is not constant: b + 1"),
    ("sum(a, ¦b < 1)", "the window n of sum is not constant: b < 1"),
    ("sum(a, ¦0.5)", "the window n of sum is 0.5, the least is 1"),
    ("delay(a, ¦-1)", "the window n of delay is -1, the least is 0"),
    ("stddev(a, ¦1.9)", "the window n of stddev is 1.9, the least is 2"),
    ("SUMIF(a, ¦b, c < d)", "the window n of sum_if is not constant: b"),
    ("sma(a, ¦0, 1)", "n of sma is 0, it must be more than 0"),
    ("sma(a, ¦b, 1)", "n of sma is not constant: b"),
    ("sma(a, 2, ¦3)", "m = 3 of sma is more than n = 2"),
    ("reg_residual(a, b, c, ¦3)", "a window of 3 is too short for 2 regressors"),
    ("¦reg_beta(a, b)", "reg_beta(y, x, n) has no window n"),
    ("reg_beta(a, sequence(5), ¦6)", "the window is 6 here and 5 in sequence"),
    ("¦a ? b : c", "c of if must be a condition, found the number a"),
    ("a < b & ¦c", "d of and must be a condition, found the number c"),
    ("¦a & b < c", "c of and must be a condition, found the number a"),
    ("count(¦a, 5)", "c of count must be a condition, found the number a"),
    ("sum_if(a, ¦b + 1, 5)", "c of sum_if must be a condition, found the number b + 1"),
    ("indneutralize(a, ¦b)", "g of ind_neutralize must be a group such as IndClass.sector"),
    ("rank(¦IndClass.sector)", "x of rank must be a number, found the group industry_l1"),
    ("¦IndClass.sector", "industry_l1 is no value of a stock and day"),
    ("1 + ¦filter(a, b < c)", "filter stands only inside reg_beta, not as y of +"),
    ("sum(¦sequence, 5)", "sequence stands only inside reg_beta, not as x of sum"),
    ("max(¦IndClass.sector, 0)", "x of max must be a number, found the group industry_l1"),
]


@pytest.mark.parametrize(("marked", "cause"), WRONG)
def test_errors_name_factor_position_and_cause(marked: str, cause: str):
    position, text = marked.index("¦"), marked.replace("¦", "")
    with pytest.raises(FormulaError) as caught:
        parse(text, factor="tech_wrong")
    error = caught.value
    assert error.factor == "tech_wrong"
    assert error.position == position
    assert error.cause.startswith(cause)
    head, line, caret = str(error).split("\n")
    assert head == f"factor tech_wrong, character {position + 1}: {error.cause}"
    assert line == f"    {text}"
    assert caret.index("^") == position + 4


def test_a_long_formula_is_cut_around_the_fault():
    text = " + ".join(["close"] * 50) + "\n+ nosuch(1) + " + " + ".join(["open"] * 50)
    with pytest.raises(FormulaError) as caught:
        parse(text)
    head, line, caret = str(caught.value).split("\n")
    assert head.startswith("formula, character 401: unknown operator nosuch")
    assert line.startswith("    ...")
    assert line.endswith("...")
    assert line[caret.index("^") :].startswith("nosuch(1)")


def test_depth_has_a_limit_and_length_has_none():
    with pytest.raises(FormulaError, match="nested more than 100 deep"):
        parse("(" * 5000 + "a" + ")" * 5000)
    long = parse(" + ".join(["a"] * 1000))
    assert parse(str(long)) is long
    assert normalise(long) is long
    assert columns(long) == ["a"]


def test_terms_stand_for_their_expressions():
    terms = {"TR": parse("max(high - low, abs(low - delay(close)))"), "g": column("industry_l2")}
    assert parse("MEAN(tr, 14)", terms=terms) is parse(
        "mean(max(high - low, abs(low - delay(close, 1))), 14)"
    )
    assert (
        str(parse("indneutralize(close, g)", terms=terms)) == "ind_neutralize(close, industry_l2)"
    )
    # a term comes before a column's alias and before an operator's name
    assert parse("RET", terms={"ret": column("mine")}) is column("mine")
    assert parse("count + 1", terms={"count": column("mine")}) is parse("mine + 1")
    # put in as a whole, not as text
    assert str(parse("t * 2", terms={"t": parse("a + b")})) == "(a + b) * 2"


def test_every_name_of_the_table_is_read_in_any_case():
    fillers = {"condition": "a < b", "window": "3", "constant": "1", "group": "IndClass.sector"}
    for name, canonical in CALLED.items():
        if canonical in ("filter", "sequence"):
            continue
        kinds = [argument.kind for argument in OPERATORS[canonical].arguments]
        text = ", ".join(fillers.get(kind, "ab"[place % 2]) for place, kind in enumerate(kinds))
        expression = parse(f"{name}({text})")
        assert expression.op == canonical
        assert parse(f"{name.upper()}({text})") is expression


def test_names_are_unique_and_lower_case():
    for names in (CALLED, operators.INFIX, COLUMN_ALIASES):
        assert all(name == name.lower() for name in names)
    spelled = [
        name for operator in OPERATORS.values() for name in (operator.name, *operator.aliases)
    ]
    assert len(spelled) == len(set(spelled))
    assert {operator.kind for operator in OPERATORS.values()} == {"element", "series", "section"}


def test_equal_expressions_are_one_object():
    one = parse("rank(a + 1) * MEAN(b, 5)")
    other = operation(
        "*", operation("rank", operation("+", column("A"), 1)), operation("mean", column("b"), 5)
    )
    assert one is other
    assert hash(one) == hash(other)
    assert copy.deepcopy(one) is one
    assert pickle.loads(pickle.dumps(one)) is one
    assert constant(-0.0) is constant(0.0)
    assert constant(1) is not column("1")
    assert parse("a - b") is not parse("b - a")
    with pytest.raises(AttributeError):
        one.op = "+"


def test_nodes_nobody_holds_are_given_back():
    key = ("column", (), "held_by_nobody")
    expression = column("held_by_nobody")
    assert key in _known()
    del expression
    gc.collect()
    assert key not in _known()


def _known():
    from wavehouse.factors import expression

    return expression._known


def test_operations_refuse_wrong_arguments_without_a_text():
    with pytest.raises(ArgumentError, match="not constant") as caught:
        operation("sum", column("a"), column("b"))
    assert caught.value.index == 1
    with pytest.raises(ArgumentError, match="not a finite number"):
        constant(math.inf)
    with pytest.raises(KeyError):
        operation("no_such_operator", column("a"))


def test_walk_yields_children_first_and_every_node_once():
    expression = parse("(a + b) * (a + b) - a")
    assert [str(node) for node in walk(expression)] == [
        "a",
        "b",
        "a + b",
        "(a + b) * (a + b)",
        "(a + b) * (a + b) - a",
    ]
    assert list(walk(column("a"), column("a"))) == [column("a")]


def test_arguments_have_the_names_of_the_table():
    named = parse("SUMIF(x, 20, a < b)").named()
    assert {name: str(arg) for name, arg in named.items()} == {"x": "x", "c": "a < b", "n": "20"}


def test_columns_are_those_read():
    expression = parse("ind_neutralize(rank(close * adv20), IndClass.sector) + hk.hold_ratio")
    assert columns(expression) == ["adv20", "close", "hk.hold_ratio", "industry_l1"]
    assert columns(constant(1)) == []


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("close", 0),
        ("rank(close) + 1", 0),
        ("delay(x, 5)", 5),
        ("delta(x)", 1),
        ("mean(x, 5)", 4),
        ("mean(delay(x, 5), 5)", 9),
        ("rank(mean(rank(delay(x, 5)), 5))", 9),
        ("mean(x, 5) + delay(x, 7)", 7),
        ("correlation(mean(x, 3), y, 10)", 11),
        ("sum_if(x, delay(y, 3) < x, 10)", 12),
        ("reg_beta(filter(x, y < delay(y, 1)), y, 20)", 20),
        ("reg_beta(mean(x, 6), sequence(6))", 10),
        ("reg_residual(x, y, delay(z, 2), 60)", 61),
        ("event_decay(x < y, 10, 10)", 10),
        ("high_day(x, 20)", 19),
        ("wma(x, 20)", 19),
        ("sma(x, 3, 1)", math.inf),
        ("mean(sma(x, 3, 1), 5)", math.inf),
        ("self(1, x)", math.inf),
    ],
)
def test_look_back(text: str, rows: float):
    assert look_back(parse(text)) == rows


NORMALISED = [
    ("x * 1", "x"),
    ("1 * x", "x"),
    ("x / 1", "x"),
    ("x ^ 1", "x"),
    ("x + 0", "x"),
    ("x - 0", "x"),
    ("0 - (1 * x)", "-x"),
    ("-1 * x", "-x"),
    ("x * -1", "-x"),
    ("-(-x)", "x"),
    ("-1 * (-1 * x)", "x"),
    ("(-1 * 1)", "-1"),
    ("2 * 3 + x", "x + 6"),
    ("(1 - 0.728317) * x", "x * 0.271683"),
    ("1 / 0", "1 / 0"),
    ("(0 - 1) ^ 0.5", "(-1) ^ 0.5"),
    ("10 ^ 400", "10 ^ 400"),
    ("(x < y) * 1", "(x < y) * 1"),
    ("y > x", "x < y"),
    ("y >= x", "x <= y"),
    ("y == x", "x == y"),
    ("x < y & a < b", "a < b and x < y"),
    ("y + x", "x + y"),
    ("y - x", "y - x"),
    ("c + b + a", "b + c + a"),
    ("max(y, x)", "max(x, y)"),
    ("corr(y, x, 5)", "correlation(x, y, 5)"),
    ("sum(x, 20) / 20", "mean(x, 20)"),
    ("sum(x, 20) / 10", "sum(x, 20) / 10"),
    ("sum(x, 1)", "x"),
    ("ts_min(x, 1)", "x"),
    ("delay(x, 0)", "x"),
    ("sum(x < y, 1)", "sum(x < y, 1)"),
    ("delta(x, 3)", "delta(x, 3)"),
    ("rank(rank(rank(x)))", "rank(x)"),
    ("rank(-1 * rank(x))", "rank(-rank(x))"),
]


@pytest.mark.parametrize(("text", "normal"), NORMALISED)
def test_normal_forms(text: str, normal: str):
    assert str(normalise(parse(text))) == normal


@settings(max_examples=400, deadline=None)
@given(expressions())
def test_the_canonical_text_reads_back_as_the_same_object(expression: Expression):
    assert parse(str(expression)) is expression


@settings(max_examples=400, deadline=None)
@given(expressions(), frames())
def test_normalising_changes_no_value(expression: Expression, frame: dict):
    normal = normalise(expression)
    assert normalise(normal) is normal
    assert parse(str(normal)) is normal
    assert look_back(normal) <= look_back(expression)
    before, after = evaluate(expression, frame), evaluate(normal, frame)
    assert [repr(x + 0.0) for x in after.tolist()] == [repr(x + 0.0) for x in before.tolist()]


# published texts that cannot be read as they stand, and why
GARBLED = {
    "gtja_143": "SELF is the factor's own value",
    "gtja_146": "sma(x, n, m) takes 3 arguments, found 2",
    "gtja_165": "unknown operator SUMAC",
    "gtja_181": "sum(x, n) takes 2 arguments, found 1",
    "gtja_183": "unknown operator SUMAC",
}


@pytest.mark.parametrize(
    ("file", "prefix", "count"),
    [("alpha101", "alpha", 101), ("gtja191", "gtja", 191)],
)
def test_published_formulas_can_be_read(file: str, prefix: str, count: int):
    path = REFERENCE / f"{file}_published_formulas.csv"
    if not path.exists():
        pytest.skip(f"the published formulas are not there: no {path.name}")
    with path.open(newline="") as lines:
        published = {
            f"{prefix}_{int(line['alpha']):03}": line["published_formula"]
            for line in csv.DictReader(lines)
        }
    assert len(published) == count
    refused, read = {}, {}
    for factor, text in published.items():
        try:
            read[factor] = parse(text, factor)
        except FormulaError as error:
            refused[factor] = error.cause
    for expression in read.values():
        for form in (expression, normalise(expression)):
            assert parse(str(form)) is form
        assert normalise(normalise(expression)) is normalise(expression)
    expected = {factor: cause for factor, cause in GARBLED.items() if factor in published}
    assert refused.keys() == expected.keys()
    for factor, cause in expected.items():
        assert refused[factor].startswith(cause)


def test_the_page_has_the_table_and_its_examples_hold():
    page = PAGE.read_text()
    start, end = "<!-- operators: begin -->\n", "\n<!-- operators: end -->"
    table = page[page.index(start) + len(start) : page.index(end)]
    assert table == semantics_table(), "put operators.semantics_table() into the page"
    with pytest.raises(FormulaError) as caught:
        parse("rank(corelation(close, volume, 10)) * -1", factor="alpha_mine")
    assert textwrap.indent(str(caught.value), "    ") in page
    worked = parse(
        "(-1 * correlation(rank(delta(log(volume), 2)), rank((close - open) / open), 6))"
    )
    assert str(worked) in page
    assert str(normalise(worked)) in page
    assert f"`look_back` is {look_back(worked)}" in page
