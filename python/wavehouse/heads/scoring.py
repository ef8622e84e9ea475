"""Score the rows of a track in a stream: record batches in, record batches out."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa

from wavehouse.heads.base import HeadsError
from wavehouse.heads.config import Track
from wavehouse.heads.data import feature_columns
from wavehouse.heads.model import Model, load
from wavehouse.paths import model_store_dir

BATCH_ROWS = 65_536
KEYS = {
    "sample_id": pa.string(),
    "symbol": pa.string(),
    "event_time": pa.timestamp("us"),
    "starts_at_ms": pa.int64(),
    "split_id": pa.string(),
}
SCORES = pa.list_(pa.float64())


def score(
    con: duckdb.DuckDBPyConnection, track: Track, root: Path | None = None
) -> pa.RecordBatchReader:
    """Return a stream of one row per row of the track's features.

    Columns: KEYS, is_out_of_sample, unseen_null_count, `models`, a struct with the model_id per
    target, and `scores`, a struct with one field per output, each a list of one raw score per
    seed. A row is scored by the models that `heads.model_aliases` names champions at its time and
    is out of sample for them; rows before the first champion are scored by the first. Where a
    feature is unknown that was never unknown in the fit, a tree would quietly read it as zero:
    such scores are NULL, and `unseen_null_count` counts the features.

    Raises ModelStoreError when a model is missing or damaged, HeadsError when there is none.
    """
    root = root or model_store_dir()
    spans = champion_spans(con, track)
    ids = dict.fromkeys(model_id for span in spans for model_id in span.champions.values())
    models = {model_id: load(root, model_id)[0] for model_id in ids}
    outputs = dict.fromkeys(output for model_id in ids for output in models[model_id].outputs)
    schema = pa.schema(
        [
            *KEYS.items(),
            ("is_out_of_sample", pa.bool_()),
            ("unseen_null_count", pa.int32()),
            ("models", pa.struct([(target, pa.string()) for target in spans[0].champions])),
            ("scores", pa.struct([(output, SCORES) for output in outputs])),
        ]
    )

    def batches() -> Iterator[pa.RecordBatch]:
        for span in spans:
            chosen = {target: models[model_id] for target, model_id in span.champions.items()}
            for batch in read_rows(con, track, span, list(chosen.values())):
                yield score_batch(batch, span, chosen, schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


@dataclasses.dataclass(frozen=True)
class Span:
    """A span of time with the same champions: their model ids by target.

    `starts_at_ms` is None for the first span, `ends_at_ms` (exclusive) for the last. Rows from
    `known_at_ms` on are out of sample for all of them.
    """

    starts_at_ms: int | None
    ends_at_ms: int | None
    known_at_ms: int
    champions: dict[str, str]


def champion_spans(con: duckdb.DuckDBPyConnection, track: Track) -> list[Span]:
    """Return every span of time with the same champions, in order.

    Raises HeadsError without any champion.
    """
    rows = con.execute(
        """
        select target, model_id, valid_from_ms from heads.model_aliases
        where track = $track and alias = 'champion' order by target, valid_from_ms
        """,
        {"track": track.name},
    ).fetchall()
    if not rows:
        raise HeadsError(
            f"heads.model_aliases has no champion of track {track.name}: train first with "
            "`dbt build --select training_runs+`."
        )
    own: dict[str, list[tuple[int, str]]] = {}
    for target, model_id, valid_from in rows:
        own.setdefault(target, []).append((valid_from, model_id))
    cuts = sorted({valid_from for _, _, valid_from in rows})[1:]
    spans = []
    for starts, ends in zip([None, *cuts], [*cuts, None], strict=True):
        valid = {
            target: [each for each in each_of if starts is not None and each[0] <= starts]
            or each_of[:1]
            for target, each_of in own.items()
        }
        spans.append(
            Span(
                starts_at_ms=starts,
                ends_at_ms=ends,
                known_at_ms=max(each[-1][0] for each in valid.values()),
                champions={target: each[-1][1] for target, each in valid.items()},
            )
        )
    return spans


def score_batch(
    batch: pa.RecordBatch, span: Span, models: dict[str, Model], schema: pa.Schema
) -> pa.RecordBatch:
    """Return the scores of one batch that has KEYS and the features of every model."""
    fields: dict[str, pa.Array] = {}
    unseen = np.zeros(batch.num_rows, dtype=np.int32)
    for group in _by_unseen(list(models.values())):
        nulls = unseen_nulls(group[0], batch)
        unseen = np.maximum(unseen, nulls)
        for model in group:
            scores = model.seed_scores(batch, batch.column("starts_at_ms").to_numpy())
            for number, output in enumerate(model.outputs):
                fields[output] = _lists(scores[:, number], nulls > 0)
    count, scores = batch.num_rows, schema.field("scores").type
    ids = [pa.repeat(pa.scalar(span.champions[target]), count) for target in models]
    out_of_sample = pa.compute.greater_equal(batch.column("starts_at_ms"), span.known_at_ms)
    columns = [
        *(batch.column(name) for name in KEYS),
        out_of_sample,
        pa.array(unseen),
        pa.StructArray.from_arrays(ids, fields=list(schema.field("models").type)),
        pa.StructArray.from_arrays(
            [fields.get(field.name, pa.nulls(count, SCORES)) for field in scores],
            fields=list(scores),
        ),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def read_rows(
    con: duckdb.DuckDBPyConnection,
    track: Track,
    span: Span,
    models: list[Model],
    splits: Sequence[str] = (),
) -> Iterable[pa.RecordBatch]:
    """Return a stream of the features of a span of time, each feature once, as float32.

    With `splits`, of their rows alone; a split is a span of time, so cross-sections stay whole.
    """
    features = list(dict.fromkeys(name for model in models for name in model.features))
    starts = -(2**62) if span.starts_at_ms is None else span.starts_at_ms
    ends = 2**62 if span.ends_at_ms is None else span.ends_at_ms
    query = f"""
        select
            features.sample_id,
            features.symbol,
            features.event_time,
            features.{track.time_column} as starts_at_ms,
            features.split_id,
            {", ".join(feature_columns(features, "features"))}
        from {track.features} as features
        where features.{track.time_column} >= {starts} and features.{track.time_column} < {ends}
    """
    if splits:
        query += f"and features.split_id in ({', '.join(map(repr, splits))})\n"
    if any(model.pools for model in models):
        query += "order by starts_at_ms, features.symbol"
        return _whole_groups(con.cursor().sql(query).to_arrow_reader(BATCH_ROWS))
    return con.cursor().sql(query).to_arrow_reader(BATCH_ROWS)


def _whole_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of batches ordered by time in batches that cut no cross-section."""
    rest: list[pa.RecordBatch] = []
    for batch in batches:
        times = batch.column("starts_at_ms").to_numpy()
        last = int(np.searchsorted(times, times[-1]))  # the last cross-section may go on
        begins = rest[0].column("starts_at_ms")[0].as_py() if rest else times[0]
        if last or begins != times[0]:
            whole = pa.concat_batches([*rest, batch.slice(0, last)])
            rest = []
            yield whole
        rest.append(batch.slice(last))
    if rest:
        yield pa.concat_batches(rest)


def unseen_nulls(model: Model, batch: pa.RecordBatch) -> np.ndarray:
    """Return how many features (n,) are unknown that never were in the fit of a model."""
    nulls = np.zeros(batch.num_rows, dtype=np.int32)
    for name in model.manifest["unseen_nulls"]:
        nulls += batch.column(name).is_null().to_numpy(zero_copy_only=False)
    return nulls


def _by_unseen(models: list[Model]) -> list[list[Model]]:
    """Return the models grouped by the features that were never unknown in their fit."""
    groups: dict[tuple[str, ...], list[Model]] = {}
    for model in models:
        groups.setdefault(tuple(model.manifest["unseen_nulls"]), []).append(model)
    return list(groups.values())


def _lists(scores: np.ndarray, unknown: np.ndarray) -> pa.ListArray:
    """Return (n, seeds) scores as lists, NULL where `unknown`."""
    count, width = scores.shape
    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * width)
    values = pa.array(np.ascontiguousarray(scores).ravel())
    return pa.ListArray.from_arrays(offsets, values, mask=pa.array(unknown))
