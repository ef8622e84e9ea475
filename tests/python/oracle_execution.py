"""What orders earn, evaluated from the written semantics, one bar after the other.

Nothing here reads the warehouse's SQL. A position is kept as its lots (ratio, price), never as an
average that is updated, and profit is summed over lots. Numbers may be floats, or `Fraction`s: then
every comparison is exact, and so is a tie.

Semantics of one symbol, see `models/backtest/position_minutes.yml`:

- A signal at the close of a bar, while nothing is held, opens at the open of the next bar.
- Every bar: the order decided at the last close is filled at the open, at any price; then the stop
  and the target of what is held, around its average entry price, the stop first; the last bar of
  the holding time leaves at its close; else the close decides what is ordered for the next open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real


@dataclass(frozen=True)
class Bar:
    """One minute, counted from any origin."""

    minute: int
    open: Real
    high: Real
    low: Real
    close: Real


@dataclass(frozen=True)
class Plan:
    """Price plan and simulation settings; bps and minutes."""

    target_bps: Real
    stop_bps: Real
    max_hold: int
    reduce_share: Real = 0.5
    edge_scale_bps: Real = 20
    edge_strength_cap: Real = 1.5
    min_planned_ratio: Real = 0.05
    max_planned_ratio: Real = 1


@dataclass(frozen=True)
class Signal:
    """What asks to open a position at the close of its minute."""

    position_id: str
    minute: int
    side: str
    planned_ratio: Real
    cost_bps: Real


@dataclass(frozen=True)
class Event:
    """One change of a position; minutes as in the bars."""

    position_id: str
    kind: str
    reason: str
    decided: int
    executed: int
    price: Real
    ratio_before: Real
    ratio_after: Real
    pnl_bps: Real
    cost_bps: Real


@dataclass
class Position:
    """What is held: lots of (ratio, price)."""

    signal: Signal
    lots: list[tuple[Real, Real]] = field(default_factory=list)
    add_count: int = 0
    bought: int = 0

    @property
    def ratio(self) -> Real:
        return sum(ratio for ratio, _ in self.lots)

    def average(self) -> Real:
        """Price at which all lots, bought at once, would earn the same wherever they are sold."""
        if len({price for _, price in self.lots}) == 1:
            return self.lots[0][1]
        if self.signal.side == "LONG":
            return self.ratio / sum(ratio / price for ratio, price in self.lots)
        return sum(ratio * price for ratio, price in self.lots) / self.ratio

    def sell(self, share: Real, price: Real) -> Real:
        """Sell a share of every lot; return the profit in bps of full notional."""
        side = self.signal.side
        profit = sum(share * ratio * return_bps(side, paid, price) for ratio, paid in self.lots)
        self.lots = [(ratio - share * ratio, paid) for ratio, paid in self.lots]
        return profit


def return_bps(side: str, entry: Real, exit_price: Real) -> Real:
    """Return of a side between two prices, bps."""
    gain = exit_price / entry if side == "LONG" else entry / exit_price
    return (gain - 1) * 10_000


def touched(side: str, bar: Bar, entry: Real, plan: Plan) -> tuple[str, Real] | None:
    """Return ("stop" or "target", price) when the bar reaches one; both in one bar is the stop."""
    sign = 1 if side == "LONG" else -1
    stop = entry * (1 - sign * (plan.stop_bps / 10_000))
    target = entry * (1 + sign * (plan.target_bps / 10_000))
    worst, best = (bar.low, bar.high) if side == "LONG" else (bar.high, bar.low)
    if sign * (worst - stop) <= 0:
        is_beyond = sign * (bar.open - stop) <= 0
        return "stop", bar.open if is_beyond else stop
    if sign * (best - target) >= 0:
        return "target", target
    return None


def executed_path(
    bars: Sequence[Bar], place: int, side: str, plan: Plan
) -> tuple[str, Real, int] | None:
    """Return (reason, exit price, bars held) of an order sent at the close of bars[place].

    None where the bars of the holding time do not follow minute by minute.
    """
    path = bars[place : place + plan.max_hold + 1]
    if len(path) <= plan.max_hold or path[-1].minute != path[0].minute + plan.max_hold:
        return None
    for held, bar in enumerate(path[1:], start=1):
        reached = touched(side, bar, path[1].open, plan)
        if reached:
            return *reached, held
    return "timeout", path[-1].close, plan.max_hold


def simulate(
    bars: Sequence[Bar],
    signals: Mapping[int, Signal],
    predictions: Mapping[int, Mapping[str, Real | None]],
    limits: Mapping[str, Real],
    plan: Plan,
) -> list[Event]:
    """Trade one symbol in one evaluation split and return the events in their order.

    Args:
        bars: all bars of the symbol, ascending.
        signals: by minute.
        predictions: by minute, then by column of the heads; None or a missing minute is unknown.
        limits: lines of the configuration as "section.setting".
        plan: price plan and settings.
    """
    events: list[Event] = []
    position: Position | None = None
    order: tuple | None = None  # (kind, reason, ratio bought or share sold, minute decided)

    def note(kind, reason, decided, executed, price, before, pnl=0, bought=0):
        events.append(
            Event(
                position.signal.position_id, kind, reason, decided, executed, price, before,
                position.ratio, pnl, bought * position.signal.cost_bps,
            )
        )  # fmt: skip

    for place, bar in enumerate(bars):
        following = bars[place + 1].minute if place + 1 < len(bars) else None

        if order:
            kind, reason, amount, decided = order
            before = position.ratio
            if kind in ("open", "add"):
                position.lots.append((amount, bar.open))
                position.bought = bar.minute
                position.add_count += kind == "add"
                note(kind, reason, decided, bar.minute, bar.open, before, bought=amount)
            else:
                profit = position.sell(amount, bar.open)
                note(kind, reason, decided, bar.minute, bar.open, before, profit)
            order = None
            if kind == "close":
                position = None

        if position:
            last = position.signal.minute + plan.max_hold
            leaves = touched(position.signal.side, bar, position.average(), plan)
            if not leaves and bar.minute == last:
                leaves = "timeout", bar.close
            elif not leaves and (following is None or following > last):
                leaves = "end_of_data", bar.close
            if leaves:
                before = position.ratio
                profit = position.sell(1, leaves[1])
                note("close", leaves[0], bar.minute, bar.minute, leaves[1], before, profit)
                position = None
            else:
                known = predictions.get(bar.minute, {})
                decision = decide(position, bar, known, limits, plan)
                order = (*decision, bar.minute) if decision else None

        if position is None and bar.minute in signals:
            signal = signals[bar.minute]
            ratio = initial_ratio(signal, limits)
            can_be_filled = following is not None and following <= signal.minute + plan.max_hold
            if can_be_filled and ratio > 0:
                position = Position(signal)
                order = ("open", "signal", ratio, bar.minute)
    return events


def initial_ratio(signal: Signal, limits: Mapping[str, Real]) -> Real:
    """Size of a new position."""
    wanted = max(signal.planned_ratio, limits["sizing.minInitialRatio"])
    largest = min(limits["sizing.maxSingleLegRatio"], limits["sizing.maxTotalPositionRatio"])
    return min(wanted, largest)


def decide(
    position: Position,
    bar: Bar,
    predictions: Mapping[str, Real | None],
    limits: Mapping[str, Real],
    plan: Plan,
) -> tuple[str, str, Real] | None:
    """Return (kind, reason, ratio bought or share sold) for the next open, or None."""
    side = position.signal.side
    name = side.lower()
    known = {column: value for column, value in predictions.items() if value is not None}

    def at_least(column, limit):
        return column in known and known[column] >= limits[limit]

    def at_most(column, limit):
        return column in known and known[column] <= limits[limit]

    average = position.average()
    profit = return_bps(side, average, bar.close)
    if side == "LONG":
        adverse = (average / bar.low - 1) * 10_000
    else:
        adverse = (bar.high / average - 1) * 10_000

    if -profit >= limits["sizing.maxLossPerTradeBps"]:
        return "close", "max_loss", 1
    if adverse >= limits["exit.maxPositionPathRiskBps"]:
        return "close", "path_risk", 1
    if at_least(f"{name}_exit_prob", "exit.closeExitProb"):
        return "close", "exit_prob", 1
    if at_least(f"{name}_position_risk_prob", "exit.closePositionRiskProb"):
        return "close", "position_risk", 1
    if at_least("market_risk_prob", "exit.closeMarketRiskProb"):
        return "close", "market_risk", 1
    if at_most(f"{name}_continue_prob", "exit.closeContinueMax"):
        return "close", "continue_prob", 1

    if (
        at_least(f"{name}_exit_prob", "exit.reduceAdverseMoveProb")
        and at_least(f"{name}_continue_prob", "exit.reduceContinueMin")
        and at_most(f"{name}_continue_prob", "exit.reduceContinueMax")
        and profit >= limits["exit.minProfitForReduceBps"]
    ):
        return "reduce", "adverse_move", plan.reduce_share

    continue_edge = known.get(f"{name}_expected_continue_edge_bps")
    exit_edge = known.get(f"{name}_expected_exit_edge_bps")
    minutes_since = bar.minute + 1 - position.bought
    if (
        at_least(f"{name}_prob", f"add.min{side.capitalize()}Prob")
        and at_least(f"{name}_continue_prob", "add.minContinueProb")
        and at_least(f"{name}_entry_prob", "add.minEntryProb")
        and at_most(f"{name}_exit_prob", "add.maxExitProb")
        and at_most("market_risk_prob", "add.maxMarketRiskProb")
        and at_most(f"{name}_position_risk_prob", "add.maxPositionRiskProb")
        and at_least(f"{name}_expected_net_edge_bps", "add.minExpectedEdgeBps")
        and continue_edge is not None
        and exit_edge is not None
        and continue_edge - exit_edge >= limits["add.minContinueVsExitEdgeBps"]
        and position.add_count < limits["add.maxAddCount"]
        and minutes_since >= limits["add.cooldownMinutes"]
    ):
        edge = known[f"{name}_expected_net_edge_bps"] - limits["sizing.minEdgeBps"]
        strength = min(max(edge / plan.edge_scale_bps, 0), plan.edge_strength_cap)
        planned = strength * min(max(1 - known["market_risk_prob"], 0), 1)
        planned = min(max(planned, plan.min_planned_ratio), plan.max_planned_ratio)
        wanted = min(max(planned, limits["sizing.minAddRatio"]), limits["sizing.maxAddRatio"])
        room = limits["sizing.maxTotalPositionRatio"] - position.ratio
        if room >= limits["sizing.minAddRatio"]:
            return "add", "add_rules", min(wanted, room)
    return None
