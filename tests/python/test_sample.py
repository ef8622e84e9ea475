"""The sample market: its contract, its statistics at the default seed, its files, its command."""

import dataclasses
import datetime as dt
import hashlib
import math
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from wavehouse.paths import SAMPLE_DATA_DIR
from wavehouse.sample import (
    DIRTY_COUNTS,
    FAMILIAR,
    SCHEMA,
    MarketOptions,
    dirty_rows,
    generate_symbol,
    instrument,
    sample_command,
    write_sample,
)

COLUMNS = ["symbol", "open_time_ms", "open", "high", "low", "close", "volume", "spread_bps"]
PRICES = ["open", "high", "low", "close"]
OPTIONS = MarketOptions()


def as_frame(table):
    """Bars as pandas, with the return from the minute before in bps (NaN after a gap)."""
    bars = table.to_pandas()
    adjacent = bars.open_time_ms.diff() == 60_000
    bars["move_bps"] = (bars.close / bars.close.shift() - 1).where(adjacent) * 1e4
    return bars


@pytest.fixture(scope="module")
def tables():
    return [generate_symbol(OPTIONS, index) for index in range(OPTIONS.symbols)]


@pytest.fixture(scope="module")
def frames(tables):
    return [as_frame(table) for table in tables]


@pytest.fixture(scope="module")
def long_frames():
    """Ninety days, for statistics that three weeks leave too noisy."""
    options = MarketOptions(days=90)
    return [as_frame(generate_symbol(options, index)) for index in range(3)]


