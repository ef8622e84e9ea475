"""Calibrated probabilities and conformal intervals, as rows that one ASOF join applies in SQL.

A calibrator is a non-decreasing function of the raw score, cut into pieces. The piece of a score
is the last one whose `score_from` is not above it (the first starts at -infinity), and its row says
all that is needed there: macros/calibration.sql and `apply` do the same operations in the same
order, so they agree to the last bit. A conformal interval is found from the prediction likewise.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from wavehouse.heads.base import HeadsError

METHODS = ("isotonic", "platt", "auto", "none")

CALIBRATION_SCHEMA = pa.schema(
    [
        ("output", pa.string()),
        ("ordinal", pa.int32()),  # from 1, ascending in score_from
        ("method", pa.string()),  # isotonic, platt or none
        ("score_from", pa.float64()),  # left end of the piece, part of it; the first: -infinity
        ("probability_from", pa.float64()),  # at score_from, or throughout where slope is 0
        ("slope", pa.float64()),  # probability per score
        ("logit_slope", pa.float64()),
        ("logit_intercept", pa.float64()),
        ("base_rate", pa.float64()),  # weighted share of label 1
        ("row_count", pa.int64()),  # rows with a known label and a positive weight
        ("positive_count", pa.int64()),  # of these, rows with label 1
    ]
)

INTERVAL_SCHEMA = pa.schema(
    [
        ("output", pa.string()),
        ("bin", pa.int32()),  # from 1, ascending in prediction_from
        ("prediction_from", pa.float64()),  # left end of the bin, part of it; the first: -infinity
        ("lower_offset", pa.float64()),  # unit of the prediction
        ("upper_offset", pa.float64()),
        ("row_count", pa.int64()),
        ("level", pa.float64()),
    ]
)

# Scores nearer to 0 or 1 than this are not told apart by Platt's logit.
_LOGIT_MARGIN = 1e-9
# Logits that differ by less are one: a slope fitted to them would be rounding noise.
_SMALLEST_LOGIT_RANGE = 1e-9

# DuckDB uses the C library's logarithm and exponential; numpy's own differ in the last bits.
_log = np.vectorize(math.log, otypes=[np.float64])
_exp = np.vectorize(math.exp, otypes=[np.float64])


@dataclasses.dataclass(frozen=True, eq=False)
class CalibrationMap:
    """A calibrator of one output; each array has one element per piece, NaN where it has no use.

    Of a piece, either `probability_from` and `slope` are known (straight line), or `logit_slope`
    and `logit_intercept` (logistic curve), or none of them (method none: the score is the result).
    """

    method: str
    score_from: np.ndarray
    probability_from: np.ndarray
    slope: np.ndarray
    logit_slope: np.ndarray
    logit_intercept: np.ndarray
    base_rate: float
    row_count: int
    positive_count: int

    def __post_init__(self) -> None:
        if self.method not in ("isotonic", "platt", "none"):
            raise HeadsError(
                f"calibration map of method {self.method!r}; expected isotonic, platt or none. "
                "Fit the model again."
            )
        _check_starts(self.score_from, "score_from of a calibration map")

    def to_arrow(self, output: str) -> pa.Table:
        """Return the pieces as rows of CALIBRATION_SCHEMA, NaN as NULL."""
        count = len(self.score_from)
        columns = {
            "output": [output] * count,
            "ordinal": range(1, count + 1),
            "method": [self.method] * count,
            "score_from": self.score_from,
            "probability_from": self.probability_from,
            "slope": self.slope,
            "logit_slope": self.logit_slope,
            "logit_intercept": self.logit_intercept,
            "base_rate": np.full(count, self.base_rate),
            "row_count": [self.row_count] * count,
            "positive_count": [self.positive_count] * count,
        }
        return _table(columns, CALIBRATION_SCHEMA)

    @classmethod
    def from_arrow(cls, rows: pa.Table) -> Self:
        """Return the map whose rows (of one output, in any order) these are. Raises HeadsError."""
        rows = _rows_of_one(rows, "ordinal", CALIBRATION_SCHEMA)
        return cls(
            method=rows["method"][0].as_py(),
            score_from=_floats(rows["score_from"]),
            probability_from=_floats(rows["probability_from"]),
            slope=_floats(rows["slope"]),
            logit_slope=_floats(rows["logit_slope"]),
            logit_intercept=_floats(rows["logit_intercept"]),
            base_rate=float(_floats(rows["base_rate"])[0]),
            row_count=rows["row_count"][0].as_py(),
            positive_count=rows["positive_count"][0].as_py(),
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ConformalIntervals:
    """Offsets from a prediction to the ends of its interval, per bin of the prediction.

    Each array has one element per bin; an offset is NaN where there are too few rows for the level.
    """

    prediction_from: np.ndarray
    lower_offset: np.ndarray
    upper_offset: np.ndarray
    row_count: np.ndarray
    level: float

    def __post_init__(self) -> None:
        _check_starts(self.prediction_from, "prediction_from of conformal intervals")

    def to_arrow(self, output: str) -> pa.Table:
        """Return the bins as rows of INTERVAL_SCHEMA, NaN as NULL."""
        count = len(self.prediction_from)
        columns = {
            "output": [output] * count,
            "bin": range(1, count + 1),
            "prediction_from": self.prediction_from,
            "lower_offset": self.lower_offset,
            "upper_offset": self.upper_offset,
            "row_count": self.row_count,
            "level": np.full(count, self.level),
        }
        return _table(columns, INTERVAL_SCHEMA)

    @classmethod
    def from_arrow(cls, rows: pa.Table) -> Self:
        """Return the intervals whose rows (of one output, in any order) these are.

        Raises HeadsError.
        """
        rows = _rows_of_one(rows, "bin", INTERVAL_SCHEMA)
        return cls(
            prediction_from=_floats(rows["prediction_from"]),
            lower_offset=_floats(rows["lower_offset"]),
            upper_offset=_floats(rows["upper_offset"]),
            row_count=rows["row_count"].to_numpy(),
            level=rows["level"][0].as_py(),
        )


def calibrators_to_arrow(maps: Mapping[str, CalibrationMap]) -> pa.Table:
    """Return the maps of a model, by output, as one table in the order of the mapping."""
    return pa.concat_tables(
        [CALIBRATION_SCHEMA.empty_table(), *(m.to_arrow(output) for output, m in maps.items())]
    ).combine_chunks()


def calibrators_from_arrow(rows: pa.Table) -> dict[str, CalibrationMap]:
    """Return the maps of a model by output; undoes `calibrators_to_arrow`. Raises HeadsError."""
    return {name: CalibrationMap.from_arrow(part) for name, part in _by_output(rows)}


def intervals_to_arrow(intervals: Mapping[str, ConformalIntervals]) -> pa.Table:
    """Return the intervals of a model, by output, as one table in the order of the mapping."""
    return pa.concat_tables(
        [INTERVAL_SCHEMA.empty_table(), *(i.to_arrow(output) for output, i in intervals.items())]
    ).combine_chunks()


def intervals_from_arrow(rows: pa.Table) -> dict[str, ConformalIntervals]:
    """Return the intervals of a model by output; undoes `intervals_to_arrow`. Raises HeadsError."""
    return {name: ConformalIntervals.from_arrow(part) for name, part in _by_output(rows)}


def fit_calibrator(
    scores: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    method: str,
    min_positives: int = 1000,
) -> CalibrationMap:
    """Fit a non-decreasing map from raw scores to probabilities of label 1.

    `scores`, `labels` (0 or 1, NaN where unknown) and `weights` are float64 (n,). Rows without
    score, label or positive weight are left out; n below counts those that remain. The scale of the
    weights has no influence.

    - isotonic: the least-squares non-decreasing function (Zadrozny & Elkan 2002), straight between
      its breakpoints and constant outside them, as sklearn predicts.
    - platt: 1 / (1 + exp(-(a * logit(score) + b))), fitted to the targets (N+ + 1) / (N+ + 2) and
      1 / (N- + 2) of Platt 1999, which keep it finite on separable rows; N+ and N- are effective
      row counts, (sum w)^2 / sum w^2 (Kish 1965). Where the best a is negative, or the scores do
      not vary, or all labels are equal, a is 0: the map is the mean target.
    - auto: isotonic when both labels have at least `min_positives` rows, else platt.
    - none: the score itself.

    Results of isotonic and platt lie within [1 / (2 n), 1 - 1 / (2 n)], so the log loss stays
    finite: n rows cannot tell a rarer event from an impossible one. Platt's ends are kept as scores
    and therefore hold up to rounding. Raises HeadsError on unknown methods, labels other than 0 and
    1, infinite scores, negative or infinite weights, no usable row (but for none), and platt on
    scores outside [0, 1].
    """
    if method not in METHODS:
        raise HeadsError(f"calibration {method!r} is not known; expected one of {METHODS}.")
    scores, labels, weights = _usable_rows(scores, labels, weights)
    if not np.isin(labels, (0, 1)).all():
        found = labels[~np.isin(labels, (0, 1))][0]
        raise HeadsError(f"label {found} in a calibrator of probabilities; expected 0, 1 or NaN.")
    if method != "none" and not len(scores):
        raise HeadsError(
            "no row to calibrate on has a score, a label and a positive weight. Give the fold a "
            "longer calibrate block, or set the head's calibration to none."
        )
    row_count = len(labels)
    positive_count = int(labels.sum())
    if method == "auto":
        fewer = min(positive_count, row_count - positive_count)
        method = "isotonic" if fewer >= min_positives else "platt"
    if method == "isotonic":
        pieces = _isotonic_pieces(scores, labels, weights)
    elif method == "platt":
        pieces = _platt_pieces(scores, labels, weights)
    else:
        pieces = [(-math.inf, math.nan, math.nan, math.nan, math.nan)]
    score_from, probability_from, slope, logit_slope, logit_intercept = np.array(pieces).T
    return CalibrationMap(
        method=method,
        score_from=score_from,
        probability_from=probability_from,
        slope=slope,
        logit_slope=logit_slope,
        logit_intercept=logit_intercept,
        base_rate=float((weights * labels).sum() / weights.sum()) if row_count else math.nan,
        row_count=row_count,
        positive_count=positive_count,
    )


def fit_class_calibrators(
    scores: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    method: str,
    min_positives: int = 1000,
) -> tuple[CalibrationMap, ...]:
    """Fit one map per class against all others (Zadrozny & Elkan 2002); see `apply_classes`.

    `scores` is float64 (n, classes), `labels` (n,) the class number or NaN. Under auto a rare class
    may be platt where the others are isotonic. Raises HeadsError like `fit_calibrator`.
    """
    labels = np.asarray(labels, dtype=np.float64)
    class_count = scores.shape[1]
    known = labels[~np.isnan(labels)]
    if not np.isin(known, np.arange(class_count)).all():
        found = known[~np.isin(known, np.arange(class_count))][0]
        raise HeadsError(
            f"class {found}; expected a class number from 0 to {class_count - 1} or NaN."
        )
    return tuple(
        fit_calibrator(
            scores[:, number],
            np.where(np.isnan(labels), np.nan, labels == number),
            weights,
            method,
            min_positives,
        )
        for number in range(class_count)
    )


def apply(calibration_map: CalibrationMap, scores: np.ndarray) -> np.ndarray:
    """Return the probabilities (n,) float64 of raw scores (n,), as macros/calibration.sql does.

    NaN gives NaN (NULL in SQL). A straight piece is `probability_from + slope * (score -
    score_from)`, rounded after each operation.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if calibration_map.method == "none":
        return scores.copy()
    piece = np.searchsorted(calibration_map.score_from, scores, side="right") - 1
    probabilities = calibration_map.probability_from[piece]
    slope = calibration_map.slope[piece]
    straight = slope > 0
    probabilities[straight] += slope[straight] * (
        scores[straight] - calibration_map.score_from[piece[straight]]
    )
    logistic = ~np.isnan(calibration_map.logit_slope[piece]) & ~np.isnan(scores)
    if logistic.any():
        probabilities[logistic] = _logistic(
            scores[logistic],
            calibration_map.logit_slope[piece[logistic]],
            calibration_map.logit_intercept[piece[logistic]],
        )
    probabilities[np.isnan(scores)] = np.nan
    return probabilities


