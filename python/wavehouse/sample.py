"""A deterministic sample market of one-minute bars, and the `wavehouse sample` command.

The command also writes the daily sample market, which `wavehouse.daily_sample` makes.

Everything is drawn in whole UTC days, each from its own generator keyed by (seed, symbol, calendar
day); only the last price and the last `SIGNAL_WINDOW` shocks pass from one day to the next. So more
days append rows and change none, more symbols append files and change none, and equal options give
equal bytes (with the same numpy and pyarrow on the same kind of processor).

A minute's return is `r = s * x`, close to close, in price units (not log), where for symbol i

    s * x = season * volatility * (sqrt(c) * beta_i * s_m * z_m + sqrt(1 - c) * v_i * s_i * z_i)

with c the market's share, z standard normal, and s_m, s_i independent volatilities of mean square
1, each made of a multifractal product and a Student-t mixing variable. x is standard normal given
s. So the minute is a Brownian path given s, which gives open, high and low in closed form: each
has its exact distribution, but high and low are drawn independently of each other.

With no signal and no drift nothing predicts the sign of x: the price is a martingale up to its
rounding to the tick. `signal` q makes the return `s * (sqrt(1 - q) * x + sqrt(q) * m)`, where m is
the sum of the SIGNAL_WINDOW shocks x before it over sqrt(SIGNAL_WINDOW), shocks of lost and idle
minutes included, and zero before the first day. m is standard normal too, so s keeps its meaning.

Sources:
  stylized facts       Cont (2001), Quantitative Finance 1(2), 223-236
  market factor        Sharpe (1963), Management Science 9(2), 277-293
  volatility, < 1 day  Calvet and Fisher (2004), J. of Financial Econometrics 2(1), 49-83 (the
                       binomial Markov-switching multifractal; here all renew at midnight)
  volatility, > 1 day  Mandelbrot, Fisher and Calvet (1997), Cowles Discussion Paper 1164
                       (multipliers constant on a dyadic grid)
  Student-t mixture    Praetz (1972), J. of Business 45(1), 49-55
  volume and variance  Clark (1973), Econometrica 41(1), 135-155
  season of the day    Andersen and Bollerslev (1997), J. of Empirical Finance 4(2-3), 115-158
  spread, volatility   Bollerslev and Melvin (1994), J. of International Economics 36, 355-372
  high and low         Glasserman (2004), Monte Carlo Methods in Financial Engineering, section 6.4
"""

import dataclasses
import datetime as dt
import json
import math
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import Progress

from wavehouse.daily_sample import DAILY_DIRTY_COUNTS, claim_daily, write_daily_sample
from wavehouse.daily_sample_plan import DailyOptions
from wavehouse.paths import SAMPLE_DATA_DIR
from wavehouse.sample_common import (
    OWNER_KEY,
    check_limits,
    claim_folder,
    data_files,
    is_sample,
    options_of,
    setting,
    write_parquet,
)

MINUTE_MS = 60_000
DAY_MINUTES = 1_440
SIGNAL_WINDOW = 30  # minutes of past shocks that the planted signal sums
MULTIPLIER = 1.32  # a multifractal multiplier is this or two minus this, mean 1
SHORT_SCALES = 2.0 ** np.arange(3, 11)  # expected minutes between renewals, 8 to 1024
LONG_SCALES = (2, 4, 8, 16)  # days that a slow multiplier lasts
MAX_MINUTE_VOLATILITY = 0.03  # keeps every price above zero whatever is drawn
FIRST_TRADE = 1 / 60  # the open is the price one second into the minute
OUTAGE_MINUTES = 12  # mean length of an outage
MISSING_SPREADS = 0.01  # share of minutes whose spread is NULL

SCHEMA = pa.schema(
    [("symbol", pa.string()), ("open_time_ms", pa.int64())]
    + [(name, pa.float64()) for name in ("open", "high", "low", "close", "volume", "spread_bps")]
)


@dataclasses.dataclass(frozen=True)
class Instrument:
    """One symbol's constants: first price, decimals of its tick, volatility multiple and beta."""

    name: str
    price: float
    decimals: int
    volatility: float
    beta: float


