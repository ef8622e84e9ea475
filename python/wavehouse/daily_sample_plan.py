"""What happens to each stock of the daily sample market, and when: boards, listings, names, events.

No stock, name or event of it exists, but the calendar and the rules of each board are those of the
day: every fact that a daily warehouse must survive happens to some stock, on purpose and by number.

Stock number k has slot k % 20 (its board) and cycle k // 20. By slot, in the cycles named:

    0 SSE 600   even: a dividend and a split on one day
    1 SSE 600   even: *ST put on, eased to ST, taken off
    2 SSE 601   even: *ST, suspended, delisting period of 15 days whose first is free, delisted
    3 SSE 603   even: a new name; odd: changes its industry
    4 SSE 605   even: listed in the window, 44 % and then one-price days; cycle 3, 7, ...: listed
                after 2023-04-10, five free days
    5 SSE 601   even: suspended for 65 days
    6 SZSE 000  even: a split
    7 SZSE 001  odd: ST put on and left on
    8 SZSE 002  even: ST before the window, taken off in it
    9 SZSE 003  listed in the window, 44 %
    10 SZSE 002 even: *ST, delisting period of 30 days under the rules before 2020-12-31
    11 ChiNext  odd: absorbed by a merger, delisted without a delisting period
    12 ChiNext  even: ST with a limit of 20 %
    13 ChiNext  even: listed before 2020-08-24, 44 %
    14 ChiNext  even: 301, listed after 2020-08-24, five free days
    15 STAR     even: changes its industry
    16 STAR     odd: ST with a limit of 20 %
    17 STAR     even: listed in the window, five free days
    18 BSE 8    listed from 2020-07-27 (even) or on 2021-11-15 (odd), a free day
    19 BSE 920  listed after 2021-11-15; the vendors give renumbered stocks this code for all days
                (security_code_changes says which one it had)

Slots 3, 15 and 18 also have scripted days at their limits. Beside these, any stock has suspensions
(rows or absent days, by stock), news that opens it at its limit and keeps it there, and a dividend
or a split a year. There is no B share: its price is in another currency and, in Shanghai, on
another tick, and the files hold CNY.

Every event is planned over the whole calendar and cut afterwards, from a generator keyed by (seed,
stock): the plan of a stock depends on no option but the seed.
"""

import dataclasses

import numpy as np

from wavehouse.sample_common import check_limits, setting

FIRST_DAY = np.datetime64("2020-06-01")
NEWS_RATE = 0.0016  # days on which news opens a stock at its limit and keeps it there
SUSPENSION_RATE = 0.0012
BEFORE = -10_000  # a day number before the window
NEVER = 1_000_000

# Weekdays without trading from FIRST_DAY to the end of 2025.
# fmt: off
CLOSED = (
    ("2020-06-25", 2), ("2020-10-01", 2), ("2020-10-05", 4), ("2021-01-01", 1), ("2021-02-11", 2),
    ("2021-02-15", 3), ("2021-04-05", 1), ("2021-05-03", 3), ("2021-06-14", 1), ("2021-09-20", 2),
    ("2021-10-01", 1), ("2021-10-04", 4), ("2022-01-03", 1), ("2022-01-31", 5), ("2022-04-04", 2),
    ("2022-05-02", 3), ("2022-06-03", 1), ("2022-09-12", 1), ("2022-10-03", 5), ("2023-01-02", 1),
    ("2023-01-23", 5), ("2023-04-05", 1), ("2023-05-01", 3), ("2023-06-22", 2), ("2023-09-29", 1),
    ("2023-10-02", 5), ("2024-01-01", 1), ("2024-02-09", 1), ("2024-02-12", 5), ("2024-04-04", 2),
    ("2024-05-01", 3), ("2024-06-10", 1), ("2024-09-16", 2), ("2024-10-01", 4), ("2024-10-07", 1),
    ("2025-01-01", 1), ("2025-01-28", 4), ("2025-02-03", 2), ("2025-04-04", 1), ("2025-05-01", 2),
    ("2025-05-05", 1), ("2025-06-02", 1), ("2025-10-01", 3), ("2025-10-06", 3),
)
# fmt: on
HOLIDAYS = np.concatenate([np.datetime64(day) + np.arange(count) for day, count in CLOSED])
LAST_DAY = np.datetime64("2025-12-31")
MAX_DAYS = int(np.busday_count(FIRST_DAY, LAST_DAY + 1, holidays=HOLIDAYS))

