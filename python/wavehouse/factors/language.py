"""From the papers' notation to expressions: a tokenizer and a precedence-climbing parser.

Sources of the notation: Kakushadze, 101 Formulaic Alphas (2016), appendix A; Guotai Junan
Securities, Multi-factor stock selection from short-term price and volume (2017), whose texts spell
operators in capitals. docs/factor_language.md has the grammar.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wavehouse.factors.expression import (
    ArgumentError,
    Expression,
    column,
    constant,
    operation,
)
from wavehouse.factors.operators import (
    CALLED,
    COMPARISON,
    CONDITION,
    GROUP_ALIASES,
    INFIX,
    LEVELS,
    NEGATION,
    NUMBER,
    OPERATORS,
    TERNARY,
)

# the papers' names of panel columns, misspellings as published
COLUMN_ALIASES = {
    "vol": "volume",
    "ret": "returns",
    "cap": "market_cap",
    "float_cap": "float_market_cap",
    "hgih": "high",
    "banchmarkindexopen": "benchmark_open",
    "banchmarkindexclose": "benchmark_close",
    "benchmarkindexopen": "benchmark_open",
    "benchmarkindexclose": "benchmark_close",
    "benchmark_returns": "benchmark_return",
    **GROUP_ALIASES,
}
DEEPEST = 100  # parentheses, arguments and signs inside each other

TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)?)"
    r"|(?P<symbol>&&|\|\||==|!=|<>|<=|>=|[-+*/^<>=&|?:(),])",
    re.ASCII,
)


class FormulaError(ValueError):
    """A formula that cannot be read.

    `factor` is its id or None, `position` the number of characters before the fault, `cause` one
    sentence. The message shows the formula with a caret under the position.
    """

    def __init__(self, cause: str, formula: str, position: int, factor: str | None = None):
        self.cause = cause
        self.formula = formula
        self.position = position
        self.factor = factor
        name = f"factor {factor}" if factor else "formula"
        message = f"{name}, character {position + 1}: {cause}"
        super().__init__(f"{message}\n{_pointed(formula, position)}")


def _pointed(formula: str, position: int, before: int = 50, after: int = 40) -> str:
    """The formula around the position on one line, a caret below it."""
    start, stop = max(0, position - before), position + after
    left = "..." if start else ""
    right = "..." if stop < len(formula) else ""
    line = re.sub(r"\s", " ", formula[start:stop])
    return f"    {left}{line}{right}\n    {' ' * (len(left) + position - start)}^"


@dataclass(frozen=True)
class Token:
    """A number, name, symbol or the `end`; `position` counts the characters before it."""

    kind: str
    text: str
    position: int


def parse(
    text: str, factor: str | None = None, terms: Mapping[str, Expression] | None = None
) -> Expression:
    """Read a formula.

    `terms` are named expressions put in where their name stands, in any case of letters. Names that
    are neither terms nor operators become columns: whether these exist is the catalog's question.
    Raises FormulaError with `factor`, position and cause.
    """
    known = {name.lower(): term for name, term in (terms or {}).items()}
    return _Parser(text, factor, known).formula()


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean ...?)` with the known name nearest to an unknown one, or nothing."""
    found = difflib.get_close_matches(name.lower(), sorted(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]}?)" if found else ""