FAMILIAR = (
    Instrument("BTCUSDT", 98_500.0, 1, 0.8, 0.85),
    Instrument("ETHUSDT", 3_640.0, 2, 1.0, 1.0),
    Instrument("SOLUSDT", 214.0, 2, 1.2, 1.15),
    Instrument("DOGEUSDT", 0.386, 5, 1.3, 1.25),
    Instrument("XRPUSDT", 2.41, 4, 1.2, 1.0),
    Instrument("BNBUSDT", 712.0, 2, 0.8, 0.75),
    Instrument("ADAUSDT", 1.08, 4, 1.2, 1.15),
    Instrument("LINKUSDT", 23.6, 3, 1.25, 1.2),
    Instrument("AVAXUSDT", 42.8, 3, 1.25, 1.25),
    Instrument("LTCUSDT", 114.0, 2, 1.0, 0.95),
    Instrument("SUIUSDT", 5.12, 4, 1.4, 1.25),
    Instrument("DOTUSDT", 7.74, 3, 1.15, 1.15),
    Instrument("TRXUSDT", 0.267, 5, 0.8, 0.5),
    Instrument("BCHUSDT", 462.0, 2, 1.0, 0.9),
    Instrument("NEARUSDT", 5.83, 3, 1.3, 1.25),
    Instrument("UNIUSDT", 14.7, 3, 1.3, 1.2),
)

# Single faults in a valid bar of DIRTYUSDT, each at its own minute: (kind, rows, changed columns).
FAULTS = (
    ("null symbol", 2, {"symbol": None}),
    ("null time", 2, {"open_time_ms": None}),
    ("time off the minute", 3, {"open_time_ms": lambda bar: bar["open_time_ms"] + 30_001}),
    ("null price", 2, {"close": None}),
    ("zero price", 2, {"low": 0.0}),
    ("negative price", 2, {"low": lambda bar: -bar["low"]}),
    ("nan price", 2, {"open": math.nan}),
    ("infinite price", 2, {"high": math.inf}),
    ("high below low", 3, {"high": lambda bar: bar["low"], "low": lambda bar: bar["high"]}),
    ("close outside high-low", 3, {"close": lambda bar: bar["high"] * 1.01}),
    ("negative volume", 2, {"volume": -1.0}),
    ("nan volume", 2, {"volume": math.nan}),
    ("negative spread", 3, {"spread_bps": -0.5}),
)
CONFLICTS, COPIES = 3, 5
DIRTY_COUNTS = {kind: rows for kind, rows, _ in FAULTS} | {
    "conflicting duplicate": 2 * CONFLICTS,
    "exact duplicate of another file": COPIES,
}


@dataclasses.dataclass(frozen=True)
class MarketOptions:
    """What the sample market looks like; each field is an option of `wavehouse sample`.

    Raises ValueError when a field is outside its limits or `start` is before 1970.
    """

    symbols: int = setting(
        4, 1, 999, "How many symbols: BTCUSDT, ETHUSDT, ..., then SYM017 and so on."
    )
    days: int = setting(21, 1, 3_660, "Whole UTC days of minutes. More days only append rows.")
    seed: int = setting(7, 0, 2**63 - 1, "Another seed, another market; same seed, same bytes.")
    volatility_bps: float = setting(
        8.0, 0.1, 50, "Long-run standard deviation of one-minute returns on weekdays, bps; each "
        "symbol has 0.8 to 1.4 times it."
    )  # fmt: skip
    tail_degrees: float = setting(
        4.0, 2.1, 1_000, "Student-t degrees of freedom: lower is wilder, 1000 is nearly normal."
    )
    correlation: float = setting(
        0.6, 0, 0.99, "Share of variance from the market factor: two symbols' usual correlation."
    )
    gap_rate: float = setting(
        0.3, 0, 50, "Outages a day and symbol, 12 minutes each on average; a third of them hit "
        "all symbols at once."
    )  # fmt: skip
    zero_volume_rate: float = setting(
        0.02, 0, 0.5, "Share of minutes without a trade in a thin symbol; symbol k, counted from "
        "0, has k/(k+2) of it."
    )  # fmt: skip
    spread_bps: float = setting(
        1.5, 0, 1_000, "Typical spread, bps. It follows volatility between 1/3 and 20/3 of this, "
        "and is NULL in 1% of the bars."
    )  # fmt: skip
    signal: float = setting(
        0.0, 0, 1, "Share of each minute's variance that its past decides: momentum, an even "
        "weight on the shocks of the last 30 minutes, so that their return over their volatility "
        "predicts the next minutes. At 0 nothing predicts the sign of a return; 0.01 is plain to "
        "see, 0.1 is huge."
    )  # fmt: skip
    drift_bps_per_day: float = setting(
        0.0, -500, 500, "Constant drift, bps a day, in equal parts to the minutes that trade."
    )
    start: dt.date = dt.date(2025, 1, 6)

    def __post_init__(self) -> None:
        check_limits(self)
        if self.start < dt.date(1970, 1, 1):
            raise ValueError(f"start is {self.start}; allowed is 1970-01-01 or later")


