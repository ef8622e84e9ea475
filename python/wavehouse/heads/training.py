"""Train every target of a track in every asked fold, store the models, describe them as rows."""

import datetime as dt
import hashlib
import importlib.metadata
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from wavehouse.heads import calibration, store
from wavehouse.heads.base import Block, HeadsError, Target, Untrainable
from wavehouse.heads.config import (
    Settings,
    Track,
    read_features,
    read_folds,
    read_settings,
    read_targets,
)
from wavehouse.heads.data import KEYS, ROWS, TRAINING_ROLES, FoldData, quoted, read_fold
from wavehouse.heads.importance import importances
from wavehouse.heads.model import GOLDEN_IN, GOLDEN_OUT, Model, ensemble_scores, trainer_named
from wavehouse.heads.tune_metrics import metric_of
from wavehouse.paths import model_store_dir

GOLDEN_GROUPS = 3  # cross-sections among the golden cases of a model that pools
INTERVAL_BINS = 10  # Mondrian bins of the prediction; fewer where rows are few
QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
TEXT, WHOLE, REAL = pa.string(), pa.int64(), pa.float64()


def _rows(**fields: pa.DataType) -> pa.ListType:
    """Return the type of a column that holds rows."""
    return pa.list_(pa.struct(list(fields.items())))


SCHEMA = pa.schema(
    {
        "model_id": TEXT,
        "track": TEXT,
        "head": TEXT,
        "target": TEXT,
        "fold": TEXT,
        "fold_scheme": TEXT,
        "trainer": TEXT,
        "objective": TEXT,
        "outputs": pa.list_(TEXT),
        "feature_list": TEXT,
        "feature_count": WHOLE,
        "schema_hash": TEXT,
        "params_json": TEXT,
        "seeds": pa.list_(WHOLE),
        "order_hash": TEXT,
        "valid_from_ms": WHOLE,
        "libraries_json": TEXT,
        "code_hash": TEXT,
        "trained_at": pa.timestamp("us"),
        "cpu_seconds": REAL,
        "artifacts": _rows(file=TEXT, sha256=TEXT, size_bytes=WHOLE),
        "members": _rows(
            seed=WHOLE,
            best_iteration=WHOLE,
            rounds=WHOLE,
            tune_metric=TEXT,
            tune_value=REAL,
            cpu_seconds=REAL,
        ),
        "roles": _rows(
            role=TEXT,
            row_count=WHOLE,
            labelled_row_count=WHOLE,
            positive_count=WHOLE,
            first_starts_at_ms=WHOLE,
            last_label_ends_at_ms=WHOLE,
            rows_hash=TEXT,
        ),
        "inputs": _rows(
            ordinal=WHOLE,
            feature=TEXT,
            null_share=REAL,
            mean=REAL,
            standard_deviation=REAL,
            minimum=REAL,
            maximum=REAL,
            quantiles=pa.list_(REAL),
        ),
        "curves": _rows(seed=WHOLE, iteration=WHOLE, role=TEXT, metric=TEXT, value=REAL),
        "calibration": pa.list_(pa.struct(list(calibration.CALIBRATION_SCHEMA))),
        "intervals": pa.list_(pa.struct(list(calibration.INTERVAL_SCHEMA))),
        "golden": _rows(
            case_id=WHOLE,
            sample_id=TEXT,
            output=TEXT,
            inputs=pa.list_(pa.float32()),
            seed_scores=pa.list_(REAL),
            prediction=REAL,
        ),
        "importance": _rows(feature=TEXT, kind=TEXT, value=REAL),
        "test_metrics": _rows(metric=TEXT, value=REAL, row_count=WHOLE),
    }
)


