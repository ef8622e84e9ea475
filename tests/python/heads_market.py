"""A market of a few thousand made-up rows in a plain DuckDB, as the heads want to find it.

Everything that `wavehouse.heads` reads is made here by plain SQL, without dbt: the relations that a
Track names, the two seeds, `heads.head_settings` and `heads.model_aliases`.
"""

import json

import duckdb
import numpy as np
import pyarrow as pa

from wavehouse.heads.config import MINUTE, Track

DAILY = Track(
    name="daily",
    samples="daily.targets",
    features="panel.factors",
    folds="daily.cuts",
    blocks="daily.cut_blocks",
    weights="daily.counts",
    time_column="trade_date_ms",
    cross_sectional=True,
)
MINUTE_MS, DAY_MS = 60_000, 86_400_000
START_MS = 1_704_067_200_000  # 2024-01-01, a Monday

# Shares of the bars, with a gap of GAP_BARS before each role but the first.
ANCHOR = {"anchor": {"fit": (0.0, 0.5), "tune": (0.5, 0.65), "calibrate": (0.65, 0.8)}}
EXPANDING = {
    f"expanding_{number}": {
        "fit": (0.0, end - 0.3),
        "tune": (end - 0.3, end - 0.15),
        "calibrate": (end - 0.15, end),
        "test": (end, end + 0.15),
    }
    for number, end in ((1, 0.55), (2, 0.7))
}
SETTINGS = {
    "trainer": "lightgbm",
    "trainers": {},
    "train_folds": ["anchor"],
    "seeds": [1, 2],
    "scale": 1.0,
    "max_rounds": 8,
    "min_rounds": 3,
    "patience": 4,
    "lightgbm": {"num_leaves": 5, "min_data_in_leaf": 20, "learning_rate": 0.3},
    "torch": {"members": 2, "hidden": [8], "batch_rows": 256, "device": "cpu"},
    "golden_rows": 6,
    "importance_rows": 200.0,
    "trial_targets": [],
}
MINUTE_KEYS = ("sample_id", "symbol", "event_time", "starts_at_ms", "label_ends_at_ms")
KEYS = (*MINUTE_KEYS, "evaluation_period", "split_id")
TARGET_COLUMNS = (
    *("track", "head", "target", "label_column", "objective", "classes", "outputs"),
    *("feature_list", "calibration", "interval_level"),
)


def target_row(target, objective, label=None, track="minute", **fields):
    """One row of seeds/head_targets.csv; the label is in the column named like the target."""
    row = {
        "track": track,
        "head": fields.pop("head", target),
        "target": target,
        "label_column": label or target,
        "objective": objective,
        "classes": None,
        "outputs": f"{target}_score",
        "feature_list": "all",
        "calibration": "auto" if objective in ("binary", "multiclass") else "none",
        "interval_level": 0.8 if objective == "regression" else None,
    }
    return row | fields


CLASSES = {"classes": "LONG|SHORT|NEUTRAL", "outputs": "long_prob|short_prob|neutral_prob"}
TARGETS = [
    target_row("direction", "multiclass", **CLASSES),
    target_row("entry", "binary"),
    target_row("rare_entry", "binary", head="entry"),
    target_row("edge_bps", "regression", head="entry"),
]
FEATURES = ("strong", "gaps", "whole", "constant", "noise")
GROUPS = {"strong": "signal", "gaps": "gaps", "whole": "signal", "momentum_rank": "signal"}