def apply_classes(maps: Sequence[CalibrationMap], scores: np.ndarray) -> np.ndarray:
    """Return class probabilities (n, classes) that sum to 1: each class's own, over their sum.

    The sum is taken in the order of the classes. Where it is 0 (possible only with method none) the
    result is the base rates; a row with a NaN is NaN throughout.
    """
    columns = [apply(one, scores[:, number]) for number, one in enumerate(maps)]
    total = columns[0].copy()
    for column in columns[1:]:
        total = total + column
    divisor = np.where(total == 0, 1, total)
    return np.stack(
        [
            np.where(total == 0, one.base_rate, column / divisor)
            for one, column in zip(maps, columns, strict=True)
        ],
        axis=1,
    )


def fit_conformal(
    predictions: np.ndarray,
    labels: np.ndarray,
    level: float,
    bins: int,
    min_rows_per_bin: int = 100,
) -> ConformalIntervals:
    """Fit split conformal intervals on rows that the model was not fitted on.

    `predictions` and `labels` are float64 (n,) in the same unit; rows where either is NaN are left
    out. Within a bin of n rows, the upper offset is the ceil((n + 1)(1 - alpha / 2))-th smallest
    residual label - prediction, alpha = 1 - level, and the lower offset the same counted from the
    largest (split conformal: Lei et al. 2018; signed errors: Linusson et al. 2014; bins: Mondrian
    predictors, Vovk et al. 2005). Beyond each end lies at most alpha / 2 of new rows, as far as
    they are exchangeable with the rows given; over time they are only nearly so, and the realised
    coverage has to be measured.

    Bins hold equal numbers of rows by prediction, so that the width follows the predicted level;
    equal predictions share a bin. There are at most `bins` of them: fewer, where each could not
    have `min_rows_per_bin` rows and the (1 + level) / (1 - level) rows that the level needs, 9 for
    0.8. When all rows together are fewer than the level needs, no finite interval has the coverage
    and both offsets are NaN (NULL). The edges come from the predictions given, not from labels.
    Raises HeadsError on a level outside (0, 1), no bin, or infinite predictions or labels.
    """
    if not 0 < level < 1:
        raise HeadsError(f"level {level}; expected a share between 0 and 1, such as 0.8.")
    if bins < 1:
        raise HeadsError(f"{bins} bins; expected at least 1.")
    predictions = np.asarray(predictions, dtype=np.float64)
    labels = np.asarray(labels, dtype=np.float64)
    known = ~np.isnan(predictions) & ~np.isnan(labels)
    predictions, labels = predictions[known], labels[known]
    if np.isinf(predictions).any() or np.isinf(labels).any():
        raise HeadsError("infinite predictions or labels; expected finite numbers or NaN.")
    tail = (1 - Fraction(str(level))) / 2  # exact: in doubles, 25 * 0.84 rounds up to 22
    ordered = np.sort(predictions)
    enough = max(min_rows_per_bin, math.ceil((1 - tail) / tail))
    prediction_from = _equal_mass_starts(ordered, bins, enough)
    number = np.searchsorted(prediction_from, predictions, side="right") - 1
    lower, upper, counts = [], [], []
    for one in range(len(prediction_from)):
        residuals = np.sort(labels[number == one] - predictions[number == one])
        count = len(residuals)
        rank = math.ceil((count + 1) * (1 - tail))
        lower.append(residuals[count - rank] if rank <= count else math.nan)
        upper.append(residuals[rank - 1] if rank <= count else math.nan)
        counts.append(count)
    return ConformalIntervals(
        prediction_from=prediction_from,
        lower_offset=np.array(lower),
        upper_offset=np.array(upper),
        row_count=np.array(counts),
        level=level,
    )