def digests(folder):
    files = sorted(folder.rglob("*.parquet"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rank_correlation(left, right):
    """Spearman's, by pairs that both are known; free of the weight of a few wild minutes."""
    both = pd.concat([left, right], axis=1).dropna().rank()
    return both.iloc[:, 0].corr(both.iloc[:, 1])


def by_minute(frames):
    """Returns of every symbol at the minutes that all of them have."""
    moves = [frame.set_index("open_time_ms").move_bps for frame in frames]
    return pd.concat(moves, axis=1, join="inner").dropna()


# The contract


@pytest.mark.parametrize("index", [0, 1, 2, 3, 15, 16, 40])
def test_bars_hold_the_contract(index):
    options = MarketOptions(days=3)
    table = generate_symbol(options, index)
    assert table.column_names == COLUMNS
    assert table.schema.equals(SCHEMA)
    bars = table.to_pandas()
    assert set(bars.symbol) == {instrument(options, index).name}
    assert not bars.drop(columns="spread_bps").isna().any().any()
    assert (bars.open_time_ms % 60_000 == 0).all()
    assert (bars.open_time_ms.diff().dropna() > 0).all()
    assert np.isfinite(bars[PRICES]).all().all()
    assert (bars[PRICES] > 0).all().all()
    assert (bars.high >= bars[["open", "close"]].max(axis=1)).all()
    assert (bars.low <= bars[["open", "close"]].min(axis=1)).all()
    assert (bars.volume >= 0).all()
    assert bars.spread_bps.dropna().between(0.5, 10).all()


def test_extreme_options_still_hold_the_contract():
    options = MarketOptions(
        days=30, volatility_bps=50, tail_degrees=2.1, zero_volume_rate=0.5, gap_rate=50
    )
    bars = generate_symbol(options, 16).to_pandas()
    assert (bars[PRICES] > 0).all().all()
    assert (bars.high >= bars[["open", "close"]].max(axis=1)).all()
    assert (bars.low <= bars[["open", "close"]].min(axis=1)).all()


def test_missing_spreads_are_null_not_nan(tables):
    column = tables[0]["spread_bps"]
    assert column.null_count > 0
    assert not np.isnan(column.drop_null().to_numpy()).any()


@pytest.mark.parametrize("index", range(4))
def test_prices_lie_on_the_tick_and_volume_on_the_lot(frames, index):
    bars, decimals = frames[index], FAMILIAR[index].decimals
    assert (bars[PRICES] == bars[PRICES].round(decimals)).all().all()
    assert (bars[PRICES] != bars[PRICES].round(decimals - 1)).any().all()
    assert (bars.volume == bars.volume.round(3)).all()


def test_minutes_start_late_by_symbol_and_end_with_the_last_day(frames):
    midnight = 1_736_121_600_000  # 2025-01-06T00:00:00Z, a Monday
    late = [(frame.open_time_ms.iloc[0] - midnight) // 60_000 for frame in frames]
    assert len(set(late)) == len(late)
    assert all(0 <= minutes < 60 for minutes in late)
    end = midnight + 21 * 86_400_000
    assert all(end - 3_600_000 < frame.open_time_ms.iloc[-1] < end for frame in frames)


# What never changes


@pytest.mark.parametrize("index", [0, 3, 17])
@pytest.mark.parametrize("signal", [0.0, 0.1])
def test_more_days_only_append(index, signal):
    longest = generate_symbol(MarketOptions(days=22, signal=signal), index)
    for days in (1, 7, 21):
        table = generate_symbol(MarketOptions(days=days, signal=signal), index)
        assert table.equals(longest.slice(0, len(table)))
        next_ms = longest["open_time_ms"][len(table)].as_py()
        assert next_ms >= 1_736_121_600_000 + days * 86_400_000


def test_more_symbols_change_no_file(tmp_path):
    for symbols in (2, 5):
        write_sample(tmp_path / str(symbols), MarketOptions(symbols=symbols, days=2))
    few, many = digests(tmp_path / "2"), digests(tmp_path / "5")
    assert len(few) == 2
    assert len(many) == 5
    assert few.items() <= many.items()


def test_equal_options_give_equal_bytes_and_another_seed_does_not(tmp_path):
    options = MarketOptions(symbols=2, days=2)
    for name in ("a", "b"):
        write_sample(tmp_path / name, options, dirty=True)
    write_sample(tmp_path / "c", dataclasses.replace(options, seed=8), dirty=True)
    first, second, other = (digests(tmp_path / name) for name in "abc")
    assert len(first) == 3
    assert first == second
    assert all(first[name] != other[name] for name in first)


def test_symbols_differ_and_have_names():
    names = [instrument(OPTIONS, index).name for index in range(40)]
    assert names[:2] == ["BTCUSDT", "ETHUSDT"]
    assert names[15:18] == ["UNIUSDT", "SYM017", "SYM018"]
    assert len(set(names)) == 40


# What the market looks like


def autocorrelation(values, lag):
    values = values - values.mean()
    return (values * values.shift(lag)).mean() / values.var()


@pytest.mark.parametrize("index", range(4))
def test_tails_are_fat_and_volatility_is_that_of_crypto(frames, index):
    moves = frames[index].move_bps.dropna()
    assert 5 < moves.std() < 14
    assert moves.kurt() + 3 > 10  # a normal has 3


def test_high_degrees_and_the_season_alone_give_thinner_tails(frames):
    mild = as_frame(generate_symbol(MarketOptions(tail_degrees=1_000), 0))
    assert mild.move_bps.kurt() < frames[0].move_bps.kurt() / 2


@pytest.mark.parametrize("index", range(3))
def test_volatility_clusters_while_returns_do_not(long_frames, index):
    moves = long_frames[index].move_bps
    sizes = moves.abs()
    assert all(autocorrelation(sizes, lag) > 0.05 for lag in (1, 2, 5, 10, 30, 60, 120, 240))
    assert autocorrelation(sizes, 1) > autocorrelation(sizes, 120) > autocorrelation(sizes, 480)
    assert all(abs(autocorrelation(moves, lag)) < 0.02 for lag in (1, 2, 3, 5, 10, 30, 60))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9])
def test_symbols_are_correlated_as_asked(share):
    options = MarketOptions(days=60, correlation=share)
    frames = [as_frame(generate_symbol(options, index)) for index in range(3)]
    found = by_minute(frames).corr(method="spearman").to_numpy()[np.triu_indices(3, 1)]
    assert np.abs(found - share).max() < 0.1


def test_betas_order_the_symbols(long_frames):
    moves = by_minute(long_frames).clip(-60, 60)  # least squares, held against single outliers
    market = moves.mean(axis=1)
    betas = [moves.iloc[:, i].cov(market) / market.var() for i in range(3)]
    assert betas[0] < betas[1] < betas[2]


def test_the_day_has_a_season_in_volatility_and_volume(frames):
    for frame in frames:
        hour = frame.open_time_ms // 3_600_000 % 24
        size = frame.move_bps.abs().groupby(hour).mean()
        volume = frame.volume.groupby(hour).mean()
        assert size[13:16].mean() > 1.4 * size[1:5].mean()
        assert volume[13:16].mean() > 1.6 * volume[1:5].mean()
        weekend = pd.to_datetime(frame.open_time_ms, unit="ms").dt.day_of_week >= 5
        assert frame.move_bps[weekend].abs().mean() < frame.move_bps[~weekend].abs().mean()


def test_outages_are_few_and_some_are_shared(frames):
    start = max(frame.open_time_ms.iloc[0] for frame in frames)
    end = min(frame.open_time_ms.iloc[-1] for frame in frames)
    everything = set(range(start, end + 1, 60_000))
    missing = [everything - set(frame.open_time_ms) for frame in frames]
    for frame, lost in zip(frames, missing, strict=True):
        assert 3 <= (frame.open_time_ms.diff() > 60_000).sum() <= 15
        assert 0 < len(lost) < 0.02 * len(everything)
    shared = set.intersection(*missing)
    assert shared
    assert all(lost - shared for lost in missing)


def test_no_outage_when_none_is_asked():
    times = generate_symbol(MarketOptions(days=5, gap_rate=0), 2)["open_time_ms"].to_numpy()
    assert (np.diff(times) == 60_000).all()


def test_minutes_without_a_trade_are_flat_and_thin_symbols_have_them(frames):
    shares = [(frame.volume == 0).mean() for frame in frames]
    assert shares[0] == 0
    assert shares[1:] == pytest.approx([0.02 / 3, 0.01, 0.012], rel=0.15)
    for frame in frames[1:]:
        idle = frame[frame.volume == 0]
        assert (idle[PRICES].nunique(axis=1) == 1).all()
        assert (idle.move_bps.dropna() == 0).all()


def test_the_price_stands_still_through_an_idle_minute_and_does_not_catch_up():
    """An idle minute must not store a move that other symbols' moves would predict."""
    options = MarketOptions(days=60, zero_volume_rate=0.5)
    thin, market = (as_frame(generate_symbol(options, index)) for index in (3, 0))
    both = thin.merge(market, on="open_time_ms", suffixes=("", "_market"))
    after_idle = both[(both.volume.shift() == 0) & (both.volume > 0)].index
    thin_now, market_before = both.move_bps[after_idle], both.move_bps_market.shift()[after_idle]
    assert len(after_idle) > 5_000
    assert abs(rank_correlation(thin_now, market_before)) < 0.04


def test_spreads_widen_and_volume_grows_with_volatility(frames):
    for frame in frames:
        size = frame.move_bps.abs()
        calm, wild = size < size.quantile(0.25), size > size.quantile(0.95)
        assert frame.spread_bps[wild].mean() > 1.4 * frame.spread_bps[calm].mean()
        assert rank_correlation(size, frame.volume) > 0.4
        assert 0.005 < frame.spread_bps.isna().mean() < 0.02
    assert frames[0].spread_bps.median() < frames[3].spread_bps.median()


def test_highs_and_lows_have_the_range_of_a_brownian_minute():
    """A Brownian motion of deviation s has mean range s * sqrt(8 / pi), twice its mean |move|.

    Feller (1951), Annals of Mathematical Statistics 22(3), 427-432. Whatever s does from minute to
    minute, the two means keep that ratio.
    """
    options = MarketOptions(days=120, tail_degrees=1_000, gap_rate=0)
    bars = as_frame(generate_symbol(options, 0)).dropna()
    span = (bars.high - bars.low) / bars.close * 1e4
    assert span.mean() / bars.move_bps.abs().mean() == pytest.approx(2.0, rel=0.02)
    above = (bars.high - bars[["open", "close"]].max(axis=1)).mean()
    below = (bars[["open", "close"]].min(axis=1) - bars.low).mean()
    assert above == pytest.approx(below, rel=0.02)


def test_targets_and_stops_are_often_but_not_always_reached(frames):
    for frame in frames:
        entry = frame.close.to_numpy()[:-45:7]
        ahead = np.arange(len(entry))[:, None] * 7 + np.arange(1, 46)
        up = (frame.high.to_numpy()[ahead] >= entry[:, None] * 1.0012).any(axis=1)
        down = (frame.low.to_numpy()[ahead] <= entry[:, None] * 0.9992).any(axis=1)
        assert 0.5 < up.mean() < 0.98
        assert 0.5 < down.mean() < 0.98
        assert 0 < (~up & ~down).mean() < 0.2


# The planted signal and the drift


def forecast_correlation(options, index=1):
    """Rank correlation of the last half hour's return over its volatility with the next 5 minutes.

    Only columns of the output are used, as a warehouse would.
    """
    bars = as_frame(generate_symbol(options, index))
    size = bars.move_bps.rolling(60).std()
    feature = bars.move_bps.rolling(30).sum() / size
    ahead = bars.move_bps[::-1].rolling(5).sum()[::-1].shift(-1) / size
    return rank_correlation(feature[::5], ahead[::5])


def test_nothing_predicts_the_sign_without_a_signal():
    found = [forecast_correlation(MarketOptions(days=90, seed=seed)) for seed in (7, 8, 9)]
    assert abs(np.mean(found)) < 0.015


def test_the_signal_predicts_and_more_predicts_more():
    found = [forecast_correlation(MarketOptions(days=90, signal=q)) for q in (0.01, 0.05, 0.2)]
    assert found[0] > 0.08
    assert found[0] + 0.1 < found[1] < found[2] - 0.1


def test_the_signal_decides_the_share_of_variance_it_names():
    """The noise is drawn the same with and without a signal, so that the rest is the forecast."""
    q = 0.25
    options = MarketOptions(days=60, signal=q, gap_rate=0)
    plain = as_frame(generate_symbol(dataclasses.replace(options, signal=0.0), 0)).move_bps
    bars = as_frame(generate_symbol(options, 0))
    predicted = bars.move_bps - math.sqrt(1 - q) * plain  # s * sqrt(q) * m
    assert predicted.var() / bars.move_bps.var() == pytest.approx(q, rel=0.05)
    assert abs(predicted.corr(plain)) < 0.02
    midnight = bars.open_time_ms % 86_400_000 == 0  # the past does not end there
    assert predicted[midnight].abs().median() > 0.3 * predicted.abs().median()


def test_the_price_is_a_martingale_without_drift_and_drifts_as_asked():
    options = MarketOptions(days=60, gap_rate=0)
    flat, risen = (
        as_frame(generate_symbol(dataclasses.replace(options, drift_bps_per_day=drift), 0))
        for drift in (0.0, 300.0)
    )
    error = flat.move_bps.std() / math.sqrt(len(flat))
    assert abs(flat.move_bps.mean()) < 3 * error
    difference = (risen.move_bps - flat.move_bps).mean() * 1_440
    assert difference == pytest.approx(300, rel=0.01)


def test_volatility_and_spread_follow_their_options():
    options = MarketOptions(days=10)
    usual = as_frame(generate_symbol(options, 0))
    wild = as_frame(generate_symbol(dataclasses.replace(options, volatility_bps=16), 0))
    wide = as_frame(generate_symbol(dataclasses.replace(options, spread_bps=3), 0))
    assert wild.move_bps.std() / usual.move_bps.std() == pytest.approx(2, rel=0.05)
    assert wide.spread_bps.mean() / usual.spread_bps.mean() == pytest.approx(2, rel=0.01)


# Bad options and bad rows


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("symbols", 0, "symbols is 0; allowed is 1 to 999"),
        ("days", 0, "days is 0; allowed is 1 to 3,660"),
        ("seed", -1, "seed is -1"),
        ("volatility_bps", 0.0, "volatility_bps is 0.0; allowed is 0.1 to 50"),
        ("volatility_bps", math.nan, "volatility_bps is nan"),
        ("tail_degrees", 2.0, "tail_degrees is 2.0"),
        ("correlation", 1.0, "correlation is 1.0"),
        ("gap_rate", -0.1, "gap_rate is -0.1"),
        ("zero_volume_rate", 0.6, "zero_volume_rate is 0.6"),
        ("spread_bps", -1, "spread_bps is -1"),
        ("signal", 1.1, "signal is 1.1; allowed is 0 to 1"),
        ("drift_bps_per_day", math.inf, "drift_bps_per_day is inf"),
        ("start", dt.date(1969, 12, 31), "start is 1969-12-31"),
    ],
)
def test_options_out_of_range_say_what_is_allowed(name, value, message):
    with pytest.raises(ValueError, match=message):
        MarketOptions(**{name: value})