@dataclasses.dataclass(frozen=True)
class Moves:
    """What moves one symbol: an array (minutes,) each, missing minutes included.

    `relative` is the volatility in units of the option, without the season; `volatility` is that
    of the minute's return, 0 where nobody trades; `shocks` are the standard normal x; `moves` are
    the returns, close to close before the rounding to the tick.
    """

    season: np.ndarray
    relative: np.ndarray
    shocks: np.ndarray
    trades: np.ndarray
    volatility: np.ndarray
    moves: np.ndarray


@dataclasses.dataclass(frozen=True)
class SampleSummary:
    """What `write_sample` wrote: `rows` counts every file, the times are of the clean bars."""

    folder: Path
    symbols: tuple[str, ...]
    rows: int
    first_ms: int
    last_ms: int
    dirty_rows: int


def instrument(options: MarketOptions, index: int) -> Instrument:
    """Return symbol number `index` (from 0): a familiar perpetual, or SYM017 and so on.

    Raises ValueError when `index` is negative.
    """
    if index < 0:
        raise ValueError(f"symbol index is {index}; expected 0 or more")
    if index < len(FAMILIAR):
        return FAMILIAR[index]
    rng = _generator(options.seed, index + 1, 1)
    price = float(10 ** rng.uniform(-1.0, 2.5))
    decimals = 4 - math.floor(math.log10(price))  # a tick of 0.1 to 1 bp
    volatility = float(rng.uniform(0.8, 1.4))
    beta = volatility * float(rng.uniform(0.8, 1.05))
    return Instrument(f"SYM{index + 1:03d}", price, decimals, volatility, beta)


def generate_symbol(options: MarketOptions, index: int) -> pa.Table:
    """Return the bars of symbol number `index` (from 0) as a table of SCHEMA, sorted by time.

    At most `options.days * 1440` rows: missing minutes have no row. Prices are multiples of the
    symbol's tick; volume is in units of the base asset; spread is in bps of the price, or NULL.
    The table does not depend on `options.symbols`, and one of fewer days is a prefix of it.
    Raises ValueError when `index` is negative.
    """
    coin = instrument(options, index)
    first_day = (options.start - dt.date(1970, 1, 1)).days
    late_minutes = int(_generator(options.seed, index + 1, 0).integers(0, 45))
    price, shocks, blocks = coin.price, np.zeros(SIGNAL_WINDOW), []
    for day in range(first_day, first_day + options.days):
        block, price, shocks = _day_of_bars(options, index, coin, day, price, shocks)
        blocks.append(block[:, late_minutes:] if day == first_day and late_minutes else block)
    bars = np.concatenate(blocks, axis=1)
    bars = bars[:, ~np.isnan(bars[0])]
    columns = [pa.array(column) for column in bars[:-1]]
    columns.append(pa.array(bars[-1], mask=np.isnan(bars[-1])))
    columns[0] = columns[0].cast(pa.int64())
    names = pa.repeat(pa.scalar(coin.name), bars.shape[1])
    return pa.Table.from_arrays([names, *columns], schema=SCHEMA)


