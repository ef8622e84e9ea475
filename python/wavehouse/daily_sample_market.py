"""How the prices of the daily sample market come about, from the plans of its stocks.

The return of stock i on day t is close to reference price (`pre_close`, already ex-right), with
independent volatilities of mean square 1 as in `wavehouse.sample` (a multifractal product on a
dyadic grid of days, times a Student-t mixing variable):

    r = beta_i * market + industry + volatility_i * s * x

The close is the return rounded to the tick and cut at the day's limits; what is cut is lost, so
that nothing before predicts the sign of a day, scripted days apart. `daily_signal` q replaces x by
sqrt(1 - q) * x + sqrt(q) * m, m the sum of the SIGNAL_DAYS shocks x before over sqrt(SIGNAL_DAYS).
High, low and open are those of a Brownian day (see `wavehouse.sample`), cut and rounded likewise.

No array has a length that depends on the number of days where a sum or a vector instruction could
make a day depend on it: draws come in blocks, and what is computed over all days is elementwise.
"""

import dataclasses

import numpy as np
import pyarrow as pa

from wavehouse.daily_sample_plan import (
    BSE,
    CHINEXT,
    CHINEXT_REFORM,
    CLOSED_DOWN,
    CLOSED_UP,
    DELISTING,
    DELISTING_REFORM,
    INDUSTRIES,
    LEAVES,
    LISTING_44,
    MAIN_BOARD_REFORM,
    MAIN_SH,
    MAIN_SZ,
    ONE_PRICE_DOWN,
    ONE_PRICE_UP,
    PLAIN,
    ST,
    STAR,
    STAR_ST,
    TOUCHED_DOWN,
    TOUCHED_UP,
    DailyOptions,
    Stock,
    generator,
    plan_stock,
    trading_days,
)

BLOCK_DAYS = 256
SIGNAL_DAYS = 20  # past shocks that the planted signal sums
MULTIPLIER = 1.45  # a multifractal multiplier is this or two minus this, mean 1
SCALES = (4, 8, 16, 32, 64, 128)  # days that a multiplier lasts
TAIL_DEGREES = 6.0
MARKET_VOLATILITY, INDUSTRY_VOLATILITY, OWN_VOLATILITY = 0.011, 0.007, 0.017
OPENING_SHARE = 0.2  # of the day's variance that lies before the open
MAX_DAY_VOLATILITY = 0.12
MIN_TICKS = 100  # no price falls below 1 CNY
NO_LIMIT = -1


@dataclasses.dataclass(frozen=True)
class Panel:
    """The market of some stocks: arrays (days, stocks), prices in ticks of 0.01 CNY.

    A day on which a stock does not trade carries its last close in all prices. `limit_up` and
    `limit_down` mean nothing where `is_limited` is False.
    """

    stocks: tuple[Stock, ...]
    dates: np.ndarray
    listed: np.ndarray
    trades: np.ndarray
    mark: np.ndarray
    pre_close: np.ndarray
    open: np.ndarray
    high: np.ndarray
    low: np.ndarray
    close: np.ndarray
    is_limited: np.ndarray
    limit_up: np.ndarray
    limit_down: np.ndarray
    adj_factor: np.ndarray
    volume: np.ndarray
    amount_cents: np.ndarray
    total_shares: np.ndarray
    float_shares: np.ndarray

    @property
    def codes(self) -> np.ndarray:
        """The stocks' ts_code, as objects."""
        return np.array([stock.ts_code for stock in self.stocks], dtype=object)