def minute_rows(symbols=3, bars=600, seed=1, period_minutes=60):
    """Rows of a minute market (symbols * bars): keys, FEATURES and the labels of TARGETS.

    The labels depend on `strong`, on whether `gaps` is NULL, and a little on `whole`. `entry` and
    `direction` are unknown on the same rows, `edge_bps` on others, `rare_entry` nowhere.
    """
    rng = np.random.default_rng(seed)
    count = symbols * bars
    strong = rng.normal(size=count)
    unknown = rng.random(count) < 0.3
    gaps = rng.normal(size=count)
    whole = rng.integers(-2, 3, count).astype(float)
    signal = strong + 1.0 * unknown + 0.3 * whole + 0.5 * rng.normal(size=count)
    no_label, no_edge = rng.random(count) < 0.15, rng.random(count) < 0.1
    names = np.array(["SHORT", "NEUTRAL", "LONG"])[np.digitize(signal, [-0.4, 1.0])]
    starts = START_MS + np.repeat(np.arange(bars), symbols) * MINUTE_MS
    labels = {
        "direction": pa.array(names, mask=no_label),
        "entry": pa.array((signal > 0.5).astype(np.int8), mask=no_label),
        "rare_entry": pa.array((signal > 1.8).astype(np.int8)),
        "edge_bps": pa.array(10 * signal, mask=no_edge),
    }
    features = {
        "strong": strong,
        "gaps": pa.array(gaps, mask=unknown),
        "whole": whole,
        "constant": np.full(count, 7.0),
        "noise": rng.normal(size=count),
    }
    keys = keys_of(starts, [f"S{number}" for number in range(symbols)] * bars, 5 * MINUTE_MS)
    return pa.table(
        keys | {"evaluation_period": periods_of(starts, period_minutes)} | features | labels
    )


def keys_of(starts, symbols, horizon_ms):
    """The key columns of samples that start at `starts` and whose labels see `horizon_ms`."""
    return {
        "sample_id": pa.array([f"{s}@{t}" for s, t in zip(symbols, starts, strict=True)]),
        "symbol": pa.array(symbols),
        "event_time": pa.array(starts * 1000, pa.timestamp("us")),
        "starts_at_ms": starts,
        "label_ends_at_ms": starts + horizon_ms,
        "split_id": pa.array(["fit"] * len(starts)),
    }


