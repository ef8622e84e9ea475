"""The honest search: its definitions, and whether it tells luck from skill."""

import json
import math
from collections.abc import Callable

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from scipy import special

import oracle_overfitting as oracle
import oracle_pm
from pm_frames import SMALL_AXES, frame_of, random_frame
from rendering import macro_context, model_sql, project_vars
from warehouse import REPO, memory_connection

MACROS = ("settings", "head_metrics", "pm_settings", "pm_trades", "trade_metrics", "pm_grid",
          "statistics", "overfitting_settings")  # fmt: skip
# in the order they read each other; each with its key
MODELS = {
    "pm_period_returns": ("candidate_id", "period_start"),
    "pm_trials": ("candidate_id",),
    "pm_overfitting_splits": ("performance", "in_sample_blocks"),
    "pm_neighbourhood": ("axis", "step"),
    "pm_null_search": ("draw",),
    "pm_overfitting": (),
}
SETTINGS = project_vars() | {
    "pm_period_minutes": 10,
    "pm_pbo_blocks": 4,
    "pm_null_draws": 2,
}


def rendered(changed: dict | None = None) -> tuple[dict[str, Callable], dict[str, str]]:
    """Return the macros and the models' SQL by name, as dbt renders them."""
    context = macro_context(SETTINGS | (changed or {}), MACROS, ref=lambda name: name)
    return context, {name: model_sql(name, context) for name in MODELS}


def arrow(frame: pd.DataFrame) -> pa.Table:
    """NaN is NULL; a column of nothing but NULL stays a column of numbers."""
    return pa.Table.from_pandas(frame, preserve_index=False)