def test_negative_index_is_refused():
    with pytest.raises(ValueError, match="index is -1"):
        generate_symbol(OPTIONS, -1)


def test_dirty_rows_hold_each_fault_as_often_as_documented(tables):
    bad = dirty_rows(tables[0])
    assert bad.schema.equals(SCHEMA)
    assert len(bad) == sum(DIRTY_COUNTS.values())
    rows = bad.to_pylist()
    keys = Counter((row["symbol"], row["open_time_ms"]) for row in rows)
    clean = [tuple(row.values()) for row in tables[0].slice(0, 200).to_pylist()]

    def kind_of(row):
        prices = [row[name] for name in PRICES]
        stated = [price for price in prices if price is not None]
        positive = all(price > 0 for price in stated if not math.isnan(price))
        whole = positive and len(stated) == 4 and all(map(math.isfinite, stated))
        checks = {
            "null symbol": row["symbol"] is None,
            "null time": row["open_time_ms"] is None,
            "time off the minute": (row["open_time_ms"] or 0) % 60_000 != 0,
            "null price": len(stated) < 4,
            "zero price": 0 in stated,
            "negative price": any(price < 0 for price in stated),
            "nan price": any(map(math.isnan, stated)),
            "infinite price": math.inf in stated,
            "high below low": whole and row["high"] < row["low"],
            "close outside high-low": whole
            and row["low"] <= row["high"]
            and not row["low"] <= row["close"] <= row["high"],
            "negative volume": row["volume"] < 0,
            "nan volume": math.isnan(row["volume"]),
            "negative spread": (row["spread_bps"] or 0) < 0,
            "conflicting duplicate": keys[row["symbol"], row["open_time_ms"]] == 2
            and None not in (row["symbol"], row["open_time_ms"]),
            "exact duplicate of another file": tuple(row.values()) in clean,
        }
        kinds = [kind for kind, found in checks.items() if found]
        assert len(kinds) == 1, (kinds, row)
        return kinds[0]

    assert Counter(map(kind_of, rows)) == DIRTY_COUNTS