CHINEXT_REFORM = np.datetime64("2020-08-24")  # 20 %, five free days
DELISTING_REFORM = np.datetime64("2020-12-31")  # 15 days, the first one free
MAIN_BOARD_REFORM = np.datetime64("2023-04-10")  # five free days
SELECT_TIER = np.datetime64("2020-07-27")
BSE_OPENING = np.datetime64("2021-11-15")

MAIN_SH, MAIN_SZ, CHINEXT, STAR, BSE = range(5)
EXCHANGES = ("SSE", "SZSE", "SZSE", "SSE", "BSE")
# (board, prefix of the code, which of the slots with this prefix, how many there are)
SLOTS = (
    (MAIN_SH, "600", 0, 2), (MAIN_SH, "600", 1, 2), (MAIN_SH, "601", 0, 2), (MAIN_SH, "603", 0, 1),
    (MAIN_SH, "605", 0, 1), (MAIN_SH, "601", 1, 2), (MAIN_SZ, "000", 0, 1), (MAIN_SZ, "001", 0, 1),
    (MAIN_SZ, "002", 0, 2), (MAIN_SZ, "003", 0, 1), (MAIN_SZ, "002", 1, 2), (CHINEXT, "300", 0, 3),
    (CHINEXT, "300", 1, 3), (CHINEXT, "300", 2, 3), (CHINEXT, "301", 0, 1), (STAR, "688", 0, 3),
    (STAR, "688", 1, 3), (STAR, "688", 2, 3), (BSE, "8", 0, 1), (BSE, "920", 0, 1),
)  # fmt: skip
SUFFIXES = (".SH", ".SZ", ".SZ", ".SH", ".BJ")
FIRST_LISTING = ("1995-01-04", "1995-01-04", "2009-10-30", "2019-07-22", "2020-07-27")
LAST_LISTING = ("2019-06-28", "2019-06-28", "2019-06-28", "2019-09-02", "2020-07-28")

PLAIN, ST, STAR_ST, DELISTING = range(4)  # marks of a name
ABSENT, LAST_CLOSE, BLANK = range(3)  # a suspended day: no row, or a row with or without prices
# scripts of a day
(ONE_PRICE_UP, ONE_PRICE_DOWN, TOUCHED_UP, TOUCHED_DOWN, CLOSED_UP, CLOSED_DOWN, LISTING_44) = (
    range(1, 8)
)

NAME_HEADS = "云海山江岭川原林泉谷河湖峰石松柏竹梅兰菊桐枫桂"
NAME_MIDDLES = "远达鸿瑞泰和兴盛昌隆宁安康宏恒润丰泽嘉"
# (l1_code, l1_name, part of a stock's name), each with two industries below it, each with two more
INDUSTRIES = (
    ("901000", "样本银行", "银行"), ("902000", "样本医药", "医药"), ("903000", "样本电子", "电子"),
    ("904000", "样本机械", "机械"), ("905000", "样本食品", "食品"), ("906000", "样本化工", "化工"),
    ("907000", "样本软件", "软件"), ("908000", "样本电力", "电力"),
)  # fmt: skip
LEAVES = 4  # third-level industries of a first-level one


