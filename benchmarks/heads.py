"""From DuckDB to a binned Dataset, to a tensor, and back as scores, in one run per route.

    python benchmarks/heads.py                   5,000,000 rows x 60 features
    python benchmarks/heads.py --rows 1000000    smaller

Each route runs in a process of its own, on one thread, DuckDB under a memory limit of 3 GB. CPU
seconds are user plus system of the route alone; the peak is of the whole process. The reference
routes are the cheapest ways we know: DuckDB's Arrow stream handed to LightGBM's C interface, and
record batches written into a matrix of one column per row. All routes must give the same Dataset
(the same trees grown from it), the same tensor and the same scores.
"""

import argparse
import ctypes
import hashlib
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

FEATURES = [f"f{number}" for number in range(60)]
PARAMS = {"max_bin": 255, "num_threads": 1, "verbosity": -1, "feature_pre_filter": False}
TREES, LEAVES, GROWN_ON = 100, 31, 50_000
SCORED, SCORED_IN_SQL = 1_000_000, 100_000


@dataclass(frozen=True)
class Cost:
    """What one route took, and a digest of what it made."""

    cpu_s: float
    peak_mib: float
    result: str


def make_rows(path: Path, rows: int) -> None:
    """Write the table `rows`: 60 FLOAT features, a twentieth of each NULL, and a 0/1 label."""
    columns = ", ".join(
        f"(case when random() > 0.05 then random() - 0.5 end)::float as {name}" for name in FEATURES
    )
    with duckdb.connect(str(path)) as con:
        con.execute("set memory_limit = '3GB'; set enable_progress_bar = false")
        con.execute("set threads = 1; select setseed(0.5)")
        con.execute(f"""
            create table rows as
            select *, (coalesce(f0, 0.2) + f1 * f2 > 0.1)::double as label
            from (select {columns} from range({rows}))
        """)


def connect(path: Path) -> duckdb.DuckDBPyConnection:
    """Open the rows as every route does."""
    con = duckdb.connect(str(path), read_only=True)
    con.execute("set memory_limit = '3GB'; set threads = 1; set enable_progress_bar = false")
    return con


def stream_to_dataset(con: duckdb.DuckDBPyConnection) -> object:
    """Hand DuckDB's Arrow stream to LightGBM's C interface: the reference."""
    import lightgbm as lgb
    from lightgbm.basic import _LIB, _safe_call

    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = con.sql(f"select {', '.join(FEATURES)} from rows").__arrow_c_stream__()
    handle = ctypes.c_void_p()
    text = " ".join(f"{name}={str(value).lower()}" for name, value in PARAMS.items())
    _safe_call(
        _LIB.LGBM_DatasetCreateFromArrowStream(
            ctypes.c_void_p(pointer(capsule, b"arrow_array_stream")),
            ctypes.c_char_p(text.encode()),
            None,
            ctypes.byref(handle),
        )
    )
    dataset = lgb.Dataset(None, params=PARAMS)
    dataset._handle = handle
    return dataset.set_feature_name(FEATURES)


def table_to_dataset(con: duckdb.DuckDBPyConnection) -> object:
    """Read everything as one Arrow table, then bin."""
    import lightgbm as lgb

    table = con.sql(f"select {', '.join(FEATURES)} from rows").to_arrow_table()
    dataset = lgb.Dataset(table, params=PARAMS)
    del table
    return dataset.construct()


def pandas_to_dataset(con: duckdb.DuckDBPyConnection) -> object:
    """Read everything as a pandas frame, then bin."""
    import lightgbm as lgb

    return lgb.Dataset(
        con.sql(f"select {', '.join(FEATURES)} from rows").df(), params=PARAMS
    ).construct()


def house_to_dataset(con: duckdb.DuckDBPyConnection) -> object:
    """Bin groups of columns as they are read: what training does."""
    import numpy as np

    from wavehouse.heads.base import Block
    from wavehouse.heads.data import StoredFeatures
    from wavehouse.heads.lightgbm_trainer import binned

    rows = con.execute("select count(*) from rows").fetchall()[0][0]
    nothing = np.empty(0)
    block = Block(StoredFeatures(con, "rows", FEATURES, 0, rows), nothing, np.ones(rows), nothing)
    return binned(block, PARAMS, None)