def test_dirty_rows_need_enough_bars(tables):
    with pytest.raises(ValueError, match="10 bars have high above low; expected 38"):
        dirty_rows(tables[0].slice(0, 10))


# Files


def test_a_smaller_sample_removes_the_files_of_a_larger_one(tmp_path):
    write_sample(tmp_path, MarketOptions(symbols=3, days=1), dirty=True)
    summary = write_sample(tmp_path, MarketOptions(symbols=1, days=1))
    assert [path.name for path in summary.folder.iterdir()] == ["sample-BTCUSDT.parquet"]
    assert summary.symbols == ("BTCUSDT",)
    assert summary.dirty_rows == 0


def test_summary_counts_the_files_rows(tmp_path):
    done = []
    options = MarketOptions(symbols=2, days=1)
    summary = write_sample(tmp_path, options, dirty=True, on_symbol=done.append)
    table = pa.concat_tables(pq.read_table(path) for path in sorted(summary.folder.iterdir()))
    assert summary.rows == len(table)
    assert summary.dirty_rows == sum(DIRTY_COUNTS.values())
    clean = [generate_symbol(options, index)["open_time_ms"].to_numpy() for index in range(2)]
    assert summary.first_ms == min(times[0] for times in clean)
    assert summary.last_ms == max(times[-1] for times in clean)
    assert done == ["BTCUSDT", "ETHUSDT"]


