"""heads.head_metrics and heads.head_period_metrics against their definitions."""

import datetime
import json
import math
from collections.abc import Callable

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    log_loss,
    roc_auc_score,
)

import oracle_head_metrics as oracle
from oracle_head_metrics import Row
from rendering import macro_context
from warehouse import memory_connection

MACROS = ("settings", "folds", "head_metrics")
# small enough for loops; every one differs from its neighbours so that none stands in for another
SETTINGS = {
    "head_metric_min_period_rows": 5,
    "head_metric_top_k": 3,
    "head_metric_bins": 6,
    "head_metric_min_bin_rows": 12,
    "head_metric_curve_bins_per_bin": 4,
    "head_metric_curve_bins_per_doubling": 8,
    "head_metric_tail_bins": 4,
    "head_metric_log_loss_clip": 1e-15,
    "head_metric_confidence": 0.8,
    "head_metric_bootstrap_draws": 20,
    "head_metric_bootstrap_seed": 7,
    "head_metric_block_periods": 3,
    "head_metric_min_blocks": 2,
}
EPOCH, HOUR = datetime.datetime(1970, 1, 1), datetime.timedelta(hours=1)
FEW = settings(max_examples=5, deadline=None, phases=[Phase.explicit, Phase.generate])
KEYS = ("head", "target", "output", "role")
# their resampled values come from bins of scores, compared more loosely in a test of their own
BINNED = ("pr_auc", "pr_auc_lift", "roc_auc")
COLUMNS = pa.schema(
    [
        ("head", pa.string()),
        ("target", pa.string()),
        ("output", pa.string()),
        ("kind", pa.string()),
        ("role", pa.string()),
        ("sample_id", pa.string()),
        ("evaluation_period", pa.timestamp("us")),
        ("event_time", pa.timestamp("us")),
        ("prediction", pa.float64()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("actual", pa.float64()),
        ("seed_scores", pa.list_(pa.float64())),
    ]
)


def macros(changed: dict | None = None) -> dict[str, Callable]:
    """Return the macros by name, rendered as dbt does, with settings instead of its project."""
    return macro_context(SETTINGS | (changed or {}), MACROS)


class Evaluations:
    """A head_evaluations relation in memory, and the metrics that the macros make of it."""

    def __init__(self, series: dict[tuple, tuple[str, list[Row]]], order: list[int] | None = None):
        self.series = series
        self.remembered: dict[str, dict] = {}
        records = [
            dict(zip(KEYS, key, strict=True))
            | {
                "kind": kind,
                "sample_id": row.sample_id,
                "evaluation_period": row.period * 3_600_000_000,
                "event_time": row.period * 3_600_000_000 + row.time * 60_000_000,
                "prediction": row.prediction,
                "lower": row.lower,
                "upper": row.upper,
                "actual": row.actual,
                "seed_scores": row.seed_scores,
            }
            for key, (kind, rows) in series.items()
            for row in rows
        ]
        records = records if order is None else [records[i] for i in order]
        self.connection = memory_connection()
        table = pa.Table.from_pylist(records, schema=COLUMNS)
        self.connection.register("arrow_rows", table)
        self.connection.execute("create table evaluations as from arrow_rows")

    def queries(self, changed: dict | None = None) -> dict[str, str]:
        made = macros(changed)
        return {
            "period_metrics": made["head_period_metrics"]("evaluations"),
            "head_metrics": made["head_metrics"]("evaluations", "period_metrics"),
        }

    def expected(self, changed: dict | None = None) -> dict[tuple, dict]:
        """Return the same by the oracle, remembered: mutations are compared with it again."""
        values = SETTINGS | (changed or {})
        name = json.dumps(values)
        if name not in self.remembered:
            self.remembered[name] = {
                (*key, metric): columns
                for key, (kind, rows) in self.series.items()
                for metric, columns in oracle.series_metrics(rows, kind, values).items()
            }
        return self.remembered[name]

    def metrics(self, changed: dict | None = None, mutation: tuple[str, str] | None = None) -> dict:
        """Return {(head, target, output, role, metric): row of head_metrics}."""
        queries = self.queries(changed)
        if mutation:
            assert any(mutation[0] in query for query in queries.values()), mutation
        for name, query in queries.items():
            query = query.replace(*mutation) if mutation else query
            self.connection.execute(f"create or replace table {name} as {query}")
        return {
            tuple(row[key] for key in (*KEYS, "metric")): row
            for row in self.rows_of("head_metrics")
        }

    def rows_of(self, relation: str) -> list[dict]:
        return self.connection.sql(f"from {relation}").to_arrow_table().to_pylist()


def differs(found: float | None, expected: float | None, tolerance: float = 1e-9) -> bool:
    if found is None or expected is None:
        return found is not expected
    if math.isinf(expected):
        return found != expected
    return not abs(found - expected) <= tolerance * max(1.0, abs(expected))


def differences(
    evaluations: Evaluations,
    changed: dict | None = None,
    mutation: tuple[str, str] | None = None,
) -> set[tuple]:
    """Compare with the oracle; return the (output, role, metric, column) that differ."""
    found = evaluations.metrics(changed, mutation)
    expected = evaluations.expected(changed)
    if set(found) != set(expected):
        return {(*place[2:], "row") for place in set(found) ^ set(expected)}
    wrong = set()
    for place, columns in expected.items():
        for column, value in columns.items():
            if place[4] in BINNED and column.startswith("ci_"):
                continue
            # a ratio to a variance that all but vanishes is not worth nine digits
            tolerance = 1e-6 if place[4] in ("icir", "rank_ic_newey_west_t") else 1e-9
            if differs(found[place][column], value, tolerance):
                wrong.add((*place[2:], column))
    return wrong


def random_rows(
    seed: int,
    kind: str,
    periods: int = 14,
    largest_period: int = 12,
    times: int = 1,
    steps: int | None = None,
    seeds: int = 3,
    base_rate: float = 0.4,
    unknown_rate: float = 0.05,
) -> list[Row]:
    """Rows with signal; scores on a grid of `steps`, some values unknown, periods of 1 row up."""
    random = np.random.default_rng(seed)
    rows = []
    for period in range(periods):
        for place in range(random.integers(1, largest_period + 1)):
            signal, weather = random.normal(), np.sin(period)
            if kind == "probability":
                odds = math.exp(signal + weather) * base_rate / (1 - base_rate)
                share = odds / (1 + odds)
                actual = float(random.random() < share)
                noisy = 1 / (1 + math.exp(-signal + random.normal()))
            else:
                actual = float(round(signal + weather + random.normal(), 1))
                noisy = signal + 0.5 * random.normal()
            prediction = float(noisy if steps is None else round(noisy * steps) / steps)
            width = random.choice([0.5, 1.0, 2.0])
            scores = [round(noisy + 0.5 * random.normal(), 1) for _ in range(seeds)]
            row = Row(
                sample_id=f"S{place}@{period}",
                period=period,
                time=place % times,
                prediction=prediction,
                actual=actual,
                lower=prediction - width if kind == "value" else None,
                upper=prediction + width if kind == "value" else None,
                seed_scores=scores or None,
            )
            if random.random() < unknown_rate:
                row.prediction = random.choice([None, math.nan, math.inf])
            if random.random() < unknown_rate:
                row.actual = random.choice([None, math.nan])
            if random.random() < unknown_rate:
                row.lower = random.choice([None, math.nan])
            if scores and random.random() < unknown_rate:
                row.seed_scores[0] = random.choice([None, math.nan])
            if random.random() < unknown_rate:
                row.seed_scores = None
            rows.append(row)
    return rows


def key(output: str, role: str = "test", head: str = "entry") -> tuple:
    return (head, f"target_of_{output}", output, role)


def known(rows: list[Row]) -> list[Row]:
    return [row for row in rows if oracle.is_known(row.prediction) and oracle.is_known(row.actual)]


def arrays(rows: list[Row]) -> tuple[np.ndarray, np.ndarray]:
    rows = known(rows)
    return np.array([row.actual for row in rows]), np.array([row.prediction for row in rows])


@pytest.fixture(scope="module")
def many_series() -> Evaluations:
    """Both kinds with and without ties, several roles, one and no seeds."""
    return Evaluations(
        {
            key("smooth"): ("probability", random_rows(1, "probability")),
            key("smooth", "tune"): ("probability", random_rows(2, "probability", periods=5)),
            key("stepped"): ("probability", random_rows(3, "probability", steps=7)),
            key("rare"): ("probability", random_rows(4, "probability", base_rate=0.04, seeds=1)),
            key("edge"): ("value", random_rows(5, "value", seeds=2)),
            key("edge", head="exit"): ("value", random_rows(6, "value", seeds=0)),
            key("edge", "tune"): ("value", random_rows(7, "value", steps=2)),
            key("long"): ("value", random_rows(8, "value", periods=40, largest_period=9)),
            key("times"): ("value", random_rows(9, "value", largest_period=24, times=3)),
            key("many_times"): ("probability", random_rows(10, "probability", times=5)),
        }
    )


def test_every_metric_interval_and_count_equals_its_definition(many_series):
    assert differences(many_series) == set()


@pytest.mark.parametrize(
    "changed",
    [
        {"head_metric_top_k": 1, "head_metric_bins": 2, "head_metric_block_periods": 1},
        {"head_metric_min_period_rows": 2, "head_metric_tail_bins": 2, "head_metric_min_blocks": 9},
        {"head_metric_min_bin_rows": 1, "head_metric_bins": 30},
        {"head_metric_bootstrap_draws": 0, "head_metric_bins": 1},
    ],
)
def test_the_settings_are_followed(many_series, changed):
    assert differences(many_series, changed) == set()


def test_period_metrics_equal_their_definitions(many_series):
    many_series.metrics()
    found = {
        (*(row[name] for name in KEYS), (row["evaluation_period"] - EPOCH) // HOUR): row
        for row in many_series.rows_of("period_metrics")
    }
    expected = {
        (*name, period): values
        for name, (_, rows) in many_series.series.items()
        for period, values in oracle.period_metrics(known(rows), SETTINGS).items()
    }
    assert set(found) == set(expected)
    wrong = {
        (place, column)
        for place, values in expected.items()
        for column, value in values.items()
        if differs(found[place][column], value)
    }
    assert wrong == set()


def test_scikit_learn_agrees(many_series):
    found = many_series.metrics()
    for name in (key("smooth"), key("stepped"), key("rare")):
        labels, scores = arrays(many_series.series[name][1])
        clipped = np.clip(scores, 1e-15, 1 - 1e-15)
        assert found[*name, "pr_auc"]["value"] == pytest.approx(
            average_precision_score(labels, scores), abs=1e-11
        )
        assert found[*name, "roc_auc"]["value"] == pytest.approx(
            roc_auc_score(labels, scores), abs=1e-11
        )
        assert found[*name, "brier"]["value"] == pytest.approx(
            brier_score_loss(labels, scores), abs=1e-11
        )
        assert found[*name, "log_loss"]["value"] == pytest.approx(
            log_loss(labels, clipped), abs=1e-11
        )


# ---- what the comparison with the definitions can catch


@pytest.mark.parametrize(
    ("text", "wrong_text", "metric"),
    [
        ("order by prediction desc)", "order by prediction)", "roc_auc"),
        ("rank() over by_actual + count(*) over by_actual", "2 * rank() over by_actual", "rank_ic"),
        ("rank() over by_actual + count(*) over by_actual", "2 * rank() over by_actual",
         "pooled_rank_ic"),
        ("sum(prediction_part::hugeint * actual_part)", "sum(prediction_part::hugeint)", "ic"),
        ("sum(actual_units) over at_once / count(*) over at_once", "0", "ic"),
        ("(partition by period_number, event_time order by prediction)",
         "(partition by period_number order by prediction)", "rank_ic"),
        ("group by period_number, event_time\n", "group by period_number\n", "mean_actual_top_k"),
        ("and one.event_time = other.event_time", "", "top_k_jaccard"),
        ("having count(*) >= 3", "having count(*) >= 2", "precision_at_k"),
        ("'negative_score': -prediction", "'negative_score': prediction", "mean_actual_top_k"),
        ("'sample_id': sample_id}", "'sample_id': md5(sample_id)}", "top_k_jaccard"),
        ("having count(*) > 3", "having count(*) >= 3", "top_k_jaccard"),
        ("/ count(*) over by_prediction", "/ rank() over by_prediction", "pr_auc"),
        ("prediction_rank - 1) * series.bin_count //", "prediction_rank + 1) * series.bin_count //",
         "ece"),
        ("greatest(0, square_gap - label_noise)", "square_gap", "ece_debiased"),
        ("row_count * (row_count - 1)", "row_count * row_count", "ece_debiased"),
        ("as square_share", "+ 1 as square_share", "brier_resolution"),
        ("sqrt(greatest(0, ", "(greatest(0, ", "ece_debiased"),
        ("(pooled.prediction_rank - 1) * 4 //", "(pooled.prediction_rank - 1) * 5 //",
         "top_minus_bottom"),
        ("least(period_count - 1, floor(", "least(0, floor(", "rank_ic_newey_west_t"),
        ("1 - j / (lag_count + 1)", "1", "rank_ic_newey_west_t"),
        ("2 / 9::double", "1 / 9::double", "rank_ic_newey_west_lag"),
        ("actual between lower and upper", "actual > lower and actual < 0", "interval_coverage"),
        ("(rank_ic_count - 1)", "(rank_ic_count - 0)", "icir"),
        ("sign(pooled.prediction) = sign(pooled.actual)",
         "(pooled.prediction > 0) = (pooled.actual > 0)", "hit_rate"),
        ("% (period_count - block_period_count + 1)", "% (period_count - block_period_count)",
         "rmse"),
        ("least(block_period_count, period_count - block_number * block_period_count)",
         "block_period_count", "brier"),
        ("0.09999999999999998::double", "0.05::double", "base_rate"),
        ("sum(any_k_units)", "sum(top_k_units)", "precision_at_k_lift"),
    ],
)  # fmt: skip
def test_a_wrong_definition_is_noticed(many_series, text, wrong_text, metric):
    wrong = differences(many_series, mutation=(text, wrong_text))
    assert metric in {place[2] for place in wrong}


def test_a_random_walk_is_not_predictable_within_its_hours():
    """A path less its own mean seems to come back: by the hour a fall would predict a rise."""
    random = np.random.default_rng(5)
    minutes, symbols, ahead = 60 * 60, 3, 30
    paths = random.normal(size=(minutes + 2 * ahead, symbols)).cumsum(axis=0)
    fall = paths[:minutes] - paths[ahead : minutes + ahead]
    rise = paths[2 * ahead :] - paths[ahead : minutes + ahead]
    rows = [
        Row(f"{symbol}@{minute}", minute // 60, fall[minute, symbol], rise[minute, symbol])
        for minute in range(minutes)
        for symbol in range(symbols)
    ]
    by_hour = np.mean(
        [values["rank_ic"] for values in oracle.period_metrics(rows, SETTINGS).values()]
    )
    assert by_hour > 0.1  # what the definition must not be
    for row in rows:
        row.time = int(row.sample_id.partition("@")[2]) % 60
    evaluations = Evaluations({key("walk"): ("value", rows)})
    found = evaluations.metrics()[(*key("walk"), "rank_ic")]
    assert abs(found["value"]) < by_hour / 2


def test_unknown_values_would_be_noticed(many_series):
    with pytest.raises(duckdb.Error, match="expected 0 to 1 for a probability"):
        many_series.metrics(mutation=("isfinite(prediction)", "prediction is not null"))


# ---- rows that leave a metric undefined


def simple_rows(predictions, actuals, periods=None, seed_scores=None) -> list[Row]:
    return [
        Row(
            sample_id=f"S{i:03d}",
            period=0 if periods is None else periods[i],
            prediction=prediction,
            actual=actual,
            seed_scores=None if seed_scores is None else seed_scores[i],
        )
        for i, (prediction, actual) in enumerate(zip(predictions, actuals, strict=True))
    ]


def undefined(found: dict, name: tuple) -> set[str]:
    return {place[4] for place, row in found.items() if place[:4] == name and row["value"] is None}


def test_what_cannot_be_known_is_null():
    periods = [0] * 10 + [1] * 10
    rows = {
        key("constant"): simple_rows([0.3] * 20, [0.0, 1.0] * 10, periods),
        key("all_negative"): simple_rows(np.linspace(0, 1, 20), [0.0] * 20, periods),
        key("all_positive"): simple_rows(np.linspace(0, 1, 20), [1.0] * 20, periods),
        key("single"): simple_rows([0.3], [1.0]),
    }
    made = Evaluations({name: ("probability", listed) for name, listed in rows.items()})
    assert differences(made) == set()
    found = made.metrics()
    by_rank = {"ic", "rank_ic", "icir", "rank_ic_newey_west_t", "rank_ic_newey_west_lag",
               "pooled_rank_ic", "top_k_jaccard"}  # fmt: skip
    top_k = {"precision_at_k", "precision_at_k_lift"}
    assert undefined(found, key("constant")) == by_rank
    assert undefined(found, key("all_negative")) == by_rank | {
        "brier_ratio", "pr_auc", "pr_auc_lift", "roc_auc", "precision_at_k_lift",
    }  # fmt: skip
    assert undefined(found, key("all_positive")) == by_rank | {"brier_ratio", "roc_auc"}
    assert undefined(found, key("single")) == by_rank | top_k | {"brier_ratio", "roc_auc"}
    assert found[*key("constant"), "roc_auc"]["value"] == 0.5
    assert found[*key("constant"), "pr_auc"]["value"] == 0.5
    assert found[*key("constant"), "top_k_jaccard"]["row_count"] == 0
    assert found[*key("single"), "brier"]["ci_lower"] is None


def test_values_without_variation_or_interval_are_null():
    found = Evaluations(
        {
            key("constant"): ("value", simple_rows([0.1] * 8, [0.3] * 8)),
            key("zero"): ("value", simple_rows([0.0, -0.0, 1.0], [0.0, 0.0, -1.0])),
        }
    ).metrics()
    assert undefined(found, key("constant")) == {
        "ic", "rank_ic", "icir", "rank_ic_newey_west_t", "rank_ic_newey_west_lag",
        "pooled_rank_ic", "top_k_jaccard", "r_squared", "top_minus_bottom", "interval_coverage",
        "interval_width",
    }  # fmt: skip
    assert found[*key("constant"), "rmse"]["value"] == pytest.approx(0.2, abs=1e-11)
    assert found[*key("zero"), "hit_rate"]["value"] == pytest.approx(2 / 3)


def test_an_unbounded_interval_covers_and_is_infinitely_wide():
    rows = simple_rows([0.0, 1.0, 2.0], [0.5, 0.5, 9.0])
    rows[0].lower, rows[0].upper = -math.inf, math.inf
    rows[1].lower, rows[1].upper = 0.0, 0.4
    made = Evaluations({key("edge"): ("value", rows)})
    assert differences(made) == set()
    found = made.metrics()
    assert found[*key("edge"), "interval_coverage"]["value"] == 0.5
    assert found[*key("edge"), "interval_coverage"]["row_count"] == 2
    assert found[*key("edge"), "interval_width"]["value"] == math.inf


def test_rows_that_share_a_score_share_a_bin():
    # half of the rows share a score: split between bins, equal labels would look miscalibrated
    predictions = [0.2] * 24 + [0.8] * 24
    actuals = [0.0] * 12 + [1.0] * 12 + [0.0] * 4 + [1.0] * 20
    made = Evaluations({key("stepped"): ("probability", simple_rows(predictions, actuals))})
    found = made.metrics()
    half_gaps = 0.5 * (12 / 24 - 0.2) + 0.5 * (20 / 24 - 0.8)
    assert found[*key("stepped"), "ece"]["value"] == pytest.approx(half_gaps)


def test_ties_at_the_edge_of_the_top_k_are_broken_by_sample():
    rows = simple_rows([0.5] * 6, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    found = Evaluations({key("tied"): ("probability", rows)}).metrics()
    assert found[*key("tied"), "precision_at_k"]["value"] == pytest.approx(2 / 3)
    assert found[*key("tied"), "precision_at_k_lift"]["value"] == pytest.approx(2)


@pytest.mark.parametrize(
    ("kind", "prediction", "actual", "message"),
    [
        ("probability", 0.5, 2.0, "has the label 2.0, expected 0 or 1"),
        ("probability", 1.5, 1.0, "has the prediction 1.5, expected 0 to 1"),
        ("ranking", 0.5, 1.0, "has the kind ranking, expected probability or value"),
    ],
)
def test_rows_that_no_metric_is_defined_for_stop_the_build(kind, prediction, actual, message):
    made = Evaluations({key("bad"): (kind, simple_rows([0.1, prediction], [0.0, actual]))})
    with pytest.raises(duckdb.Error, match=message):
        made.metrics()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("head_metric_top_k", 0),
        ("head_metric_top_k", 2.5),
        ("head_metric_bins", True),
        ("head_metric_tail_bins", 1),
        ("head_metric_confidence", 1.0),
        ("head_metric_log_loss_clip", "small"),
        ("head_metric_bootstrap_draws", -1),
        ("head_metric_min_blocks", 0),
    ],
)
def test_a_wrong_setting_is_named(name, value):
    with pytest.raises(ValueError, match=f"var '{name}' is .*, expected "):
        macros({name: value})["head_metric_settings"]()


# ---- what does not change a metric


def values_of(evaluations: Evaluations) -> dict:
    return {place: row["value"] for place, row in evaluations.metrics().items()}


@FEW
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["probability", "value"]))
def test_order_of_rows_and_threads_leave_every_bit(seed, kind):
    series = {key("one"): (kind, random_rows(seed, kind, steps=11))}
    count = len(series[key("one")][1])
    shuffled = Evaluations(series, order=list(np.random.default_rng(seed).permutation(count)))
    shuffled.connection.execute("set threads = 1")
    assert shuffled.metrics() == Evaluations(series).metrics()


