"""Heads that look at a whole cross-section: rankings by LightGBM, nets that pool their date."""

import numpy as np
import pyarrow as pa
import pytest

import heads_market as market
from wavehouse.heads import replay, scoring
from wavehouse.heads.base import HeadsError
from wavehouse.heads.lightgbm_trainer import GRADES, _grades
from wavehouse.heads.model import load
from wavehouse.heads.training import train

RANKING = {
    "track": "daily",
    "feature_list": "cross_section",
    "calibration": "none",
    "interval_level": None,
}


def built(tmp_path, targets, **settings):
    con = market.warehouse(
        market.daily_rows(),
        market.DAILY,
        targets,
        market.DAILY_FEATURES,
        market.ANCHOR,
        **settings,
    )
    trained = train(con, market.DAILY, tmp_path)
    market.crown(con, market.champions_of(trained), "daily")
    return con, trained.to_pylist()


def scores_by_sample(con, tmp_path, output):
    table = scoring.score(con, market.DAILY, tmp_path).read_all()
    scores = pa.compute.struct_field(table["scores"], output).to_pylist()
    return dict(zip(table["sample_id"].to_pylist(), scores, strict=True))


@pytest.mark.parametrize("sizes", [[7, 5, 1, 12], [10]])
def test_grades_are_fifths_of_the_cross_section(sizes):
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = rng.integers(0, 6, len(groups)).astype(float)
    expected = []
    for group, label in zip(groups, labels, strict=True):
        own = labels[groups == group]
        middle = (own < label).sum() + ((own == label).sum() - 1) / 2
        expected.append(int(GRADES * (middle + 0.5) / len(own)))
    assert _grades(labels, groups).tolist() == expected


def test_a_ranking_orders_each_date_and_survives_storing(tmp_path):
    targets = [
        market.target_row("forward_1d", "regression", **RANKING),
        market.target_row("order_1d", "ranking", "forward_1d", **RANKING),
    ]
    con, trained = built(tmp_path, targets)
    by_target = {row["target"]: row for row in trained}
    ranking = by_target["order_1d"]
    assert {member["tune_metric"] for member in ranking["members"]} == {"rank_ic"}
    assert min(member["tune_value"] for member in ranking["members"]) > 0.6
    assert not ranking["calibration"]
    # the shared bins were not spoilt for the regression by the groups of the ranking
    alone = built(tmp_path / "alone", targets[:1])[1][0]
    assert alone["model_id"] == by_target["forward_1d"]["model_id"]
    for row in replay.replay_model(tmp_path, ranking["model_id"]):
        assert row["largest_difference"] <= row["tolerance"], row
    assert len(scores_by_sample(con, tmp_path, "order_1d_score")) == 20 * 160


def test_a_ranking_with_an_interval_is_refused(tmp_path):
    row = market.target_row(
        "order_1d", "ranking", "forward_1d", **RANKING | {"interval_level": 0.8}
    )
    with pytest.raises(HeadsError, match="ranking target has no interval"):
        built(tmp_path, [row])


@pytest.fixture(scope="module")
def pooled(tmp_path_factory):
    store = tmp_path_factory.mktemp("pooled")
    target = market.target_row("forward_1d", "regression", **RANKING | {"interval_level": 0.8})
    net = market.SETTINGS["torch"] | {"pool": True}
    con, trained = built(store, [target], trainer="torch", torch=net, max_rounds=24)
    return con, trained[0], store


def test_a_net_that_pools_is_trained_stored_and_replayed_on_whole_dates(pooled):
    _, row, store = pooled
    rows = {each["route"]: each for each in replay.replay_model(store, row["model_id"])}
    assert rows["native"]["largest_difference"] == 0
    assert "largest_difference" not in rows["sql"]
    assert "pool" in rows["sql"]["refusal"]
    assert "no ONNX form" in rows["onnx"]["refusal"]
    golden = {each["sample_id"].partition("@")[2] for each in row["golden"]}
    assert len(row["golden"]) == 20 * len(golden)  # every stock of each golden date
    assert {each["kind"] for each in row["importance"]} == {"permutation"}
    best = max(row["importance"], key=lambda each: each["value"])
    assert best["feature"] == "momentum_rank"


@pytest.mark.parametrize("batch_rows", [7, 20, 33, 10_000])
def test_scores_of_a_net_that_pools_do_not_depend_on_the_batches(pooled, batch_rows, monkeypatch):
    con, row, store = pooled
    monkeypatch.setattr(scoring, "BATCH_ROWS", batch_rows)
    found = scores_by_sample(con, store, "forward_1d_score")
    model, _ = load(store, row["model_id"])
    rows = market.daily_rows()
    order = rows.sort_by([("starts_at_ms", "ascending"), ("symbol", "ascending")])
    features = order.select(market.DAILY_FEATURES)
    features = features.cast(pa.schema([(name, pa.float32()) for name in features.column_names]))
    expected = model.seed_scores(features, order["starts_at_ms"].to_numpy())[:, 0]
    assert len(found) == len(expected)
    for sample, scores in zip(order["sample_id"].to_pylist(), expected, strict=True):
        assert found[sample] == pytest.approx(scores, abs=1e-6)


def test_a_date_without_one_stock_has_other_scores(pooled):
    _, row, store = pooled
    model, _ = load(store, row["model_id"])
    rows = market.daily_rows(stocks=20, days=1).select(market.DAILY_FEATURES)
    rows = rows.cast(pa.schema([(name, pa.float32()) for name in rows.column_names]))
    whole = model.seed_scores(rows, np.zeros(20))[:10]
    part = model.seed_scores(rows.slice(0, 10), np.zeros(10))
    assert np.abs(whole - part).max() > 1e-6
    with pytest.raises(HeadsError, match="pool"):
        model.seed_scores(rows)


def test_a_net_cannot_learn_a_ranking_and_says_what_can(tmp_path):
    row = market.target_row("order_1d", "ranking", "forward_1d", **RANKING)
    with pytest.raises(HeadsError, match="loss: ic"):
        built(tmp_path, [row], trainer="torch")
