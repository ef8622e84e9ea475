"""The previous direction model, and what the frozen config would have traded with it.

The first half trains twice on a made-up market: what the previous model says today is what it said
when it was the present one. The second half compares the ablation with the slow evaluator.
"""

import contextlib
import functools
import math
import shutil

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import heads_market
import oracle_pm as oracle
from heads_fixtures import market_rows, rendered
from heads_market import ANCHOR, CLASSES, MINUTE, put, target_row
from pm_frames import frame_of, random_frame
from rendering import macro_context, model_sql, project_vars
from wavehouse.heads import previous, scoring
from wavehouse.heads.base import HeadsError
from wavehouse.heads.training import train

SPLITS = ("tune_inner", "validation_locked", "latest_stress")
STARTS = (0.6, 0.75, 0.9)  # of the bars; the fold anchor learns until 0.8 of them
DIRECTION = target_row("direction", "multiclass", **CLASSES)
PROBABILITIES = ("long_prob", "short_prob", "neutral_prob")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAREHOUSE_THREADS", "1")
        yield


# ---- the previous model


def rows_of_splits():
    """Rows of a market, the last four tenths of them in the evaluation splits.

    The last tenth lacks in places what no fit has ever missed, or has infinite values there.
    """
    rows = market_rows()
    starts = rows["starts_at_ms"].to_numpy()
    cuts = np.quantile(np.unique(starts), STARTS)
    split = np.array(["fit", *SPLITS])[np.searchsorted(cuts, starts, side="right")]
    split[np.isin(starts, starts[split == "latest_stress"][:1])] = "purged"
    return rows.set_column(rows.column_names.index("split_id"), "split_id", pa.array(split))


def build(con, store, **settings):
    """What `dbt build` makes of heads: train, register, name, score, predict."""
    heads_market.set_settings(con, **settings)
    put(con, "heads.training_runs", train(con, MINUTE, store))
    con.execute(
        f"""
        create table if not exists heads.model_registry as from ({rendered("model_registry")})
        limit 0;
        insert into heads.model_registry from ({rendered("model_registry")})
        where model_id not in (select model_id from heads.model_registry)
        """
    )
    for name in ("model_aliases", "calibration_maps"):
        con.execute(f"create or replace table heads.{name} as {rendered(name)}")
    put(con, "heads.raw_scores", scoring.score(con, MINUTE, store).read_all())
    con.execute(
        "create or replace table heads.direction_predictions as "
        + rendered("direction_predictions")
    )


def present_predictions(con):
    """The rows of heads.direction_predictions in the evaluation splits."""
    splits = ", ".join(map(repr, SPLITS))
    return con.sql(
        f"from heads.direction_predictions where split_id in ({splits}) order by sample_id"
    ).to_arrow_table()


def previous_predictions(con, store):
    found = previous.predict_with_previous(con, MINUTE, "direction", store).read_all()
    return found.sort_by("sample_id").combine_chunks()


def refusal(con, store):
    (row,) = previous.previous_model(con, MINUTE, "direction", store).to_pylist()
    return row["refusal"]


@pytest.fixture(scope="module")
def retrained(tmp_path_factory):
    """A warehouse built twice with other settings, its store, what the first build predicted."""
    store = tmp_path_factory.mktemp("store")
    con = heads_market.warehouse(rows_of_splits(), targets=[DIRECTION], folds=ANCHOR)
    build(con, store)
    alone = previous_predictions(con, store), refusal(con, store)
    first = present_predictions(con)
    build(con, store, lightgbm={"num_leaves": 3, "min_data_in_leaf": 30, "learning_rate": 0.1})
    return con, store, first, alone


def test_a_registry_of_one_training_has_no_previous_model(retrained):
    _, _, first, (found, why) = retrained
    assert why == "The registry has no earlier model of direction."
    assert found.num_rows == 0
    assert found.schema.names == first.schema.names
    assert found.schema.types == first.schema.types