def periods_of(starts, minutes):
    length_us = minutes * MINUTE_MS * 1000
    return pa.array(starts * 1000 // length_us * length_us, pa.timestamp("us"))


HORIZONS = (1, 3, 10)
DAILY_FIELDS = {"track": "daily", "feature_list": "cross_section"}
DAILY_TARGETS = [
    *(
        target_row(f"forward_{days}d", "regression", head="alpha", **DAILY_FIELDS)
        for days in HORIZONS
    ),
    target_row("order_3d", "ranking", "forward_3d", head="order", **DAILY_FIELDS),
    target_row("top_tenth", "binary", head="top", **DAILY_FIELDS),
]
DAILY_FEATURES = ("momentum_rank", "value_rank", "turnover_rank")


def daily_rows(stocks=20, days=160, seed=1):
    """Rows of a daily cross-section (stocks * days): ranks, forward returns and their top tenth."""
    rng = np.random.default_rng(seed)
    shape = (days, stocks)
    ranks = [rng.normal(size=shape).argsort(axis=1).argsort(axis=1) / stocks for _ in range(3)]
    noise = [rng.normal(size=shape) for _ in HORIZONS]
    market = rng.normal(size=(days, 1))  # moves all stocks of a day: no head can rank by it
    forward = [market + 2 * ranks[0] - ranks[1] + 0.5 * each for each in noise]
    top = forward[0] >= np.quantile(forward[0], 0.9, axis=1)[:, None]
    starts = START_MS + np.repeat(np.arange(days), stocks) * DAY_MS
    symbols = [f"{number:06d}" for number in range(stocks)] * days
    columns = keys_of(starts, symbols, max(HORIZONS) * DAY_MS)
    columns["evaluation_period"] = columns["event_time"]
    for name, values in zip(DAILY_FEATURES, ranks, strict=True):
        columns[name] = values.ravel()
    for horizon, values in zip(HORIZONS, forward, strict=True):
        late = starts >= START_MS + (days - horizon) * DAY_MS
        columns[f"forward_{horizon}d"] = pa.array(values.ravel(), mask=late)
    columns["top_tenth"] = pa.array(top.ravel())
    return pa.table(columns)


def warehouse(rows=None, track=MINUTE, targets=None, features=FEATURES, folds=ANCHOR, **settings):
    """A DuckDB in memory that holds `rows` as the relations of a track, and the configuration."""
    rows = minute_rows() if rows is None else rows
    targets = TARGETS if targets is None else targets
    con = duckdb.connect()
    con.execute("set threads = 2")
    schemas = {name.partition(".")[0] for name in vars(track).values() if "." in str(name)}
    for schema in sorted(schemas | {"seeds", "heads"}):
        con.execute(f"create schema {schema}")
    labels = [name for name in rows.column_names if name not in (*KEYS, *features)]
    put(con, track.samples, rows.select([*KEYS, *labels]))
    inputs = rows.select(["sample_id", "symbol", "event_time", "starts_at_ms", "split_id"])
    inputs = inputs.rename_columns({"starts_at_ms": track.time_column})
    for name in features:
        inputs = inputs.append_column(name, rows[name])
    put(con, track.features, inputs)
    weight = 1 + (rows["starts_at_ms"].to_numpy() // MINUTE_MS) % 3  # not all alike
    weights = {"sample_id": rows["sample_id"], "weight": weight.astype(float)}
    put(con, track.weights, pa.table(weights))
    put(con, track.blocks, blocks_of(rows, folds))
    con.execute(
        f"""
        create view {track.folds} as
        select fold, sample_id, role
        from {track.blocks} as blocks
        inner join {track.samples} as samples
            on
                samples.starts_at_ms >= blocks.starts_at_ms
                and samples.starts_at_ms < blocks.ends_at_ms
                and (blocks.role = 'test' or samples.label_ends_at_ms < blocks.ends_at_ms)
        """
    )
    columns = {name: [row[name] for row in targets] for name in TARGET_COLUMNS}
    level = pa.array(columns.pop("interval_level"), pa.float64())
    texts = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    put(con, "seeds.head_targets", pa.table(texts | {"interval_level": level}))
    set_features(con, {row["feature_list"]: features for row in targets})
    set_settings(con, **settings)
    return con


def blocks_of(rows, folds):
    """The blocks of folds given as {fold: {role: (first, last share of the bars)}}."""
    times = np.unique(rows["starts_at_ms"].to_numpy())
    ends = [*times.tolist(), int(times[-1]) + 1]
    blocks = [
        {
            "fold": fold,
            "fold_scheme": fold.partition("_")[0],
            "role": role,
            "starts_at_ms": ends[round(first * len(times))],
            "ends_at_ms": ends[round(last * len(times))],
        }
        for fold, roles in folds.items()
        for role, (first, last) in roles.items()
    ]
    return pa.Table.from_pylist(blocks).append_column(
        "roles_without_rows", pa.nulls(len(blocks), pa.string())
    )


def put(con, name, table):
    """Write an Arrow table as a table of the warehouse."""
    con.register("incoming", table)
    con.execute(f"create or replace table {name} as select * from incoming")
    con.unregister("incoming")


def set_features(con, lists):
    """Write seeds.head_features: {feature list: features in order}."""
    rows = [
        {"feature_list": each, "ordinal": number, "feature": name, "feature_group": group_of(name)}
        for each, names in lists.items()
        for number, name in enumerate(names, start=1)
    ]
    put(con, "seeds.head_features", pa.Table.from_pylist(rows))


def group_of(feature):
    """The group of a feature in seeds.head_features."""
    return GROUPS.get(feature, "noise")


def set_settings(con, **changes):
    """Write heads.head_settings: SETTINGS with changes."""
    unknown = set(changes) - set(SETTINGS)
    assert not unknown, unknown
    values = SETTINGS | changes
    rows = [{"setting": f"heads_{name}", "value_json": json.dumps(values[name])} for name in values]
    put(con, "heads.head_settings", pa.Table.from_pylist(rows))


def crown(con, champions, track="minute"):
    """Write heads.model_aliases: champions as (target, model_id, valid_from_ms)."""
    con.execute(
        """
        create or replace table heads.model_aliases (
            track varchar, target varchar, alias varchar, model_id varchar, valid_from_ms bigint
        )
        """
    )
    con.executemany(
        "insert into heads.model_aliases values (?, ?, 'champion', ?, ?)",
        [(track, *champion) for champion in champions],
    )


def champions_of(trained):
    """The champions (target, model_id, valid_from_ms) that the rows of `train` give."""
    return [
        (row["target"], row["model_id"], row["valid_from_ms"])
        for row in trained.select(["target", "model_id", "valid_from_ms"]).to_pylist()
    ]