def generate_moves(options: MarketOptions, index: int) -> Moves:
    """Return what the bars of `generate_symbol` are made from, `options.days * 1440` minutes.

    The first minute is midnight of `options.start`, before the first bar. No market shows this: it
    is for tests, to know what a forecast could have known. Raises ValueError when `index` is
    negative.
    """
    coin = instrument(options, index)
    first_day = (options.start - dt.date(1970, 1, 1)).days
    shocks, days = np.zeros(SIGNAL_WINDOW), []
    for day in range(first_day, first_day + options.days):
        market = _generator(options.seed, 0, 2, day)
        rng = _generator(options.seed, index + 1, 2, day)
        days.append(_day_of_moves(options, index, coin, day, shocks, market, rng))
        shocks = days[-1].shocks[-SIGNAL_WINDOW:]
    names = [field.name for field in dataclasses.fields(Moves)]
    return Moves(*(np.concatenate([getattr(day, name) for day in days]) for name in names))


def _day_of_bars(
    options: MarketOptions,
    index: int,
    coin: Instrument,
    day: int,
    price: float,
    shocks: np.ndarray,
) -> tuple[np.ndarray, float, np.ndarray]:
    """Return one day's bars (7 columns of SCHEMA after symbol, 1440; time NaN where missing).

    `day` counts from 1970-01-01, `price` is the last unrounded price, `shocks` the last
    SIGNAL_WINDOW values of x; the new ones are returned. No array here is longer than a day, so
    that no sum or vector instruction can make a day depend on how many follow it.
    """
    market = _generator(options.seed, 0, 2, day)
    rng = _generator(options.seed, index + 1, 2, day)
    moves = _day_of_moves(options, index, coin, day, shocks, market, rng)
    season, relative, x = moves.season, moves.relative, moves.shocks
    trades, minute, move = moves.trades, moves.volatility, moves.moves

    # Brownian path of the minute, as a fraction of the price before it: the point at FIRST_TRADE
    # of the bridge from 0 to `move`, then maximum and minimum of the bridge that is left.
    first = FIRST_TRADE * move
    first += math.sqrt(FIRST_TRADE * (1 - FIRST_TRADE)) * minute * rng.standard_normal(DAY_MINUTES)
    rest, twice_variance = move - first, 2 * (1 - FIRST_TRADE) * minute**2
    reach = np.sqrt(rest**2 + twice_variance * rng.standard_exponential((2, DAY_MINUTES)))
    path = price * np.cumprod(1 + move)
    before = np.concatenate([[price], path[:-1]])
    fractions = np.stack(
        [first, first + (rest + reach[0]) / 2, first + (rest - reach[1]) / 2, move]
    )
    prices = before * (1 + fractions)
    prices[3] = path
    prices = np.maximum(np.rint(prices * 10.0**coin.decimals), 1) / 10.0**coin.decimals
    prices[1] = prices.max(axis=0)  # the bridge holds these already, up to the last bit
    prices[2] = prices.min(axis=0)

    usual = 3e6 / (index + 1) / coin.price  # three million dollars a minute in the first symbol
    volume = usual * season**1.5 * relative * (0.4 + 0.75 * np.abs(x))
    volume *= np.exp(0.5 * rng.standard_normal(DAY_MINUTES))
    volume = np.where(trades, np.maximum(np.rint(volume * 1e3), 1) / 1e3, 0.0)

    spread = options.spread_bps * (0.6 + 0.8 * index / (index + 4)) * np.sqrt(relative * season)
    spread *= np.exp(0.25 * rng.standard_normal(DAY_MINUTES))
    spread = np.clip(spread, options.spread_bps / 3, options.spread_bps * 20 / 3).round(3)
    spread[rng.random(DAY_MINUTES) < MISSING_SPREADS] = np.nan

    time_ms = (day * DAY_MINUTES + np.arange(DAY_MINUTES, dtype=float)) * MINUTE_MS
    lost = _outages(options.gap_rate / 3, market) | _outages(options.gap_rate * 2 / 3, rng)
    time_ms[lost] = np.nan
    block = np.stack([time_ms, *prices, volume, spread])
    return block, float(path[-1]), x[-SIGNAL_WINDOW:]