@FEW
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["probability", "value"]))
def test_a_rising_transform_leaves_what_only_looks_at_ranks(seed, kind):
    rows = known(random_rows(seed, kind, steps=11))
    before = values_of(Evaluations({key("one"): (kind, rows)}))
    for row in rows:
        row.prediction = row.prediction**3 if kind == "value" else row.prediction**2 / 2 + 0.1
        row.seed_scores = row.seed_scores and [s and s**3 for s in row.seed_scores]
    after = values_of(Evaluations({key("one"): (kind, rows)}))
    of_ranks = {
        "rank_ic", "icir", "rank_ic_newey_west_t", "pooled_rank_ic", "top_k_jaccard", "pr_auc",
        "roc_auc", "precision_at_k", "mean_actual_top_k", "top_minus_bottom", "brier_resolution",
    }  # fmt: skip
    for place in before:
        if place[4] in of_ranks:
            assert not differs(before[place], after[place]), place
    assert before != after


@FEW
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["probability", "value"]))
def test_every_row_twice_leaves_what_is_a_mean(seed, kind):
    rows = random_rows(seed, kind)
    twins = [
        Row(f"twin of {r.sample_id}", r.period, r.prediction, r.actual, r.lower, r.upper)
        for r in rows
    ]
    changed = {"head_metric_bins": 2, "head_metric_min_bin_rows": 1}  # as many bins for more rows
    once = Evaluations({key("one"): (kind, rows)}).metrics(changed)
    twice = Evaluations({key("one"): (kind, rows + twins)}).metrics(changed)
    means = {
        "pooled_rank_ic", "hit_rate", "base_rate", "pr_auc", "pr_auc_lift", "roc_auc", "ece",
        "brier", "brier_ratio", "brier_reliability", "brier_resolution", "brier_uncertainty",
        "log_loss", "rmse", "mae", "r_squared", "interval_coverage", "interval_width",
    }  # fmt: skip
    for place, row in once.items():
        if place[4] in means:
            assert not differs(twice[place]["value"], row["value"]), place