class Search:
    """A frame and its searched grid in memory, and what the models make of them."""

    def __init__(self, frame: pd.DataFrame, axes: dict | None = None, scrambled: bool = False):
        self.frame, self.axes = frame, axes or SMALL_AXES
        self.grid = oracle_pm.grid(frame, self.axes)
        self.best = oracle_pm.best(self.grid)
        self.trials = oracle.trials_of(self.grid)
        self.remembered: dict[str, dict] = {}
        self.connection = memory_connection()
        searched = pd.DataFrame(self.grid)
        # any name of a set will do
        searched["trade_set_id"] = 1000 - pd.factorize(searched.pop("trade_set"))[0]
        tables = {
            "pm_frame": frame,
            "pm_candidates": searched[["candidate_id", *oracle_pm.AXES, "threshold_hash"]],
            "pm_grid_search": searched,
            "pm_grid_axes": pd.DataFrame(
                [
                    {"axis": axis, "position": position, "value": float(value)}
                    for axis, values in self.axes.items()
                    for position, value in enumerate(values, start=1)
                ]
            ),
            "pm_overfitting_rules": pd.read_csv(REPO / "seeds" / "pm_overfitting_rules.csv"),
        }
        for name, table in tables.items():
            table = table.sample(frac=1, random_state=5) if scrambled else table
            self.connection.register("arrow_rows", arrow(table))
            self.connection.execute(f"create table {name} as from arrow_rows")

    def build(self, changed: dict | None = None, only: tuple[str, ...] = tuple(MODELS)) -> dict:
        """Build the models; return their rows by name."""
        queries = {name: query for name, query in rendered(changed)[1].items() if name in only}
        for name, query in queries.items():
            self.connection.execute(f"create or replace table {name} as {query}")
        return {name: self.rows(f"from {name}") for name in queries}

    def rows(self, query: str) -> list[dict]:
        return self.connection.execute(query).to_arrow_table().to_pylist()

    def expected(self, changed: dict | None = None) -> dict[str, list[dict]]:
        """Return the same by the definitions, remembered: mutations are compared with it again."""
        name = json.dumps(changed or {})
        if name not in self.remembered:
            self.remembered[name] = self.by_definition(SETTINGS | (changed or {}))
        return self.remembered[name]

    def by_definition(self, values: dict) -> dict[str, list[dict]]:
        minutes, blocks = values["pm_period_minutes"], values["pm_pbo_blocks"]
        returns = oracle.period_returns(self.frame, self.trials, minutes)
        nulls = [
            oracle_pm.best(
                oracle_pm.grid(
                    oracle.shuffled(
                        self.frame, draw, values["pm_null_seed"], values["pm_null_method"]
                    ),
                    self.axes,
                )
            )
            for draw in range(1, values["pm_null_draws"] + 1)
        ]
        return {
            "pm_period_returns": self.period_rows(returns, minutes),
            "pm_trials": self.trial_rows(returns),
            "pm_overfitting_splits": [
                {"performance": measure} | split
                for measure in ("mean", "sharpe")
                for split in oracle.cross_validation(returns, blocks, measure)
            ],
            "pm_neighbourhood": self.neighbour_rows(),
            "pm_null_search": [
                {"draw": draw, "best_score": best["score"]}
                | {
                    name: best[name]
                    for name in ("candidate_id", "total_weighted_edge_bps", "trade_count")
                }
                for draw, best in enumerate(nulls, start=1)
            ],
            "pm_overfitting": [
                {
                    "candidate_id": self.best["candidate_id"],
                    "edge_basis": values["pm_edge_basis"],
                    "best_score": self.best["score"] if self.best["trade_count"] else None,
                    "best_trade_count": self.best["trade_count"],
                    "best_total_weighted_edge_bps": self.best["total_weighted_edge_bps"],
                    "candidates": len(self.grid),
                    "candidates_with_trades": sum(one["trade_count"] > 0 for one in self.grid),
                    "distinct_trade_sets": len(self.trials),
                    "periods": len(returns) if self.trials else None,
                    "period_minutes": minutes,
                    "pbo_blocks": blocks,
                    "null_method": values["pm_null_method"],
                }
                | oracle.sharpe_columns(returns, self.grid, self.trials)
                | oracle.overfitting_columns(returns, blocks)
                | oracle.neighbourhood_columns(self.grid, self.axes)
                | oracle.null_columns(self.best, nulls)
            ],
        }

    def period_rows(self, returns: pd.DataFrame, minutes: int) -> list[dict]:
        rows = []
        for candidate_id, members in self.trials.items():
            times = oracle_pm.admit(self.frame, members[0])["event_time"]
            starts = [oracle.period_start(time, minutes) for time in times]
            rows += [
                {
                    "candidate_id": candidate_id,
                    "period_start": pd.Timestamp(start * 60, unit="s").to_pydatetime(),
                    "trade_count": starts.count(start),
                    "weighted_edge_bps": float(returns.loc[start, candidate_id]),
                }
                for start in sorted(set(starts))
            ]
        return rows

    def trial_rows(self, returns: pd.DataFrame) -> list[dict]:
        rows = []
        for candidate_id, members in self.trials.items():
            values = returns[candidate_id].to_numpy()
            skewness, kurtosis = oracle.moments(values)
            rows.append(
                {
                    "candidate_id": candidate_id,
                    "candidate_count": len(members),
                    "trade_count": members[0]["trade_count"],
                    "period_count": len(values),
                    "mean_bps": float(values.mean()),
                    "stddev_bps": float(values.std(ddof=1)) if oracle.varies(values) else None,
                    "sharpe_per_period": oracle.sharpe(values),
                    "skewness": skewness,
                    "kurtosis": kurtosis,
                }
            )
        return rows

    def neighbour_rows(self) -> list[dict]:
        names = ("candidate_id", "trade_count", "total_weighted_edge_bps", "score", "score_rank")
        best = self.best
        return [
            {"axis": axis, "step": step, "value": one[axis], "best_value": best[axis]}
            | {name: one[name] for name in names}
            | {"score_ratio": one["score"] / best["score"] if best["score"] > 0 else None}
            for (axis, step), one in oracle.neighbours(self.grid, self.axes).items()
        ]


def differs(found: object, expected: object, tolerance: float = 1e-8) -> bool:
    if isinstance(found, float | int) and isinstance(expected, float | int):
        return not abs(found - expected) <= tolerance * max(1.0, abs(expected))
    return found != expected


def compared(model: str, found: list[dict], expected: list[dict]) -> set[tuple[str, str]]:
    """Return the (model, column) that differ."""

    def by_key(rows: list[dict]) -> dict:
        return {tuple(str(row[key]) for key in MODELS[model]): row for row in rows}

    found_rows, expected_rows = by_key(found), by_key(expected)
    if len(found_rows) != len(found) or set(found_rows) != set(expected_rows):
        return {(model, "rows")}
    return {
        (model, name)
        for key, columns in expected_rows.items()
        for name, value in columns.items()
        if differs(found_rows[key][name], value)
    }


