"""Event labels of daily bars from their definitions, one stock and one day at a time, plainly.

A stock is a list of days; `nan` is unknown. Times are counted in the stock's own days, one for each
trading day of the market since listing, suspended ones included.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

HORIZONS = {"t1": 1, "t3": 3, "t5": 5, "e20": 20}


@dataclass(frozen=True)
class Rules:
    """The numbers of the definitions."""

    min_amount: float = 1e8
    amount_days: int = 20
    half_life: float = 10.0
    min_volatility: float = 1e-6
    rate: float = 0.008
    max_rate: float = 0.012
    settled_only: bool = True
    min_gain: float = 0.005
    max_prior_gain: float = 0.03
    prior_days: int = 5
    window: int = 20
    min_peak: int = 3
    min_excess: float = 0.06
    volatility_multiple: float = 1.8
    drawdown_base: float = 0.02
    drawdown_share: float = 0.5
    min_excess_per_day: float = 0.005
    trend_windows: tuple = (5, 10, 15, 20)
    barrier_multiple: float = 2.0
    barrier_days: int = 20
    thetas: tuple = (0.03, 0.05, 0.08)
    change_min_days: int = 3
    change_max_days: int = 30
    quality_unit: float = 0.03
    later_high: bool = True

    def window_days(self, label_set: str) -> int:
        """Days after the start until a candidate's outcome is known."""
        return {
            "excess_adaptive": self.window,
            "trend_scanning": max(self.trend_windows),
            "triple_barrier": self.barrier_days,
            "directional_change": self.change_max_days,
        }[label_set]

    def settling_days(self, label_set: str) -> int:
        """Days after a day until it is settled whether an event starts on it."""
        replaced = label_set in ("triple_barrier", "directional_change")
        return self.window_days(label_set) * (2 if replaced else 1)


@dataclass
class Stock:
    """One stock's days in order, and what the rules read of them."""

    code: str
    dates: list
    close: list
    returns: list
    amount: list
    suspended: list
    member: list
    price: list = field(default_factory=list)
    mean_amount: list = field(default_factory=list)
    volatility: list = field(default_factory=list)
    benchmark: list = field(default_factory=list)
    found: dict = field(default_factory=dict)

    def traded(self, t: int) -> bool:
        return not self.suspended[t] and self.close[t] > 0

    def traded_return(self, t: int) -> float:
        return math.nan if self.suspended[t] else self.returns[t]

    def may_start(self, t: int, rules: Rules) -> bool:
        return self.traded(t) and self.member[t] and self.mean_amount[t] >= rules.min_amount


@dataclass(frozen=True)
class Event:
    """A candidate or event; times are day numbers of its stock."""

    start: int
    peak: int
    confirmation: int
    magnitude: float
    scale: float
    quality: float
    theta: float = math.nan


def ewm_std(values: list, half_life: float) -> list:
    """Exponentially weighted standard deviation by its recursion, biased; nan keeps the last."""
    alpha = 1 - math.exp(math.log(0.5) / half_life)
    mean = variance = math.nan
    result = []
    for value in values:
        if not math.isnan(value):
            if math.isnan(mean):
                mean, variance = value, 0.0
            else:
                step = value - mean
                mean += alpha * step
                variance = (1 - alpha) * (variance + alpha * step * step)
        result.append(math.sqrt(variance))
    return result


def prepare(stocks: list[Stock], rules: Rules) -> None:
    """Fill price, mean amount, volatility and the level of the equal-weight index of each stock."""
    returns_of_day: dict = {}
    for stock in stocks:
        stock.price, stock.found, last = [], {}, math.nan
        for t in range(len(stock.dates)):
            if stock.traded(t):
                last = stock.close[t]
            stock.price.append(last)
            returns_of_day.setdefault(stock.dates[t], [])
            if stock.member[t] and not math.isnan(stock.traded_return(t)):
                returns_of_day[stock.dates[t]].append(stock.traded_return(t))
        amounts = [0.0 if s else a for s, a in zip(stock.suspended, stock.amount, strict=True)]
        stock.mean_amount = [
            sum(amounts[t + 1 - rules.amount_days : t + 1]) / rules.amount_days
            if t + 1 >= rules.amount_days
            else math.nan
            for t in range(len(amounts))
        ]
        days = range(len(stock.dates))
        stock.volatility = ewm_std([stock.traded_return(t) for t in days], rules.half_life)
    level, levels = 1.0, {}
    for date in sorted(returns_of_day):
        if returns_of_day[date]:
            level *= 1 + math.fsum(returns_of_day[date]) / len(returns_of_day[date])
        levels[date] = level
    for stock in stocks:
        stock.benchmark = [levels[date] for date in stock.dates]