@pytest.mark.parametrize(
    "name", ["mine.parquet", "mine.csv", "mine.CSV", "mine.csv.gz", "year=2024/a.parquet"]
)
def test_foreign_data_is_refused_and_never_touched(tmp_path, name):
    mine = tmp_path / "minute_bars" / name
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    options = MarketOptions(symbols=1, days=1)
    with pytest.raises(FileExistsError, match=r"minute_bars holds data .*files: 1, .*--force"):
        write_sample(tmp_path, options)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [mine]
    write_sample(tmp_path, options, force=True)
    assert mine.read_bytes() == b"mine"
    assert (tmp_path / "minute_bars/sample-BTCUSDT.parquet").exists()


@pytest.mark.parametrize("name", ["sample-BTCUSDT.parquet", "sample-old.parquet"])
def test_foreign_data_under_a_samples_name_is_never_touched(tmp_path, name):
    mine = tmp_path / "minute_bars" / name
    mine.parent.mkdir()
    pq.write_table(pa.table({"mine": [1]}), mine)
    before = mine.read_bytes()
    options = MarketOptions(symbols=1, days=1)
    with pytest.raises(FileExistsError, match=name):
        write_sample(tmp_path, options)
    if name == "sample-BTCUSDT.parquet":
        with pytest.raises(FileExistsError, match="move them away"):
            write_sample(tmp_path, options, force=True)
    else:
        write_sample(tmp_path, options, force=True)
    assert mine.read_bytes() == before


