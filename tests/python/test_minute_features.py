"""Minute features: equal to an evaluator written from the descriptions, and blind to the future."""

import json
import shutil
from collections.abc import Callable, Iterator

import duckdb
import numpy as np
import pandas as pd
import pytest
import yaml

import oracle_features as oracle
from markets import MINUTE_MS, START_MS, random_bars
from warehouse import BAR_COLUMNS, REAL_MINUTE_DATA, REPO, Warehouse, new_warehouse, write_bars

DEFAULTS = yaml.safe_load((REPO / "dbt_project.yml").read_text())["vars"]
DESCRIBED = [
    column["name"]
    for column in yaml.safe_load((REPO / "models/factors/minute_features.yml").read_text())[
        "models"
    ][0]["columns"]
]
# boundaries that stay where they are when bars are cut off or added
DATES = {
    "split_tune_start": "2025-01-06 08:00",
    "split_validation_start": "2025-01-06 12:00",
    "split_stress_start": "2025-01-06 20:00:00",
}
# what a bar's place in time decides alone, and what names it
NOT_OF_THE_MARKET = [
    "sample_id",
    "symbol",
    "event_time",
    "open_time_ms",
    "known_at",
    "split_id",
    "walk_forward_fold",
    "contiguous_minutes",
    "minute_of_day",
    "day_of_week",
    "minute_of_day_sin",
    "minute_of_day_cos",
    "minute_of_week",
]

RELATIVE_TOLERANCE = 1e-9
# A value is compared as if it were at least this large. A price ratio of one carries 1e4 * 2**-52,
# about 2e-12 bps, of rounding, and a sum of some dozen of them more: 1e-10 bps is allowed. A
# distance in standard deviations loses the digits of the price it is taken from: 1e-11.
SMALLEST_BPS = 0.1
SMALLEST = 0.01


# ---- markets and builds ------------------------------------------------------------------------


def rough_market() -> pd.DataFrame:
    """Three symbols, 1,600 minutes, with everything that a feature can stumble over."""
    bars = random_bars(7, 3, 1600, gap_rate=0.002, null_spread_rate=0.01)
    minute = (bars["open_time_ms"] - START_MS) // MINUTE_MS
    prices = ["open", "high", "low", "close"]

    def of(symbol: str, first: int, last: int) -> pd.Series:
        return (bars["symbol"] == symbol) & minute.between(first, last)

    # still prices, volumes and spreads longer than an hour, at levels that no float holds exactly
    bars.loc[of("S00", 500, 600), prices] = 10_003.7
    bars.loc[of("S01", 550, 620), prices] = 9_987.3
    bars.loc[of("S01", 900, 980), "volume"] = 17.1
    bars.loc[of("S02", 1000, 1100), "spread_bps"] = 2.3
    # no trade, then not known whether there was one
    bars.loc[of("S00", 900, 1040), "volume"] = 0.0
    bars.loc[of("S00", 940, 940), "volume"] = np.nan
    bars.loc[of("S01", 1400, 1480), "volume"] = np.nan
    bars.loc[of("S02", 400, 500), "spread_bps"] = np.nan
    bars.loc[np.random.default_rng(7).random(len(bars)) < 0.002, "volume"] = np.nan
    # a long gap, and a symbol that is listed later
    return bars[~of("S01", 700, 790) & ~of("S02", 0, 299)].reset_index(drop=True)


Build = Callable[..., Warehouse]


@pytest.fixture(scope="module")
def build(tmp_path_factory) -> Build:
    """Return a function that builds the features of some bars in a warehouse of its own.

    All are built in one place and then moved, for dbt to parse the project once per settings.
    """
    folder = tmp_path_factory.mktemp("minute_features")
    workplace = new_warehouse(folder)

    def build_features(
        name: str, files: list[pd.DataFrame], settings: dict | None = None, threads: int = 2
    ) -> Warehouse:
        shutil.rmtree(workplace.data_dir)
        for number, bars in enumerate(files):
            write_bars(workplace.data_dir, bars, f"bars_{number}.parquet")
        workplace.dbt("run", "--select", "+minute_features", settings=settings, threads=threads)
        built = Warehouse(data_dir=workplace.data_dir, file=folder / name / workplace.file.name)
        built.file.parent.mkdir()
        shutil.move(workplace.file, built.file)
        return built

    return build_features


def features(warehouse: Warehouse, until_ms: int | None = None) -> pd.DataFrame:
    rows = "" if until_ms is None else f"where open_time_ms <= {until_ms}"
    return warehouse.query(
        f"select * from factors.minute_features {rows} order by symbol, open_time_ms"
    )


def evaluated(warehouse: Warehouse, settings: dict) -> pd.DataFrame:
    bars = warehouse.query("select * from staging.stg_minute_bars")
    return oracle.minute_features(
        bars,
        oracle.split_boundaries(bars, settings),
        oracle.longest_horizon(settings),
        settings["split_embargo_minutes"],
    )