def _day_of_moves(
    options: MarketOptions,
    index: int,
    coin: Instrument,
    day: int,
    shocks: np.ndarray,
    market: np.random.Generator,
    rng: np.random.Generator,
) -> Moves:
    """Return what moves the symbol on one day; the first draws of the day's two generators."""
    season = _season(day)
    common = _volatility(options, 0, day, market) * coin.beta * math.sqrt(options.correlation)
    own = _volatility(options, index + 1, day, rng) * coin.volatility
    own *= math.sqrt(1 - options.correlation)
    relative = np.hypot(common, own)
    x = common * market.standard_normal(DAY_MINUTES) + own * rng.standard_normal(DAY_MINUTES)
    x /= relative

    # Liquid symbols trade every minute. Where nobody trades the price stands still and does not
    # catch up later: catching up would let other symbols predict this one.
    idle_rate = options.zero_volume_rate * index / (index + 2) * season**-2 / np.mean(season**-2)
    trades = rng.random(DAY_MINUTES) >= idle_rate
    minute = np.minimum(relative * season * options.volatility_bps / 1e4, MAX_MINUTE_VOLATILITY)
    minute *= trades

    known = np.concatenate([[0.0], np.cumsum(np.concatenate([shocks, x]))])
    momentum = known[SIGNAL_WINDOW:-1] - known[: -SIGNAL_WINDOW - 1]
    momentum /= math.sqrt(SIGNAL_WINDOW)
    move = minute * (math.sqrt(1 - options.signal) * x + math.sqrt(options.signal) * momentum)
    move += trades * options.drift_bps_per_day / 1e4 / DAY_MINUTES
    return Moves(season, relative, x, trades, minute, move)


