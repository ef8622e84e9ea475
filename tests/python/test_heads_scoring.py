"""Scoring in a stream: the right model for every row, the trainer's own numbers, little memory.

Champions change with time: a row is scored by what was known at its time, and says so.
"""

import gc
import itertools
import weakref

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pytest

import heads_market as market
from heads_market import DAILY, DAY_MS, MINUTE
from wavehouse.heads import scoring, training, trees
from wavehouse.heads.base import HeadsError
from wavehouse.heads.model import load
from wavehouse.heads.store import ModelStoreError

FOLDS = market.ANCHOR | market.EXPANDING


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAREHOUSE_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def minute(tmp_path_factory):
    """A market with the models of fold anchor as champions: the warehouse, the store, the rows."""
    root = tmp_path_factory.mktemp("store")
    con = market.warehouse()
    table = training.train(con, MINUTE, root)
    market.crown(con, market.champions_of(table))
    return con, root, table


@pytest.fixture(scope="module")
def daily(tmp_path_factory):
    """Two folds of a daily track: two champions for each target, one after the other."""
    root = tmp_path_factory.mktemp("store")
    con = market.warehouse(
        market.daily_rows(),
        DAILY,
        market.DAILY_TARGETS,
        market.DAILY_FEATURES,
        market.EXPANDING,
        train_folds=["expanding"],
    )
    table = training.train(con, DAILY, root)
    market.crown(con, market.champions_of(table), track="daily")
    return con, root, table


def scored(con, root, track=MINUTE):
    return scoring.score(con, track, root).read_all()


def in_order(table):
    return table.sort_by("sample_id").combine_chunks()


def member_texts(root, model_id):
    model, files = load(root, model_id)
    return model, [files[f"seed_{seed}/member.txt"].decode() for seed in model.manifest["seeds"]]


def beside_thresholds(root, table, feature):
    """Doubles that lie on another side of a threshold of a feature than the nearest float32."""
    found = []
    for model_id in table["model_id"].to_pylist():
        for member in load(root, model_id)[0].members:
            place = member.features.index(feature)
            for tree in trees.parse(member.text).trees:
                own = tree.threshold[tree.feature == place]
                found += [
                    float(value)
                    for threshold, value in zip(
                        [*own, *own], [*own, *np.nextafter(own, 9)], strict=True
                    )
                    if (np.float32(value) <= threshold) != (value <= threshold)
                ]
    assert found
    return sorted(set(found))


def matrix(con, features, relation, order="sample_id"):
    """The features as DuckDB keeps them, by a query of its own: float32, NaN where unknown."""
    columns = con.execute(f"select * from {relation} order by {order}").fetchnumpy()
    values = [np.ma.filled(columns[name].astype(float), np.nan) for name in features]
    return np.column_stack(values).astype(np.float32)


# The numbers


def test_every_row_has_keys_and_one_score_per_output_and_seed(minute):
    con, root, table = minute
    found = scored(con, root)
    outputs = [name for names in table["outputs"].to_pylist() for name in names]
    assert found.schema.names == [
        *("sample_id", "symbol", "event_time", "starts_at_ms", "split_id"),
        *("is_out_of_sample", "unseen_null_count", "models", "scores"),
    ]
    assert sorted(field.name for field in found.schema.field("scores").type) == sorted(outputs)
    assert found.num_rows == con.execute("select count(*) from heads.head_samples").fetchall()[0][0]
    con.register("found", found)
    same = con.execute(
        "select count(*) from found inner join heads.head_samples as samples using "
        "(sample_id, symbol, event_time, starts_at_ms, split_id)"
    ).fetchall()
    assert same[0][0] == found.num_rows
    con.unregister("found")
    ids = dict(zip(table["target"].to_pylist(), table["model_id"].to_pylist(), strict=True))
    assert found["models"].to_pylist() == [ids] * found.num_rows
    for scores in found["scores"].to_pylist()[::100]:
        assert {len(each) for each in scores.values()} == {2}
        probabilities = [scores[name][0] for name in outputs if name.endswith("_prob")]
        assert len(probabilities) == 3
        assert sum(probabilities) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("batch_rows", [1, 101, 1_000_000])
