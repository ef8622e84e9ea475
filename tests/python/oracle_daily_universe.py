"""The daily universe from its definitions: plain loops over stocks and days, exact decimals."""

import csv
import functools
import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Decimal

import pandas as pd

from warehouse import REPO

GATES = ("data_ok", "main_board", "listed", "not_delisted", "not_st", "not_suspended")
FAR = date(9999, 1, 1)
LONG_AGO = date(1, 1, 1)
DEFAULTS = {
    "daily_min_listed_days": 60,
    "daily_absent_days_kept": 250,
    "daily_gate_method": "point_in_time",
    "daily_unknown_st_passes": True,
    "daily_adjusted_limit_tolerance": 0.001,
}


@functools.cache
def seed(name: str) -> list[dict]:
    """Return the lines of a seed, an empty cell as None."""
    with (REPO / f"seeds/{name}.csv").open(newline="") as file:
        return [{k: v or None for k, v in line.items()} for line in csv.DictReader(file)]


def within(line: Mapping, day: date, start: str = "valid_from", end: str = "valid_to") -> bool:
    first = date.fromisoformat(line[start]) if line[start] else LONG_AGO
    last = date.fromisoformat(line[end]) if line[end] else FAR
    return first <= day < last


def records(frame: pd.DataFrame) -> list[dict]:
    """Return rows as dictionaries, everything missing as None."""
    rows = frame.astype(object).to_dict("records")
    return [{k: None if v is None or pd.isna(v) else v for k, v in row.items()} for row in rows]


def by_stock(market: Mapping, relation: str) -> dict[str, list[dict]]:
    found = defaultdict(list)
    for row in records(market[f"staging.{relation}"]):
        found[row["ts_code"]].append(row)
    return found


@functools.cache
def board_of(ts_code: str, day: date) -> tuple[str, bool]:
    for line in seed("board_rules"):
        if re.fullmatch(line["code_pattern"].replace("_", "."), ts_code) and within(line, day):
            return line["board"], line["is_main_board"] == "true"
    return "OTHER", False


def name_on(spans: list[dict], day: date) -> dict | None:
    """Return the name of the day: of those begun, the last, unless it has ended."""
    begun = [span for span in spans if span["start_date"] <= day]
    if not begun:
        return None
    last = max(begun, key=lambda s: (s["start_date"], s["end_date"] or FAR, s["name"]))
    return last if last["end_date"] is None or day < last["end_date"] else None


def delisting_start(spans: list[dict], name: dict) -> date:
    """Return the day on which the unbroken run of delisting names began."""
    start = name["start_date"]
    while True:
        earlier = [s for s in spans if s["is_delisting_name"] and s["end_date"] == start]
        if not earlier:
            return start
        start = earlier[0]["start_date"]


