"""Macros and models of the project, rendered as dbt does but without a run of dbt.

A test says what its vars are and what `ref` gives; it gets macros to call and SQL to run.
"""

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jinja2
import yaml
from dbt_common.clients.jinja import get_template
from dbt_common.exceptions.macros import MacroReturn

from warehouse import REPO


@functools.cache
def project_vars() -> dict:
    return yaml.safe_load((REPO / "dbt_project.yml").read_text())["vars"]


@functools.cache
def macro_files() -> tuple[str, ...]:
    return tuple(sorted(file.stem for file in (REPO / "macros").glob("*.sql")))


@functools.cache
def model_file(model: str) -> Path:
    (file,) = (REPO / "models").rglob(f"{model}.sql")
    return file


@functools.cache
def template(file: Path) -> jinja2.Template:
    return get_template(file.read_text(), {})


def model_sql(model: str, context: Mapping) -> str:
    """Return a model's SQL; `context` is what its template may call."""
    return template(model_file(model)).render(context)


def macro_context(
    values: Mapping, files: Iterable[str] | None = None, **more
) -> dict[str, Callable]:
    """Return what templates of dbt may call: the macros by name, and what dbt itself provides.

    Args:
        values: the vars; another one raises KeyError.
        files: macro files by name, without suffix; all of them when None.
        more: what only some templates need, such as ref.
    """
    context = {
        "var": values.__getitem__,
        "return": _give_back,
        "exceptions": _Exceptions,
        "tojson": json.dumps,
        "config": lambda **_: "",
        **more,
    }
    for file in macro_files() if files is None else files:
        module = template(REPO / f"macros/{file}.sql").make_module(context, False)
        for name, macro in vars(module).items():
            if name.startswith("dbt_macro__"):
                context[name.removeprefix("dbt_macro__")] = _returning(macro)
    return context


class _Exceptions:
    @staticmethod
    def raise_compiler_error(message):
        raise ValueError(message)


def _give_back(value):
    raise MacroReturn(value)


def _returning(macro: Callable) -> Callable:
    """Let a macro's call return what the macro gives back by `return`."""

    def call(*args, **named):
        try:
            return macro(*args, **named)
        except MacroReturn as returned:
            return returned.value

    return call