class _Parser:
    def __init__(self, text: str, factor: str | None, terms: dict[str, Expression]):
        self.text = text
        self.factor = factor
        self.terms = terms
        self.tokens = self.tokenized()
        self.next = 0
        self.depth = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.next]

    def fault(self, cause: str, position: int) -> FormulaError:
        return FormulaError(cause, self.text, position, self.factor)

    def tokenized(self) -> list[Token]:
        tokens, position = [], 0
        while position < len(self.text):
            match = TOKEN.match(self.text, position)
            if match is None:
                raise self.fault(f"unexpected character {self.text[position]!r}", position)
            kind = match.lastgroup
            after_number = tokens and tokens[-1].kind == "number"
            if kind == "name" and after_number and not self.text[position - 1].isspace():
                cause = f"a number runs into the name {match.group()!r}"
                raise self.fault(cause, position)
            if kind == "name" and match.group().lower() in INFIX:
                kind = "symbol"
            if kind != "space":
                tokens.append(Token(kind, match.group(), position))
            position = match.end()
        return [*tokens, Token("end", "", len(self.text.rstrip()))]

    def take(self, *symbols: str) -> Token | None:
        """The next token if it is one of these symbols."""
        token = self.token
        if token.kind == "symbol" and token.text in symbols:
            self.next += 1
            return token
        return None

    def formula(self) -> Expression:
        if self.token.kind == "end":
            raise self.fault("the formula is empty", 0)
        expression = self.climb(TERNARY)
        if self.take(")"):
            raise self.fault("this ) closes no parenthesis", self.tokens[self.next - 1].position)
        if self.token.kind != "end":
            cause = f"trailing text: the formula ends before {self.token.text!r}"
            raise self.fault(cause, self.token.position)
        if expression.type not in (NUMBER, CONDITION):
            raise self.fault(f"{expression} is no value of a stock and day", 0)
        return expression

    def climb(self, least: int) -> Expression:
        """An expression of operators that bind at least as strongly as `least`."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise self.fault(f"nested more than {DEEPEST} deep", self.token.position)
        start = self.token.position
        if minus := self.take("-"):
            # weaker than ^, stronger than *, but after a ^: 2 ^ -x ^ 3 is (2 ^ -x) ^ 3
            operand_start = self.token.position
            operand = self.climb(max(NEGATION, least))
            left = self.applied("negate", [operand], [operand_start], minus)
        else:
            left = self.operand()
        while (token := self.token).kind == "symbol":
            op = "if" if token.text == "?" else INFIX.get(token.text.lower())
            if op is None or LEVELS[op] < least:
                break
            self.next += 1
            if op == "if":
                left = self.branches(left, start, token)
                continue
            right_start = self.token.position
            right = self.climb(LEVELS[op] + 1)
            left = self.applied(op, [left, right], [start, right_start], token)
            if LEVELS[op] == COMPARISON:
                self.refuse_chain()
        self.depth -= 1
        return left

    def refuse_chain(self) -> None:
        token = self.token
        op = INFIX.get(token.text.lower()) if token.kind == "symbol" else None
        if op and LEVELS[op] == COMPARISON:
            cause = "a comparison of a comparison: join two with && or set parentheses"
            raise self.fault(cause, token.position)

    def branches(self, condition: Expression, start: int, question: Token) -> Expression:
        """The rest of `c ? x : y` after the question mark."""
        first_start = self.token.position
        first = self.climb(TERNARY)
        if not self.take(":"):
            cause = f"the ? at character {question.position + 1} has no : before {self.found()}"
            raise self.fault(cause, self.token.position)
        second_start = self.token.position
        second = self.climb(TERNARY)
        places = [start, first_start, second_start]
        return self.applied("if", [condition, first, second], places, question)

    def operand(self) -> Expression:
        """A number, a name, a call or something in parentheses."""
        token = self.token
        if token.kind == "end" or (token.kind == "symbol" and token.text != "("):
            raise self.fault(f"missing operand{self.neighbours()}", token.position)
        self.next += 1
        if token.kind == "number":
            try:
                return constant(float(token.text))
            except ArgumentError as error:
                raise self.fault(error.cause, token.position) from None
        if token.kind == "name":
            opening = self.take("(")
            return self.call(token, opening) if opening else self.name(token)
        inner = self.climb(TERNARY)
        if not self.take(")"):
            raise self.unclosed(token, ")")
        return inner

    def name(self, token: Token) -> Expression:
        """A term, a column or, without arguments, SEQUENCE."""
        name = token.text.lower()
        if name in self.terms:
            return self.terms[name]
        if name == "sequence":
            return operation("sequence")
        if name == "self":
            cause = (
                "SELF is the factor's own value of the row before: write self(initial, factor), "
                "what it starts from and what it is multiplied by"
            )
            raise self.fault(cause, token.position)
        if name in CALLED:
            signature = OPERATORS[CALLED[name]].signature
            raise self.fault(
                f"{token.text} is an operator and needs arguments: {signature}", token.position
            )
        return column(COLUMN_ALIASES.get(name, name))

    def call(self, token: Token, opening: Token) -> Expression:
        name = token.text.lower()
        if name not in CALLED:
            cause = f"unknown operator {token.text}{nearest(name, CALLED)}"
            raise self.fault(cause, token.position)
        args, starts = [], []
        if not self.take(")"):
            while True:
                starts.append(self.token.position)
                args.append(self.climb(TERNARY))
                if self.take(")"):
                    break
                if not self.take(","):
                    raise self.unclosed(opening, ", or )", f" of {token.text}")
        return self.applied(CALLED[name], args, starts, token)

    def applied(
        self, op: str, args: list[Expression], starts: list[int], token: Token
    ) -> Expression:
        """The operation, or its fault at the argument that has it."""
        try:
            return operation(op, *args)
        except ArgumentError as error:
            at_argument = error.index is not None and error.index < len(starts)
            position = starts[error.index] if at_argument else token.position
            raise self.fault(error.cause, position) from None

    def unclosed(self, opening: Token, expected: str, owner: str = "") -> FormulaError:
        if self.token.kind == "end":
            return self.fault(f"this ({owner} is never closed", opening.position)
        cause = f"expected {expected} for the ({owner} at character {opening.position + 1}"
        return self.fault(f"{cause}, found {self.found()}", self.token.position)

    def found(self) -> str:
        return "the end" if self.token.kind == "end" else repr(self.token.text)

    def neighbours(self) -> str:
        before = f" after {self.tokens[self.next - 1].text!r}" if self.next else ""
        return f"{before} before {self.found()}"