def excess_adaptive(stock: Stock, rules: Rules) -> list[Event]:
    price, bench = stock.price, stock.benchmark
    events, t, last = [], rules.prior_days + 1, len(price) - 1
    while t + rules.window <= last:
        event = None
        prior = price[t - 1] / price[t - 1 - rules.prior_days] - 1
        volatility = stock.volatility[t - 1]
        if (
            stock.may_start(t, rules)
            and stock.traded_return(t) >= rules.min_gain
            and prior <= rules.max_prior_gain
            and not math.isnan(volatility)
        ):
            threshold = max(rules.min_excess, rules.volatility_multiple * volatility)
            gain = [price[t + k] / price[t] - 1 for k in range(rules.window + 1)]
            index = [bench[t + k] / bench[t] - 1 for k in range(rules.window + 1)]
            best = max(
                range(rules.min_peak, rules.window + 1), key=lambda k: (gain[k] - index[k], -k)
            )
            excess = gain[best] - index[best]
            highest, drawdown = gain[0], 0.0
            for k in range(best + 1):
                highest = max(highest, gain[k])
                drawdown = max(drawdown, highest - gain[k])
            if (
                excess >= threshold
                and drawdown <= rules.drawdown_base + rules.drawdown_share * excess
                and excess / best >= rules.min_excess_per_day
            ):
                event = Event(t, t + best, t + rules.window, excess, threshold, excess / threshold)
        if event:
            events.append(event)
            t = event.peak
        t += 1
    return events


def trend_scanning(stock: Stock, rules: Rules) -> list[Event]:
    events, t, longest = [], 0, max(rules.trend_windows)
    while t + longest < len(stock.price):
        best = None
        if stock.may_start(t, rules):
            for days in rules.trend_windows:
                log_price = np.log(stock.price[t : t + days])
                design = np.column_stack([np.ones(days), np.arange(days)])
                line, *_ = np.linalg.lstsq(design, log_price - log_price[0], rcond=None)
                residual = log_price - log_price[0] - design @ line
                squares = float(residual @ residual)
                if squares <= 1e-16:
                    continue
                error = math.sqrt(squares / (days - 2) * np.linalg.inv(design.T @ design)[1, 1])
                if best is None or abs(line[1] / error) > abs(best[0]):
                    best = (line[1] / error, days, line[1], error)
        if best and best[0] > 0:
            events.append(Event(t, t + best[1], t + longest, best[2], best[3], best[0]))
            t += best[1]
        t += 1
    return events


def triple_barrier(stock: Stock, rules: Rules) -> list[Event]:
    candidates = []
    for t in range(1, len(stock.price) - rules.barrier_days):
        volatility = stock.volatility[t - 1]
        if not (stock.may_start(t, rules) and volatility >= rules.min_volatility):
            continue
        for k in range(1, rules.barrier_days + 1):
            if stock.price[t + k] <= stock.price[t] * (1 - rules.barrier_multiple * volatility):
                break
            if stock.price[t + k] >= stock.price[t] * (1 + rules.barrier_multiple * volatility):
                gain = stock.price[t + k] / stock.price[t] - 1
                candidates.append(Event(t, t + k, t + k, gain, volatility, gain / volatility))
                break
    return without_overlaps(candidates)


def directional_change(stock: Stock, rules: Rules) -> list[Event]:
    price, candidates = stock.price, []
    first = next((t for t, value in enumerate(price) if not math.isnan(value)), len(price))
    for theta in rules.thetas:
        rising, low, high, confirmation = False, first, first, first
        rises = []  # low, confirmation, high so far
        for t in range(first + 1, len(price)):
            if not rising:
                if price[t] < price[low]:
                    low = t
                elif price[t] >= price[low] * (1 + theta):
                    rising, high, confirmation = True, t, t
                    rises.append([low, confirmation, high])
            else:
                if price[t] > price[high]:
                    high = t
                    if rules.later_high and t <= rises[-1][0] + rules.change_max_days:
                        rises[-1][2] = t
                elif price[t] <= price[high] * (1 - theta):
                    rising, low = False, t
        for low, confirmation, high in rises:
            if (
                rules.change_min_days <= high - low <= rules.change_max_days
                and low + rules.change_max_days < len(price)
                and stock.may_start(low, rules)
            ):
                rise = price[high] / price[low] - 1
                candidates.append(
                    Event(
                        low, high, confirmation, rise,
                        rules.quality_unit, rise / rules.quality_unit, theta,
                    )
                )  # fmt: skip
    return without_overlaps(sorted(candidates, key=lambda event: (event.start, event.theta)))