def trees_of(dataset: object, con: duckdb.DuckDBPyConnection) -> str:
    """Return the digest of trees grown on the first rows of a Dataset."""
    import lightgbm as lgb
    import numpy as np

    label = con.sql("select label from rows order by rowid").fetchnumpy()["label"]
    dataset.set_label(label).set_weight(np.ones(len(label)))
    part = dataset.subset(np.arange(min(GROWN_ON, len(label)))).construct()
    part.set_label(label[:GROWN_ON])
    params = PARAMS | {"objective": "binary", "num_leaves": LEAVES, "force_col_wise": True}
    text = lgb.train(params, part, 5).model_to_string().split("parameters:")[0]
    return hashlib.sha256(text.encode()).hexdigest()


def batches_to_tensor(con: duckdb.DuckDBPyConnection) -> object:
    """Write record batches into a matrix of one row per feature: the reference."""
    import numpy as np
    import torch

    rows = con.execute("select count(*) from rows").fetchall()[0][0]
    values, first = np.empty((len(FEATURES), rows), dtype=np.float32), 0
    for batch in con.sql(f"select {', '.join(FEATURES)} from rows").to_arrow_reader(122_880):
        for number, column in enumerate(batch.columns):
            values[number, first : first + batch.num_rows] = column.to_numpy(zero_copy_only=False)
        first += batch.num_rows
    return torch.from_numpy(values).T


def pandas_to_tensor(con: duckdb.DuckDBPyConnection) -> object:
    """Read everything as a pandas frame, then as a matrix."""
    import torch

    return torch.from_numpy(
        con.sql(f"select {', '.join(FEATURES)} from rows").df().to_numpy(copy=True)
    )


def house_to_tensor(con: duckdb.DuckDBPyConnection) -> object:
    """Write record batches as they are read: what the torch trainer does."""
    from wavehouse.heads.data import StoredFeatures
    from wavehouse.heads.torch_trainer import to_tensor

    rows = con.execute("select count(*) from rows").fetchall()[0][0]
    return to_tensor(StoredFeatures(con, "rows", FEATURES, 0, rows), FEATURES)