def test_scores_are_those_of_lightgbm_on_numpy_whatever_the_batches(
    minute, monkeypatch, batch_rows
):
    con, root, table = minute
    # A few rows do for batches of one. Some values are doubles beside a threshold, on the other
    # side of it than their float32, which is what trees learned from.
    con = market.warehouse(market.minute_rows(bars=20 if batch_rows == 1 else 600))
    market.crown(con, market.champions_of(table))
    for number, value in enumerate(beside_thresholds(root, table, "strong")[:20]):
        con.execute(f"update {MINUTE.features} set strong = {value!r} where rowid = {number}")
    monkeypatch.setattr(scoring, "BATCH_ROWS", batch_rows)
    found = in_order(scored(con, root))
    rows = matrix(con, market.FEATURES, MINUTE.features)
    for row in table.to_pylist():
        _, texts = member_texts(root, row["model_id"])
        each = [lgb.Booster(model_str=text).predict(rows, num_threads=1) for text in texts]
        each = np.stack([scores.reshape(len(rows), -1) for scores in each], axis=2)
        for number, output in enumerate(row["outputs"]):
            expected = [list(map(float, scores)) for scores in each[:, number]]
            assert pa.compute.struct_field(found["scores"], output).to_pylist() == expected


def test_a_feature_that_was_always_known_must_be_known_now(minute):
    """A tree reads such an unknown as zero: no score is better than a quiet zero."""
    con, root, table = minute
    before = in_order(scored(con, root))
    changed = market.warehouse()
    market.crown(changed, market.champions_of(table))
    for name, count in (("strong", 40), ("noise", 10)):
        some = f"select sample_id from {MINUTE.features} order by hash(sample_id) limit {count}"
        changed.execute(f"update {MINUTE.features} set {name} = NULL where sample_id in ({some})")
    changed.execute(
        "update factors.minute_features set whole = 'inf' where sample_id = "
        "(select max(sample_id) from factors.minute_features)"
    )
    after = in_order(scored(changed, root))
    unknown = changed.execute(
        "select (strong is null)::int + (noise is null)::int + isinf(whole)::int "
        "from factors.minute_features order by sample_id"
    ).fetchall()
    assert after["unseen_null_count"].to_pylist() == [count for (count,) in unknown]
    assert {count for (count,) in unknown} == {0, 1, 2}
    for (count,), old, new in zip(
        unknown, before["scores"].to_pylist(), after["scores"].to_pylist(), strict=True
    ):
        if count:
            assert set(new.values()) == {None}
        else:
            assert new == old
    gaps = matrix(con, ["gaps"], MINUTE.features)
    assert np.isnan(gaps).mean() > 0.2  # these were unknown in the fit too, and have scores
    assert before["unseen_null_count"].to_numpy().max() == 0


def test_the_rule_of_unseen_nulls_is_each_models_own(tmp_path):
    """One target learned with gaps in a feature, the other without: only the other has no score."""
    rows = market.minute_rows()
    first = pa.compute.less(rows["starts_at_ms"], market.START_MS + 300 * market.MINUTE_MS)
    noise = pa.compute.if_else(
        pa.compute.and_(first, rows["gaps"].is_null()), pa.scalar(None, pa.float64()), rows["noise"]
    )
    gappy = rows.set_column(rows.column_names.index("noise"), "noise", noise)
    targets, table = market.TARGETS[1:3], []
    for each, target in zip((rows, gappy), targets, strict=True):
        table.append(training.train(market.warehouse(each, targets=[target]), MINUTE, tmp_path))
    con = market.warehouse(gappy)
    market.crown(con, [champion for each in table for champion in market.champions_of(each)])
    con.execute(f"update {MINUTE.features} set strong = NULL where rowid % 50 = 0")
    found = in_order(scored(con, tmp_path))
    noise, strong = np.isnan(matrix(con, ["noise", "strong"], MINUTE.features)).T
    unknown, known = noise | strong, strong
    for output, expected in (("entry_score", unknown), ("rare_entry_score", known)):
        scores = pa.compute.struct_field(found["scores"], output)
        assert scores.is_null().to_pylist() == [bool(each) for each in expected]
    counts = noise.astype(int) + strong
    assert set(counts) == {0, 1, 2}
    assert found["unseen_null_count"].to_pylist() == list(counts)


# Champions by time


def definition(rows, champions, starts_at_ms):
    """The champion of each target at a time, and whether the row is out of sample for all."""
    chosen, out_of_sample = {}, True
    for target in sorted({target for target, _, _ in champions}):
        own = sorted(
            (valid_from, model_id) for name, model_id, valid_from in champions if name == target
        )
        valid = [each for each in own if each[0] <= starts_at_ms]
        chosen[target] = (valid[-1] if valid else own[0])[1]
        out_of_sample = out_of_sample and bool(valid)
    return chosen, out_of_sample