def differences(search: Search, changed: dict | None = None) -> set[tuple[str, str]]:
    """Build, and return the (model, column) that differ from the definitions."""
    found = search.build(changed)
    wrong = [compared(name, found[name], rows) for name, rows in search.expected(changed).items()]
    return set().union(*wrong)


def axes_of(**values: list[float]) -> dict[str, list[float]]:
    """Axes of a single loose value but for those given."""
    loose = zip(oracle_pm.AXES, (0.5, 0.5, 0.1, 1.0, 0.0, 0.0), strict=True)
    return {name: values.get(name, [value]) for name, value in loose}


@pytest.fixture(scope="module")
def searches() -> list[Search]:
    """Ties and unknown values; one-valued axes; rows in disorder; few trades and few trials."""
    axes = SMALL_AXES | {"long_open_prob": [0.52], "max_market_risk_prob": [1.0, 0.3]}
    few = {name: SMALL_AXES[name][:2] for name in SMALL_AXES}
    return [
        Search(random_frame(1, splits=("tune_inner",)), few),
        Search(random_frame(2, rows=200, symbols=1, splits=("tune_inner",)), axes),
        Search(random_frame(3, splits=("tune_inner",), drift_bps=4.0), few, scrambled=True),
        Search(
            random_frame(24, symbols=1, splits=("tune_inner",)),
            axes_of(
                long_open_prob=[0.6],
                short_open_prob=[0.6, 0.58, 0.54],
                min_entry_prob=[0.5, 0.6],
                min_expected_edge_bps=[20.0, 30.0],
            ),
        ),
    ]


@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_every_relation_equals_its_definition(searches, number):
    assert differences(searches[number]) == set()


@pytest.mark.parametrize(
    "changed",
    [
        {"pm_period_minutes": 7, "pm_pbo_blocks": 6, "pm_null_draws": 0},
        {"pm_period_minutes": 45, "pm_pbo_blocks": 2, "pm_null_draws": 1, "pm_null_seed": 9},
        {"pm_null_method": "rotate", "pm_null_draws": 3},
        {"pm_pbo_blocks": 8, "pm_null_draws": 0},
    ],
)
def test_the_settings_are_followed(searches, changed):
    assert differences(searches[0], changed) == set()


# ---- what the comparison with the definitions can catch


@pytest.fixture(scope="module")
def built(searches) -> list[Search]:
    """Searches whose models are right, so that one at a time can be wrong."""
    for each in searches:
        each.build()
    return searches