@dataclasses.dataclass(frozen=True)
class DailyOptions:
    """What the daily sample market looks like; each field is an option of `wavehouse sample`.

    Raises ValueError when a field is outside its limits.
    """

    stocks: int = setting(
        120, 0, 5_000, "Daily market: how many stocks, those not yet listed included; 0 for none. "
        "The first 40 hold every kind of event."
    )  # fmt: skip
    trading_days: int = setting(
        400, 1, MAX_DAYS, "Daily market: trading days from 2020-06-01. 400 end in January 2022; "
        "1,114 with 2024. More days only append rows."
    )  # fmt: skip
    daily_seed: int = setting(7, 0, 2**63 - 1, "Daily market: another seed, another market.")
    daily_signal: float = setting(
        0.0, 0, 1, "Daily market: share of a stock's own variance that its shocks of the last 20 "
        "days decide, momentum. At 0 nothing predicts the sign of a return."
    )  # fmt: skip

    def __post_init__(self) -> None:
        check_limits(self)


@dataclasses.dataclass(frozen=True)
class Stock:
    """One stock's constants and all that will happen to it; days count from FIRST_DAY.

    `marks` and `scripts` are (first day, days, value), `suspensions` (first day, days); `names` and
    `industries` are (first date, value), each until the next; `events` are (day, dividend yield,
    tenths of a share given for one). `delist_day` is the first day without listing, NEVER when none
    is planned. `suspended_rows` is ABSENT, LAST_CLOSE or BLANK: how a suspended day is shown.
    """

    number: int
    ts_code: str
    board: int
    list_date: np.datetime64
    list_day: int
    delist_day: int
    first_ticks: int
    listing_return: float
    volatility: float
    beta: float
    total_shares: float
    float_shares: float
    base_turnover: float
    first_factor: float
    marks: tuple[tuple[int, int, int], ...]
    suspensions: tuple[tuple[int, int], ...]
    suspended_rows: int
    scripts: tuple[tuple[int, int, int], ...]
    events: tuple[tuple[int, float, int], ...]
    names: tuple[tuple[np.datetime64, str], ...]
    industries: tuple[tuple[np.datetime64, int], ...]


def trading_days(count: int) -> np.ndarray:
    """Return the first `count` trading days from FIRST_DAY on, datetime64[D].

    Raises ValueError when `count` is more than the calendar knows.
    """
    if not 0 <= count <= MAX_DAYS:
        raise ValueError(f"{count} trading days; the calendar knows 0 to {MAX_DAYS}")
    return np.busday_offset(FIRST_DAY, np.arange(count), roll="forward", holidays=HOLIDAYS)