def simulate(options: DailyOptions, first: int, last: int) -> Panel:
    """Return the market of the stocks `first` to `last - 1` over `options.trading_days`."""
    stocks = tuple(plan_stock(options, number) for number in range(first, last))
    dates, count, days = trading_days(options.trading_days), last - first, options.trading_days
    shape, day = (days, count), np.arange(days)[:, None]
    board = np.array([stock.board for stock in stocks])
    list_day = np.array([stock.list_day for stock in stocks])
    listed = (day >= list_day) & (day < np.array([stock.delist_day for stock in stocks]))
    mark, script = np.zeros(shape, dtype=np.int8), np.zeros(shape, dtype=np.int8)
    suspended = np.zeros(shape, dtype=bool)
    dividend, tenths = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    for column, stock in enumerate(stocks):
        _fill(mark, column, stock.marks)
        _fill(script, column, stock.scripts)
        _fill(suspended, column, [(start, length, True) for start, length in stock.suspensions])
        for when, ratio, shares in stock.events:
            if when < days:
                dividend[when, column], tenths[when, column] = ratio, shares
    dividend[(mark != PLAIN)] = 0.0
    trades = listed & ~suspended
    up, down = _limits(stocks, dates, mark)
    move, first_move, reach, span, noise, place = draw_moves(options, stocks, days)

    # Listing days and the free days after them are wilder than the others.
    since = day - list_day
    free = up == NO_LIMIT
    listing = (since == 0) & free
    returns = np.array([stock.listing_return for stock in stocks])
    move = np.where(listing, returns, np.where(free & (since > 0) & (since < 5), 2.5 * move, move))
    first_move = np.where(listing, 0.7 * returns, first_move)
    dying = free & (mark == DELISTING)
    move, first_move = np.where(dying, -0.38, move), np.where(dying, -0.3, first_move)
    rest = move - first_move
    wide = np.where(listing | dying, 0.1 * 0.1, span)
    high_move = first_move + (rest + np.sqrt(rest * rest + wide * reach[0])) / 2
    low_move = first_move + (rest - np.sqrt(rest * rest + wide * reach[1])) / 2

    moves = np.stack([first_move, high_move, low_move, move])
    prices, factors, shares = _walk(stocks, trades, moves, up, down, script, dividend, tenths)
    pre_close, opened, high, low, close, limit_up, limit_down = prices
    float_shares = np.rint(np.array([stock.float_shares for stock in stocks]) * shares)
    total_shares = np.rint(np.array([stock.total_shares for stock in stocks]) * shares)

    base = np.array([stock.base_turnover for stock in stocks])
    size = np.abs(close - pre_close) / pre_close
    turnover = base * (0.5 + 25 * size) * noise
    turnover = np.where(high == low, 0.06 * turnover, turnover)
    turnover = np.minimum(np.where(free, 10 * turnover, turnover), 0.6)
    volume = np.maximum(np.rint(turnover * float_shares / 100), 1) * 100
    odd = np.maximum(np.rint(turnover * float_shares), 200)
    volume = np.where(trades, np.where(board == STAR, odd, volume), 0.0)
    vwap_ticks = low + (high - low) * (0.25 + 0.5 * place)
    return Panel(
        stocks=stocks, dates=dates, listed=listed, trades=trades, mark=mark, pre_close=pre_close,
        open=opened, high=high, low=low, close=close, is_limited=~free, limit_up=limit_up,
        limit_down=limit_down, adj_factor=factors, volume=volume,
        amount_cents=np.rint(volume * vwap_ticks), total_shares=total_shares,
        float_shares=float_shares,
    )  # fmt: skip


def _fill(target: np.ndarray, column: int, spans: list[tuple[int, int, int]]) -> None:
    """Write each span's value into its days of one column."""
    for start, length, value in spans:
        target[max(start, 0) : max(start + length, 0), column] = value