@pytest.mark.parametrize(
    ("model", "column", "text", "wrong_text"),
    [
        ("pm_period_returns", "rows", "interval '10 minutes'", "interval '11 minutes'"),
        ("pm_period_returns", "rows", "min(candidate_id)", "max(candidate_id)"),
        ("pm_trials", "period_count", "interval '10 minutes'", "interval '20 minutes'"),
        ("pm_trials", "skewness",
         "(period_count - traded_period_count) * pow(-mean_bps, 3)", "0"),
        ("pm_trials", "sharpe_per_period",
         "(period_count - traded_period_count) * pow(-mean_bps, 2)", "0"),
        ("pm_trials", "stddev_bps", "(period_count - 1)", "period_count"),
        ("pm_trials", "kurtosis", "pow(moments.variance, 2)", "pow(moments.variance, 2) - 3"),
        ("pm_trials", "candidate_count", "count(*) as candidate_count", "1 as candidate_count"),
        ("pm_overfitting_splits", "in_sample_performance",
         "(row_number() over (order by period_start) - 1) *", "row_number() over () *"),
        ("pm_overfitting_splits", "candidate_id",
         "min(candidate_id) filter (where in_mean", "max(candidate_id) filter (where in_mean"),
        ("pm_overfitting_splits", "candidate_id",
         "min(candidate_id) filter (where in_sharpe", "max(candidate_id) filter (where in_sharpe"),
        ("pm_overfitting_splits", "relative_rank", "(equal_count + 1) / 2", "equal_count"),
        ("pm_overfitting_splits", "relative_rank", "(trial_count + 1) as", "trial_count as"),
        ("pm_overfitting_splits", "logit",
         "others.out_sharpe < winner", "others.in_sharpe < winner"),
        ("pm_overfitting_splits", "out_of_sample_performance", "(out_size - 1)", "out_size"),
        ("pm_neighbourhood", "rows", "= 1\n\n),", "<= 2\n\n),"),
        ("pm_neighbourhood", "rows", "by axis order by value::double", "by axis order by position"),
        ("pm_neighbourhood", "score_ratio", "score / best_score", "best_score / score"),
        ("pm_null_search", "best_score",
         "draws.draw, frame.symbol, frame.day", "draws.draw, frame.symbol"),
        ("pm_null_search", "best_score", "'1:' || draws.draw", "'2:' || draws.draw"),
        ("pm_null_search", "best_score", "given_edges.actual_short_expected_net_edge_bps",
         "given_edges.actual_long_expected_net_edge_bps as actual_short_expected_net_edge_bps"),
        ("pm_overfitting", "expected_max_sharpe", "0.57721566490153286::double", "0.5::double"),
        ("pm_overfitting", "expected_max_sharpe", "exp(-1) /", "0.5 /"),
        ("pm_overfitting", "probabilistic_sharpe", "1 - skewness *", "1 + skewness *"),
        ("pm_overfitting", "deflated_sharpe_raw", "(kurtosis - 1) / 4", "(kurtosis - 3) / 4"),
        ("pm_overfitting", "deflated_sharpe", "sqrt(periods - 1)", "sqrt(periods)"),
        ("pm_overfitting", "candidate_sharpe_variance", "candidate_count * pow(", "pow("),
        ("pm_overfitting", "expected_max_sharpe_sampling", "nullif(periods - 1, 0)", "periods"),
        ("pm_overfitting", "mean_trial_correlation",
         "(any_value(periods) - count(*)) * pow", "0 * pow"),
        ("pm_overfitting", "effective_trials",
         "* (varying_trials - 1), 0)", "* varying_trials, 0)"),
        ("pm_overfitting", "effective_trials",
         "* (distinct_trade_sets - 1)", "* distinct_trade_sets"),
        ("pm_overfitting", "pbo", "relative_rank <= 0.5::double", "relative_rank < 0.5::double"),
        ("pm_overfitting", "pbo_loss_probability",
         "avg((out_of_sample_performance < 0)", "avg((in_sample_performance < 0)"),
        ("pm_overfitting", "pbo_slope",
         "regr_slope(out_of_sample_performance, in_sample_performance",
         "regr_slope(in_sample_performance, out_of_sample_performance"),
        ("pm_overfitting", "null_p_value", "(1 + count(*) filter", "(count(*) filter"),
        ("pm_overfitting", "null_p_value", ">= round(best.score, 9)", "< round(best.score, 9)"),
        ("pm_overfitting", "box_candidates", "and abs(axes.place - here.place) <= 1", ""),
        ("pm_overfitting", "box_candidates", "where grid.candidate_id <> best.candidate_id", ""),
        ("pm_overfitting", "axes_on_edge", "place in (1, places)", "place = 1"),
        ("pm_overfitting", "axes_on_edge", "places > 1 and", ""),
        ("pm_overfitting", "loosest_candidate_rank",
         "-max_market_risk_prob", "max_market_risk_prob"),
    ],
)  # fmt: skip
def test_a_wrong_query_is_caught(built, model, text, wrong_text, column):
    query = rendered()[1][model]
    assert text in query
    wrong_query = query.replace(text, wrong_text)
    assert any(
        (model, column) in compared(model, each.rows(wrong_query), each.expected()[model])
        for each in built
    )


# ---- where there is little to say


UNKNOWN = (
    "sharpe_per_period", "skewness", "kurtosis", "probabilistic_sharpe", "deflated_sharpe",
    "deflated_sharpe_distinct", "deflated_sharpe_raw",
)  # fmt: skip


def test_without_any_trade_what_follows_from_trades_is_null():
    search = Search(frame_of(*[{"long_prob": 0.2} for _ in range(40)]))
    assert differences(search) == set()
    row = search.build()["pm_overfitting"][0]
    nulls = {name for name, value in row.items() if value is None}
    assert nulls >= {*UNKNOWN, "best_score", "pbo", "pbo_slope", "periods", "expected_max_sharpe",
                     "effective_trials", "null_best_score_mean", "null_best_score_max",
                     "null_p_value"}  # fmt: skip
    assert row["candidates_with_trades"] == row["distinct_trade_sets"] == row["pbo_splits"] == 0
    assert row["null_draws"] == 2
    assert row["warnings"][:3] == ["deflated_sharpe_unknown", "pbo_unknown", "null_p_value_unknown"]