def train(con: duckdb.DuckDBPyConnection, track: Track, root: Path | None = None) -> pa.Table:
    """Train all models of a track and return one row of SCHEMA per model.

    Each fold is read once and binned once; its targets and seeds share that. The models are kept
    in the store `root`, by default `paths.model_store_dir()`. A walk-forward or CPCV fold whose
    rows cannot teach a target (short ones may lack a class) has no model of it, and says so; the
    champion before it keeps its place.

    Raises HeadsError when the configuration or the data do not allow training, Untrainable when
    the rows of an anchor fold do not.
    """
    root = root or model_store_dir()
    settings, targets = read_settings(con), read_targets(con, track)
    unknown = sorted(set(settings.trainers) - {target.head for target in targets})
    if unknown:
        raise HeadsError(
            f"var heads_trainers names {', '.join(unknown)}, which is no head of track "
            f"{track.name}: {', '.join(dict.fromkeys(target.head for target in targets))}."
        )
    folds = read_folds(con, track, settings.train_folds)
    lists = dict.fromkeys(target.feature_list for target in targets)
    rows, total, started = [], len(folds) * len(targets), time.monotonic()
    done = 0
    for fold in folds:
        scheme = con.execute(
            f"select any_value(fold_scheme) from {track.blocks} where fold = $fold", {"fold": fold}
        ).fetchall()[0][0]
        for name in lists:
            own = [target for target in targets if target.feature_list == name]
            features = read_features(con, track, name)
            roles = ["fit", "tune", "calibrate"] + (["test"] if scheme != "anchor" else [])
            data = read_fold(con, track, fold, features, own, roles)
            facts = _facts(con, data) | {"fold": fold, "fold_scheme": scheme, "track": track.name}
            shared: dict[Any, Any] = {}
            for target in own:
                done += 1
                try:
                    rows.append(train_model(data, target, settings, facts, shared, root))
                except Untrainable as error:
                    if scheme == "anchor":
                        raise
                    print(f"heads {done}/{total}  no model: {error}", flush=True)
                    continue
                _report(rows[-1], done, total, time.monotonic() - started)
    order = {target.target: number for number, target in enumerate(targets)}
    rows.sort(key=lambda row: (row["fold"], order[row["target"]]))
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def train_model(
    data: FoldData,
    target: Target,
    settings: Settings,
    facts: dict[str, Any],
    shared: dict[Any, Any],
    root: Path,
) -> dict[str, Any]:
    """Fit the members of one target on one fold, calibrate, store; return its row of SCHEMA."""
    name = settings.trainer_of(target.head)
    trainer, params = trainer_named(name), settings.params(name)
    blocks = {role: data.block(role, target) for role in data.bounds}
    members, seconds = [], []
    for seed in settings.seeds:
        before = time.process_time()
        try:
            members.append(
                trainer.fit(target, blocks["fit"], blocks["tune"], seed, params, threads(), shared)
            )
        except HeadsError as error:
            raise type(error)(f"head {target.head}, fold {data.fold}: {error}") from error
        seconds.append(time.process_time() - before)
    before = time.process_time()
    order_hash = _order_hash(facts["order"], blocks)
    libraries = {each: importlib.metadata.version(each) for each in (name, "numpy", "scikit-learn")}
    manifest = {
        "format": 1,
        "track": facts["track"],
        "head": target.head,
        "target": target.target,
        "label_column": target.label_column,
        "objective": target.objective,
        "classes": list(target.classes),
        "outputs": list(target.outputs),
        "fold": data.fold,
        "trainer": name,
        "params": params,
        "seeds": list(settings.seeds),
        "feature_list": target.feature_list,
        "features": list(data.features),
        "schema_hash": facts["schema_hash"],
        "order_hash": order_hash,
        "unseen_nulls": [each["feature"] for each in facts["inputs"] if each["null_share"] == 0],
    }
    try:
        model = _calibrated(Model(manifest, tuple(members), {}, {}), target, blocks["calibrate"])
    except HeadsError as error:
        raise HeadsError(
            f"head {target.head}, fold {data.fold}: target {target.target}: {error}"
        ) from error
    golden = _golden_cases(model, data, settings.golden_rows)
    files = model.files(golden)
    row = facts | {
        "order_hash": order_hash,
        "model_id": store.write(root, files),
        "head": target.head,
        "target": target.target,
        "trainer": name,
        "objective": target.objective,
        "outputs": list(target.outputs),
        "feature_list": target.feature_list,
        "feature_count": len(data.features),
        "params_json": json.dumps(params, sort_keys=True),
        "seeds": list(settings.seeds),
        "libraries_json": json.dumps(libraries, sort_keys=True),
        "code_hash": code_hash(),
        "trained_at": dt.datetime.now(dt.UTC).replace(tzinfo=None),
        "artifacts": [
            {"file": file, "sha256": digest, "size_bytes": len(files[file])}
            for file, digest in store.file_hashes(files).items()
        ],
        "members": [
            _member_row(member, spent) for member, spent in zip(members, seconds, strict=True)
        ],
        "roles": [_role_row(data, role, blocks[role], target, facts) for role in data.bounds],
        "curves": [
            {"seed": member.seed, **vars(point)} for member in members for point in member.curve
        ],
        "calibration": calibration.calibrators_to_arrow(model.calibrators).to_pylist(),
        "intervals": calibration.intervals_to_arrow(model.intervals).to_pylist(),
        "golden": _golden_rows(golden, data.features),
        "importance": importances(model, target, blocks["tune"], settings.importance_rows),
        "test_metrics": _test_metrics(model, target, blocks.get("test")),
    }
    row["cpu_seconds"] = sum(seconds) + time.process_time() - before
    return row