def _limits(
    stocks: tuple[Stock, ...], dates: np.ndarray, mark: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the limits above and below the reference price, basis points or NO_LIMIT."""
    board = np.array([stock.board for stock in stocks])
    list_date = np.array([stock.list_date for stock in stocks])
    since = np.arange(len(dates))[:, None] - np.array([stock.list_day for stock in stocks])
    date = dates[:, None]
    main = (board == MAIN_SH) | (board == MAIN_SZ)
    old_chinext = (board == CHINEXT) & (date < CHINEXT_REFORM)
    ten = main | old_chinext
    up = np.where(board == BSE, 3_000, np.where(ten, 1_000, 2_000))
    up = np.where(ten & ((mark == ST) | (mark == STAR_ST)), 500, up)
    starts = (mark == DELISTING) & (np.roll(mark, 1, axis=0) != DELISTING)
    up = np.where(starts & (date >= DELISTING_REFORM), NO_LIMIT, up)
    old_rules = (main & (list_date < MAIN_BOARD_REFORM)) | (
        (board == CHINEXT) & (list_date < CHINEXT_REFORM)
    )
    free_days = np.where(old_rules, 0, np.where(board == BSE, 1, 5))
    up = np.where((since >= 0) & (since < free_days), NO_LIMIT, up)
    first = (since == 0) & old_rules
    return np.where(first, 4_400, up), np.where(first, 3_600, up)


def draw_moves(
    options: DailyOptions, stocks: tuple[Stock, ...], days: int
) -> tuple[np.ndarray, ...]:
    """Return what moves the stocks on each day, arrays (days, stocks).

    The return, the part of it before the open, the two exponentials of high and low, twice the
    variance of the rest of the day, the volume's noise and the vwap's place between low and high.
    """
    seed, blocks = options.daily_seed, -(-days // BLOCK_DAYS)
    dates = trading_days(days)

    def series(*key: int) -> np.ndarray:
        """Return (9, days) draws of one thing, block by block."""
        pieces = [_block(generator(seed, *key, block)) for block in range(blocks)]
        return np.concatenate(pieces, axis=1)[:, :days]

    market = series(2, 0)
    market_size = MARKET_VOLATILITY * market[0]
    groups = [series(3, group) for group in range(len(INDUSTRIES))]
    group_size = np.stack([INDUSTRY_VOLATILITY * group[0] for group in groups])
    group_move = group_size * np.stack([group[1] for group in groups])
    draws = np.stack([series(4, stock.number) for stock in stocks], axis=2)
    scale, shocks, opening, up_reach, down_reach, noise, place = draws[:7]

    known = np.cumsum(np.concatenate([np.zeros((SIGNAL_DAYS + 1, len(stocks))), shocks]), axis=0)
    momentum = (known[SIGNAL_DAYS:-1] - known[: -SIGNAL_DAYS - 1]) / np.sqrt(SIGNAL_DAYS)
    q = options.daily_signal
    mixed = np.sqrt(1 - q) * shocks + np.sqrt(q) * momentum

    industry = np.zeros((days, len(stocks)), dtype=np.int64)
    for column, stock in enumerate(stocks):
        for start, leaf in stock.industries:
            industry[np.searchsorted(dates, start) :, column] = leaf // LEAVES
    row = np.arange(days)[:, None]
    own = OWN_VOLATILITY * np.array([stock.volatility for stock in stocks]) * scale
    beta = np.array([stock.beta for stock in stocks])
    common = beta * (market_size * market[1])[:, None] + group_move.T[row, industry]
    variance = own * own + (beta * market_size[:, None]) ** 2 + group_size.T[row, industry] ** 2
    size = np.minimum(np.sqrt(variance), MAX_DAY_VOLATILITY)
    move = common + own * mixed
    first = OPENING_SHARE * move
    first += np.sqrt(OPENING_SHARE * (1 - OPENING_SHARE)) * size * opening
    span = 2 * (1 - OPENING_SHARE) * size * size
    return move, first, np.stack([up_reach, down_reach]), span, noise * (0.6 + 0.4 * scale), place


def _block(rng: np.random.Generator) -> np.ndarray:
    """Return a block's draws, (7, BLOCK_DAYS); every length here is fixed, so that no vector
    instruction can make a day depend on how many there are.
    """
    variance = (TAIL_DEGREES - 2) / rng.chisquare(TAIL_DEGREES, BLOCK_DAYS)
    for scale in SCALES:
        high = rng.random(BLOCK_DAYS // scale) < 0.5
        variance *= np.repeat(np.where(high, MULTIPLIER, 2 - MULTIPLIER), scale)
    normals = rng.standard_normal((3, BLOCK_DAYS))
    reach = rng.standard_exponential((2, BLOCK_DAYS))
    noise = np.exp(0.45 * normals[2])
    return np.stack([np.sqrt(variance), *normals[:2], *reach, noise, rng.random(BLOCK_DAYS)])


def _walk(
    stocks: tuple[Stock, ...],
    trades: np.ndarray,
    moves: np.ndarray,
    up: np.ndarray,
    down: np.ndarray,
    script: np.ndarray,
    dividend: np.ndarray,
    tenths: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return prices in ticks (7, days, stocks), adjustment factors, and shares as a multiple.

    A day needs the close before it, so this goes day by day over all stocks at once. An ex-right
    event on a day without trading waits for the next day with it, as at the exchanges.
    """
    days, count = trades.shape
    prices = np.zeros((7, days, count), dtype=np.int64)
    factors, multiples = np.zeros((days, count)), np.zeros((days, count))
    close = np.array([stock.first_ticks for stock in stocks])
    factor = np.array([stock.first_factor for stock in stocks])
    list_day = np.array([stock.list_day for stock in stocks])
    multiple, owed, given = np.ones(count), np.zeros(count), np.zeros(count, dtype=np.int64)
    for day in range(days):
        trading = trades[day]
        owed = np.maximum(owed, np.where(close > 3 * MIN_TICKS, dividend[day], 0.0))
        given = np.maximum(given, np.where(close > 800, tenths[day], 0))
        pays = trading & (day > list_day)
        cash = np.where(pays, np.rint(close * owed * 10).astype(np.int64) * 10, 0)  # 1/100 tick
        shares = np.where(pays, given, 0)
        reference = _half_up((close * 100 - cash) * 10, (10 + shares) * 100)
        owed, given = np.where(pays, 0.0, owed), np.where(pays, 0, given)
        factor = factor * (close / reference)
        multiple = multiple * (10 + shares) / 10

        free = up[day] == NO_LIMIT
        top = np.where(free, reference * 20, _half_up(reference * (10_000 + up[day]), 10_000))
        bottom = np.where(free, 1, _half_up(reference * (10_000 - down[day]), 10_000))
        least = np.maximum(bottom, np.minimum(reference, MIN_TICKS))
        found = np.rint(reference * (1 + moves[:, day])).astype(np.int64)
        opened, high, low, last = np.clip(found, least, top)
        opened, high, low, last = _scripted(
            np.where(free, 0, script[day]), reference, least, top, opened, high, low, last
        )
        high = np.maximum(np.maximum(high, low), np.maximum(opened, last))
        low = np.minimum(low, np.minimum(opened, last))
        day_prices = np.stack([opened, high, low, last])
        prices[0, day] = np.where(trading, reference, close)
        prices[1:5, day] = np.where(trading, day_prices, close)
        prices[5, day], prices[6, day] = top, bottom
        close = prices[4, day]
        factors[day], multiples[day] = factor, multiple
    return prices, factors, multiples


def _scripted(
    script: np.ndarray,
    reference: np.ndarray,
    least: np.ndarray,
    top: np.ndarray,
    opened: np.ndarray,
    high: np.ndarray,
    low: np.ndarray,
    last: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Return the day's four prices with the scripted stocks' ones in place of the drawn ones."""
    below, above = top - 1, least + 1
    for code, limit in ((ONE_PRICE_UP, top), (ONE_PRICE_DOWN, least)):
        one = script == code
        opened, high, low, last = (
            np.where(one, limit, price) for price in (opened, high, low, last)
        )
    touched, closed = script == TOUCHED_UP, script == CLOSED_UP
    high = np.where(touched | closed, top, high)
    last = np.where(touched, np.minimum(last, below), np.where(closed, top, last))
    opened = np.where(touched | closed, np.minimum(opened, below), opened)
    low = np.where(touched | closed, np.minimum(low, below), low)
    touched, closed = script == TOUCHED_DOWN, script == CLOSED_DOWN
    low = np.where(touched | closed, least, low)
    last = np.where(touched, np.maximum(last, above), np.where(closed, least, last))
    opened = np.where(touched | closed, np.maximum(opened, above), opened)
    high = np.where(touched | closed, np.maximum(high, above), high)
    listing = script == LISTING_44  # the opening auction ends at 120 % of the issue price
    opened = np.where(listing, _half_up(reference * 12_000, 10_000), opened)
    low = np.where(listing, opened, low)
    high, last = np.where(listing, top, high), np.where(listing, top, last)
    return opened, high, low, last


def _half_up(numerator: np.ndarray, denominator: np.ndarray | int) -> np.ndarray:
    """Return the quotient of whole numbers rounded half up."""
    return (2 * numerator + denominator) // (2 * denominator)


def stock_major(panel: Panel, rows: np.ndarray) -> tuple:
    """Return (flat, codes, dates): `flat(x)` takes the chosen cells, stock by stock."""
    chosen = rows.T
    column, row = np.nonzero(chosen)

    def flat(values: np.ndarray) -> np.ndarray:
        return values[row, column]

    return flat, panel.codes[column], panel.dates[row]


def date_array(dates: np.ndarray) -> pa.Array:
    """Return datetime64[D] as an Arrow date; NaT becomes NULL."""
    return pa.array(dates.astype("datetime64[D]"), pa.date32())