def gates(market: Mapping, settings: Mapping | None = None) -> dict[tuple, dict]:
    """Return the rows of daily_gates by (ts_code, trade_date)."""
    setting = DEFAULTS | dict(settings or {})
    calendar = [row["trade_date"] for row in records(market["staging.stg_trading_calendar"])]
    number = {day: n for n, day in enumerate(calendar, 1)}
    bars_of = by_stock(market, "stg_daily_bars")
    securities = {row["ts_code"]: row for row in records(market["staging.stg_securities"])}
    names_of = by_stock(market, "stg_security_names")
    data_first = min(row["trade_date"] for rows in bars_of.values() for row in rows)
    data_last = max(row["trade_date"] for rows in bars_of.values() for row in rows)
    found = {}
    for ts_code, rows in bars_of.items():
        bars = {row["trade_date"]: row for row in rows}
        first_bar = min(bars)
        security = securities.get(ts_code, {})
        list_date, delist_date = security.get("list_date"), security.get("delist_date")
        spans = names_of.get(ts_code, [])
        last_bar_number, last_known_st = None, None
        for day in calendar:
            if not first_bar <= day <= data_last:
                continue
            bar = bars.get(day)
            if bar:
                last_bar_number = number[day]
                if bar["is_st"] is not None:
                    last_known_st = bar["is_st"]
            elif number[day] - last_bar_number > setting["daily_absent_days_kept"] or (
                delist_date and day >= delist_date
            ):
                continue
            age = trading_days_since(list_date, day, calendar, number)
            name = name_on(spans, day)
            is_st = bar["is_st"] if bar else None
            if is_st is None and name:
                is_st = name["is_st_name"]
            if is_st is None:
                is_st = last_known_st
            is_delisting = bool(name and name["is_delisting_name"])
            start = delisting_start(spans, name) if is_delisting else None
            board, main_board = board_of(ts_code, day)
            trades = bool(bar and not bar["is_suspended"] and (bar["volume"] or 0) > 0)
            prices = [bar[x] for x in ("open", "high", "low", "close")] if bar else []
            if list_date is None:
                since_first_bar = number[day] - number[first_bar]
                listed = first_bar == data_first
                listed = listed or since_first_bar >= setting["daily_min_listed_days"]
            else:
                listed = age is not None and age >= setting["daily_min_listed_days"]
            if setting["daily_gate_method"] == "point_in_time":
                not_delisted = delist_date is None or day < delist_date
                st_passes = setting["daily_unknown_st_passes"] if is_st is None else not is_st
                not_st = st_passes and not is_delisting
            else:
                not_delisted = delist_date is None
                today = security.get("name") or ""
                not_st = not (bar and bar["is_st"]) and not re.search(r"\*?ST|退", today)
            row = {
                "trading_day": number[day],
                "board": board,
                "days_since_listing": age,
                "is_st": is_st,
                "is_st_known": is_st is not None,
                "is_delisting_period": is_delisting,
                "delisting_period_day": (
                    number[day] - number[next(d for d in calendar if d >= start)]
                    if is_delisting and start >= calendar[0]
                    else None
                ),
                "data_ok": bool(bar) and (not trades or all(x is not None for x in prices)),
                "main_board": main_board,
                "listed": listed,
                "not_delisted": not_delisted,
                "not_st": not_st,
                "not_suspended": trades,
            }
            failed = [gate for gate in GATES if not row[gate]]
            row |= {"passes_all": not failed, "failed_gates": ", ".join(failed)}
            found[ts_code, day] = row
    return found


def trading_days_since(
    list_date: date | None, day: date, calendar: list[date], number: Mapping
) -> int | None:
    """Return trading days since the listing day; weekdays count before the calendar begins."""
    if list_date is None:
        return None
    if list_date >= calendar[0]:
        later = [open_day for open_day in calendar if open_day >= list_date]
        if not later or day < later[0]:
            return None
        return number[day] - number[later[0]]
    return number[day] - 1 + weekdays_between(list_date, calendar[0])


@functools.cache
def weekdays_between(first: date, last: date) -> int:
    return sum((first + timedelta(n)).weekday() < 5 for n in range((last - first).days))


def limit_rule(row: Mapping, ts_code: str, day: date, list_date: date | None) -> dict | None:
    """Return the rule of a day: exception, then first days, then the rule of the phase."""
    for line in seed("price_limit_exceptions"):
        if line["ts_code"] == ts_code and within(line, day):
            return {"limit_rule_id": "exception"} | line
    phase = "normal"
    if row["is_st"]:
        phase = "risk_warning"
    if row["is_delisting_period"]:
        phase = "delisting"
    rules = [r for r in seed("price_limit_rules") if r["board"] == row["board"] and within(r, day)]
    first_phase = "delisting" if phase == "delisting" else "listing"
    age = row["delisting_period_day"] if phase == "delisting" else row["days_since_listing"]
    for rule in rules:
        if rule["trading_phase"] == first_phase and rule["first_day"] is not None:
            right_day = age is not None and int(rule["first_day"]) <= age <= int(rule["last_day"])
            if right_day and within(rule, list_date or LONG_AGO, "listed_from", "listed_to"):
                return rule
    for rule in rules:
        if rule["trading_phase"] == phase and rule["first_day"] is None:
            return rule
    return None


def half_up(value: Decimal) -> int:
    return int(value.quantize(Decimal(1), ROUND_HALF_UP))


def in_ticks(price: float, tick: Decimal) -> int:
    """Return a price in ticks, read as the four decimals that a price can have."""
    return half_up(Decimal(str(round(price, 4))) / tick)