def generator(seed: int, *key: int) -> np.random.Generator:
    """Return the generator of one thing; unequal keys give independent streams."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


# The plan of a stock


def plan_stock(options: DailyOptions, number: int) -> Stock:
    """Return stock `number` (from 0) with everything planned over the whole calendar.

    It depends on the seed and the number alone. Raises ValueError when `number` is negative.
    """
    if number < 0:
        raise ValueError(f"stock number is {number}; expected 0 or more")
    rng = generator(options.daily_seed, 1, number)
    calendar = trading_days(MAX_DAYS)
    slot, cycle = number % 20, number // 20
    even = cycle % 2 == 0
    board, prefix, place, places = SLOTS[slot]
    if board == BSE:
        body = f"{prefix}{101 + cycle}" if slot == 19 else f"8{'37'[cycle % 2]}{1101 + cycle}"
    else:
        body = f"{prefix}{101 + cycle * places + place}"

    def between(low: int, high: int) -> int:
        return int(rng.integers(low, high + 1))

    def day_of(date: np.datetime64) -> int:
        return int(np.searchsorted(calendar, date))

    first, last = np.datetime64(FIRST_LISTING[board]), np.datetime64(LAST_LISTING[board])
    list_date = first + between(0, int((last - first).astype(int)))
    list_date = np.busday_offset(list_date, 0, roll="forward")
    list_day = BEFORE
    windows = {
        9: (20, 340), 13: (5, 40) if even else None, 14: (62, 340) if even else None,
        17: (20, 340) if even else None, 18: (day_of(SELECT_TIER), day_of(SELECT_TIER) + 40),
        19: (day_of(BSE_OPENING) + 1, day_of(BSE_OPENING) + 40),
    }  # fmt: skip
    if slot == 18 and not even:
        windows[18] = (day_of(BSE_OPENING),) * 2
    if slot == 4 and even:
        windows[4] = (20, 340)
    elif slot == 4 and cycle % 4 == 3:
        windows[4] = (day_of(MAIN_BOARD_REFORM), day_of(MAIN_BOARD_REFORM) + 60)
    if windows.get(slot):
        list_day = between(*windows[slot])
        list_date = calendar[list_day]

    marks, scripts, forced, delist_day = [], [], [], NEVER
    if slot == 1 and even:
        put_on, eased, off = between(60, 90), between(120, 150), between(180, 220)
        marks = [(put_on, eased - put_on, STAR_ST), (eased, off - eased, ST)]
        forced = [(put_on - 1, 1), (eased - 1, 1), (off - 1, 1)]
        scripts = [(put_on, 3, ONE_PRICE_DOWN), (off, 1, CLOSED_UP)]
    elif slot == 7 and not even:
        put_on = between(150, 250)
        marks, forced = [(put_on, NEVER, ST)], [(put_on - 1, 1)]
        scripts = [(put_on, 2, ONE_PRICE_DOWN)]
    elif slot == 8 and even:
        off = between(100, 200)
        marks, forced = [(BEFORE, off - BEFORE, ST)], [(off - 1, 1)]
        scripts = [(off, 2, ONE_PRICE_UP)]
    elif slot == 12 and even:
        put_on, off = between(100, 160), between(220, 300)
        marks, forced = [(put_on, off - put_on, STAR_ST)], [(put_on - 1, 1), (off - 1, 1)]
    elif slot == 16 and not even:
        put_on = between(100, 250)
        marks, forced = [(put_on, NEVER, ST)], [(put_on - 1, 1)]
    elif slot in (2, 10) and even:
        put_on, ended, days = between(40, 60), between(220, 280), 15
        if slot == 10:
            put_on, ended, days = BEFORE, between(60, 80), 30
        delist_day = ended + days
        marks = [(put_on, ended - put_on, STAR_ST), (ended, days, DELISTING)]
        forced = [(ended - 12, 12)] + [(put_on - 1, 1)] * (put_on > 0)
        scripts = [(ended + 1 - (slot == 10), 3, ONE_PRICE_DOWN)]
    elif slot == 11 and not even:
        delist_day = between(200, 300)
        forced = [(delist_day - 10, 6)]
    elif slot == 5 and even:
        start = between(100, 180)
        forced = [(start, 65)]
        scripts = [(start + 65, 3, ONE_PRICE_UP)]
    elif slot in (15, 18) and even:  # boards where chance brings few of these
        start = max(list_day, 60) + between(25, 60)
        scripts = [(start, 1, ONE_PRICE_UP), (start + 4, 1, ONE_PRICE_DOWN)]
    elif slot == 3:
        start = between(80, 150)
        scripts = [(start, 1, TOUCHED_UP), (start + 3, 1, TOUCHED_DOWN)]
        scripts += [(start + 6, 1, CLOSED_UP), (start + 9, 1, CLOSED_DOWN)]
    if list_day > BEFORE and board in (MAIN_SH, MAIN_SZ, CHINEXT):
        reform = CHINEXT_REFORM if board == CHINEXT else MAIN_BOARD_REFORM
        if list_date < reform:
            scripts = [(list_day, 1, LISTING_44), (list_day + 1, between(2, 8), ONE_PRICE_UP)]

    # Suspensions by chance, a block of days at a time, none near the listing or a mark.
    suspensions = list(forced)
    chances = rng.random(MAX_DAYS)
    lengths = rng.integers(1, 9, MAX_DAYS)
    busy = [day for day, _, _ in marks + scripts] + [start for start, _ in forced]
    for day in np.flatnonzero(chances < SUSPENSION_RATE):
        near = any(abs(int(day) - other) < 90 for other in busy)
        if not near and day >= max(list_day + 60, 3) and day + 10 < delist_day:
            suspensions.append((int(day), int(lengths[day])))
    for day in np.flatnonzero(rng.random(MAX_DAYS) < NEWS_RATE):
        kind = ONE_PRICE_UP if rng.random() < 0.5 else ONE_PRICE_DOWN
        if day > list_day + 20 and not any(abs(int(day) - other) < 20 for other in busy):
            scripts.append((int(day), 1, kind))

    events = []
    for year in range(2020, 2026):
        pays, gives = rng.random() < 0.65, rng.random() < 0.1
        ratio = float(rng.uniform(0.004, 0.035))
        tenths = int(rng.choice([2, 3, 4, 5, 8, 10]))
        date = np.datetime64(f"{year}-06-03") + between(0, 60)
        if slot in (0, 6) and even and year == 2021:
            pays, gives = slot == 0, True
        day = day_of(date)
        if (pays or gives) and day > list_day + 60 and day < MAX_DAYS:
            events.append((day, ratio * pays, tenths * gives))

    industry = number * 7 % len(INDUSTRIES) * LEAVES + between(0, LEAVES - 1)
    industries = [(list_date, industry)]
    if (slot == 3 and not even) or (slot == 15 and even):
        other = (industry + LEAVES + between(0, LEAVES * (len(INDUSTRIES) - 2))) % (
            len(INDUSTRIES) * LEAVES
        )
        industries.append((calendar[between(120, 260)], other))
    plain = NAME_HEADS[number % len(NAME_HEADS)]
    plain += NAME_MIDDLES[number // len(NAME_HEADS) % len(NAME_MIDDLES)]
    plain += INDUSTRIES[industry // LEAVES][2] if number < 437 else str(number)
    names = _names(plain, board, list_date, marks, calendar)
    if slot == 3 and even:
        names.append((calendar[between(90, 200)], plain[:2] + "新材"))

    wild = {CHINEXT: 1.25, STAR: 1.3, BSE: 1.3}.get(board, 1.0)
    price = float(rng.uniform(0.6, 3.6)) + 1.5 * (slot in (0, 6))
    shares = float(rng.uniform(0.0, 3.2)) - (0.8 if board in (STAR, BSE) else 0.0)
    total = round(2.0**shares * 400) * 1_000_000.0
    return Stock(
        number=number,
        ts_code=body + SUFFIXES[board],
        board=board,
        list_date=list_date,
        list_day=list_day,
        delist_day=delist_day,
        first_ticks=int(300 * 2.0**price) if delist_day == NEVER else between(400, 700),
        listing_return=float(2.0 ** rng.uniform(0.1, 1.9) - 1),
        volatility=wild * float(rng.uniform(0.75, 1.3)),
        beta=float(rng.uniform(0.6, 1.4)),
        total_shares=total,
        float_shares=round(total * float(rng.uniform(0.25, 0.95)) / 100) * 100.0,
        base_turnover=wild * float(rng.uniform(0.006, 0.03)),
        first_factor=1.0 if list_day > BEFORE else round(float(rng.uniform(1, 30)), 3),
        marks=tuple(marks),
        suspensions=tuple(suspensions),
        suspended_rows=LAST_CLOSE if slot == 5 and even else (number + cycle) % 4 % 3,
        scripts=tuple(scripts),
        events=tuple(events),
        names=tuple(names),
        industries=tuple(industries),
    )


def _names(
    plain: str, board: int, list_date: np.datetime64, marks: list, calendar: np.ndarray
) -> list[tuple[np.datetime64, str]]:
    """Return the names a stock bears by its marks, each with its first date."""
    short = plain[:3]
    marked = {ST: "ST" + short, STAR_ST: "*ST" + short}
    marked[DELISTING] = "退市" + short if board in (MAIN_SH, STAR) else plain[:2] + "退"
    names, plain_again = [], None
    for day, days, mark in marks:
        early = max(np.datetime64("2019-04-30"), list_date + 30)
        start = early if day == BEFORE else calendar[day]
        names.append((start, marked[mark]))
        plain_again = calendar[day + days] if mark != DELISTING and day + days < MAX_DAYS else None
    if plain_again is not None:
        names.append((plain_again, plain))
    return [(list_date, plain), *names]