def test_no_previous_model_costs_nothing(retrained, monkeypatch):
    """Neither the store nor the features are read."""
    con, store, _, _ = retrained
    with contextlib.closing(duckdb.connect()) as bare:
        for relation in ("heads.model_aliases", "seeds.head_targets"):
            bare.execute(f"create schema if not exists {relation.partition('.')[0]}")
            put(bare, relation, con.sql(f"from {relation}").to_arrow_table())
        bare.execute("delete from heads.model_aliases where alias = 'previous'")
        assert previous_predictions(bare, store / "nowhere").num_rows == 0


def test_the_previous_model_says_what_it_said_when_it_was_the_present_one(retrained):
    """To the bit, through its own calibration, for the rows of the evaluation splits alone."""
    con, store, first, _ = retrained
    found = previous_predictions(con, store)
    assert set(found["split_id"].to_pylist()) == set(SPLITS)
    assert found.num_rows == first.num_rows > 600
    for column in first.column_names:
        assert found[column].to_pylist() == first[column].to_pylist(), column
    assert refusal(con, store) is None
    # unknown where a feature is that never was in the fit, at least here and there
    assert 0 < found["long_prob"].null_count == found["neutral_prob"].null_count < 200
    present = present_predictions(con)
    assert found["long_prob"].to_pylist() != present["long_prob"].to_pylist()
    assert set(found["direction_model_id"].to_pylist()).isdisjoint(
        present["direction_model_id"].to_pylist()
    )


def test_rows_before_the_end_of_what_it_learned_are_in_its_sample(retrained):
    con, store, _, _ = retrained
    (row,) = previous.previous_model(con, MINUTE, "direction", store).to_pylist()
    ends = con.execute(
        "select max(label_ends_at_ms) from heads.folds inner join heads.head_samples"
        " using (sample_id) where role = 'calibrate'"
    ).fetchall()[0][0]
    assert row["valid_from_ms"] == ends
    found = previous_predictions(con, store).to_pylist()
    assert [each["is_out_of_sample"] for each in found] == [
        int(each["sample_id"].partition("@")[2]) >= ends for each in found
    ]
    assert {each["is_out_of_sample"] for each in found} == {True, False}