@pytest.mark.parametrize("unit", [2.0**-40, 1e-9, 1e12])
def test_the_unit_of_a_value_scales_its_metrics(unit):
    rows = random_rows(9, "value", steps=4)
    found = Evaluations({key("one"): ("value", rows)}).metrics()
    for row in known(rows):
        row.prediction, row.actual = row.prediction * unit, row.actual * unit
        if row.lower is not None:
            row.lower, row.upper = row.lower * unit, row.upper * unit
    scaled = Evaluations({key("one"): ("value", rows)}).metrics()
    in_units = {"mean_actual_top_k", "top_minus_bottom", "rmse", "mae", "interval_width"}
    for place, row in found.items():
        divisor = unit if place[4] in in_units else 1.0
        for column in ("value", "ci_lower", "ci_upper"):
            value = scaled[place][column]
            assert not differs(value and value / divisor, row[column]), (place, column)


def test_roles_may_be_chosen_by_a_query(many_series):
    expected = {place: row for place, row in many_series.metrics().items() if place[3] == "tune"}
    made = macros()
    chosen = "(select * from evaluations where role = 'tune')"
    periods, metrics = (
        made["head_period_metrics"](chosen),
        made["head_metrics"](chosen, "periods_of_role"),
    )
    found = many_series.connection.sql(
        f"with periods_of_role as ({periods}), metrics as ({metrics}) from metrics"
    )
    listed = found.to_arrow_table().to_pylist()
    assert {tuple(row[name] for name in (*KEYS, "metric")): row for row in listed} == expected


