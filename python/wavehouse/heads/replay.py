"""Ask stored models again what they were asked when they were stored: natively, by ONNX, in SQL."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import onnxruntime
import pyarrow as pa

from wavehouse.heads.base import HeadsError, Member
from wavehouse.heads.config import Track
from wavehouse.heads.model import (
    GOLDEN_IN,
    GOLDEN_OUT,
    ONNX,
    Model,
    load,
    member_scores,
    read_parquet,
)
from wavehouse.heads.store import ModelStoreError
from wavehouse.paths import model_store_dir

# Largest difference of raw scores from the stored ones, by trainer and route. Trees are exact
# natively and in SQL; ONNX and nets sum float32 in an order of their own.
TOLERANCES = {
    "lightgbm": {"native": 0.0, "onnx": 1e-6, "sql": 0.0},
    "torch": {"native": 0.0, "onnx": 1e-5, "sql": 1e-5},
}

SCHEMA = pa.schema(
    {
        "model_id": pa.string(),
        "head": pa.string(),
        "target": pa.string(),
        "fold": pa.string(),
        "seed": pa.int64(),
        "route": pa.string(),
        "case_count": pa.int64(),
        "largest_difference": pa.float64(),
        "tolerance": pa.float64(),
        "refusal": pa.string(),
    }
)


def replay(con: duckdb.DuckDBPyConnection, track: Track, root: Path | None = None) -> pa.Table:
    """Replay the golden cases of the models in use; return rows of SCHEMA.

    In use are the models of the last training, those of CPCV folds too, and the ones before them
    that an alias names. One row per model, seed and route. `refusal` says why a model has no such
    route (a net too large for SQL, or one that pools groups), or that an earlier model is gone from
    the store; NULL otherwise.

    Raises ModelStoreError when a model of the last training is missing or damaged.
    """
    root = root or model_store_dir()
    used = con.execute(
        """
        select model_id, head, target, fold, true as is_current
        from heads.training_runs where track = $track
        union
        select model_id, head, target, fold, false
        from heads.model_aliases where track = $track and alias = 'previous'
            and model_id not in (select runs.model_id from heads.training_runs as runs)
        order by model_id
        """,
        {"track": track.name},
    ).fetchall()
    rows: list[dict[str, Any]] = []
    for model_id, head, target, fold, is_current in used:
        try:
            rows += replay_model(root, model_id)
        except ModelStoreError as error:
            if is_current:
                raise
            gone = {"model_id": model_id, "head": head, "target": target, "fold": fold}
            gone |= {"seed": -1, "route": "native", "case_count": 0, "refusal": str(error)}
            rows.append(gone)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def replay_model(root: Path, model_id: str) -> list[dict[str, Any]]:
    """Return the rows of one stored model. Raises ModelStoreError."""
    model, files = load(root, model_id)
    golden = read_parquet(files[GOLDEN_IN])
    features = golden.select(model.features)
    groups = golden["group_id"].to_numpy() if "group_id" in golden.column_names else None
    expected = expected_scores(model, read_parquet(files[GOLDEN_OUT]))
    rows = []
    for number, member in enumerate(model.members):
        graph = files.get(f"seed_{member.seed}/{ONNX}")
        routes: dict[str, Callable[[], np.ndarray]] = {
            "native": lambda member=member: member_scores(member, features, groups),
            "onnx": lambda graph=graph: onnx_scores(graph, features),
            "sql": lambda member=member: sql_scores(member, features),
        }
        for route, scores_of in routes.items():
            row = {
                "model_id": model_id,
                **{name: model.manifest[name] for name in ("head", "target", "fold")},
                "seed": member.seed,
                "route": route,
                "case_count": features.num_rows,
                "tolerance": TOLERANCES[model.manifest["trainer"]][route],
            }
            try:
                difference = np.abs(scores_of() - expected[:, :, number])
                row["largest_difference"] = float(difference.max())
            except HeadsError as error:
                row["refusal"] = str(error)
            rows.append(row)
    return rows


def expected_scores(model: Model, golden_out: pa.Table) -> np.ndarray:
    """Return the stored raw scores (cases, outputs, members)."""
    columns = []
    for output in model.outputs:
        rows = golden_out.filter(pa.compute.equal(golden_out["output"], output))
        columns.append(np.array(rows.sort_by("case_id")["seed_scores"].to_pylist()))
    return np.stack(columns, axis=1)


def onnx_scores(graph: bytes | None, features: pa.Table) -> np.ndarray:
    """Return the scores (n, outputs) of an ONNX model on the CPU. Raises HeadsError without one."""
    if graph is None:
        raise HeadsError("the model has no ONNX form.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    columns = [
        column.to_numpy(zero_copy_only=False).astype(np.float32) for column in features.columns
    ]
    return np.asarray(session.run(["scores"], {"features": np.stack(columns, axis=1)})[0])


def sql_scores(member: Member, features: pa.Table) -> np.ndarray:
    """Return the scores (n, outputs) of a member's SQL, in a DuckDB that holds nothing else."""
    expressions = ", ".join(f"{each} as score_{n}" for n, each in enumerate(member.sql()))
    with duckdb.connect() as con:
        con.register("rows", features.append_column("row", pa.array(range(features.num_rows))))
        table = con.sql(f"select {expressions} from rows order by row").to_arrow_table()
    return np.stack([column.to_numpy() for column in table.columns], axis=1)
