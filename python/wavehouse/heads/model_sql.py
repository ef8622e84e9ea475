"""A stored model as one SELECT of plain DuckDB SQL: members, mean, calibration, intervals.

The operations and their order are those of macros/head_predictions.sql and macros/calibration.sql,
whose ASOF joins are CASEs here. So the rows are those of `heads.<head>_predictions`: to the last
bit for trees, to 1e-6 of the score's scale for nets.
"""

import math
import textwrap
from collections.abc import Iterator, Sequence

import numpy as np

from wavehouse.heads import trees
from wavehouse.heads.calibration import CalibrationMap, ConformalIntervals
from wavehouse.heads.data import feature_columns, quoted
from wavehouse.heads.lightgbm_trainer import TreeMember
from wavehouse.heads.model import Model

UNSEEN = "has_unseen_null"


def model_select(model: Model, relation: str, keep: Sequence[str] = (), raw: bool = False) -> str:
    """Return a SELECT of the columns `keep` of `relation` and a model's predictions of its rows.

    `relation` is a name, a table function or a query in parentheses, and has the features. Each
    output has a column of its name, and `lower_<output>` and `upper_<output>` where the model has
    intervals; with `raw` it has `<output>_seed_<n>` instead, the score of each member. All are NULL
    where a feature is unknown that never was in the fit.

    Every step passes the features on to the next, so that rows stream without a join. Raises
    HeadsError when a member has no SQL: a net that pools, or too large a one.
    """
    kept = [quoted(name) for name in keep]
    nulls = [f"{quoted(name)} is null" for name in model.manifest["unseen_nulls"]]
    inputs = _select(
        [*kept, *feature_columns(model.features, "features")], f"{relation} as features"
    )
    steps = {
        "inputs": inputs,
        "checked": _select(["*", f"{' or '.join(nulls) or 'false'} as {UNSEEN}"], "inputs"),
    }
    passed = [*keep, *model.features, UNSEEN]
    scores: dict[str, list[str]] = {output: [] for output in model.outputs}
    for member in model.members:
        source = list(steps)[-1]
        names = [f"{output}_seed_{member.seed}" for output in model.outputs]
        if isinstance(member, TreeMember):  # a tree stands there once, whatever class it serves
            step = trees.to_select(trees.parse(member.text), source, names, passed)
        else:
            columns = zip(member.sql(), names, strict=True)
            step = _select(["*", *(f"{sql} as {quoted(name)}" for sql, name in columns)], source)
        steps[f"member_{member.seed}"] = step
        passed += names
        for output, name in zip(model.outputs, names, strict=True):
            scores[output].append(quoted(name))
    if raw:
        columns = [
            f"case when not {UNSEEN} then {name} end as {name}"
            for names in scores.values()
            for name in names
        ]
        return _with(steps, _select([*kept, *columns], list(steps)[-1]))

    columns = [
        f"case when not {UNSEEN} then ({' + '.join(names)}) / {len(names)} end as {quoted(output)}"
        for output, names in scores.items()
    ]
    steps["means"] = _select([*kept, *columns], list(steps)[-1])
    outputs = [quoted(output) for output in model.outputs]
    columns = outputs
    if model.calibrators:
        maps = [model.calibrators[output] for output in model.outputs]
        columns = [f"{calibrated(*each)} as {each[0]}" for each in zip(outputs, maps, strict=True)]
        if len(maps) > 1:
            steps["calibrated"] = _select([*kept, *columns], "means")
            total = " + ".join(outputs)
            columns = [
                f"case when {total} = 0 then {literal(one.base_rate)} else {output} / ({total}) end"
                f" as {output}"
                for output, one in zip(outputs, maps, strict=True)
            ]
    for output, intervals in model.intervals.items():
        columns = [*columns, *interval_ends(output, intervals)]
    return _with(steps, _select([*kept, *columns], list(steps)[-1]))


def calibrated(score: str, calibration_map: CalibrationMap) -> str:
    """Return the SQL of the probability of a score, NULL without one."""
    return _case(score, calibration_map.score_from, list(_pieces(score, calibration_map)))


def interval_ends(output: str, intervals: ConformalIntervals) -> list[str]:
    """Return the select list of both ends of the interval around a prediction."""
    offsets = {"lower": intervals.lower_offset, "upper": intervals.upper_offset}
    return [
        _case(
            quoted(output),
            intervals.prediction_from,
            [f"{quoted(output)} + {literal(offset)}" for offset in values],
        )
        + f" as {quoted(f'{side}_{output}')}"
        for side, values in offsets.items()
    ]


def literal(value: float) -> str:
    """Return a number as SQL that the parser reads as exactly that DOUBLE; NaN is NULL."""
    value = float(value)
    if math.isnan(value):
        return "null"
    if math.isinf(value):
        return f"'{value}'::double"
    text = repr(value)
    return text if "e" in text else f"{text}e0"


def _pieces(score: str, calibration_map: CalibrationMap) -> Iterator[str]:
    """Yield the SQL of each piece of a calibration map, see `calibration.apply`."""
    for number, score_from in enumerate(calibration_map.score_from):
        base = literal(calibration_map.probability_from[number])
        slope, logit_slope = calibration_map.slope[number], calibration_map.logit_slope[number]
        if calibration_map.method == "none":
            yield score
        elif not math.isnan(logit_slope):
            logit = f"{literal(logit_slope)} * ln({score} / (1 - {score}))"
            yield f"1 / (1 + exp(-({logit} + {literal(calibration_map.logit_intercept[number])})))"
        elif slope > 0:
            yield f"{base} + {literal(slope)} * ({score} - {literal(score_from)})"
        else:
            yield base


def _case(value: str, starts: np.ndarray, pieces: Sequence[str]) -> str:
    """Return the CASE that takes the last piece whose start is not above a value."""
    lines = [
        f"when {value} >= {literal(start)} then {piece}"
        for start, piece in zip(starts[:0:-1], pieces[:0:-1], strict=True)
    ]
    first = f"when {value} is null or isnan({value}) then null"
    return "\n".join(["case", *_indented([first, *lines, f"else {pieces[0]}"]), "end"])


def _select(columns: Sequence[str], source: str) -> str:
    return "\n".join(["select", ",\n".join(_indented(columns)), f"from {source}"])


def _with(steps: dict[str, str], final: str) -> str:
    ctes = (f"{name} as (\n{textwrap.indent(step, '    ')}\n)" for name, step in steps.items())
    return "with " + ",\n\n".join(ctes) + "\n\n" + final


def _indented(parts: Sequence[str]) -> list[str]:
    return [textwrap.indent(part, "    ") for part in parts]