LIMIT_FLAGS = (
    "is_limit_up_close",
    "is_limit_down_close",
    "touched_limit_up",
    "touched_limit_down",
    "opened_at_limit_up",
    "opened_at_limit_down",
    "traded_above_limit_up",
    "traded_below_limit_down",
)


def limits(market: Mapping, gate_rows: Mapping, settings: Mapping | None = None) -> dict:
    """Return the rows of price_limits by (ts_code, trade_date)."""
    setting = DEFAULTS | dict(settings or {})
    bars = {(b["ts_code"], b["trade_date"]): b for b in records(market["staging.stg_daily_bars"])}
    securities = {row["ts_code"]: row for row in records(market["staging.stg_securities"])}
    first_day = min(row["trading_day"] for row in gate_rows.values())
    longest = max(
        int(r["last_day"]) for r in seed("price_limit_rules") if r["trading_phase"] == "listing"
    )
    first_of = {}
    for (ts_code, _), row in gate_rows.items():
        first_of[ts_code] = min(first_of.get(ts_code, row["trading_day"]), row["trading_day"])
    found = {}
    for (ts_code, day), row in gate_rows.items():
        list_date = securities.get(ts_code, {}).get("list_date")
        rule = limit_rule(row, ts_code, day, list_date)
        began = first_of[ts_code]
        may_be_listing = list_date is None and began > first_day
        if may_be_listing and row["trading_day"] <= began + longest and not _is_exception(rule):
            rule = None
        bar = bars.get((ts_code, day), {})
        found[ts_code, day] = day_limits(row, bar, rule, setting) | {"board": row["board"]}
    return found


def _is_exception(rule: Mapping | None) -> bool:
    return bool(rule) and rule["limit_rule_id"] == "exception"


def day_limits(row: Mapping, bar: Mapping, rule: Mapping | None, setting: Mapping) -> dict:
    """Return a day's limits and what the day did with them."""
    result = dict.fromkeys(("limit_rule_id", "limit_up_pct", "limit_down_pct"))
    up = down = None
    slack = (0.0,) * 3
    if rule:
        result["limit_rule_id"] = rule["limit_rule_id"]
        for side in ("limit_up_pct", "limit_down_pct"):
            result[side] = float(rule[side]) if rule[side] else None
    ticks_of = {r["board"]: Decimal(r["tick_price"]) for r in seed("price_limit_rules")}
    tick = ticks_of.get(row["board"])
    pre = bar.get("pre_close")
    if rule and rule["limit_up_pct"] and pre is not None:
        if bar["price_basis"] == "forward_adjusted":
            up, down, slack = adjusted_limits(bar, rule, float(tick), setting)
        else:
            reference = in_ticks(pre, tick)
            up = half_up(reference * (1 + Decimal(rule["limit_up_pct"])))
            down = half_up(reference * (1 - Decimal(rule["limit_down_pct"])))
            up, down = max(up, reference + 1), max(min(down, reference - 1), 1)
            up, down = float(up * tick), float(down * tick)
            slack = (float(tick) / 2,) * 3
    result |= {"limit_up_price": up, "limit_down_price": down}
    trades = row["not_suspended"]
    tests = {
        "is_limit_up_close": ("close", up, lambda price: price >= up - slack[0]),
        "is_limit_down_close": ("close", down, lambda price: price <= down + slack[1]),
        "touched_limit_up": ("high", up, lambda price: price >= up - slack[0]),
        "touched_limit_down": ("low", down, lambda price: price <= down + slack[1]),
        "opened_at_limit_up": ("open", up, lambda price: price >= up - slack[0]),
        "opened_at_limit_down": ("open", down, lambda price: price <= down + slack[1]),
        "traded_above_limit_up": ("high", up, lambda price: price > up + slack[2]),
        "traded_below_limit_down": ("low", down, lambda price: price < down - slack[2]),
    }
    for name, (price, limit, test) in tests.items():
        known = trades and limit is not None and bar[price] is not None
        result[name] = None if trades and not rule else bool(known and test(bar[price]))
    one_price = bool(trades and bar["high"] is not None and bar["high"] == bar["low"])
    result["is_one_price"] = one_price
    for side in ("up", "down"):
        touched = result[f"touched_limit_{side}"]
        result[f"is_one_price_limit_{side}"] = touched if one_price else False
    return result