def test_every_row_is_scored_by_the_champions_of_its_time(daily):
    con, root, table = daily
    champions = market.champions_of(table)
    froms = sorted({valid_from for _, _, valid_from in champions})
    assert len(froms) == 2
    found = scored(con, root, DAILY).to_pylist()
    kinds = set()
    for row in found:
        chosen, out_of_sample = definition(found, champions, row["starts_at_ms"])
        assert row["models"] == chosen
        assert row["is_out_of_sample"] == out_of_sample
        kinds.add((out_of_sample, chosen["forward_1d"]))
    assert len(kinds) == 3  # before the first, under the first, under the second
    edge = {row["starts_at_ms"]: row["is_out_of_sample"] for row in found}
    assert edge[froms[0]]  # exact: the first row that starts when the last label has ended
    assert not edge[froms[0] - DAY_MS]


def test_scores_are_those_of_the_champion_named(daily):
    con, root, _ = daily
    found = in_order(scored(con, root, DAILY))
    rows = matrix(con, market.DAILY_FEATURES, DAILY.features)
    chosen = found["models"].to_pylist()
    for target in ("forward_10d", "top_tenth"):
        scores = pa.compute.struct_field(found["scores"], f"{target}_score").to_pylist()
        for model_id in {each[target] for each in chosen}:
            _, texts = member_texts(root, model_id)
            each = np.stack([lgb.Booster(model_str=text).predict(rows) for text in texts], axis=1)
            mine = [number for number, names in enumerate(chosen) if names[target] == model_id]
            assert len(mine) > 100
            assert [scores[number] for number in mine] == [list(each[number]) for number in mine]


def shifted(daily, changes):
    """The champions with other times: {(fold, target): days later}."""
    _, _, table = daily
    rows = table.select(["fold", "target", "model_id", "valid_from_ms"]).to_pylist()
    return [
        (
            row["target"],
            row["model_id"],
            row["valid_from_ms"] + changes.get((row["fold"], row["target"]), 0) * DAY_MS,
        )
        for row in rows
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {("expanding_1", "top_tenth"): 5},
        {("expanding_2", "top_tenth"): -4, ("expanding_2", "forward_1d"): 7},
        {("expanding_1", "forward_3d"): -1000},
        {("expanding_2", target): 1000 for target in ("forward_1d", "top_tenth")},
    ],
)
def test_champions_that_change_on_days_of_their_own(daily, changes):
    con, root, _ = daily
    con = con.cursor()
    champions = shifted(daily, changes)
    market.crown(con, champions, track="daily")
    found = scored(con, root, DAILY).to_pylist()
    assert len(found) == con.execute("select count(*) from panel.factors").fetchall()[0][0]
    assert len({row["sample_id"] for row in found}) == len(found)
    for row in found:
        chosen, out_of_sample = definition(found, champions, row["starts_at_ms"])
        assert (row["models"], row["is_out_of_sample"]) == (chosen, out_of_sample)
    market.crown(con, market.champions_of(daily[2]), track="daily")


def test_spans_cover_all_time_once(daily):
    con, _, table = daily
    spans = scoring.champion_spans(con, DAILY)
    assert spans[0].starts_at_ms is None
    assert spans[-1].ends_at_ms is None
    for one, other in itertools.pairwise(spans):
        assert one.ends_at_ms == other.starts_at_ms
    assert len(spans) == len({row["valid_from_ms"] for row in table.to_pylist()})


def test_rows_after_a_time_change_no_score_before_it(daily):
    con, root, _ = daily
    whole = in_order(scored(con, root, DAILY))
    starts = whole["starts_at_ms"].to_numpy()
    for share in (0.1, 0.55, 0.75, 0.9):
        limit = int(np.quantile(starts, share))
        cut = con.cursor()
        cut.execute("begin")
        for relation, column in (
            (DAILY.features, DAILY.time_column),
            (DAILY.samples, "starts_at_ms"),
            ("heads.model_aliases", "valid_from_ms"),
        ):
            keep = f"and valid_from_ms > (select min(valid_from_ms) from {relation})"
            keep = keep if relation == "heads.model_aliases" else ""
            cut.execute(f"delete from {relation} where {column} > {limit} {keep}")
        left = market.duckdb.connect()
        for schema in ("heads", "panel"):
            left.execute(f"create schema {schema}")
        for relation in (DAILY.features, "heads.model_aliases"):
            market.put(left, relation, cut.sql(f"from {relation}").to_arrow_table())
        cut.execute("rollback")
        found = in_order(scored(left, root, DAILY))
        assert found.num_rows == (starts <= limit).sum()
        mask = pa.compute.less_equal(whole["starts_at_ms"], limit)
        assert found.equals(whole.filter(mask).combine_chunks())