def test_in_a_single_period_there_is_no_sharpe_ratio(searches):
    changed = {"pm_period_minutes": 10080, "pm_null_draws": 1}
    assert differences(searches[0], changed) == set()
    row = searches[0].build(changed)["pm_overfitting"][0]
    assert row["periods"] == 1
    unknown = (*UNKNOWN, "pbo", "pbo_sharpe", "mean_trial_correlation")
    assert {row[name] for name in unknown} == {None}
    assert row["null_p_value"] is not None


def test_edges_that_never_vary_have_no_sharpe_ratio():
    frame = frame_of(*[{"pred_long_expected_net_edge_bps": edge} for edge in [15.0, 7.3] * 40])
    search = Search(frame, axes_of(min_expected_edge_bps=[0.1, 0.3, 9.9]))
    assert len(search.trials) == 3
    assert differences(search) == set()
    row = search.build()["pm_overfitting"][0]
    assert {row[name] for name in UNKNOWN} == {None}
    # all trials do the same in every half, so the first wins and two of three are worse
    assert row["pbo_sharpe"] == 0 or row["pbo_sharpe"] == 1


def test_a_single_trial_is_not_deflated_and_cannot_be_overfitted():
    frame = random_frame(4, splits=("tune_inner",))
    search = Search(frame, axes_of())
    assert differences(search) == set()
    row = search.build()["pm_overfitting"][0]
    assert row["effective_trials"] == 1
    assert row["expected_max_sharpe"] == row["expected_max_sharpe_raw"] == 0
    assert row["deflated_sharpe"] == row["probabilistic_sharpe"] == row["deflated_sharpe_raw"]
    assert row["pbo"] is None
    assert row["neighbours"] == row["box_candidates"] == 0
    assert row["neighbours_positive_share"] is None
    assert row["axes_on_edge"] == []
    assert row["loosest_candidate_rank"] == 1


def test_unknown_edges_earn_nothing_and_are_shuffled_along():
    frame = random_frame(5, rows=240, splits=("tune_inner",), actual_null_rate=0.6)
    search = Search(frame, axes_of(min_entry_prob=[0.1, 0.5], min_expected_edge_bps=[0.0, 9.0]))
    assert differences(search) == set()


def test_scores_that_the_search_left_open_leave_the_summary_open(searches):
    search = searches[0]
    search.build()
    search.connection.execute("create or replace table all_scores as from pm_grid_search")
    try:
        search.connection.execute("update pm_grid_search set score = null where score_rank > 4")
        row = search.build(only=("pm_neighbourhood", "pm_overfitting"))["pm_overfitting"][0]
    finally:
        search.connection.execute("create or replace table pm_grid_search as from all_scores")
    for name in ("neighbours_positive_share", "neighbour_worst_score", "neighbour_median_score",
                 "box_positive_share", "box_worst_score", "box_median_score"):  # fmt: skip
        assert row[name] is None, name
    assert row["neighbours_positive_total_share"] is not None
    assert "neighbours_positive_share_unknown" in row["warnings"]


# ---- luck and skill told apart


