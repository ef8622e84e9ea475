"""A deterministic sample market of daily A-share bars, the daily side of `wavehouse sample`.

`wavehouse.daily_sample_plan` says what happens to which stock, `wavehouse.daily_sample_market`
makes prices of it, `wavehouse.daily_sample_feeds` the feeds; here all becomes files.

Draws come in whole blocks of days, each from its own generator keyed by (seed, stock, block), and
every event is planned over the whole calendar and cut afterwards. So more days append rows and more
stocks append rows, and neither changes one that was there; only what a snapshot knows later changes
later: a span open at the last day gets its end, a stock its delist date. The indices hold stocks of
the first CORE_STOCKS alone, so that they do not depend on how many are written.
"""

import dataclasses
import datetime as dt
import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from wavehouse.daily_sample_feeds import (
    feed_tables,
    hot_table,
    market_margin_table,
    market_moneyflow_table,
    northbound_table,
)
from wavehouse.daily_sample_market import (
    Panel,
    date_array,
    simulate,
    stock_major,
)
from wavehouse.daily_sample_plan import (
    ABSENT,
    BLANK,
    BSE,
    EXCHANGES,
    INDUSTRIES,
    LEAVES,
    PLAIN,
    ST,
    STAR_ST,
    DailyOptions,
    Stock,
    trading_days,
)
from wavehouse.sample_common import OWNER_KEY, claim_folder, write_parquet

CORE_STOCKS = 100  # the indices' members and the hot list come from these
# (index, members, first level)
INDICES = (("000300.SH", 20, 3_970.0), ("000905.SH", 20, 5_640.0), ("000852.SH", 20, 5_920.0))
WINDOW_MEMBERS_SINCE = np.datetime64("2019-12-16")  # the reshuffle before the window
REGULAR_DAYS = 60  # listed that long before an index takes a stock

DAILY_BARS = pa.schema(
    [("ts_code", pa.string()), ("trade_date", pa.date32())]
    + [(name, pa.float64()) for name in ("open", "high", "low", "close", "pre_close", "volume")]
    + [(name, pa.float64()) for name in ("amount", "pct_chg", "adj_factor", "turnover")]
    + [("is_suspended", pa.bool_()), ("is_st", pa.bool_()), ("price_basis", pa.string())]
)


def _into_the_autumn_holidays(bar: dict) -> dt.date:
    """Return a day of 1 to 8 October of the bar's year, 2020: no trading on any of them."""
    return bar["trade_date"].replace(month=10, day=1 + bar["trade_date"].day % 8)


DIRTY_CODE = "605999.SH"  # no stock of the sample: slot 4 does not reach this number
# Single faults in a valid bar of DIRTY_CODE, each on its own day: (kind, rows, changed columns).
DAILY_FAULTS = (
    ("null code", 2, {"ts_code": None}),
    ("null date", 2, {"trade_date": None}),
    ("malformed code", 2, {"ts_code": "605999"}),
    ("not a trading day", 2, {"trade_date": _into_the_autumn_holidays}),
    ("null price", 2, {"close": None}),
    ("zero price", 2, {"low": 0.0}),
    ("negative price", 2, {"low": lambda bar: -bar["low"]}),
    ("nan price", 2, {"open": float("nan")}),
    ("infinite price", 2, {"high": float("inf")}),
    ("high below low", 3, {"high": lambda bar: bar["low"], "low": lambda bar: bar["high"]}),
    ("close outside high-low", 3, {"close": lambda bar: bar["high"] + 0.01}),
    ("negative volume", 2, {"volume": -100.0}),
    ("nan volume", 2, {"volume": float("nan")}),
    ("negative amount", 2, {"amount": -1.0}),
    ("zero adjustment factor", 2, {"adj_factor": 0.0}),
    ("negative turnover", 2, {"turnover": -0.01}),
    ("unknown price basis", 2, {"price_basis": "backward"}),
)  # fmt: skip
DAILY_CONFLICTS, DAILY_COPIES = 3, 5
DAILY_DIRTY_COUNTS = {kind: rows for kind, rows, _ in DAILY_FAULTS} | {
    "conflicting duplicate": 2 * DAILY_CONFLICTS,
    "exact duplicate of another file": DAILY_COPIES,
}