def _generator(seed: int, *key: int) -> np.random.Generator:
    """Return the generator of one thing; unequal keys give independent streams."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _season(day: int) -> np.ndarray:
    """Return the volatility multiple of each minute of `day`; its mean square is 1 on weekdays.

    London's and New York's hours are busy, every full hour starts with a burst, weekends are slow.
    """
    hour = np.arange(DAY_MINUTES) / 60
    season = 0.7 + 0.9 * np.exp(-0.5 * ((hour - 14.5) / 2) ** 2)
    season += 0.35 * np.exp(-0.5 * ((hour - 8) / 1.5) ** 2) + 0.25 * np.exp(-20 * (hour % 1))
    weekend = (day + 3) % 7 >= 5  # 1970-01-01 was a Thursday
    return season / np.sqrt(np.mean(season**2)) * (0.75 if weekend else 1.0)


def _volatility(
    options: MarketOptions, stream: int, day: int, rng: np.random.Generator
) -> np.ndarray:
    """Return (1440,) volatilities of mean square 1: multifractal product, Student-t mixing.

    Each short multiplier is renewed with chance 1 / scale a minute: a minute takes the draw made
    at the last renewal, which a running maximum finds without a recursion. Times a standard
    normal the mixing variable gives Student's t of unit variance.
    """
    shape = (len(SHORT_SCALES), DAY_MINUTES)
    renewed = rng.random(shape) < 1 / SHORT_SCALES[:, None]
    last = np.maximum.accumulate(np.where(renewed, np.arange(DAY_MINUTES), 0), axis=1)
    drawn = np.where(rng.random(shape) < 0.5, MULTIPLIER, 2 - MULTIPLIER)
    variance = np.take_along_axis(drawn, last, axis=1).prod(axis=0)
    for scale in LONG_SCALES:
        high = _generator(options.seed, stream, 3, scale, day // scale).random() < 0.5
        variance *= MULTIPLIER if high else 2 - MULTIPLIER
    degrees = options.tail_degrees
    return np.sqrt(variance * (degrees - 2) / rng.chisquare(degrees, DAY_MINUTES))


def _outages(rate: float, rng: np.random.Generator) -> np.ndarray:
    """Return which minutes of a day (1440, bool) are lost; `rate` outages expected a day."""
    starts = rng.integers(0, DAY_MINUTES, rng.poisson(rate))
    ends = np.minimum(starts + rng.geometric(1 / OUTAGE_MINUTES, len(starts)), DAY_MINUTES)
    edges = np.zeros(DAY_MINUTES + 1, dtype=int)
    np.add.at(edges, starts, 1)
    np.add.at(edges, ends, -1)
    return np.cumsum(edges)[:-1] > 0


def dirty_rows(clean: pa.Table) -> pa.Table:
    """Return the rows that staging must reject or flag, DIRTY_COUNTS of each kind, as SCHEMA.

    Faulty bars are valid bars of `clean` renamed to DIRTYUSDT with one thing spoilt, so that no
    fault also makes a duplicate. A conflicting duplicate is a pair of valid DIRTYUSDT bars of one
    minute with different volumes. Exact duplicates are rows of `clean` under its own symbol.
    Raises ValueError when `clean` has too few bars whose high is above their low.
    """
    needed = sum(DIRTY_COUNTS.values()) - CONFLICTS
    usable = clean.filter(pc.field("high") > pc.field("low")).slice(0, needed).to_pylist()
    if len(usable) < needed:
        raise ValueError(f"{len(usable)} bars have high above low; expected {needed} or more")
    bars, rows = iter(usable), []
    for _, count, changes in FAULTS:
        for _ in range(count):
            bar = next(bars) | {"symbol": "DIRTYUSDT"}
            spoilt = {name: new(bar) if callable(new) else new for name, new in changes.items()}
            rows.append(bar | spoilt)
    for _ in range(CONFLICTS):
        bar = next(bars) | {"symbol": "DIRTYUSDT"}
        rows += [bar, bar | {"volume": bar["volume"] + 1.0}]
    rows += [next(bars) for _ in range(COPIES)]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def write_sample(
    out_dir: Path,
    options: MarketOptions,
    dirty: bool = False,
    force: bool = False,
    on_symbol: Callable[[str], None] | None = None,
) -> SampleSummary:
    """Write `<out_dir>/minute_bars/sample-<symbol>.parquet`, one symbol in memory at a time.

    Each file appears whole or not at all. Files of an earlier sample that this one does not have
    are removed afterwards; a file is a sample's when its name and its metadata both say so, and no
    other file is ever touched. `on_symbol` is called with each name when its file is there.

    Raises FileExistsError when the folder holds other Parquet or CSV files and not `force`, or
    when one of them has a name that this sample needs, and OSError when the disk refuses.
    """
    names = [instrument(options, index).name for index in range(options.symbols)]
    folder = Path(out_dir) / "minute_bars"
    wanted = [folder / f"sample-{name}.parquet" for name in names + ["dirty"] * dirty]
    ours = claim_folder(folder, wanted, force)
    record = dataclasses.asdict(options) | {"start": str(options.start)}
    del record["symbols"]  # more symbols leave the files of the first ones as they are
    metadata = {OWNER_KEY: json.dumps(record).encode()}
    rows, firsts, lasts, spoilt = 0, [], [], 0
    for index, path in enumerate(wanted[: len(names)]):
        table = generate_symbol(options, index)
        write_parquet(path, table.replace_schema_metadata(metadata))
        rows += len(table)
        firsts.append(table["open_time_ms"][0].as_py())
        lasts.append(table["open_time_ms"][-1].as_py())
        if dirty and index == 0:
            extra = dirty_rows(table)
            spoilt = len(extra)
            write_parquet(wanted[-1], extra.replace_schema_metadata(metadata))
        if on_symbol:
            on_symbol(names[index])
    for path in ours:
        if path not in wanted:
            path.unlink()
    return SampleSummary(folder, tuple(names), rows + spoilt, min(firsts), max(lasts), spoilt)


@click.command("sample", context_settings={"show_default": True})
@click.option(
    "--data-dir",
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=SAMPLE_DATA_DIR,
    help="Folder of market data; the minute bars go to its minute_bars folder, the daily ones to "
    "daily_bars with one folder for each other daily relation.",
)
@click.option(
    "--start",
    type=click.DateTime(["%Y-%m-%d"]),
    default=str(MarketOptions.start),
    help="First UTC day; each symbol begins at its own minute of the first 45.",
)
@options_of(MarketOptions)
@options_of(DailyOptions)
@click.option(
    "--dirty/--clean",
    default=False,
    help=f"Also write sample-dirty.parquet: {sum(DIRTY_COUNTS.values())} rows that staging must "
    f"reject or flag: {', '.join(f'{rows} {kind}' for kind, rows in DIRTY_COUNTS.items())}. And "
    f"one of {sum(DAILY_DIRTY_COUNTS.values())} daily rows: "
    f"{', '.join(f'{rows} {kind}' for kind, rows in DAILY_DIRTY_COUNTS.items())}.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Write although the folder holds other Parquet or CSV files. They are never touched, but "
    "the warehouse will then read both.",
)
@click.option(
    "--missing",
    is_flag=True,
    help="Leave a market that is there as it is and write the other. Write nothing where the "
    "folder holds data that this command did not write.",
)
def sample_command(
    data_dir: Path, start: dt.datetime, dirty: bool, force: bool, missing: bool, **market: float
) -> None:
    """Write a deterministic sample market of one-minute bars, and one of daily A-share bars.

    Random, but with the habits of real bars: fat tails, volatility that clusters and follows the
    day, symbols that move together, outages, minutes without a trade, and spreads that widen. The
    daily side has every board, ST names, suspensions, new listings, delistings, price limits,
    dividends and splits, indices with their members, industries, and small feeds.

    \b
      wavehouse sample                      four symbols, 21 days; 120 stocks, 400 trading days
      wavehouse sample --days 22            the same and one day more, for an incremental run
      wavehouse sample --signal 0.02        something for a model to find
      wavehouse sample --trading-days 1114  daily bars to the end of 2024
      wavehouse sample --stocks 0           no daily market
      wavehouse sample --missing            the markets that are not there yet, as make does
      wavehouse sample --dirty              bad rows, to see what staging does with them
    """
    try:
        names = [field.name for field in dataclasses.fields(DailyOptions)]
        daily_options = DailyOptions(**{name: market.pop(name) for name in names})
        options = MarketOptions(start=start.date(), **market)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    wanted = {"minute_bars"} | ({"daily_bars"} if daily_options.stocks else set())
    if missing:
        wanted = missing_markets(data_dir, wanted)
    try:
        if "daily_bars" in wanted:
            claim_daily(data_dir, dirty, force)  # refused before anything is written
        if "minute_bars" in wanted:
            write_minutes(data_dir, options, dirty, force)
        if "daily_bars" in wanted:
            write_days(data_dir, daily_options, dirty, force)
    except OSError as error:
        raise click.ClickException(str(error)) from error


def missing_markets(data_dir: Path, wanted: set[str]) -> set[str]:
    """Return those of `wanted` that are not in `data_dir`; none where others put data there."""
    files = data_files(data_dir)
    foreign = [path for path in files if not is_sample(path)]
    if foreign:
        click.echo(f"nothing written: {foreign[0]} is not of `wavehouse sample`")
        return set()
    return wanted - {path.parent.name for path in files}


def write_minutes(data_dir: Path, options: MarketOptions, dirty: bool, force: bool) -> None:
    """Write the minute bars with a progress bar and print what they are."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("symbols", total=options.symbols)
        summary = write_sample(
            data_dir, options, dirty, force, on_symbol=lambda name: progress.advance(task)
        )
    first, last = (
        dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M UTC")
        for ms in (summary.first_ms, summary.last_ms)
    )
    shown = ", ".join(summary.symbols[:6]) + (", ..." if len(summary.symbols) > 6 else "")
    click.echo(f"symbols       {len(summary.symbols)} ({shown})")
    click.echo(f"rows          {summary.rows:,}, {summary.dirty_rows} of them dirty")
    click.echo(f"first minute  {first}")
    click.echo(f"last minute   {last}")
    click.echo(f"path          {summary.folder}")


def write_days(data_dir: Path, options: DailyOptions, dirty: bool, force: bool) -> None:
    """Write the daily tables and print what they are."""
    daily = write_daily_sample(data_dir, options, dirty, force)
    click.echo(f"stocks        {daily.stocks}")
    click.echo(f"daily rows    {daily.rows:,}, {daily.dirty_rows} of them dirty")
    click.echo(f"first day     {daily.first_date}")
    click.echo(f"last day      {daily.last_date}")
    click.echo(f"path          {daily.folder / 'daily_bars'}")