def digest_of(tensor: object, con: duckdb.DuckDBPyConnection) -> str:
    """Return a digest of some rows of a tensor, unknown values as such."""
    import numpy as np

    part = tensor[:: max(1, len(tensor) // 1000)].numpy()
    return hashlib.sha256(np.nan_to_num(part, nan=7.0).tobytes()).hexdigest()


def measured(work: Callable, digest: Callable, path: Path) -> Cost:
    """Run one route here; the imports it needs are not counted."""
    import lightgbm  # noqa: F401
    import pandas  # noqa: F401
    import sklearn.metrics  # noqa: F401
    import torch

    import wavehouse.heads.lightgbm_trainer
    import wavehouse.heads.torch_trainer  # noqa: F401

    torch.set_num_threads(1)
    con = connect(path)
    before = cpu_seconds()
    made = work(con)
    spent = cpu_seconds() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Cost(spent, peak, digest(made, con))


def cpu_seconds() -> float:
    """Return user plus system time of this process."""
    return time.process_time()


def apart(work: Callable, *arguments: object) -> object:
    """Run `work` in a fresh process and return its result."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def compare(title: str, routes: dict[str, Callable], digest: Callable, path: Path) -> None:
    """Print each route's cost beside that of the first, and stop when results differ."""
    print(f"\n{title:<34}{'CPU s':>9}{'ratio':>8}{'peak MiB':>10}{'ratio':>8}")
    first = None
    for name, work in routes.items():
        cost = apart(measured, work, digest, path)
        first = first or cost
        print(
            f"{name:<34}{cost.cpu_s:>9.2f}{cost.cpu_s / first.cpu_s:>8.2f}"
            f"{cost.peak_mib:>10,.0f}{cost.peak_mib / first.peak_mib:>8.2f}",
            flush=True,
        )
        if cost.result != first.result:
            sys.exit(f"{name} gives another result than the reference")


def scoring(path: Path) -> list[tuple[str, int, float, float]]:
    """Return (route, rows, CPU seconds, largest difference from Booster.predict on numpy)."""
    import duckdb as engine
    import lightgbm as lgb
    import numpy as np
    import pyarrow as pa

    from wavehouse.heads import replay
    from wavehouse.heads.lightgbm_trainer import TreeMember
    from wavehouse.heads.udf import features_of

    con = connect(path)
    rows = con.sql(f"select {', '.join(FEATURES)}, label from rows limit {SCORED}").to_arrow_table()
    label = rows["label"].to_numpy()
    features = rows.select(FEATURES)
    params = PARAMS | {"objective": "binary", "num_leaves": LEAVES, "learning_rate": 0.05}
    grown = lgb.train(params, lgb.Dataset(features, label=label, params=PARAMS), TREES)
    member = TreeMember(grown.model_to_string())
    matrix = np.stack([column.to_numpy() for column in features.columns], axis=1)
    expected = member.booster.predict(matrix, num_threads=1)
    graph, expression = member.onnx(), member.sql()[0]
    found = []

    def clock(name: str, count: int, work: Callable) -> None:
        before = time.process_time()
        scores = np.asarray(work()).ravel()
        spent = time.process_time() - before
        found.append((name, count, spent, float(np.abs(scores - expected[:count]).max())))

    memory = engine.connect()
    memory.execute("set threads = 1; set enable_progress_bar = false")
    memory.execute("create table scored as select * from features")
    memory.execute(f"create table few as from scored limit {SCORED_IN_SQL}")
    clock(
        "Booster.predict on numpy",
        len(label),
        lambda: member.booster.predict(matrix, num_threads=1),
    )
    clock(
        "streamed record batches",
        len(label),
        lambda: np.concatenate(
            [
                member.predict(batch, threads=1)
                for batch in memory.sql("from scored").to_arrow_reader(65_536)
            ]
        ),
    )

    def udf(row: pa.ChunkedArray) -> pa.Array:
        features = features_of(row.combine_chunks(), member.features, "score")
        return pa.array(member.predict(features, threads=1)[:, 0])

    struct = f"struct({', '.join(f'{name} float' for name in FEATURES)})"
    memory.create_function("score", udf, [struct], "DOUBLE", type="arrow", null_handling="special")
    clock(
        "Arrow function in SQL",
        len(label),
        lambda: memory.sql("select score(scored) as s from scored").fetchnumpy()["s"],
    )
    clock("ONNX runtime", len(label), lambda: replay.onnx_scores(graph, features))
    clock(
        "SQL alone, first query",
        SCORED_IN_SQL,
        lambda: memory.sql(f"select {expression} as s from few").fetchnumpy()["s"],
    )
    return found


def main() -> None:
    """Parse the command line, make the rows, run every route."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5_000_000)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.duckdb"
        apart(make_rows, path, options.rows)
        print(f"{options.rows:,} rows x {len(FEATURES)} features, {json.dumps(PARAMS)}")
        compare(
            "to a LightGBM Dataset",
            {
                "Arrow stream, C interface": stream_to_dataset,
                "wavehouse: groups of columns": house_to_dataset,
                "Arrow table": table_to_dataset,
                "pandas": pandas_to_dataset,
            },
            trees_of,
            path,
        )
        compare(
            "to a torch tensor",
            {
                "record batches, column-major": batches_to_tensor,
                "wavehouse: record batches": house_to_tensor,
                "pandas": pandas_to_tensor,
            },
            digest_of,
            path,
        )
        title = f"scores, {TREES} trees x {LEAVES} leaves"
        print(f"\n{title:<34}{'rows':>10}{'rows per CPU s':>16}{'largest difference':>20}")
        for route, rows, spent, difference in apart(scoring, path):
            print(f"{route:<34}{rows:>10,}{rows / spent:>16,.0f}{difference:>20.1e}")


if __name__ == "__main__":
    main()