@dataclasses.dataclass(frozen=True)
class DailySummary:
    """What `write_daily_sample` wrote; `rows` are those of daily_bars with the dirty ones."""

    folder: Path
    stocks: int
    rows: int
    first_date: np.datetime64
    last_date: np.datetime64
    dirty_rows: int


def bars_table(panel: Panel) -> pa.Table:
    """Return the rows of daily_bars: trading days, and suspended ones of the stocks that show them.

    Of the stocks that do, some carry the last close in their prices and some have NULL there.
    """
    style = np.array([stock.suspended_rows for stock in panel.stocks])
    rows = panel.listed & (panel.trades | (style != ABSENT))
    flat, codes, dates = stock_major(panel, rows)
    idle = ~flat(panel.trades)
    empty = idle & flat(np.broadcast_to(style == BLANK, rows.shape))
    pre_close, close = flat(panel.pre_close), flat(panel.close)
    volume = flat(panel.volume)
    prices = [flat(values) / 100 for values in (panel.open, panel.high, panel.low)]
    columns = [pa.array(values, mask=empty) for values in (*prices, close / 100, pre_close / 100)]
    return pa.Table.from_arrays(
        [
            pa.array(codes, pa.string()),
            date_array(dates),
            *columns,
            pa.array(volume),
            pa.array(flat(panel.amount_cents) / 100),
            pa.array(np.round(close / pre_close - 1, 6), mask=empty),
            pa.array(flat(panel.adj_factor)),
            pa.array(volume / flat(panel.float_shares)),
            pa.array(idle),
            pa.array(np.isin(flat(panel.mark), (ST, STAR_ST))),
            pa.repeat(pa.scalar("unadjusted"), len(codes)),
        ],
        schema=DAILY_BARS,
    )


def _known(stocks: tuple[Stock, ...], dates: np.ndarray) -> list[Stock]:
    """Return the stocks that are listed on the last of `dates` or were before."""
    return [stock for stock in stocks if stock.list_date <= dates[-1]]


def _delist_date(stock: Stock, days: int) -> np.datetime64:
    """Return the first date without listing, NaT unless it is one of the first `days` days."""
    if stock.delist_day >= days:
        return np.datetime64("NaT")
    return trading_days(stock.delist_day + 1)[-1]


def securities_table(panel: Panel) -> pa.Table:
    """Return one row per stock listed so far, with its name on the last day."""
    known, days = _known(panel.stocks, panel.dates), len(panel.dates)
    names = [
        [name for start, name in stock.names if start <= panel.dates[-1]][-1] for stock in known
    ]
    return pa.table(
        {
            "ts_code": pa.array([stock.ts_code for stock in known], pa.string()),
            "name": pa.array(names, pa.string()),
            "exchange": pa.array([EXCHANGES[stock.board] for stock in known], pa.string()),
            "list_date": date_array(np.array([s.list_date for s in known], dtype="M8[D]")),
            "delist_date": date_array(
                np.array([_delist_date(stock, days) for stock in known], dtype="M8[D]")
            ),
        }
    )


def code_changes_table(panel: Panel) -> pa.Table:
    """Return one row per stock of a 920 code: its old one, under which there is no bar."""
    renumbered = [s for s in _known(panel.stocks, panel.dates) if s.ts_code.startswith("920")]
    return pa.table(
        {
            "old_ts_code": pa.array([f"430{s.ts_code[3:]}" for s in renumbered], pa.string()),
            "new_ts_code": pa.array([s.ts_code for s in renumbered], pa.string()),
            "name": pa.array([s.names[0][1] for s in renumbered], pa.string()),
            "first_seen_date": date_array(np.array([s.list_date for s in renumbered], "M8[D]")),
        }
    )


def _spans(panel: Panel, field: str) -> tuple[list, list, list, list]:
    """Return codes, starts, ends (NaT while open) and values of the spans begun so far."""
    codes, starts, ends, values = [], [], [], []
    for stock in _known(panel.stocks, panel.dates):
        begun = [span for span in getattr(stock, field) if span[0] <= panel.dates[-1]]
        ended = [start for start, _ in begun[1:]] + [_delist_date(stock, len(panel.dates))]
        for (start, value), end in zip(begun, ended, strict=True):
            codes.append(stock.ts_code)
            starts.append(start)
            ends.append(end)
            values.append(value)
    return codes, starts, ends, values