def directional_turns(stock: Stock, theta: float) -> list[tuple]:
    """Changes of direction in order: (is_rise, day of the extreme, day of confirmation)."""
    price, found = stock.price, []
    extreme = next((t for t, value in enumerate(price) if not math.isnan(value)), len(price))
    rising = False
    for t in range(extreme + 1, len(price)):
        beyond = price[t] > price[extreme] if rising else price[t] < price[extreme]
        bound = price[extreme] * (1 - theta if rising else 1 + theta)
        if beyond:
            extreme = t
        elif price[t] <= bound if rising else price[t] >= bound:
            rising = not rising
            found.append((rising, extreme, t))
            extreme = t
    return found


def without_overlaps(candidates: list[Event]) -> list[Event]:
    """Of candidates that start by the peak of the one before, keep the one of higher quality."""
    kept: list[Event] = []
    for event in candidates:
        if kept and event.start <= kept[-1].peak:
            if event.quality > kept[-1].quality:
                kept[-1] = event
        else:
            kept.append(event)
    return kept


FINDERS = {
    "excess_adaptive": excess_adaptive,
    "trend_scanning": trend_scanning,
    "triple_barrier": triple_barrier,
    "directional_change": directional_change,
}


def settled_day(event: Event, label_set: str, rules: Rules) -> int:
    """The day after which nothing can change the event or take its place."""
    replaced = label_set in ("triple_barrier", "directional_change")
    return (event.peak if replaced else event.start) + rules.window_days(label_set)


def settled_events(stock: Stock, label_set: str, rules: Rules) -> list[Event]:
    key = label_set, rules
    if key not in stock.found:
        stock.found[key] = [
            event
            for event in FINDERS[label_set](stock, rules)
            if settled_day(event, label_set, rules) < len(stock.dates)
        ]
    return stock.found[key]


def threshold(
    stocks: list[Stock], label_set: str, rules: Rules, fit_start, fit_end
) -> tuple[int, int, float | None, int]:
    """Cells, events, threshold and events that reach it, of the fit window alone."""
    calendar = sorted({date for stock in stocks for date in stock.dates if date <= fit_end})
    settling = rules.settling_days(label_set)
    days = set(calendar[: max(len(calendar) - settling, 0)]) if calendar else set()
    days = {date for date in days if date >= fit_start}
    cells, qualities = 0, []
    for stock in stocks:
        cells += sum(
            member and date in days for member, date in zip(stock.member, stock.dates, strict=True)
        )
        for event in settled_events(stock, label_set, rules):
            settled = stock.dates[settled_day(event, label_set, rules)]
            if stock.dates[event.start] in days and settled <= fit_end:
                qualities.append(event.quality)
    if not qualities:
        return cells, 0, None, 0
    qualities.sort(reverse=True)
    wanted = max(math.floor(rules.rate * cells + 0.5), 1)
    tau = qualities[min(wanted, len(qualities)) - 1]
    for other in sorted({quality for quality in qualities if quality >= tau}):
        tau = other
        if sum(quality >= tau for quality in qualities) <= rules.max_rate * cells:
            break
    return cells, len(qualities), tau, sum(quality >= tau for quality in qualities)


def labels(
    stock: Stock, label_set: str, rules: Rules, tau: float | None, days: int, exactly: bool = False
) -> list[tuple]:
    """(label, last day read) of each day: does an event start within, or after exactly, `days`?"""
    starts = {
        event.start
        for event in settled_events(stock, label_set, rules)
        if tau is not None and event.quality >= tau
    }
    result, last = [], len(stock.dates) - 1
    for t in range(len(stock.dates)):
        end = t + days + rules.settling_days(label_set)
        known = end <= last if rules.settled_only else t + days <= last
        if tau is None or not known:
            result.append((None, None))
            continue
        ahead = [days] if exactly else range(1, days + 1)
        result.append((int(any(t + k in starts for k in ahead)), stock.dates[min(end, last)]))
    return result


def cut(stock: Stock, date) -> Stock:
    """The stock without the days after `date`."""
    count = sum(day <= date for day in stock.dates)
    names = ("dates", "close", "returns", "amount", "suspended", "member")
    return replace(stock, **{name: getattr(stock, name)[:count] for name in names})