def adjusted_limits(bar: Mapping, rule: Mapping, tick: float, setting: Mapping) -> tuple:
    """Return limits in adjusted prices and how far a price may lie inside and outside of them."""
    pre = bar["pre_close"]
    adjusted_tick = None
    if bar["amount"] and bar["volume"] and bar["high"] is not None and bar["low"] is not None:
        middle = (bar["high"] + bar["low"]) / 2
        adjusted_tick = tick * middle / (bar["amount"] / bar["volume"])
    least = adjusted_tick or 0
    up = pre + max(pre * float(rule["limit_up_pct"]), least)
    down = pre - max(pre * float(rule["limit_down_pct"]), least)
    if adjusted_tick is None:
        slack = pre * setting["daily_adjusted_limit_tolerance"]
        return up, down, (slack, slack, slack)
    return up, down, tuple(adjusted_tick * share for share in (0.485, 0.515, 0.6))


def eligibility(market: Mapping, gate_rows: Mapping, limit_rows: Mapping) -> dict:
    """Return the rows of entry_eligibility by (ts_code, trade_date)."""
    calendar = [row["trade_date"] for row in records(market["staging.stg_trading_calendar"])]
    number = {day: n for n, day in enumerate(calendar)}
    data_last = max(day for _, day in gate_rows)

    def may(ts_code: str, day: date, flag: str) -> bool:
        gate, limit = gate_rows.get((ts_code, day)), limit_rows.get((ts_code, day))
        if gate is None or not (gate["data_ok"] and gate["not_suspended"]):
            return False
        at_limit = limit[flag] if limit[flag] is not None else limit["is_one_price"]
        return not at_limit

    found = {}
    for (ts_code, day), gate in gate_rows.items():
        n = number[day]
        following = calendar[n + 1] if n + 1 < len(calendar) else None
        known = day < data_last
        buys = known and may(ts_code, following, "opened_at_limit_up")
        first_sell = None
        if buys:
            for later in calendar[n + 2 :]:
                if may(ts_code, later, "opened_at_limit_down") or may(
                    ts_code, later, "is_limit_down_close"
                ):
                    first_sell = later
                    break
        found[ts_code, day] = {
            "decision_eligible": gate["passes_all"],
            "may_sell_at_open": may(ts_code, day, "opened_at_limit_down"),
            "may_sell_at_close": may(ts_code, day, "is_limit_down_close"),
            "next_trade_date": following,
            "may_buy_next_open": buys if known else None,
            "may_buy_next_close": (may(ts_code, following, "is_limit_up_close") if known else None),
            "first_sell_date": first_sell,
        }
    return found


def members(market: Mapping, gate_rows: Mapping, lines: list[dict] | None = None) -> set[tuple]:
    """Return (universe, ts_code, trade_date) of every member."""
    if lines is None:
        lines = seed("universes") + seed("user_universes")
    index_spans = by_stock(market, "stg_index_members")
    industry_spans = by_stock(market, "stg_industry_members")

    def meets(line: Mapping, ts_code: str, day: date, board: str) -> bool:
        if not within(line, day):
            return False
        match line["kind"]:
            case "all":
                return True
            case "ts_code":
                return line["value"] == ts_code
            case "board":
                return line["value"] == board
            case "index":
                return any(
                    span["index_code"] == line["value"] and _spans(span, day)
                    for span in index_spans.get(ts_code, [])
                )
        level = line["kind"].removeprefix("industry_")
        return any(
            line["value"] in (span[f"{level}_code"], span[f"{level}_name"]) and _spans(span, day)
            for span in industry_spans.get(ts_code, [])
        )

    found = set()
    for (ts_code, day), row in gate_rows.items():
        if not all(row[gate] for gate in GATES if gate != "main_board"):
            continue
        for universe in {line["universe"] for line in lines}:
            own = [line for line in lines if line["universe"] == universe]
            kinds = {line["kind"] for line in own}
            if all(
                any(meets(li, ts_code, day, row["board"]) for li in own if li["kind"] == kind)
                for kind in kinds
            ):
                found.add((universe, ts_code, day))
    return found


def _spans(span: Mapping, day: date) -> bool:
    return span["in_date"] <= day and (span["out_date"] is None or day < span["out_date"])