def names_table(panel: Panel) -> pa.Table:
    """Return one row per stock and name, half-open [start_date, end_date), NULL while borne."""
    codes, starts, ends, values = _spans(panel, "names")
    return pa.table(
        {
            "ts_code": pa.array(codes, pa.string()),
            "name": pa.array(values, pa.string()),
            "start_date": date_array(np.array(starts, dtype="M8[D]")),
            "end_date": date_array(np.array(ends, dtype="M8[D]")),
        }
    )


def industries_table(panel: Panel) -> pa.Table:
    """Return one row per stock and industry, half-open [in_date, out_date), NULL while in it."""
    codes, starts, ends, leaves = _spans(panel, "industries")
    levels = {
        name: [] for name in ("l1_code", "l1_name", "l2_code", "l2_name", "l3_code", "l3_name")
    }
    for leaf in leaves:
        code, name, _ = INDUSTRIES[leaf // LEAVES]
        middle, place = leaf % LEAVES // 2, leaf % 2
        levels["l1_code"].append(code)
        levels["l1_name"].append(name)
        levels["l2_code"].append(f"{code[:3]}{middle + 1}00")
        levels["l2_name"].append(f"{name}{'甲乙'[middle]}")
        levels["l3_code"].append(f"{code[:3]}{middle + 1}0{place + 1}")
        levels["l3_name"].append(f"{name}{'甲乙'[middle]}{'上下'[place]}")
    columns = {"ts_code": pa.array(codes, pa.string())}
    columns["industry_code"] = pa.array(levels["l3_code"], pa.string())
    columns |= {name: pa.array(values, pa.string()) for name, values in levels.items()}
    columns["in_date"] = date_array(np.array(starts, dtype="M8[D]"))
    columns["out_date"] = date_array(np.array(ends, dtype="M8[D]"))
    return pa.table(columns)


def reshuffle_days(dates: np.ndarray) -> list[int]:
    """Return the days on which reshuffles take effect: the first trading day after the second
    Friday of June and of December, as of `dates`.
    """
    months = np.arange(dates[0].astype("M8[M]"), dates[-1].astype("M8[M]") + 1)
    months = months[np.isin(months.astype(int) % 12, (5, 11))]
    fridays = np.busday_offset(months.astype("M8[D]"), 1, roll="forward", weekmask="Fri")
    days = np.searchsorted(dates, fridays, side="right")
    return [int(day) for day in days if 0 < day < len(dates)]


def index_membership(core: Panel) -> np.ndarray:
    """Return which index (number in INDICES, -1 for none) holds each core stock on each day.

    At a reshuffle the stocks without a mark that are listed long enough, outside BSE, are ranked by
    their float capitalization at the close before. A stock leaves at once when it is marked ST, put
    into its delisting period or delisted.
    """
    days, count = core.close.shape
    held = np.full((days, count), -1, dtype=np.int8)
    list_day = np.array([stock.list_day for stock in core.stocks])
    usual = np.array([stock.board != BSE for stock in core.stocks])
    starts = [0, *reshuffle_days(core.dates)]
    for start, end in zip(starts, [*starts[1:], days], strict=True):
        before = max(start - 1, 0)
        fit = usual & (start - list_day >= REGULAR_DAYS) & core.listed[start]
        fit &= (core.mark[start] == PLAIN) & core.listed[before]
        size = core.float_shares[before] * core.close[before]
        ranked = np.argsort(np.where(fit, -size, np.inf), kind="stable")[: int(fit.sum())]
        place, taken = np.full(count, -1, dtype=np.int8), 0
        for number, (_, members, _) in enumerate(INDICES):
            place[ranked[taken : taken + members]] = number
            taken += members
        gone = (core.mark[start:end] != PLAIN) | ~core.listed[start:end]
        gone = np.logical_or.accumulate(gone, axis=0)
        held[start:end] = np.where(gone, -1, place)
    return held


def members_table(core: Panel, stocks: int) -> pa.Table:
    """Return one row per index, stock and stay, half-open [in_date, out_date), NULL while in it.

    Of the first `stocks` stocks; who is in on the first day has been since the reshuffle before.
    """
    held = index_membership(core)
    change = held[1:] != held[:-1]
    codes, indices, starts, ends = [], [], [], []
    for column, stock in enumerate(core.stocks[:stocks]):
        edges = [0, *(np.flatnonzero(change[:, column]) + 1), len(held)]
        for start, end in itertools.pairwise(edges):
            number = held[start, column]
            if number >= 0:
                codes.append(stock.ts_code)
                indices.append(INDICES[number][0])
                starts.append(core.dates[start] if start else WINDOW_MEMBERS_SINCE)
                ends.append(core.dates[end] if end < len(held) else np.datetime64("NaT"))
    return pa.table(
        {
            "index_code": pa.array(indices, pa.string()),
            "ts_code": pa.array(codes, pa.string()),
            "in_date": date_array(np.array(starts, dtype="M8[D]")),
            "out_date": date_array(np.array(ends, dtype="M8[D]")),
        }
    )


def index_table(core: Panel) -> pa.Table:
    """Return the bars of the indices: the day's members weighted by float capitalization before it.

    A suspended member stands still. High and low lie outside open and close by half of what the
    members' own do, for these come at different times.
    """
    held, days = index_membership(core), len(core.dates)
    names = ("open", "high", "low", "close", "volume", "amount", "pct_chg")
    columns = {name: [] for name in names}
    for number, (_, _, level) in enumerate(INDICES):
        weight = np.where(held == number, core.float_shares * core.pre_close, 0.0)
        total = weight.sum(axis=1)

        def mean(ticks: np.ndarray, weight: np.ndarray = weight, total=total) -> np.ndarray:
            return (weight * (ticks / core.pre_close)).sum(axis=1) / total

        opened, high, low, close = (mean(x) for x in (core.open, core.high, core.low, core.close))
        top, bottom = np.maximum(opened, close), np.minimum(opened, close)
        factors = np.stack([opened, (high + top) / 2, (low + bottom) / 2, close])
        levels, before = np.zeros((4, days)), np.zeros(days)
        for day in range(days):
            before[day] = level
            levels[:, day] = np.round(level * factors[:, day], 4)
            level = levels[3, day]
        for name, values in zip(names[:4], levels, strict=True):
            columns[name].append(values)
        member = held == number
        columns["volume"].append(np.where(member, core.volume, 0.0).sum(axis=1))
        columns["amount"].append(np.where(member, core.amount_cents, 0.0).sum(axis=1) / 100)
        columns["pct_chg"].append(np.round(levels[3] / before - 1, 6))
    codes = np.repeat(np.array([code for code, _, _ in INDICES], dtype=object), days)
    table = {"ts_code": pa.array(codes, pa.string())}
    table["trade_date"] = date_array(np.tile(core.dates, len(INDICES)))
    return pa.table(table | {name: np.concatenate(values) for name, values in columns.items()})


def daily_tables(options: DailyOptions) -> dict[str, pa.Table]:
    """Return the table of every file of the daily market, by the name of its folder.

    Raises ValueError when `options.stocks` is 0.
    """
    if options.stocks == 0:
        raise ValueError("stocks is 0; the daily tables need 1 or more")
    core = simulate(options, 0, CORE_STOCKS)
    pieces = []
    for first in range(0, options.stocks, CORE_STOCKS):
        last = min(first + CORE_STOCKS, options.stocks)
        panel = core if (first, last) == (0, CORE_STOCKS) else simulate(options, first, last)
        tables = {
            "daily_bars": bars_table(panel),
            "securities": securities_table(panel),
            "security_code_changes": code_changes_table(panel),
            "security_names": names_table(panel),
            "industry_members": industries_table(panel),
        }
        pieces.append(tables | feed_tables(options, panel))
    written = {name: pa.concat_tables([piece[name] for piece in pieces]) for name in pieces[0]}
    written["index_daily"] = index_table(core)
    written["index_members"] = members_table(core, options.stocks)
    written["trading_calendar"] = pa.table({"trade_date": date_array(core.dates)})
    written["market_margin"] = market_margin_table(options, core)
    written["market_moneyflow"] = market_moneyflow_table(options, core)
    written["northbound"] = northbound_table(options)
    written["ths_hot"] = hot_table(core, options.stocks)
    return {name: table.combine_chunks() for name, table in written.items()}


def daily_dirty_rows(clean: pa.Table) -> pa.Table:
    """Return the rows that staging must reject or flag, DAILY_DIRTY_COUNTS of each, as DAILY_BARS.

    Faulty bars are valid bars of `clean` under DIRTY_CODE with one thing spoilt, so that no fault
    also makes a duplicate. A conflicting duplicate is a pair of valid bars of one day with unequal
    volumes. Exact duplicates are rows of `clean` under their own code. Raises ValueError when the
    first stock of `clean` has too few bars whose high is above their low.
    """
    needed = sum(DAILY_DIRTY_COUNTS.values()) - DAILY_CONFLICTS
    code = clean["ts_code"][0]
    usable = [
        bar
        for bar in clean.slice(0, 2 * needed).to_pylist()
        if bar["ts_code"] == code.as_py() and bar["volume"] > 0 and bar["high"] > bar["low"]
    ][:needed]
    if len(usable) < needed:
        raise ValueError(f"{len(usable)} bars have high above low; expected {needed} or more")
    bars, rows = iter(usable), []
    for _, count, changes in DAILY_FAULTS:
        for _ in range(count):
            bar = next(bars) | {"ts_code": DIRTY_CODE}
            spoilt = {name: new(bar) if callable(new) else new for name, new in changes.items()}
            rows.append(bar | spoilt)
    for _ in range(DAILY_CONFLICTS):
        bar = next(bars) | {"ts_code": DIRTY_CODE}
        rows += [bar, bar | {"volume": bar["volume"] + 100.0}]
    rows += [next(bars) for _ in range(DAILY_COPIES)]
    return pa.Table.from_pylist(rows, schema=DAILY_BARS)


FOLDERS = (
    "daily_bars", "securities", "security_names", "index_daily", "index_members",
    "industry_members", "trading_calendar", "daily_basic", "moneyflow", "margin", "cyq_perf",
    "limit_list", "holders", "hk_hold", "northbound", "top_list", "top_inst", "ths_hot",
    "market_margin", "market_moneyflow", "security_code_changes",
)  # fmt: skip


def claim_daily(out_dir: Path, dirty: bool, force: bool) -> dict[Path, list[Path]]:
    """Return the files to write by folder; raises as `claim_folder` does."""
    claimed = {}
    for name in FOLDERS:
        folder = Path(out_dir) / name
        wanted = [folder / f"sample-{name}.parquet"]
        wanted += [folder / "sample-dirty.parquet"] * (dirty and name == "daily_bars")
        claim_folder(folder, wanted, force)
        claimed[folder] = wanted
    return claimed


def write_daily_sample(
    out_dir: Path, options: DailyOptions, dirty: bool = False, force: bool = False
) -> DailySummary:
    """Write `<out_dir>/<relation>/sample-<relation>.parquet` for each of FOLDERS.

    Each file appears whole or not at all; no file that another wrote is ever touched. Raises
    FileExistsError as `claim_folder` does, before the first file is written, and OSError when the
    disk refuses.
    """
    claimed = claim_daily(out_dir, dirty, force)
    tables = daily_tables(options)
    record = dataclasses.asdict(options)
    del record["stocks"]
    metadata = {OWNER_KEY: json.dumps(record).encode()}
    spoilt = 0
    for folder, wanted in claimed.items():
        table = tables[folder.name]
        write_parquet(wanted[0], table.replace_schema_metadata(metadata))
        if len(wanted) > 1:
            extra = daily_dirty_rows(table)
            spoilt = len(extra)
            write_parquet(wanted[1], extra.replace_schema_metadata(metadata))
        for path in claim_folder(folder, wanted, force=True):
            if path not in wanted:
                path.unlink()
    days = trading_days(options.trading_days)
    rows = len(tables["daily_bars"]) + spoilt
    codes = len(tables["securities"])
    return DailySummary(Path(out_dir), codes, rows, days[0], days[-1], spoilt)