def test_no_rows_give_no_metrics():
    assert Evaluations({key("none"): ("value", [])}).metrics() == {}


# ---- intervals


def large_rows(seed: int, kind: str, periods: int, per_period: int, memory: float = 0.0):
    """Smooth scores with signal; `memory` ties the level of a period to the one before."""
    random = np.random.default_rng(seed)
    shocks = random.normal(size=periods) * math.sqrt(1 - memory**2)
    level = np.zeros(periods)
    for i in range(periods):
        level[i] = memory * level[i - 1] + shocks[i] if i else shocks[i]
    count = periods * per_period
    period = np.repeat(np.arange(periods), per_period)
    signal = random.normal(size=count)
    if kind == "probability":
        share = 1 / (1 + np.exp(3.0 - signal - 0.3 * level[period]))
        predictions, actuals = 1 / (1 + np.exp(3.0 - signal)), random.random(count) < share
    else:
        predictions, actuals = 0.1 * signal, level[period] + 0.1 * random.normal(size=count)
    return simple_rows(predictions.tolist(), actuals.astype(float).tolist(), period.tolist())


def test_intervals_of_curves_follow_the_exact_resampled_values():
    """The bins of scores move the ends by less than a tenth of the interval's width."""
    rows = large_rows(3, "probability", periods=30, per_period=60)
    changed = {"head_metric_bootstrap_draws": 60, "head_metric_bins": 15}
    found = Evaluations({key("curve"): ("probability", rows)}).metrics(changed)
    labels, scores = arrays(rows)
    places = [np.flatnonzero([row.period == period for row in rows]) for period in range(30)]
    draws = {"pr_auc": [], "pr_auc_lift": [], "roc_auc": []}
    for drawn in oracle.drawn_periods(30, SETTINGS | changed):
        chosen = np.concatenate([places[place] for place in drawn])
        precision = average_precision_score(labels[chosen], scores[chosen])
        draws["pr_auc"].append(precision)
        draws["pr_auc_lift"].append(precision / labels[chosen].mean())
        draws["roc_auc"].append(roc_auc_score(labels[chosen], scores[chosen]))
    for metric, values in draws.items():
        lower, upper = np.quantile(values, [0.1, 0.9])
        row = found[*key("curve"), metric]
        assert row["ci_lower"] == pytest.approx(lower, abs=0.1 * (upper - lower)), metric
        assert row["ci_upper"] == pytest.approx(upper, abs=0.1 * (upper - lower)), metric