def test_a_net_that_pools_sees_whole_cross_sections(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH_ROWS", 100)  # of a market with three symbols
    con = heads_market.warehouse(rows_of_splits(), targets=[DIRECTION], folds=ANCHOR)
    net = heads_market.SETTINGS["torch"] | {"pool": True}
    build(con, tmp_path, trainer="torch", torch=net, seeds=[1])
    first = present_predictions(con)
    build(con, tmp_path, seeds=[1], max_rounds=2)
    found = previous_predictions(con, tmp_path)
    for name in PROBABILITIES:
        assert found[name].to_pylist() == first[name].to_pylist()


@pytest.fixture
def moved(retrained, tmp_path):
    """The warehouse with a store of its own, and the folder of the previous model there."""
    con, store, _, _ = retrained
    shutil.copytree(store, tmp_path / "store")
    (model,) = con.execute("select model_id from heads.model_aliases where alias = 'previous'")\
        .fetchall()[0]  # fmt: skip
    return con, tmp_path / "store", tmp_path / "store" / model


def no_predictions(con, store):
    found = previous.predict_with_previous(con, MINUTE, "direction", store)
    return found.read_all().num_rows == 0 and found.schema.names[4:7] == list(PROBABILITIES)


def test_a_model_that_is_gone_is_no_baseline(moved):
    con, store, folder = moved
    shutil.rmtree(folder)
    assert refusal(con, store) == (
        f"The previous model of direction, {folder.name[:12]}, is gone in the model store."
    )
    assert no_predictions(con, store)


def test_a_damaged_model_is_no_baseline(moved):
    con, store, folder = moved
    with open(folder / "seed_2" / "member.txt", "a") as file:
        file.write(" ")
    assert "cannot be read: its files were changed or damaged" in refusal(con, store)
    assert no_predictions(con, store)


def test_a_model_of_other_classes_or_features_is_no_baseline(moved):
    con, store, _ = moved
    con = con.cursor()
    con.execute("begin")
    con.execute("alter table factors.minute_features drop column noise")
    con.execute("alter table factors.minute_features drop column gaps")
    assert refusal(con, store).endswith(
        "needs gaps, noise, which factors.minute_features has no more."
    )
    assert no_predictions(con, store)
    con.execute("rollback")
    con.execute("begin")
    con.execute("update seeds.head_targets set outputs = 'long_prob|short_prob|calm_prob'")
    assert refusal(con, store).endswith(
        "predicts long_prob, short_prob, neutral_prob, "
        "and the target has long_prob, short_prob, calm_prob."
    )
    con.execute("delete from seeds.head_targets")
    with pytest.raises(HeadsError, match="has no target 'direction' of track minute"):
        previous.predict_with_previous(con, MINUTE, "direction", store)
    con.execute("rollback")
    assert refusal(con, store) is None


# ---- the ablation

MACROS = ("settings", "pm_settings", "pm_trades", "trade_metrics")
RELATIONS = {
    "backtest_frame": "backtest.backtest_frame",
    "backtest_trades": "backtest.backtest_trades",
    "backtest_metrics": "backtest.backtest_metrics",
    "pm_config": "pm.pm_config",
    "previous_direction_model": "heads.previous_direction_model",
    "previous_direction_predictions": "heads.previous_direction_predictions",
}
THRESHOLDS = {
    "long_open_prob": 0.5,
    "short_open_prob": 0.5,
    "min_entry_prob": 0.1,
    "max_market_risk_prob": 0.9,
    "min_expected_edge_bps": -4.0,
    "min_direction_margin": 0.0,
}
VALID_FROM = pd.Timestamp("2025-03-03 21:00")
COUNTS = ("trade_count", "max_consecutive_losses")


@functools.cache
def ablation_sql() -> str:
    """The model's SQL as dbt compiles it with the settings of the project."""
    context = macro_context(project_vars(), MACROS, ref=RELATIONS.__getitem__)
    return model_sql("direction_ablation", context)


def swapped(frame, baseline):
    """The frame with the baseline's probabilities; NaN for a sample that it does not predict."""
    own = frame.drop(columns=list(PROBABILITIES))
    return own.merge(baseline[["sample_id", *PROBABILITIES]], on="sample_id", how="left")


def random_baseline(frame, seed, share=0.9):
    """Predictions of another model for a share of the samples, some of them unknown."""
    other = random_frame(seed, rows=len(frame)).sort_values("sample_id", ignore_index=True)
    baseline = frame[["sample_id", "event_time"]].sort_values("sample_id", ignore_index=True)
    baseline[list(PROBABILITIES)] = other[list(PROBABILITIES)]
    baseline["is_out_of_sample"] = baseline["event_time"] >= VALID_FROM
    return baseline.sample(frac=share, random_state=seed)


def same_baseline(frame):
    """What the present model predicts, as if an earlier one had."""
    return frame[["sample_id", "event_time", *PROBABILITIES]].assign(is_out_of_sample=True)


def ablation(frame, baseline=None, refusal=None, sql=None, thresholds=THRESHOLDS):
    """Rows of backtest.direction_ablation by eval_split, None for unknown."""
    trades = oracle.backtest_trades(frame, thresholds)
    judged = oracle.backtest_metrics(trades)
    judged["sealed"] = judged["combined"]  # a scope that the ablation has no row of
    metrics = [
        {"eval_split": split, "accounting": accounting, "is_path_honest": accounting == "executed"}
        | {name: value * factor if value is not None else None for name, value in each.items()}
        for split, each in judged.items()
        for accounting, factor in (("label_edge", 1), ("executed", 3))
    ]
    with contextlib.closing(duckdb.connect()) as con:
        con.execute(
            "set threads = 2; create schema heads; create schema pm; create schema backtest"
        )
        none = baseline is None
        model = {
            "target": "direction",
            "model_id": None if none else "a1b2",
            "valid_from_ms": None if none else VALID_FROM.value // 10**6,
            "refusal": refusal,
        }
        predictions = same_baseline(frame).head(0) if none else baseline
        for relation, rows in {
            "backtest_frame": frame,
            "backtest_trades": trades.drop(columns=["eval_split", "run_index"]),
            "backtest_metrics": pd.DataFrame(metrics),
            "pm_config": pd.DataFrame([thresholds | {"threshold_hash": "h", "candidate_id": 1}]),
            "previous_direction_model": None,
            "previous_direction_predictions": predictions,
        }.items():
            if rows is None:
                schema = pa.schema(
                    {name: pa.string() for name in model} | {"valid_from_ms": pa.int64()}
                )
                put(con, RELATIONS[relation], pa.Table.from_pylist([model], schema=schema))
            else:
                put(con, RELATIONS[relation], pa.Table.from_pandas(rows, preserve_index=False))
        found = con.sql(sql or ablation_sql()).to_arrow_table().to_pylist()
    assert [row["eval_split"] for row in found] == [*SPLITS, "combined"]
    return {row.pop("eval_split"): row for row in found}


def expected(frame, baseline, thresholds=THRESHOLDS):
    """The same by the slow evaluator, without status and reason."""
    other = swapped(frame, baseline)
    mine, theirs = (oracle.backtest_trades(each, thresholds) for each in (frame, other))
    present, before = oracle.backtest_metrics(mine), oracle.backtest_metrics(theirs)
    taken = set(zip(mine["sample_id"], mine["side"], strict=True))
    rows = {}
    for split in (*SPLITS, "combined"):
        of_split = other if split == "combined" else other[other["split_id"] == split]
        known = of_split[of_split["long_prob"].notna()]
        traded = theirs if split == "combined" else theirs[theirs["split_id"] == split]
        rows[split] = {
            "baseline_model_id": "a1b2",
            "baseline_valid_from": VALID_FROM.to_pydatetime(),
            "row_count": len(of_split),
            "baseline_row_count": len(known),
            "baseline_in_sample_row_count": sum(known["event_time"] < VALID_FROM),
            "shared_trade_count": sum(
                key in taken for key in zip(traded["sample_id"], traded["side"], strict=True)
            ),
            **present[split],
            **{f"baseline_{name}": value for name, value in before[split].items()},
            **{
                f"{name}_difference": difference(present[split][name], before[split][name])
                for name in (
                    *("trade_count", "avg_actual_edge_bps", "avg_weighted_edge_bps"),
                    "total_weighted_edge_bps",
                )
            },
        }
    return rows


def difference(one, other):
    return None if one is None or other is None else one - other


def differing(found, wanted):
    """Names of the columns where a split's row is other than the evaluator's."""
    wrong = set()
    for split, columns in wanted.items():
        assert set(found[split]) == set(columns) | {"status", "reason"}
        for name, value in columns.items():
            other = found[split][name]
            if isinstance(value, float) and isinstance(other, float) and math.isfinite(value):
                same = abs(value - other) <= 1e-9 * max(1, abs(value))
            else:
                same = value == other
            wrong |= set() if same else {name}
    return wrong


# on these rows validation_locked has one verdict and each other split the opposite one
FRAME = random_frame(18, rows=600)
BASELINE = random_baseline(FRAME, 19)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_ablation_is_that_of_the_definition(seed):
    frame = random_frame(seed, rows=450)
    baseline = random_baseline(frame, seed + 10)
    found, wanted = ablation(frame, baseline), expected(frame, baseline)
    assert not differing(found, wanted)
    assert all(row["baseline_trade_count"] > 20 for row in wanted.values())
    assert all(0 < row["shared_trade_count"] < row["trade_count"] for row in wanted.values())
    gained = wanted["validation_locked"]["total_weighted_edge_bps_difference"]
    for row in found.values():
        assert row["status"] == ("BETTER" if gained > 0 else "WORSE")


def test_better_for_one_is_worse_for_the_other():
    found = ablation(FRAME, BASELINE)
    back = ablation(swapped(FRAME, BASELINE)[FRAME.columns], same_baseline(FRAME))
    status, other = found["tune_inner"]["status"], back["tune_inner"]["status"]
    assert {status, other} == {"BETTER", "WORSE"}
    for split, row in found.items():
        assert row["total_weighted_edge_bps"] == pytest.approx(
            back[split]["baseline_total_weighted_edge_bps"], abs=1e-9
        )
    reasons = {each["tune_inner"]["status"]: each["tune_inner"]["reason"] for each in (found, back)}
    assert reasons["BETTER"].startswith(
        "The present model earns more in total on validation_locked."
    )
    assert reasons["WORSE"].startswith(
        "The previous model earns more in total on validation_locked."
    )


def test_the_same_predictions_are_equal():
    found = ablation(FRAME, same_baseline(FRAME))
    for row in found.values():
        assert (row["status"], row["reason"]) == (
            "EQUAL",
            "Both models earn the same in total on validation_locked.",
        )
        assert row["shared_trade_count"] == row["trade_count"] == row["baseline_trade_count"] > 50
        assert row["total_weighted_edge_bps_difference"] == pytest.approx(0, abs=1e-9)


def test_without_an_earlier_model_there_is_no_baseline():
    why = "The registry has no earlier model of direction."
    found = ablation(FRAME, refusal=why)
    present = oracle.backtest_metrics(oracle.backtest_trades(FRAME, THRESHOLDS))
    for split, row in found.items():
        assert (row["status"], row["reason"]) == ("NO_BASELINE", why)
        of_split = FRAME["split_id"].isin(SPLITS if split == "combined" else [split])
        assert row["row_count"] == of_split.sum() > 150
        assert row["trade_count"] == present[split]["trade_count"] > 50
        others = set(row) - {"status", "reason", "row_count", *oracle.METRICS}
        assert len(others) == 18
        assert {row[name] for name in others} == {None}


def test_a_refused_model_is_no_baseline_and_still_named():
    """Whatever lies in its predictions: the refusal decides."""
    found = ablation(FRAME, BASELINE, refusal="It is gone.")
    for row in found.values():
        assert (row["status"], row["reason"]) == ("NO_BASELINE", "It is gone.")
        assert row["baseline_model_id"] == "a1b2"
        assert row["baseline_trade_count"] is row["shared_trade_count"] is None
        assert row["total_weighted_edge_bps_difference"] is None


def judged(frame):
    return frame["split_id"] == "validation_locked"


def test_a_model_that_predicts_nothing_of_the_judged_split_is_no_baseline():
    locked = set(FRAME.loc[judged(FRAME), "sample_id"])
    baseline = same_baseline(FRAME)
    silent = baseline["sample_id"].isin(locked)
    for nothing in (
        baseline[~silent],
        baseline.assign(long_prob=baseline["long_prob"].mask(silent)),
    ):
        row = ablation(FRAME, nothing)["tune_inner"]
        assert row["status"] == "NO_BASELINE"
        assert row["reason"].startswith("The previous model of direction predicts no row of valid")
        assert row["baseline_trade_count"] is None
    one = silent & (baseline["long_prob"] > 0) & ~silent.cumsum().gt(10)
    row = ablation(FRAME, baseline[~silent | one])["tune_inner"]
    assert row["status"] in ("BETTER", "WORSE", "EQUAL")


def test_what_the_previous_model_learned_from_flatters_it():
    for split, flattered in [("tune_inner", False), ("validation_locked", True)]:
        own = set(FRAME.loc[FRAME["split_id"] == split, "sample_id"])
        baseline = same_baseline(FRAME)
        baseline["is_out_of_sample"] = ~baseline["sample_id"].isin(own)
        found = ablation(FRAME, baseline)
        for row in found.values():
            said = "learned from rows of that time, which flatters it." in row["reason"]
            assert said == flattered
        counts = {name: row["baseline_in_sample_row_count"] for name, row in found.items()}
        assert counts[split] == counts["combined"] > 180
        assert sum(counts.values()) == 2 * counts[split]


LOCKED = {"split_id": "validation_locked"}


@pytest.mark.parametrize(
    ("gain", "status"),
    [(0.0, "EQUAL"), (3e-10, "EQUAL"), (-3e-10, "EQUAL"), (1e-8, "BETTER"), (-1e-8, "WORSE")],
)
def test_differences_beyond_nine_decimals_are_none(gain, status):
    """One trade each, of different sizes of the edge."""
    edge = {"actual_long_expected_net_edge_bps": 2.0 + gain}
    frame = frame_of(edge | LOCKED, {"actual_long_expected_net_edge_bps": 2.0} | LOCKED)
    baseline = same_baseline(frame)
    frame.loc[1, "long_prob"] = 0.1
    baseline.loc[0, "long_prob"] = 0.1
    row = ablation(frame, baseline)["validation_locked"]
    assert (row["status"], row["shared_trade_count"], row["trade_count"]) == (status, 0, 1)


def test_other_splits_do_not_decide():
    """Gains before and after the judged split do not make a model better."""
    frame = frame_of({}, LOCKED, {"split_id": "latest_stress"})
    baseline = same_baseline(frame)
    baseline.loc[[0, 2], "long_prob"] = 0.1
    found = ablation(frame, baseline)
    assert {row["status"] for row in found.values()} == {"EQUAL"}
    assert found["combined"]["total_weighted_edge_bps_difference"] == 20.0
    assert found["latest_stress"]["baseline_trade_count"] == 0


def test_a_side_that_differs_is_no_shared_trade():
    frame = frame_of(LOCKED, LOCKED)
    baseline = same_baseline(frame)
    baseline.loc[0, ["long_prob", "short_prob"]] = [0.05, 0.9]
    row = ablation(frame, baseline)["validation_locked"]
    assert (row["trade_count"], row["baseline_trade_count"], row["shared_trade_count"]) == (2, 2, 1)


def test_no_trades_of_either_are_equal():
    frame = frame_of(LOCKED, LOCKED, long_prob=0.1)
    row = ablation(frame, same_baseline(frame))["validation_locked"]
    assert (row["status"], row["trade_count"], row["baseline_trade_count"]) == ("EQUAL", 0, 0)
    assert row["baseline_profit_factor"] == row["baseline_max_drawdown_bps"] == 0


MUTATIONS = [
    ("baseline.long_prob,", "frame.long_prob,"),
    ("left join heads.previous_direction_predictions", "join heads.previous_direction_predictions"),
    ("filter (where not is_out_of_sample)", "filter (where is_out_of_sample)"),
    ("order by split_number, trade_index", "order by trade_index, split_number"),
    ("using (sample_id, side)", "using (sample_id)"),
    ("present.accounting = 'label_edge'\norder", "present.accounting = 'executed'\norder"),
    ("gain_bps > 0", "gain_bps < 0"),
    ("eval_split = 'validation_locked' and", "eval_split = 'latest_stress' and"),
    ("count(long_prob) as", "count(*) as"),
]


@pytest.mark.parametrize(("text", "instead"), MUTATIONS)
def test_the_comparison_notices(text, instead):
    assert text in ablation_sql()
    changed = ablation(FRAME, BASELINE, sql=ablation_sql().replace(text, instead))
    usual = ablation(FRAME, BASELINE)
    noticed = differing(changed, expected(FRAME, BASELINE))
    assert noticed or changed["combined"]["status"] != usual["combined"]["status"]