def test_other_kinds_of_files_are_no_hindrance(tmp_path):
    note = tmp_path / "minute_bars" / "README.md"
    note.parent.mkdir()
    note.write_text("mine")
    write_sample(tmp_path, MarketOptions(symbols=1, days=1))
    assert note.read_text() == "mine"


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    options = MarketOptions(symbols=1, days=1)
    folder = write_sample(tmp_path, options).folder
    before = digests(folder)

    def half_a_file(table, path, **settings):
        path.write_bytes(b"PAR1")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", half_a_file)
    with pytest.raises(OSError, match="disk full"):
        write_sample(tmp_path, dataclasses.replace(options, seed=8))
    assert digests(folder) == before
    assert len(list(folder.iterdir())) == 1


# The command


def run(*arguments):
    """The command without the daily market, which test_daily_sample.py looks at."""
    return CliRunner().invoke(sample_command, [*map(str, arguments), "--stocks", "0"])


def test_command_writes_and_sums_up(tmp_path):
    result = run("--data-dir", tmp_path, "--symbols", 2, "--days", 1, "--dirty")
    assert result.exit_code == 0, result.output
    names = ["sample-BTCUSDT.parquet", "sample-ETHUSDT.parquet", "sample-dirty.parquet"]
    assert sorted(path.name for path in (tmp_path / "minute_bars").iterdir()) == names
    for piece in ("BTCUSDT, ETHUSDT", "41 of them dirty", "2025-01-06 00:", "23:5", str(tmp_path)):
        assert piece in result.output


def test_command_writes_what_its_options_say(tmp_path):
    arguments = "--symbols 1 --days 2 --seed 3 --start 2024-02-28 --volatility-bps 20"
    arguments += " --tail-degrees 8 --correlation 0.1 --gap-rate 2 --zero-volume-rate 0.1"
    arguments += " --spread-bps 4 --signal 0.5 --drift-bps-per-day -20"
    result = run("--out", tmp_path, *arguments.split())
    assert result.exit_code == 0, result.output
    options = MarketOptions(
        1, 2, 3, 20, 8, 0.1, 2, 0.1, 4, 0.5, -20, dt.date(2024, 2, 28)
    )  # fmt: skip
    written = pq.read_table(tmp_path / "minute_bars" / "sample-BTCUSDT.parquet")
    assert written.equals(generate_symbol(options, 0))


def test_command_defaults_are_those_of_the_options(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert run().exit_code == 0
    folder = tmp_path / SAMPLE_DATA_DIR / "minute_bars"
    assert len(list(folder.iterdir())) == OPTIONS.symbols
    assert pq.read_table(folder / "sample-BTCUSDT.parquet").equals(generate_symbol(OPTIONS, 0))


def test_command_help_shows_every_default():
    text = " ".join(run("--help").output.split())
    for piece in ("data/sample", "2025-01-06", "[default: 21;", "[default: 8.0;", "41 rows"):
        assert piece in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--days", "0"], "0 is not in the range 1<=x<=3660"),
        (["--volatility-bps", "nan"], "volatility_bps is nan; allowed is 0.1 to 50"),
        (["--start", "1960-01-01"], "start is 1960-01-01; allowed is 1970-01-01 or later"),
        (["--start", "monday"], "'monday' does not match the format '%Y-%m-%d'"),
    ],
)
def test_command_refuses_bad_options(tmp_path, arguments, message):
    result = run("--data-dir", tmp_path / "new", *arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "new").exists()


def test_command_refuses_foreign_data_with_the_folder_and_the_remedy(tmp_path):
    (tmp_path / "minute_bars").mkdir()
    (tmp_path / "minute_bars" / "mine.csv").write_text("a,b\n")
    result = run("--data-dir", tmp_path, "--symbols", 1, "--days", 1)
    assert result.exit_code == 1
    assert str(tmp_path / "minute_bars") in result.output
    assert "--force" in result.output
    assert run("--data-dir", tmp_path, "--symbols", 1, "--days", 1, "--force").exit_code == 0


def test_command_reports_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "minute_bars").write_text("a file")
    result = run("--data-dir", tmp_path, "--symbols", 1, "--days", 1)
    assert result.exit_code == 1
    assert "Error:" in result.output
    assert "Traceback" not in result.output