def apply_conformal(
    intervals: ConformalIntervals, predictions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper ends (n,) of the intervals of predictions (n,), NaN where unknown."""
    predictions = np.asarray(predictions, dtype=np.float64)
    number = np.searchsorted(intervals.prediction_from, predictions, side="right") - 1
    return (
        predictions + intervals.lower_offset[number],
        predictions + intervals.upper_offset[number],
    )


def _usable_rows(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the rows with score, label and a positive weight, as float64."""
    scores, labels, weights = (
        np.asarray(column, dtype=np.float64) for column in (scores, labels, weights)
    )
    if not scores.shape == labels.shape == weights.shape or scores.ndim != 1:
        raise HeadsError(
            f"scores {scores.shape}, labels {labels.shape} and weights {weights.shape}; "
            "expected three columns of one length."
        )
    if np.isinf(scores).any():
        raise HeadsError(
            "infinite raw scores; expected finite numbers or NaN. Look at the trainer."
        )
    if (weights < 0).any() or np.isinf(weights).any():
        raise HeadsError("negative or infinite sample weights; expected finite ones, 0 or more.")
    usable = ~np.isnan(scores) & ~np.isnan(labels) & (weights > 0)
    return scores[usable], labels[usable], weights[usable]


def _isotonic_pieces(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> list[tuple[float, float, float, float, float]]:
    breakpoints, levels = _isotonic_breakpoints(scores, labels, weights)
    margin = 1 / (2 * len(labels))
    return _straight_pieces(breakpoints, np.clip(levels, margin, 1 - margin))


def _isotonic_breakpoints(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return scores, ascending, and the isotonic fit there; between them the fit is straight."""
    regression = IsotonicRegression(out_of_bounds="clip").fit(scores, labels, weights)
    return regression.X_thresholds_, regression.y_thresholds_


def _straight_pieces(
    breakpoints: np.ndarray, levels: np.ndarray
) -> list[tuple[float, float, float, float, float]]:
    """Return the pieces of the function that is straight between breakpoints, constant outside."""
    slope = np.diff(levels) / np.diff(breakpoints)
    # Rounding may carry the right end of a piece above the next level, where the map would fall.
    # The operations of `apply` are monotone in the score, so the last score of the piece decides.
    width = np.nextafter(breakpoints[1:], -np.inf) - breakpoints[:-1]
    for exponent in range(-52, 1):
        too_steep = levels[:-1] + slope * width > levels[1:]
        if not too_steep.any():
            break
        slope[too_steep] *= 1 - 2.0**exponent
    pieces = [(-math.inf, levels[0], 0.0, math.nan, math.nan)]
    for start, level, rise in zip(breakpoints, levels, np.append(slope, 0.0), strict=True):
        if (level, rise) != pieces[-1][1:3]:  # else the flat piece before it goes on
            pieces.append((start, level, rise, math.nan, math.nan))
    return pieces


def _platt_pieces(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> list[tuple[float, float, float, float, float]]:
    """Return the logistic piece, between two flat ones where the score or the result is limited."""
    if scores.min() < 0 or scores.max() > 1:
        raise HeadsError(
            f"scores from {scores.min()} to {scores.max()}; platt needs probabilities, 0 to 1. "
            "Use isotonic."
        )
    margin = 1 / (2 * len(labels))
    logit_slope, logit_intercept, mean_target = _platt_fit(scores, labels, weights)
    lowest = highest = 0.0
    if logit_slope > 0:
        limit = math.log((1 - margin) / margin)
        lowest = _score_at(-limit, logit_slope, logit_intercept)
        highest = _score_at(limit, logit_slope, logit_intercept)
    if not lowest < highest:  # no rise, or so steep a one that no score lies on it
        flat = min(max(mean_target, margin), 1 - margin)
        return [(-math.inf, flat, 0.0, math.nan, math.nan)]
    below, above = _logistic(np.array([lowest, highest]), logit_slope, logit_intercept)
    return [
        (-math.inf, below, 0.0, math.nan, math.nan),
        (lowest, math.nan, math.nan, logit_slope, logit_intercept),
        (highest, above, 0.0, math.nan, math.nan),
    ]


def _score_at(logit: float, logit_slope: float, logit_intercept: float) -> float:
    """Return the score that the map takes to a logit, within Platt's limits for scores."""
    limit = math.log((1 - _LOGIT_MARGIN) / _LOGIT_MARGIN)
    score_logit = min(max((logit - logit_intercept) / logit_slope, -limit), limit)
    return 1 / (1 + math.exp(-score_logit))


def _platt_fit(
    scores: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> tuple[float, float, float]:
    """Return slope and intercept on the logit of the score, and the mean smoothed target."""
    positive = labels == 1
    positives, negatives = _effective_count(weights[positive]), _effective_count(weights[~positive])
    targets = np.where(positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    mean_target = float((weights * targets).sum() / weights.sum())
    clipped = np.clip(scores, _LOGIT_MARGIN, 1 - _LOGIT_MARGIN)
    logits = np.log(clipped / (1 - clipped))
    if positive.all() or not positive.any() or np.ptp(logits) < _SMALLEST_LOGIT_RANGE:
        return 0.0, 0.0, mean_target
    # Standardised, since the stopping rule of the solver is not free of scale.
    centre, spread = logits.mean(), logits.std()
    standardised = (logits - centre) / spread
    # A row of target t is t of a row of label 1 and 1 - t of a row of label 0.
    regression = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(
        np.concatenate([standardised, standardised])[:, None],
        np.repeat([1, 0], len(labels)),
        np.concatenate([weights * targets, weights * (1 - targets)]),
    )
    slope = float(regression.coef_[0, 0] / spread)
    intercept = float(regression.intercept_[0] - slope * centre)
    return slope, intercept, mean_target


def _effective_count(weights: np.ndarray) -> float:
    """Return the number of equally weighted rows that say as much (Kish 1965): 0 for none."""
    if not len(weights):
        return 0.0
    shares = weights / weights.max()
    return float(shares.sum() ** 2 / (shares**2).sum())


def _logistic(
    scores: np.ndarray, logit_slope: np.ndarray | float, logit_intercept: np.ndarray | float
) -> np.ndarray:
    return 1 / (1 + _exp(-(logit_slope * _log(scores / (1 - scores)) + logit_intercept)))


def _equal_mass_starts(ordered: np.ndarray, bins: int, enough: int) -> np.ndarray:
    """Return the left ends of the most bins, up to `bins`, of `enough` rows each; at least one."""
    for count in range(min(bins, len(ordered) // enough), 1, -1):
        edges = np.unique(ordered[np.arange(1, count) * len(ordered) // count])
        edges = edges[edges > ordered[0]]  # ties may reach from the first row to an edge
        first_rows = np.searchsorted(ordered, edges)
        if np.diff(first_rows, prepend=0, append=len(ordered)).min() >= enough:
            return np.concatenate([[-np.inf], edges])
    return np.array([-np.inf])


def _check_starts(starts: np.ndarray, what: str) -> None:
    if not len(starts) or starts[0] != -np.inf or not (starts[1:] > starts[:-1]).all():
        raise HeadsError(
            f"{what} starts {starts.tolist()[:5]}; expected -infinity first, then ascending "
            "numbers. The rows are damaged or incomplete: fit the model again."
        )


def _table(columns: dict[str, Sequence], schema: pa.Schema) -> pa.Table:
    return pa.table(
        [pa.array(columns[f.name], type=f.type, from_pandas=True) for f in schema], schema=schema
    )


def _rows_of_one(rows: pa.Table, order: str, schema: pa.Schema) -> pa.Table:
    missing = [name for name in schema.names if name not in rows.column_names]
    if missing or not rows.num_rows:
        raise HeadsError(
            f"{rows.num_rows} rows, columns {missing} missing; expected at least one row with "
            f"{schema.names}. Fit the model again."
        )
    return rows.select(schema.names).cast(schema).sort_by(order).combine_chunks()


def _by_output(rows: pa.Table) -> list[tuple[str, pa.Table]]:
    names = rows["output"]
    return [(name, rows.filter(pc.equal(names, name))) for name in names.unique().to_pylist()]


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return column.to_numpy().astype(np.float64)