def noisy_frame(
    seed: int, skill: float = 0.0, memory: float = 0.0, mean_bps: float = 0.0, days: int = 3
) -> pd.DataFrame:
    """Two symbols, a row every six minutes; edges are noise and `skill` times the predicted ones.

    With `memory` predictions and noise, each for itself, resemble those of the rows before.
    """
    random = np.random.default_rng(seed)
    rows, frames = days * 240, []

    def wander(columns: int) -> np.ndarray:
        steps = random.normal(size=(rows, columns))
        steps[1:] *= math.sqrt(1 - memory**2)
        for row in range(1, rows):
            steps[row] += memory * steps[row - 1]
        return steps

    for symbol in ("A", "B"):
        lead, entry, risk, *_ = wander(3).T
        predicted, noise = 2 + 6 * wander(2), mean_bps + 10 * wander(2)
        edges = noise + skill * (predicted - 2)
        frames.append(
            pd.DataFrame(
                {
                    "sample_id": [f"{symbol}@{row}" for row in range(rows)],
                    "symbol": symbol,
                    "event_time": pd.date_range("2025-03-03", periods=rows, freq="6min"),
                    "split_id": "tune_inner",
                    "long_prob": 0.5 + 0.04 * lead,
                    "short_prob": 0.5 - 0.04 * lead,
                    "long_entry_prob": special.ndtr(entry),
                    "short_entry_prob": special.ndtr(-entry),
                    "pred_long_expected_net_edge_bps": predicted[:, 0],
                    "pred_short_expected_net_edge_bps": predicted[:, 1],
                    "market_risk_prob": special.ndtr(risk),
                    "actual_long_expected_net_edge_bps": edges[:, 0],
                    "actual_short_expected_net_edge_bps": edges[:, 1],
                    "long_entry_target": 0.0,
                    "short_entry_target": 0.0,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


NOISE_AXES = {
    "long_open_prob": [0.5, 0.53],
    "short_open_prob": [0.5, 0.53],
    "min_entry_prob": [0.1, 0.3, 0.5],
    "max_market_risk_prob": [0.5, 1.0],
    "min_expected_edge_bps": [-8.0, 1.0, 4.0],
    "min_direction_margin": [0.0],
}
LUCK = {"pm_period_minutes": 60, "pm_pbo_blocks": 6, "pm_null_draws": 19}


def overfitting_of(frame: pd.DataFrame, changed: dict | None = None) -> dict:
    return Search(frame, NOISE_AXES).build(LUCK | (changed or {}))["pm_overfitting"][0]


def test_noise_is_told_as_luck():
    rows = pd.DataFrame([overfitting_of(noisy_frame(seed)) for seed in range(8)])
    # the best of many looks good by itself, not once it is known to be the best of many
    assert rows["probabilistic_sharpe"].mean() > 0.7
    assert 0.2 < rows["deflated_sharpe"].mean() < 0.6
    assert rows["deflated_sharpe"].max() < 0.95
    assert (rows["deflated_sharpe_raw"] <= rows["deflated_sharpe_distinct"]).all()
    assert (rows["deflated_sharpe_distinct"] <= rows["deflated_sharpe"]).all()
    # a coin says as much about the other half as the best of this half
    assert 0.35 < rows["pbo"].mean() < 0.7
    assert 0.35 < rows["pbo_sharpe"].mean() < 0.7
    assert (rows["pbo_slope"] < 0).all()
    # p-values lie anywhere
    assert rows["null_p_value"].min() < 0.4
    assert rows["null_p_value"].max() > 0.6
    assert 0.3 < rows["null_p_value"].mean() < 0.7
    assert all("deflated_sharpe_below_0.95" in warnings for warnings in rows["warnings"])


@pytest.mark.parametrize("skill", [0.5, 1.0])
def test_skill_is_told_from_luck(skill):
    row = overfitting_of(noisy_frame(1, skill=skill))
    assert row["deflated_sharpe"] > 0.99
    assert row["pbo"] == row["pbo_sharpe"] == row["pbo_loss_probability"] == 0
    assert row["null_p_value"] == 1 / 20
    assert row["best_score"] > 2 * row["null_best_score_max"]
    assert not {"deflated_sharpe_below_0.95", "pbo_above_0.5", "null_p_value_above_0.05"} & set(
        row["warnings"]
    )


def test_edges_that_are_always_positive_are_luck_whatever_is_chosen():
    # as with the best price of hindsight: every choice earns, and none is better than another
    row = overfitting_of(noisy_frame(2, mean_bps=40.0))
    assert row["probabilistic_sharpe"] > 0.999
    assert row["loosest_candidate_rank"] == 1
    assert row["null_p_value"] > 0.05
    assert row["null_best_score_mean"] > 0.9 * row["best_score"]
    assert {"null_p_value_above_0.05", "loosest_candidate_rank_below_11"} <= set(row["warnings"])


def test_rotation_keeps_neighbouring_minutes_together_and_shuffling_does_not():
    def spread(memory: float, method: str) -> float:
        search = Search(noisy_frame(3, memory=memory), NOISE_AXES)
        rows = search.build(LUCK | {"pm_null_method": method}, only=("pm_null_search",))
        return float(np.std([row["total_weighted_edge_bps"] for row in rows["pm_null_search"]]))

    assert spread(0.97, "rotate") > 3 * spread(0.97, "shuffle")
    assert spread(0.0, "rotate") < 2 * spread(0.0, "shuffle")


# ---- the normal distribution


def evaluated(expression: str, values: np.ndarray) -> np.ndarray:
    query = f"select {expression} as y from (select unnest($x::double[]) as x)"
    return duckdb.connect().execute(query, {"x": values.tolist()}).fetchnumpy()["y"]


def test_normal_cdf_and_quantile_are_those_of_scipy():
    macros, _ = rendered()
    edge = 7.07106781186547  # where one formula ends
    x = np.concatenate([np.linspace(-37, 37, 20_001), [edge, -edge, np.nextafter(edge, 0)]])
    found = evaluated(macros["normal_cdf"]("x"), x)
    assert np.abs(found - special.ndtr(x)).max() < 1e-15
    tail = x < 0
    assert np.abs(found / special.ndtr(x) - 1)[tail].max() < 1e-8
    small = 10.0 ** -np.linspace(0.3, 300, 20_001)
    p = np.concatenate([np.linspace(0, 1, 20_001)[1:-1], small, 1 - small[:1000], [0.075, 0.925]])
    p = p[(p > 0) & (p < 1)]
    found = evaluated(macros["normal_quantile"]("x"), p)
    expected = special.ndtri(p)
    assert (np.abs(found - expected) / np.maximum(1, np.abs(expected))).max() < 1e-14
    # and back again
    there = evaluated(macros["normal_quantile"]("x"), evaluated(macros["normal_cdf"]("x"), x[tail]))
    assert np.abs(there - x[tail]).max() < 1e-8


def test_normal_cdf_and_quantile_at_and_beyond_their_ends():
    macros, _ = rendered()
    values = "[0, 1, -1, 2, 'nan'::double, null, 'inf'::double, '-inf'::double]::double[]"
    rows = duckdb.execute(
        f"select {macros['normal_quantile']('x')}, {macros['normal_cdf']('x')}"
        f" from (select unnest({values}) as x)"
    ).fetchall()
    quantiles, probabilities = zip(*rows, strict=True)
    assert quantiles == (-math.inf, math.inf, *[None] * 6)
    assert probabilities[0] == 0.5
    assert probabilities[4:] == (None, None, 1.0, 0.0)


@pytest.mark.parametrize("count", [2, 10, 100, 14_000])
def test_expected_normal_maximum_is_near_the_true_one(count):
    macros, _ = rendered()
    found = evaluated(macros["expected_normal_maximum"]("x"), np.array([count]))[0]
    assert found == pytest.approx(oracle.expected_maximum(1.0, count), abs=1e-12)
    # by integrating the distribution function of the maximum
    grid = np.linspace(-10, 10, 200_001)
    below = special.ndtr(grid) ** count
    true = np.trapezoid(np.where(grid > 0, 1 - below, -below), grid)
    assert found == pytest.approx(true, rel=0.08)


def test_expected_normal_maximum_of_one_is_zero_and_never_below():
    macros, _ = rendered()
    counts = np.array([1.0, 1.05, 1.5, 2.0, 2.5])
    found = evaluated(macros["expected_normal_maximum"]("x"), counts)
    assert found[0] == 0
    assert (np.diff(found) >= 0).all()
    assert evaluated(macros["expected_normal_maximum"]("nullif(x, 1)"), counts).mask.tolist() == [
        True, False, False, False, False,
    ]  # fmt: skip


# ---- settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("pm_pbo_blocks", 9),
        ("pm_pbo_blocks", 16),
        ("pm_period_minutes", 0),
        ("pm_null_draws", -1),
        ("pm_null_draws", True),
        ("pm_null_seed", 0.5),
        ("pm_null_method", "permute"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(name, value):
    with pytest.raises(ValueError, match=name):
        rendered({name: value})


def test_results_do_not_depend_on_threads_or_the_order_of_rows():
    frame = random_frame(6, splits=("tune_inner",))
    searches = [Search(frame), Search(frame, scrambled=True)]
    searches[1].connection.execute("set threads = 1")
    one, other = (search.build() for search in searches)
    assert one == other
