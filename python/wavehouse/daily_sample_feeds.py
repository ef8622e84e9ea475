"""The feeds beside the sample's daily bars: one small plausible table each, consistent with them.

What a feed says follows from the bars and from draws of its own that know nothing of later days, so
no feed predicts. Units are in the columns' names; ratios and turnover are decimals.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from wavehouse.daily_sample_market import (
    BLOCK_DAYS,
    Panel,
    date_array,
    stock_major,
)
from wavehouse.daily_sample_plan import (
    BSE,
    MAIN_SH,
    MAIN_SZ,
    PLAIN,
    STAR,
    DailyOptions,
    generator,
    trading_days,
)

LAST_NORTHBOUND = np.datetime64(
    "2024-08-16"
)  # the exchanges publish no daily holdings or flows since
SIZES = ("small", "medium", "large", "extra_large")
REASONS = ("日涨幅偏离值达到7%的前5只证券", "日跌幅偏离值达到7%的前5只证券")
HOT_RANKS = 10


def feed_tables(options: DailyOptions, panel: Panel) -> dict[str, pa.Table]:
    """Return the feeds that hold one stock's rows by itself, by the name of their folder."""
    return {
        "daily_basic": basic_table(options, panel),
        "moneyflow": moneyflow_table(options, panel),
        "margin": margin_table(options, panel),
        "cyq_perf": chips_table(panel),
        "limit_list": limit_table(options, panel),
        "holders": holders_table(options, panel),
        "hk_hold": hk_table(options, panel),
        **top_tables(options, panel),
    }