@pytest.fixture(scope="module")
def bars() -> pd.DataFrame:
    return rough_market()


@pytest.fixture(scope="module")
def base(build, bars) -> Warehouse:
    """The rough market with its splits at dates."""
    return build("base", [bars], DATES)


@pytest.fixture(scope="module")
def base_features(base) -> pd.DataFrame:
    return features(base)


@pytest.fixture(scope="module")
def base_evaluated(base) -> pd.DataFrame:
    return evaluated(base, DEFAULTS | DATES)


# ---- comparisons -------------------------------------------------------------------------------


def assert_equal(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Fail with a line for each column that differs: NULLs elsewhere, and the worst difference."""
    assert actual["sample_id"].tolist() == expected["sample_id"].tolist()
    lines = []
    for name in actual:
        left, right = actual[name], expected[name]
        extra, missing = left.isna() & right.notna(), left.notna() & right.isna()
        found = []
        if extra.any() or missing.any():
            where = actual.loc[extra | missing, "sample_id"].iloc[0]
            found.append(f"NULL {extra.sum()} times too often, {missing.sum()} too seldom: {where}")
        both = left.notna() & right.notna()
        if pd.api.types.is_numeric_dtype(left):
            left, right = left[both].astype("float64"), right[both].astype("float64")
            smallest = SMALLEST_BPS if name.endswith("_bps") else SMALLEST
            error = (left - right).abs() / right.abs().clip(lower=smallest)
            if len(error) and not error.max() <= RELATIVE_TOLERANCE:
                worst = error.idxmax()
                found.append(
                    f"{(error > RELATIVE_TOLERANCE).sum()} values differ, worst by "
                    f"{error.max():.1e}: {left[worst]!r}, expected {right[worst]!r}, "
                    f"{actual['sample_id'][worst]}"
                )
        elif (left[both] != right[both]).any():
            found.append(f"{(left[both] != right[both]).sum()} values differ")
        lines += [f"{name}: {text}" for text in found]
    assert not lines, "\n".join(["features differ", *lines])


def assert_same_bits(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Fail with a line for each column that is not the same to the last bit."""
    lines = [f"{name}: {text}" for name, text in changed_columns(actual, expected).items()]
    assert not lines, "\n".join(["features changed", *lines])


def changed_columns(actual: pd.DataFrame, expected: pd.DataFrame) -> dict[str, str]:
    """Columns that are not the same to the last bit, with how many rows and by how much."""
    assert actual["sample_id"].tolist() == expected["sample_id"].tolist()
    changed = {}
    for name in actual:
        left, right = actual[name], expected[name]
        if left.dtype == "float64":
            differs = left.to_numpy().view("int64") != right.to_numpy().view("int64")
            worst = f", at most {(left - right).abs().max():.1e}"
        else:
            differs = ~((left == right) | (left.isna() & right.isna())).to_numpy(dtype=bool)
            worst = ""
        if differs.any():
            changed[name] = f"{differs.sum()} rows{worst}"
    return changed


# ---- equal to the evaluator --------------------------------------------------------------------


def test_every_described_column_is_there_and_evaluated(base_features, base_evaluated):
    assert base_features.columns.tolist() == DESCRIBED
    assert set(base_evaluated) == set(DESCRIBED)


def test_features_equal_the_evaluator_on_a_rough_market(base_features, base_evaluated):
    assert_equal(base_features, base_evaluated)


def test_the_rough_market_reaches_every_branch(base_features):
    """Every feature has values and NULLs; otherwise the comparison above shows little."""
    always_known = {*NOT_OF_THE_MARKET, "data_quality_flag"} - {"walk_forward_fold"}
    of_one_bar = {name for name in DESCRIBED if "_1m_" in name and "ret" not in name}
    for name in set(DESCRIBED) - always_known - of_one_bar:
        known = base_features[name].notna()
        assert 0 < known.sum() < len(known), name
    assert base_features["data_quality_flag"].nunique() == 3
    assert (base_features["realized_vol_60m_bps"] == 0).any()
    assert (base_features["traded_value_60m"] == 0).any()


def test_no_feature_is_infinite_or_nan(base, base_features):
    doubles = [name for name in DESCRIBED if base_features[name].dtype == "float64"]
    counts = ", ".join(f"count(*) filter (not isfinite({name})) as {name}" for name in doubles)
    found = base.query(f"select {counts} from factors.minute_features").iloc[0]
    assert found[found > 0].to_dict() == {}


def real_bars() -> pd.DataFrame:
    """Two days of three perpetuals without quotes, and of two spot markets with quotes and gaps."""
    perpetuals = REAL_MINUTE_DATA / "binance_um_perp_1m_2025.parquet"
    quoted = REAL_MINUTE_DATA / "lean_minute_trade_bidask.parquet"
    for file in [perpetuals, quoted]:
        if not file.exists():
            pytest.skip(f"no real market data: {file} is missing")
    return duckdb.sql(
        f"""
        with bars as (
            select * exclude (spread_bps), null::double as spread_bps
            from (select *, null as spread_bps from '{perpetuals}')
            where symbol in ('BTCUSDT', 'ETCUSDT', 'XMRUSDT')
            union all by name
            select
                symbol, open_time_ms, open, high, low, close, volume,
                (ask_close - bid_close) / ((ask_close + bid_close) / 2) * 1e4 as spread_bps
            from '{quoted}'
            where venue = 'coinbase' and symbol in ('LTCUSD', 'BTCEUR') and close is not null
        )
        select {", ".join(BAR_COLUMNS)}
        from bars
        qualify open_time_ms < min(open_time_ms) over (partition by symbol) + 2 * 1440 * {MINUTE_MS}
        """
    ).df()


def test_features_equal_the_evaluator_on_real_bars(build):
    """With the project's own settings: splits at fractions of the bars."""
    warehouse = build("real", [real_bars()])
    assert_equal(features(warehouse), evaluated(warehouse, DEFAULTS))


# ---- no look-ahead -----------------------------------------------------------------------------


def end_before_a_gap_or_not(bars: pd.DataFrame, gap: bool) -> int:
    """A minute in the sealed splits that all symbols have; the next, some lack or all have."""
    present = bars.groupby("open_time_ms")["symbol"].nunique()
    for time in present.index[present.index >= START_MS + 1_050 * MINUTE_MS]:
        follows = present.get(time + MINUTE_MS, 0)
        if present[time] == 3 and (follows < 3 if gap else follows == 3):
            return int(time)
    raise AssertionError("the market has no such minute")


@pytest.fixture(scope="module", params=["within_a_run", "before_a_gap"])
def truncation(request, build, bars, base) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Features up to a minute, built on the bars up to it and built on all."""
    end = end_before_a_gap_or_not(bars, gap=request.param == "before_a_gap")
    assert end + 300 * MINUTE_MS < bars["open_time_ms"].max()
    cut = build(request.param, [bars[bars["open_time_ms"] <= end]], DATES)
    return features(cut), features(base, until_ms=end)


def test_bars_to_come_change_no_feature(truncation):
    assert_equal(*truncation)


def test_noise_to_come_changes_no_bit(build, bars, base, base_features):
    end = end_before_a_gap_or_not(bars, gap=False)
    later = bars["open_time_ms"] > end
    rng = np.random.default_rng(8)
    noise = bars.copy()
    prices = ["open", "high", "low", "close"]
    noise.loc[later, prices] = noise.loc[later, prices].mul(
        rng.lognormal(0.0, 0.01, later.sum()), axis=0
    )
    for column in ["volume", "spread_bps"]:
        noise.loc[later, column] = rng.lognormal(1.0, 1.0, later.sum())
    noisy = features(build("noise", [noise], DATES))

    past = noisy["open_time_ms"] <= end
    assert_same_bits(noisy[past], base_features[past])
    # the test can fail: every feature of the market sees the noise, once it is past
    changed = changed_columns(noisy[~past], base_features[~past])
    assert set(changed) == set(DESCRIBED) - set(NOT_OF_THE_MARKET)


# ---- the order of rows, files and threads ------------------------------------------------------


def test_order_of_rows_and_files_and_one_thread_change_no_bit(build, bars, base_features):
    """Shuffled, dealt to three files and built by one thread instead of two."""
    shuffled = bars.sample(frac=1, random_state=3)
    files = [shuffled.iloc[2::3], shuffled.iloc[0::3], shuffled.iloc[1::3]]
    other = build("shuffled", files, DATES, threads=1)
    assert_same_bits(features(other), base_features)


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_threads_of_the_query_change_no_bit(base, base_features, threads):
    """The features are a view: they are computed when they are read."""
    with base.connect() as connection:
        connection.execute(f"set threads = {threads}")
        read = connection.execute(
            "select * from factors.minute_features order by symbol, open_time_ms"
        ).df()
    assert_same_bits(read, base_features)


# ---- a query pays for what it names ------------------------------------------------------------


def window_operators(warehouse: Warehouse, columns: str) -> int:
    """Window operators in the physical plan of a query of the features."""
    plan = warehouse.query(f"explain (format json) select {columns} from factors.minute_features")

    def operators(nodes: list[dict]) -> Iterator[str]:
        for node in nodes:
            yield node["name"]
            yield from operators(node["children"])

    names = list(operators(json.loads(plan["explain_value"].iloc[-1])))
    assert len(names) > 1
    return sum("WINDOW" in name.upper() for name in names)


def test_a_query_computes_only_the_windows_it_names(base):
    key, one, all_columns = (
        window_operators(base, columns) for columns in ["sample_id", "sample_id, ret_15m_bps", "*"]
    )
    assert key == 0
    assert 0 < one < all_columns


# ---- splits ------------------------------------------------------------------------------------

SPLIT_SETTINGS = {
    "dates": (DATES, 45),
    "fractions": (
        {
            "split_tune_start": 0.5,
            "split_validation_start": 0.71,
            "split_stress_start": 0.85,
            "split_embargo_minutes": 20,
            "walk_forward_folds": 3,
            "direction_horizon_minutes": 90,
            "exit_horizon_minutes": 300,  # not used: see own_exit_risk_horizons
        },
        90,
    ),
    # the tuning split is shorter than the longest label
    "fractions_and_dates": (
        {
            "split_tune_start": 0.6,
            "split_validation_start": "2025-01-06 16:40",
            "split_stress_start": "2025-01-07 00:00",
            "split_embargo_minutes": 7,
            "walk_forward_folds": 4,
            "own_exit_risk_horizons": True,
            "risk_horizon_minutes": 120,
        },
        120,
    ),
}


@pytest.fixture(scope="module", params=list(SPLIT_SETTINGS))
def split_case(request, build, bars) -> tuple[Warehouse, dict, int]:
    """A warehouse, all of its settings and its longest label horizon in minutes."""
    settings, horizon = SPLIT_SETTINGS[request.param]
    if request.param == "dates":
        return request.getfixturevalue("base"), DEFAULTS | settings, horizon
    return build(request.param, [bars], settings), DEFAULTS | settings, horizon


def test_boundaries_equal_the_evaluator(split_case):
    warehouse, settings, horizon = split_case
    assert oracle.longest_horizon(settings) == horizon
    bars = warehouse.query("select symbol, open_time_ms from staging.stg_minute_bars")
    expected = [
        (
            kind,
            name if kind == "split" else f"fold_{name}",
            order,
            start,
            pd.Timestamp(start, unit="ms"),
        )
        for kind, starts in oracle.split_boundaries(bars, settings).items()
        for order, (name, start) in enumerate(starts.items(), start=1)
    ]
    found = warehouse.query("from factors.split_boundaries order by boundary_kind, boundary_order")
    assert sorted(found.iloc[:, :5].itertuples(index=False, name=None)) == sorted(expected)
    assert set(found["purge_minutes"]) == {horizon}
    assert set(found["embargo_minutes"]) == {settings["split_embargo_minutes"]}


def test_splits_and_folds_equal_the_evaluator(split_case):
    warehouse, settings, horizon = split_case
    bars = warehouse.query("select symbol, open_time_ms from staging.stg_minute_bars")
    boundaries = oracle.split_boundaries(bars, settings)
    found = warehouse.query(
        "select sample_id, open_time_ms, split_id, walk_forward_fold from factors.minute_features"
    )
    embargo = settings["split_embargo_minutes"]
    times = found["open_time_ms"]
    folds = oracle.walk_forward_folds(
        times,
        boundaries["walk_forward_fold"],
        boundaries["split"]["validation_locked"],
        horizon,
        embargo,
    )
    splits = oracle.split_ids(times, boundaries["split"], horizon, embargo)
    assert_equal(found, found.assign(split_id=splits, walk_forward_fold=folds))
    assert {"fit", "purged", "validation_locked", "latest_stress"} <= set(found["split_id"])


def test_no_label_window_crosses_a_boundary(split_case):
    """Without the evaluator: first and last minute of a kept sample's window, and the embargo."""
    warehouse, settings, horizon = split_case
    starts = warehouse.query("select * from factors.split_boundaries order by starts_at_ms")
    rows = warehouse.query("select * from factors.minute_features")
    of_splits = starts.loc[starts["boundary_kind"] == "split", "starts_at_ms"]
    sealed = starts["boundary_name"] == "validation_locked"
    of_folds = starts.loc[(starts["boundary_kind"] != "split") | sealed, "starts_at_ms"]

    split_samples = rows[rows["split_id"] != "purged"]
    fold_samples = rows[rows["walk_forward_fold"].notna()]
    assert (fold_samples["open_time_ms"] < int(starts.loc[sealed, "starts_at_ms"].iloc[0])).all()
    for samples, boundaries in [(split_samples, of_splits), (fold_samples, of_folds)]:
        assert 0 < len(samples) < len(rows)
        first = samples["open_time_ms"].to_numpy()
        last = first + horizon * MINUTE_MS
        part = np.searchsorted(boundaries, first, side="right")
        assert (part == np.searchsorted(boundaries, last, side="right")).all()
        since = first - np.concatenate([[-np.inf], boundaries])[part]
        assert (since >= settings["split_embargo_minutes"] * MINUTE_MS).all()