# The stream


def big_market(table, rows):
    """A million rows that no table holds: the features are a view over a range."""
    con = market.warehouse(market.minute_rows(bars=10))
    con.execute("drop table factors.minute_features")
    con.execute(
        f"""
        create view factors.minute_features as
        select
            'a long name of sample ' || lpad(i::varchar, 150, '0') as sample_id,
            'S' as symbol, make_timestamp(i * 60000000) as event_time,
            i * 60000 as open_time_ms, 'fit' as split_id,
            sin(i) as strong, if(i % 3 = 0, NULL, 1.0) as gaps, i % 5 - 2 as whole,
            7.0 as constant, cos(i) as noise
        from range({rows}) as rows(i)
        """
    )
    market.crown(con, market.champions_of(table))
    return con


def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


def test_a_million_rows_stream_through_the_memory_of_a_few_batches(minute):
    _, root, table = minute
    table = table.filter(pa.compute.equal(table["target"], "edge_bps"))
    con = big_market(table, 1_000_000)
    seen, counts, held, sizes, whole_mb = [], [], [], [], 0.0
    score_batch = scoring.score_batch

    def watched(batch, *others):
        seen.append(weakref.ref(batch))
        counts.append(sum(each() is not None for each in seen))
        return score_batch(batch, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "score_batch", watched)
        scored(big_market(table, 1000), root)  # the libraries take what they need once
        counts.clear()
        before = resident_mb()
        reader = scoring.score(con, MINUTE, root)
        assert not counts  # nothing is read before it is asked for
        for batch in reader:
            sizes.append(batch.num_rows)
            whole_mb += batch.nbytes / 1e6
            held.append(resident_mb())
    assert sum(sizes) == 1_000_000
    assert len(sizes) >= 1_000_000 // scoring.BATCH_ROWS
    assert max(sizes) <= scoring.BATCH_ROWS
    assert max(counts) <= 2  # the batch being scored and the one before it
    assert whole_mb > 120
    assert max(held) - before < whole_mb / 2


def test_the_stream_can_be_left_early(minute):
    con, root, _ = minute
    reader = scoring.score(con, MINUTE, root)
    reader.read_next_batch()
    del reader
    gc.collect()
    assert scored(con, root).num_rows == 1800


def test_no_rows_give_an_empty_stream_with_every_column(minute):
    con, root, table = minute
    schema = scoring.score(con, MINUTE, root).schema
    empty = market.warehouse()
    market.crown(empty, market.champions_of(table))
    empty.execute("delete from factors.minute_features")
    found = scored(empty, root)
    assert found.num_rows == 0
    assert found.schema == schema


def test_dbt_can_write_the_stream_as_a_table(minute):
    con, root, _ = minute
    reader = scoring.score(con, MINUTE, root)  # noqa: F841, read by the query
    other = con.cursor()
    other.execute("create or replace table heads.raw_scores as from reader")
    (count, seeds) = con.execute(
        "select count(*), min(len(scores.edge_bps_score)) from heads.raw_scores"
    ).fetchall()[0]
    assert (count, seeds) == (1800, 2)


# Refusals


def test_scoring_without_a_champion_says_what_to_do(minute):
    con, root, _ = minute
    with pytest.raises(HeadsError, match=r"no champion of track daily: train .*training_runs"):
        scoring.score(con, DAILY, root)


def test_scoring_stops_before_the_first_row_when_a_model_is_damaged(minute, tmp_path):
    con, root, table = minute
    model_id = table["model_id"].to_pylist()[1]
    for each in table["model_id"].to_pylist():
        (tmp_path / each).symlink_to(root / each)
    (tmp_path / model_id).unlink()
    with pytest.raises(ModelStoreError, match=rf"model {model_id} is not in the store"):
        scoring.score(con, MINUTE, tmp_path)


def test_scoring_needs_the_features_of_its_models(minute, tmp_path):
    _, root, table = minute
    con = market.warehouse()
    market.crown(con, market.champions_of(table))
    con.execute("alter table factors.minute_features drop column noise")
    with pytest.raises(Exception, match="noise"):
        scored(con, root)