def threads() -> int:
    """Return how many threads training may use: `$WAREHOUSE_THREADS`, else the cores we may use."""
    return int(os.environ.get("WAREHOUSE_THREADS") or len(os.sched_getaffinity(0)))


def code_hash() -> str:
    """Return the SHA-256 of the sources of this package."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def tune_metric(member: Any) -> tuple[str, float]:
    """Return the name and the value at the best round of the metric that stopped a member."""
    own = [
        point
        for point in member.curve
        if point.role == "tune" and point.iteration == member.best_iteration
    ]
    return own[-1].metric, own[-1].value


def _calibrated(model: Model, target: Target, block: Block) -> Model:
    """Return the model with calibrators and intervals fitted on rows no tree has seen."""
    scores = ensemble_scores(model.seed_scores(block.features, block.groups))
    calibrators, intervals = {}, {}
    if target.objective == "multiclass":
        maps = calibration.fit_class_calibrators(
            scores, block.labels, block.weights, target.calibration
        )
        calibrators = dict(zip(target.outputs, maps, strict=True))
    elif target.objective == "binary":
        calibrators[target.outputs[0]] = calibration.fit_calibrator(
            scores[:, 0], block.labels, block.weights, target.calibration
        )
    elif target.level is not None:
        intervals[target.outputs[0]] = calibration.fit_conformal(
            scores[:, 0], block.labels, target.level, INTERVAL_BINS
        )
    return Model(model.manifest, model.members, calibrators, intervals)


def _golden_cases(model: Model, data: FoldData, count: int) -> dict[str, pa.Table]:
    """Return golden inputs and outputs: rows of the calibrate block spread over the scores.

    The row with most unknown features is always among them; a model that pools gets whole
    cross-sections instead.
    """
    rows, features = data.rows("calibrate"), data.kept["calibrate"].select(model.features)
    groups = rows["starts_at_ms"].to_numpy()
    order = np.argsort(ensemble_scores(model.seed_scores(features, groups))[:, 0], kind="stable")
    spread = order[np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)]
    nulls = sum(column.is_null().to_numpy().astype(int) for column in features.columns)
    chosen = np.unique(np.r_[spread, np.argmax(nulls)])
    if model.pools:
        whole = groups[chosen][np.linspace(0, len(chosen) - 1, GOLDEN_GROUPS).astype(int)]
        chosen = np.flatnonzero(np.isin(groups, whole))
    features, groups = features.take(chosen), groups[chosen]
    seed_scores = model.seed_scores(features, groups)
    predictions = model.predictions(seed_scores)
    cases = pa.array(range(len(chosen)), WHOLE)
    sample_ids = rows["sample_id"].take(chosen)
    outs = [
        pa.table(
            {
                "case_id": cases,
                "output": pa.array([output] * len(chosen)),
                "seed_scores": pa.array(list(seed_scores[:, number]), pa.list_(REAL)),
                "prediction": pa.array(predictions[:, number], REAL),
            }
        )
        for number, output in enumerate(model.outputs)
    ]
    ins = features.add_column(0, "group_id", pa.array(groups, WHOLE))
    ins = ins.add_column(0, "sample_id", sample_ids).add_column(0, "case_id", cases)
    return {GOLDEN_IN: ins.combine_chunks(), GOLDEN_OUT: pa.concat_tables(outs)}


def _golden_rows(golden: dict[str, pa.Table], features: Sequence[str]) -> list[dict[str, Any]]:
    """Return the golden cases as nested rows."""
    ins = golden[GOLDEN_IN]
    inputs = list(zip(*(ins[name].to_pylist() for name in features), strict=True))
    sample_ids = ins["sample_id"].to_pylist()
    return [
        case | {"inputs": inputs[case["case_id"]], "sample_id": sample_ids[case["case_id"]]}
        for case in golden[GOLDEN_OUT].to_pylist()
    ]


def _facts(con: duckdb.DuckDBPyConnection, data: FoldData) -> dict[str, Any]:
    """Return what all models of a fold and feature list share: hashes and fit statistics.

    `order` has taken in every value of the training rows but the labels, which are each target's
    own: a target more in the seed, or the rows that test a fold, change no model.
    """
    order = hashlib.sha256()
    trained = data.table.slice(0, data.bounds[TRAINING_ROLES[-1]][1])
    for name in KEYS:
        order.update(name.encode() + b"\0" + _column_bytes(trained[name]))
    for role in TRAINING_ROLES:
        features = data.kept.get(role, data.stored(role))
        for name in data.features:
            order.update(name.encode() + b"\0" + _column_bytes(features.select([name])[name]))
    hashes = {}
    for role in data.bounds:
        start, end = data.bounds[role]
        query = f"select sum(hash({ROWS})) from {ROWS} where rowid >= {start} and rowid < {end}"
        hashes[role] = str(con.execute(query).fetchall()[0][0])
    schema = "\n".join(f"{name} float" for name in data.features)
    ends = max(
        pa.compute.max(data.rows(role)["label_ends_at_ms"]).as_py() for role in TRAINING_ROLES
    )
    return {
        "order": order,
        "schema_hash": hashlib.sha256(schema.encode()).hexdigest(),
        "rows_hashes": hashes,
        "valid_from_ms": ends,
        "inputs": _input_rows(con, data),
    }


def _order_hash(order: Any, blocks: dict[str, Block]) -> str:
    """Return the SHA-256 of `order`, and of the labels of one target in the training roles."""
    own = order.copy()
    for role in TRAINING_ROLES:
        own.update(role.encode() + b"\0" + blocks[role].labels.tobytes())
    return own.hexdigest()


def _column_bytes(column: pa.ChunkedArray) -> bytes:
    """Return the values of a column as bytes that tell every two columns apart."""
    unknown = np.packbits(column.is_null().to_numpy(zero_copy_only=False)).tobytes()
    if pa.types.is_string(column.type):
        return unknown + "\0".join(column.fill_null("").to_pylist()).encode()
    return unknown + column.fill_null(0).to_numpy(zero_copy_only=False).tobytes()


def _input_rows(con: duckdb.DuckDBPyConnection, data: FoldData) -> list[dict[str, Any]]:
    """Return the statistics of every feature over the fit rows."""
    facts = ", ".join(
        f"""{{
            'null_share': 1 - count({name}) / count(*)::double,
            'mean': avg({name}::double),
            'standard_deviation': stddev_samp({name}::double),
            'minimum': min({name})::double,
            'maximum': max({name})::double,
            'quantiles': quantile_cont({name}::double, {list(QUANTILES)})
        }}"""
        for name in map(quoted, data.features)
    )
    start, end = data.bounds["fit"]
    query = f"select [{facts}] from {ROWS} where rowid >= {start} and rowid < {end}"
    found = con.execute(query).fetchall()[0][0]
    return [
        {"ordinal": number, "feature": name} | fact
        for number, (name, fact) in enumerate(zip(data.features, found, strict=True), start=1)
    ]


def _role_row(
    data: FoldData, role: str, block: Block, target: Target, facts: dict[str, Any]
) -> dict[str, Any]:
    """Return the row that says which rows served in a role."""
    rows = data.rows(role)
    known = ~np.isnan(block.labels)
    binary = target.objective == "binary"
    return {
        "role": role,
        "row_count": rows.num_rows,
        "labelled_row_count": int(known.sum()),
        "positive_count": int((block.labels[known] == 1).sum()) if binary else None,
        "first_starts_at_ms": pa.compute.min(rows["starts_at_ms"]).as_py(),
        "last_label_ends_at_ms": pa.compute.max(rows["label_ends_at_ms"]).as_py(),
        "rows_hash": facts["rows_hashes"][role],
    }


def _member_row(member: Any, seconds: float) -> dict[str, Any]:
    """Return the row that says how the fit of one seed ended."""
    metric, value = tune_metric(member)
    return {
        "seed": member.seed,
        "best_iteration": member.best_iteration,
        "rounds": max(point.iteration for point in member.curve),
        "tune_metric": metric,
        "tune_value": value,
        "cpu_seconds": seconds,
    }


def _test_metrics(model: Model, target: Target, block: Block | None) -> list[dict[str, Any]]:
    """Return the tune metric of the model on the tested rows of a walk-forward or CPCV fold.

    There is none where no tested row has a label.
    """
    if block is None or np.isnan(block.labels).all():
        return []
    name, metric, known = metric_of(target, block)
    scores = ensemble_scores(model.seed_scores(block.features, block.groups))[known]
    return [{"metric": name, "value": metric(scores), "row_count": int(known.sum())}]


def _report(row: dict[str, Any], number: int, total: int, seconds: float) -> None:
    """Say that a model is trained, for whoever watches a long build."""
    members = ", ".join(
        f"{each['best_iteration']} rounds, {each['tune_metric']} {each['tune_value']:.4f}"
        for each in row["members"]
    )
    print(
        f"heads {number}/{total}  {row['fold']} {row['target']}: {members}  [{seconds:.0f} s]",
        flush=True,
    )