def _uniforms(options: DailyOptions, panel: Panel, feed: int, count: int) -> np.ndarray:
    """Return (count, days, stocks) uniform draws of one feed, block by block."""
    days = len(panel.dates)
    blocks = range(-(-days // BLOCK_DAYS))
    drawn = [
        np.concatenate(
            [
                generator(options.daily_seed, 5, feed, stock.number, block).random(
                    (count, BLOCK_DAYS)
                )
                for block in blocks
            ],
            axis=1,
        )[:, :days]
        for stock in panel.stocks
    ]
    return np.stack(drawn, axis=2)


def _constants(options: DailyOptions, panel: Panel, feed: int, count: int) -> np.ndarray:
    """Return (count, stocks) uniform draws of one feed, one set a stock."""
    return np.stack(
        [generator(options.daily_seed, 6, feed, s.number).random(count) for s in panel.stocks],
        axis=1,
    )


def _of(panel: Panel, field: str) -> np.ndarray:
    return np.array([getattr(stock, field) for stock in panel.stocks])


def _table(panel: Panel, rows: np.ndarray, columns: dict[str, np.ndarray]) -> pa.Table:
    """Return the chosen cells as a table: keys, then `columns` (days, stocks); NaN becomes NULL."""
    flat, codes, dates = stock_major(panel, rows)
    table = {"ts_code": pa.array(codes, pa.string()), "trade_date": date_array(dates)}
    for name, values in columns.items():
        cells = flat(np.broadcast_to(values, rows.shape))
        if cells.dtype == object:
            table[name] = pa.array(cells, pa.string())
        else:
            table[name] = pa.array(cells, mask=np.isnan(cells))
    return pa.table(table)


def _names(panel: Panel) -> np.ndarray:
    """Return the name that each stock bears on each day, objects (days, stocks)."""
    names = np.empty(panel.close.shape, dtype=object)
    for column, stock in enumerate(panel.stocks):
        for start, name in stock.names:
            names[np.searchsorted(panel.dates, start) :, column] = name
    return names


def basic_table(options: DailyOptions, panel: Panel) -> pa.Table:
    """Return daily_basic: a row per traded day; pe is NULL for who earns nothing."""
    drawn = _constants(options, panel, 1, 6)
    close = panel.close / 100
    cap, float_cap = panel.total_shares * close, panel.float_shares * close
    free = np.rint(panel.float_shares * (0.5 + 0.5 * drawn[0]))
    past = np.cumsum(np.concatenate([np.zeros((6, close.shape[1])), panel.volume]), axis=0)
    usual = (past[5:-1] - past[:-6]) / 5  # of the five days before, suspended ones as zero
    usual[:5] = np.nan
    cap_at_first = _of(panel, "total_shares") * _of(panel, "first_ticks") / 100
    earnings = np.where(drawn[1] < 0.12, np.nan, cap_at_first / (8 + 60 * drawn[1]))
    earnings_now = earnings * (0.9 + 0.2 * drawn[2])
    book, sales = cap_at_first / (0.8 + 6 * drawn[3]), cap_at_first / (0.5 + 8 * drawn[4])
    payout = np.where(drawn[5] < 0.3, np.nan, 0.4 * drawn[5])
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(usual > 0, panel.volume / usual, np.nan)
    return _table(
        panel,
        panel.listed & panel.trades,
        {
            "close": close,
            "turnover": panel.volume / panel.float_shares,
            "turnover_free_float": panel.volume / free,
            "volume_ratio": np.round(ratio, 2),
            "pe": np.round(cap / earnings, 4),
            "pe_ttm": np.round(cap / earnings_now, 4),
            "pb": np.round(cap / book, 4),
            "ps": np.round(cap / sales, 4),
            "ps_ttm": np.round(cap / (sales * 1.05), 4),
            "dividend_yield": np.round(earnings * payout / cap, 6),
            "dividend_yield_ttm": np.round(earnings_now * payout / cap, 6),
            "total_shares": panel.total_shares,
            "float_shares": panel.float_shares,
            "free_float_shares": free,
            "market_cap_cny": np.round(cap, 2),
            "float_market_cap_cny": np.round(float_cap, 2),
        },
    )


def moneyflow_table(options: DailyOptions, panel: Panel) -> pa.Table:
    """Return moneyflow outside BSE: what each order size bought and sold, both sums the amount."""
    drawn = _uniforms(options, panel, 2, 8)
    usual = np.array([0.28, 0.28, 0.24, 0.2])[:, None, None]
    amount = panel.amount_cents / 100
    columns, net = {}, {}
    parts = {}
    for side, uniform in (("buy", drawn[:4]), ("sell", drawn[4:])):
        raw = usual * (0.5 + uniform)
        total = raw[0] + raw[1] + raw[2] + raw[3]
        shares = raw / total
        amounts = np.round(shares[:3] * amount, 2)
        volumes = np.rint(shares[:3] * panel.volume)
        parts[side] = (
            [*amounts, np.round(amount - (amounts[0] + amounts[1] + amounts[2]), 2)],
            [*volumes, panel.volume - (volumes[0] + volumes[1] + volumes[2])],
        )
    for place, size in enumerate(SIZES):
        net[size] = np.round(parts["buy"][0][place] - parts["sell"][0][place], 2)
    main = np.round(net["large"] + net["extra_large"], 2)
    columns["net_main_amount_cny"] = main
    columns |= {f"net_{size}_amount_cny": net[size] for size in SIZES}
    with np.errstate(divide="ignore", invalid="ignore"):
        columns["net_main_ratio"] = np.round(main / amount, 4)
        columns |= {f"net_{size}_ratio": np.round(net[size] / amount, 4) for size in SIZES}
    for place, size in enumerate(SIZES):
        for side in ("buy", "sell"):
            columns[f"{side}_{size}_amount_cny"] = parts[side][0][place]
            columns[f"{side}_{size}_volume_shares"] = parts[side][1][place]
    columns["net_amount_cny"] = main
    columns["net_volume_shares"] = sum(
        parts["buy"][1][place] - parts["sell"][1][place] for place in (2, 3)
    )
    rows = panel.listed & panel.trades & (_of(panel, "board") != BSE)
    return _table(panel, rows, columns)


def margin_table(options: DailyOptions, panel: Panel) -> pa.Table:
    """Return margin for a third of the stocks while unmarked: balances follow from the flows."""
    drawn, days = _uniforms(options, panel, 3, 4), len(panel.dates)
    eligible = (_of(panel, "number") % 3 == 0) & (_of(panel, "board") != BSE)
    close, amount = panel.close / 100, panel.amount_cents / 100
    financed = np.round(0.03 * _of(panel, "float_shares") * _of(panel, "first_ticks") / 100, 0)
    lent = np.rint(0.0005 * _of(panel, "float_shares"))
    buy, repaid = np.round(0.09 * drawn[0] * amount, 0), np.zeros(amount.shape)
    sold, covered = np.rint(0.004 * drawn[2] * panel.volume), np.zeros(amount.shape)
    balance, shares = np.zeros(amount.shape), np.zeros(amount.shape)
    for day in range(days):
        repaid[day] = np.minimum(np.round(0.09 * drawn[1, day] * amount[day], 0), financed)
        covered[day] = np.minimum(np.rint(0.004 * drawn[3, day] * panel.volume[day]), lent)
        financed, lent = financed + buy[day] - repaid[day], lent + sold[day] - covered[day]
        balance[day], shares[day] = financed, lent
    short = np.round(shares * close, 2)
    columns = {
        "financing_balance_cny": balance,
        "financing_buy_cny": buy,
        "financing_repayment_cny": repaid,
        "short_balance_cny": short,
        "short_balance_shares": shares,
        "short_sell_shares": sold,
        "short_cover_shares": covered,
        "margin_balance_cny": np.round(balance + short, 2),
    }
    since = np.arange(days)[:, None] - _of(panel, "list_day")
    rows = panel.listed & panel.trades & eligible & (panel.mark == PLAIN) & (since >= 60)
    return _table(panel, rows, columns)


def _sums_by_day(panel: Panel, table: pa.Table, names: list[str]) -> dict[str, np.ndarray]:
    """Return what a table's columns add up to on each day of the panel."""
    day = np.searchsorted(panel.dates, table["trade_date"].to_numpy())
    sums = {name: np.bincount(day, table[name].to_numpy(), len(panel.dates)) for name in names}
    return {name: np.round(values, 2) for name, values in sums.items()}


def market_margin_table(options: DailyOptions, core: Panel) -> pa.Table:
    """Return market_margin: the core stocks' margin added up by day and exchange."""
    margin = margin_table(options, core)
    kept = ("ts_code", "trade_date", "short_cover_shares")  # the exchanges do not add up the last
    names = [name for name in margin.column_names if name not in kept]
    tables = []
    for exchange, suffix in (("SSE", ".SH"), ("SZSE", ".SZ")):
        rows = margin.filter(pc.ends_with(margin["ts_code"], suffix))
        day = {"trade_date": date_array(core.dates)}
        day["exchange"] = pa.repeat(pa.scalar(exchange), len(core.dates))
        tables.append(pa.table(day | _sums_by_day(core, rows, names)))
    return pa.concat_tables(tables).sort_by(
        [("trade_date", "ascending"), ("exchange", "ascending")]
    )


def market_moneyflow_table(options: DailyOptions, core: Panel) -> pa.Table:
    """Return market_moneyflow: the core stocks' net flows added up, and an index an exchange.

    An index weights the stocks listed before the window by their float capitalization.
    """
    columns = {"trade_date": date_array(core.dates)}
    older = core.listed & (_of(core, "list_day") < 0)
    for place, suffix, level in (("shanghai", ".SH", 2_850.0), ("shenzhen", ".SZ", 10_750.0)):
        counted = older & np.array([code.endswith(suffix) for code in core.codes])
        weight = np.where(counted, core.float_shares * core.pre_close, 0.0)
        growth = (weight * (core.close / core.pre_close)).sum(axis=1) / weight.sum(axis=1)
        columns[f"close_{place}"] = np.round(level * np.cumprod(growth), 2)
        columns[f"pct_chg_{place}"] = np.round(growth - 1, 4)
    flows = moneyflow_table(options, core)
    parts = ("main", *SIZES)
    net = _sums_by_day(core, flows, [f"net_{part}_amount_cny" for part in parts])
    counted = core.listed & core.trades & (_of(core, "board") != BSE)
    amount = np.where(counted, core.amount_cents, 0).sum(axis=1) / 100
    ratios = {f"net_{p}_ratio": np.round(net[f"net_{p}_amount_cny"] / amount, 4) for p in parts}
    return pa.table(columns | net | ratios)


def chips_table(panel: Panel) -> pa.Table:
    """Return cyq_perf for a quarter of the stocks: what the present holders paid.

    Each day the turnover's share of the shares changes hands at the day's mean price. Mean and
    variance of the cost, in prices comparable over time, are brought back to the day's prices; the
    quantiles are those of a normal between the lowest and highest price so far.
    """
    days = len(panel.dates)
    factor = panel.adj_factor / 100
    turnover = panel.volume / panel.float_shares
    with np.errstate(divide="ignore", invalid="ignore"):
        paid = np.where(panel.volume > 0, panel.amount_cents / panel.volume, panel.close) * factor
    mean, spread = np.zeros(paid.shape), np.zeros(paid.shape)
    lowest, highest = np.zeros(paid.shape), np.zeros(paid.shape)
    cost, variance = paid[0], (0.05 * paid[0]) ** 2
    least, most = panel.low[0] * factor[0], panel.high[0] * factor[0]
    fresh = np.arange(days)[:, None] == _of(panel, "list_day")
    for day in range(days):
        gap = paid[day] - cost
        variance = (1 - turnover[day]) * (variance + turnover[day] * gap * gap)
        cost = cost + turnover[day] * gap
        low, high = panel.low[day] * factor[day], panel.high[day] * factor[day]
        cost = np.where(fresh[day], paid[day], cost)
        variance = np.where(fresh[day], (0.02 * paid[day]) ** 2, variance)
        least = np.where(fresh[day], low, np.minimum(least, low))
        most = np.where(fresh[day], high, np.maximum(most, high))
        mean[day], spread[day] = cost, np.sqrt(variance)
        lowest[day], highest[day] = least, most
    now = panel.adj_factor
    columns = {
        "historical_low_price": np.round(lowest / now, 2),
        "historical_high_price": np.round(highest / now, 2),
    }
    for percent, deviations in ((5, -1.645), (15, -1.036), (50, 0.0), (85, 1.036), (95, 1.645)):
        price = np.clip(mean + deviations * spread, lowest, highest) / now
        columns[f"cost_{percent}pct_price"] = np.round(price, 2)
    columns["weighted_average_price"] = np.round(np.clip(mean, lowest, highest) / now, 2)
    above = (panel.close * factor - mean) / (4 * np.maximum(spread, 1e-9)) + 0.5
    columns["winner_ratio"] = np.round(np.clip(above, 0, 1), 4)
    rows = panel.listed & panel.trades & (_of(panel, "number") % 4 == 2)
    return _table(panel, rows, columns)


def limit_table(options: DailyOptions, panel: Panel) -> pa.Table:
    """Return limit_list: closed at the limit (U, D) or touched the upper one and left it (Z)."""
    traded = panel.listed & panel.trades & panel.is_limited
    up = traded & (panel.close == panel.limit_up)
    down = traded & (panel.close == panel.limit_down)
    broken = traded & (panel.high == panel.limit_up) & ~up & ~down
    streak, running = np.zeros(up.shape, dtype=np.int64), np.zeros(up.shape[1], dtype=np.int64)
    for day in range(len(up)):
        running = np.where(up[day], running + 1, np.where(panel.trades[day], 0, running))
        streak[day] = running
    drawn = _uniforms(options, panel, 4, 4)
    flat_day = panel.high == panel.low
    minutes = np.arange(242)
    clock = minutes + np.where(minutes < 121, 9 * 60 + 30, 11 * 60 - 1)  # noon pause
    clocks = np.array([f"{m // 60:02d}:{m % 60:02d}:00" for m in clock], dtype=object)
    first = (drawn[0] * 120).astype(np.int64)
    last = first + (drawn[1] * 120).astype(np.int64)
    first_time = np.where(flat_day, "09:25:00", clocks[first])
    last_time = np.where(flat_day, "09:25:00", clocks[last])
    opened = np.where(flat_day, 0, np.where(broken, 1, 0) + np.floor(4 * drawn[2]))
    boards = np.array([f"{k}/{k}" for k in range(int(streak.max(initial=0)) + 1)], dtype=object)
    amount, close = panel.amount_cents / 100, panel.close / 100
    kind = np.where(up, "U", np.where(down, "D", "Z")).astype(object)
    sealed = np.where(broken, np.nan, np.round(0.3 * drawn[3] * panel.float_shares * close, 2))
    return _table(
        panel,
        up | down | broken,
        {
            "limit_type": kind,
            "name": _names(panel),
            "close": close,
            "pct_chg": np.round(panel.close / panel.pre_close - 1, 6),
            "amount_cny": amount,
            "board_amount_cny": np.round(amount * np.where(flat_day, 1, 0.3 * drawn[0]), 2),
            "sealed_amount_cny": sealed,
            "float_market_cap_cny": np.round(panel.float_shares * close, 2),
            "market_cap_cny": np.round(panel.total_shares * close, 2),
            "turnover": panel.volume / panel.float_shares,
            "first_limit_time": np.where(down, None, first_time),
            "last_limit_time": last_time.astype(object),
            "board_open_count": opened,
            "consecutive_limit_days": np.where(up, streak, np.nan),
            "limit_statistics": np.where(up, boards[streak], None),
        },
    )


def top_tables(options: DailyOptions, panel: Panel) -> dict[str, pa.Table]:
    """Return top_list (moves of 7 % or more on the main boards) and two seats of each, top_inst."""
    board = _of(panel, "board")
    traded = panel.listed & panel.trades & panel.is_limited & np.isin(board, (MAIN_SH, MAIN_SZ))
    change = panel.close / panel.pre_close - 1
    drawn = _uniforms(options, panel, 5, 4)
    rows = traded & (np.abs(change) >= 0.07) & (panel.high > panel.low) & (drawn[0] < 0.6)
    amount, close = panel.amount_cents / 100, panel.close / 100
    bought, sold = np.round(0.25 * drawn[1] * amount, 2), np.round(0.25 * drawn[2] * amount, 2)
    reason = np.where(change > 0, *REASONS).astype(object)
    with np.errstate(divide="ignore", invalid="ignore"):
        net_ratio, ratio = (bought - sold) / amount, (bought + sold) / amount
        seat_buy, seat_sell = 0.5 * bought, 0.5 * sold
        buy_ratio, sell_ratio = seat_buy / amount, seat_sell / amount
    listed = _table(
        panel,
        rows,
        {
            "reason": reason,
            "name": _names(panel),
            "close": close,
            "pct_chg": np.round(change, 6),
            "turnover": panel.volume / panel.float_shares,
            "amount_cny": amount,
            "listed_buy_amount_cny": bought,
            "listed_sell_amount_cny": sold,
            "listed_amount_cny": np.round(bought + sold, 2),
            "net_amount_cny": np.round(bought - sold, 2),
            "net_amount_ratio": np.round(net_ratio, 4),
            "listed_amount_ratio": np.round(ratio, 4),
            "float_market_cap_cny": np.round(panel.float_shares * close, 2),
        },
    )
    seats = [
        _table(
            panel,
            rows,
            {
                "seat_name": np.full(rows.shape, seat, dtype=object),
                "side": np.full(rows.shape, side, dtype=object),
                "reason": reason,
                "buy_amount_cny": np.round(seat_buy * (side == "buy"), 2),
                "buy_ratio": np.round(buy_ratio * (side == "buy"), 4),
                "sell_amount_cny": np.round(seat_sell * (side == "sell"), 2),
                "sell_ratio": np.round(sell_ratio * (side == "sell"), 4),
                "net_amount_cny": np.round(
                    seat_buy * (side == "buy") - seat_sell * (side == "sell"), 2
                ),
            },
        )
        for seat, side in (("机构专用", "buy"), ("样本证券营业部", "sell"))
    ]
    return {"top_list": listed, "top_inst": pa.concat_tables(seats)}


def holders_table(options: DailyOptions, panel: Panel) -> pa.Table:
    """Return holders: one count a stock and quarter, known from the day it was announced."""
    months = np.arange(np.datetime64("2020-03"), panel.dates[-1].astype("M8[M]") + 1, 3)
    reports = (months + 1).astype("M8[D]") - 1  # the last days of March, June, September, December
    count = len(reports)
    drawn = np.stack(
        [
            np.stack(
                [generator(options.daily_seed, 7, s.number, q).random(2) for q in range(count)]
            )
            for s in panel.stocks
        ],
        axis=2,
    )  # (quarters, 2, stocks)
    announced = reports[:, None] + 20 + (drawn[:, 0] * 80).astype(int)
    day = np.searchsorted(panel.dates, announced)
    inside = (announced >= panel.dates[0]) & (day < len(panel.dates))
    inside &= (day > _of(panel, "list_day")) & (day < _of(panel, "delist_day"))
    base = 5_000 + np.floor(np.sqrt(_of(panel, "float_shares")) * 3)
    holders = np.rint(base * np.cumprod(0.94 + 0.12 * drawn[:, 1], axis=0))
    column, quarter = np.nonzero(inside.T)
    return pa.table(
        {
            "ts_code": pa.array(panel.codes[column], pa.string()),
            "trade_date": date_array(panel.dates[day[quarter, column]]),
            "report_date": date_array(reports[quarter]),
            "holder_count": pa.array(holders[quarter, column]),
        }
    )


def hk_table(options: DailyOptions, panel: Panel) -> pa.Table:
    """Return hk_hold for a quarter of the unmarked stocks of both main boards and of STAR."""
    drawn = _uniforms(options, panel, 6, 1)[0]
    base = 0.01 + 0.06 * _constants(options, panel, 6, 1)[0]
    ratio = np.clip(base + np.cumsum(0.002 * (drawn - 0.5), axis=0), 0.001, 0.25)
    shares = np.rint(ratio * panel.float_shares)
    chosen = np.isin(_of(panel, "board"), (MAIN_SH, MAIN_SZ, STAR))
    chosen &= _of(panel, "number") % 4 == 1
    since = np.arange(len(panel.dates))[:, None] - _of(panel, "list_day")
    rows = panel.listed & chosen & (panel.mark == PLAIN) & (since >= 60)
    rows &= (panel.dates <= LAST_NORTHBOUND)[:, None]
    columns = {"holding_shares": shares, "holding_ratio": np.round(ratio, 4)}
    return _table(panel, rows, columns)


def northbound_table(options: DailyOptions) -> pa.Table:
    """Return northbound: a row a day of the market's flows, which are the sum of two exchanges'."""
    days = options.trading_days
    blocks = range(-(-days // BLOCK_DAYS))
    drawn = [
        generator(options.daily_seed, 8, block).standard_normal((4, BLOCK_DAYS)) for block in blocks
    ]
    flows = np.round(np.concatenate(drawn, axis=1)[:, :days] * 2.5e9, -4)
    dates = trading_days(days)
    kept = dates <= LAST_NORTHBOUND
    columns = {
        "northbound_amount_cny": flows[0] + flows[1],
        "northbound_shanghai_amount_cny": flows[0],
        "northbound_shenzhen_amount_cny": flows[1],
        "southbound_amount_cny": flows[2] + flows[3],
        "southbound_shanghai_amount_cny": flows[2],
        "southbound_shenzhen_amount_cny": flows[3],
    }
    table = {"trade_date": date_array(dates[kept])}
    return pa.table(table | {name: pa.array(values[kept]) for name, values in columns.items()})


def hot_table(core: Panel, stocks: int) -> pa.Table:
    """Return ths_hot: the core stocks with the most turnover times move, ranked each day.

    Rows of stocks from number `stocks` on are left out, as they have no bars.
    """
    change = core.close / core.pre_close - 1
    score = core.volume / core.float_shares * (0.01 + np.abs(change)) * core.trades * core.listed
    order = np.argsort(-score, axis=1, kind="stable")[:, :HOT_RANKS]
    row = np.repeat(np.arange(len(score)), HOT_RANKS)
    column = order.ravel()
    rank = np.tile(np.arange(1, HOT_RANKS + 1), len(score))
    kept = (column < stocks) & (score[row, column] > 0)
    row, column, rank = row[kept], column[kept], rank[kept]
    names, count = _names(core), int(kept.sum())
    return pa.table(
        {
            "ts_code": pa.array(core.codes[column], pa.string()),
            "trade_date": date_array(core.dates[row]),
            "list_name": pa.repeat(pa.scalar("热股"), count),
            "rank_time": pa.repeat(pa.scalar("15:00:00"), count),
            "name": pa.array(names[row, column], pa.string()),
            "hot_rank": pa.array(rank.astype(float)),
            "hot_score": pa.array(np.round(score[row, column] * 1e7, 0)),
            "pct_chg": pa.array(np.round(change[row, column], 6)),
            "close": pa.array(core.close[row, column] / 100),
            "concept": pa.nulls(count, pa.string()),
            "rank_reason": pa.nulls(count, pa.string()),
        }
    )