def test_bins_of_a_curve_are_fine_enough():
    """Area under the binned curves is within 0.2 % of the exact area, before it is shifted."""
    rows = large_rows(5, "probability", periods=40, per_period=300)
    made = Evaluations({key("curve"): ("probability", rows)})
    changed = {"head_metric_bootstrap_draws": 0, "head_metric_bins": 15}
    exact = made.metrics(changed)
    query = made.queries(changed)["head_metrics"]
    query = query[: query.index("metrics_of_curves as (")].rstrip().rstrip(",")
    (binned,) = made.connection.sql(query + " from draw_curves").to_arrow_table().to_pylist()
    for metric in ("pr_auc", "roc_auc"):
        value = exact[*key("curve"), metric]["value"]
        assert binned[metric] == pytest.approx(value, rel=2e-3)
        assert binned[metric] != value


def test_interval_of_a_mean_is_the_normal_one_where_periods_are_independent():
    rows = large_rows(4, "value", periods=400, per_period=2)
    changed = {"head_metric_bootstrap_draws": 400, "head_metric_block_periods": 1,
               "head_metric_confidence": 0.9}  # fmt: skip
    found = Evaluations({key("mean"): ("value", rows)}).metrics(changed)
    row = found[*key("mean"), "mae"]
    errors = np.array([abs(row.prediction - row.actual) for row in rows]).reshape(400, 2).mean(1)
    half_width = 1.645 * errors.std() / math.sqrt(400)
    assert row["ci_lower"] == pytest.approx(errors.mean() - half_width, abs=0.2 * half_width)
    assert row["ci_upper"] == pytest.approx(errors.mean() + half_width, abs=0.2 * half_width)


def test_blocks_widen_the_interval_where_periods_remember():
    rows = large_rows(6, "value", periods=400, per_period=2, memory=0.9)
    made = Evaluations({key("mean"): ("value", rows)})
    widths = {}
    for length in (1, 40):
        changed = {"head_metric_bootstrap_draws": 200, "head_metric_block_periods": length}
        row = made.metrics(changed)[*key("mean"), "rmse"]
        assert row["block_period_count"] == length
        widths[length] = row["ci_upper"] - row["ci_lower"]
    assert widths[40] > 2 * widths[1]


def test_outputs_of_the_same_periods_are_resampled_together(many_series):
    rows = large_rows(7, "value", periods=20, per_period=5)
    made = Evaluations({key("a"): ("value", rows), key("b"): ("value", rows)})
    found = made.metrics()
    assert found[*key("a"), "mae"]["ci_lower"] == found[*key("b"), "mae"]["ci_lower"]
    again = made.metrics({"head_metric_bootstrap_seed": 8})
    assert found[*key("a"), "mae"]["ci_lower"] != again[*key("a"), "mae"]["ci_lower"]
