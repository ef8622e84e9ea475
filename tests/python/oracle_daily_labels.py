"""The daily panel and its labels, written from the definitions: one stock, one day at a time.

Nothing here is shared with the SQL. A frame goes in, plain Python numbers are worked on, a frame
comes out; unknown is None. Where a definition compares averages, it compares exact fractions.
"""

import math
from dataclasses import dataclass, field
from fractions import Fraction

import pandas as pd

ADV_DAYS = (5, 10, 15, 20, 30, 40, 50, 60, 81, 120, 150, 180)


@dataclass(frozen=True)
class Settings:
    """The vars of the daily labels, with their defaults."""

    daily_benchmark: str = "000300.SH"
    daily_adv_basis: str = "amount"
    forward_return_days: list = field(default_factory=lambda: [1, 2, 3, 5, 10, 20, 30])
    forward_return_suspended_exit: str = "next_traded_day"
    forward_return_same_close_entry: bool = False
    main_wave_hold_days: int = 5
    main_wave_exit_delay_days: int = 0
    main_wave_volatility_days: int = 20
    main_wave_sigmas: float = 2.0
    main_wave_minimum_threshold: float = 0.06
    main_wave_max_adverse: float = 0.05
    main_wave_amount_days: int = 20
    main_wave_minimum_amount_cny: float = 1e8
    main_wave_fast_days: int = 5
    main_wave_slow_days: int = 10
    main_wave_entry_price: str = "next_close"
    main_wave_path: str = "whole_window"
    main_wave_partial_windows: bool = False
    main_wave_unadjusted_close: bool = False
    main_wave_amount_from_close: bool = False
    main_wave_cut_windows_are_valid: bool = False
    main_wave_entry_day_cross: str = "hold"
    main_wave_entry_must_be_possible: bool = True
    main_wave_minimum_hold_return: float = -1.0
    wave_episode_days: int = 20
    wave_episode_first_peak_day: int = 3
    wave_episode_start_gain: float = 0.005
    wave_episode_prior_days: int = 5
    wave_episode_max_prior_gain: float = 0.03
    wave_episode_minimum_gain: float = 0.10
    wave_episode_minimum_daily_gain: float = 0.015
    wave_episode_drawdown_base: float = 0.02
    wave_episode_drawdown_share: float = 0.5
    wave_episode_drawdown_over: str = "to_peak"
    wave_quality_reference_days: float = 10.0
    wave_quality_lowest_duration_weight: float = 0.5
    wave_quality_highest_duration_weight: float = 1.5
    wave_proximity_weights: list = field(default_factory=lambda: [1.0, 0.6, 0.3])


def _known(value):
    """None for a missing value of any kind."""
    return None if value is None or value is pd.NA or value != value else value


def _records(frame: pd.DataFrame) -> list[dict]:
    """Rows as dictionaries of plain values."""
    columns = list(frame.columns)
    return [
        {name: _known(value) for name, value in zip(columns, row, strict=True)}
        for row in frame.itertuples(index=False, name=None)
    ]


def _by_stock(frame: pd.DataFrame) -> dict[str, list[dict]]:
    """Rows of each stock in the order of their days."""
    stocks: dict[str, list[dict]] = {}
    for row in _records(frame.sort_values(["ts_code", "trade_date"])):
        stocks.setdefault(row["ts_code"], []).append(row)
    return stocks


def _gain(price, base):
    """price / base - 1 to 12 decimals, so that 21.2 against 20 is 0.06."""
    return None if price is None or base is None else round(price / base - 1, 12)


def _clip(x, lowest, highest):
    return min(max(x, lowest), highest)


# ---------------------------------------------------------------------------------------- panel


def _industry_on(spans: list[dict], day):
    """The span of the latest in_date on or before the day, when it has not ended."""
    begun = [span for span in spans if span["in_date"] <= day]
    if not begun:
        return {}
    latest_in = max(span["in_date"] for span in begun)
    latest = min(
        (span for span in begun if span["in_date"] == latest_in),
        key=lambda span: span["industry_code"],
    )
    ended = latest["out_date"] is not None and latest["out_date"] <= day
    return {} if ended else latest


def daily_panel(
    gates: pd.DataFrame,
    bars: pd.DataFrame,
    daily_basic: pd.DataFrame,
    industry_members: pd.DataFrame,
    index_daily: pd.DataFrame,
    settings: Settings,
) -> pd.DataFrame:
    """factors.daily_panel, row by row."""
    traded = {
        (bar["ts_code"], bar["trade_date"]): bar
        for bar in _records(bars)
        if not bar["is_suspended"] and (bar["volume"] or 0) > 0 and (bar["close"] or 0) > 0
    }
    capital = {(row["ts_code"], row["trade_date"]): row for row in _records(daily_basic)}
    spans: dict[str, list[dict]] = {}
    for span in _records(industry_members):
        spans.setdefault(span["ts_code"], []).append(span)
    benchmark, previous_index = {}, None
    for row in _records(index_daily.sort_values("trade_date")):
        if row["ts_code"] == settings.daily_benchmark:
            change = row["close"] / previous_index - 1 if previous_index else None
            benchmark[row["trade_date"]] = (row["open"], row["close"], change)
            previous_index = row["close"]

    rows = []
    for ts_code, days in _by_stock(gates).items():
        last_close, last_factor, turnovers = None, None, []
        for gate in days:
            day = gate["trade_date"]
            bar = traded.get((ts_code, day), {})
            factor = bar.get("adj_factor")

            def adjusted(price, factor=factor):
                return None if price is None or factor is None else price * factor

            close = adjusted(bar.get("close"))
            vwap = None
            if bar and bar["price_basis"] == "unadjusted" and bar["amount"] is not None:
                vwap = bar["amount"] / bar["volume"]
                if not bar["low"] - 0.01 <= vwap <= bar["high"] + 0.01:
                    vwap = None
            turnovers.append(bar.get(settings.daily_adv_basis))
            industry = _industry_on(spans.get(ts_code, []), day)
            size = capital.get((ts_code, day), {})
            index_open, index_close, index_return = benchmark.get(day, (None, None, None))
            change = None if close is None or last_close is None else close / last_close
            row = {
                "ts_code": ts_code,
                "trade_date": day,
                "trading_day": gate["trading_day"],
                "is_suspended": not bar,
                "passes_all": gate["passes_all"],
                "adj_factor": factor if factor is not None else last_factor,
                "volume": bar.get("volume"),
                "amount": bar.get("amount"),
                "turnover": bar.get("turnover"),
                "close": close,
                "vwap": adjusted(vwap),
                "last_close": close if close is not None else last_close,
                "returns": None if change is None else change - 1,
                "log_returns": None if change is None else math.log(change),
                "market_cap": size.get("market_cap_cny"),
                "float_market_cap": size.get("float_market_cap_cny"),
                "industry_l1": industry.get("l1_code"),
                "industry_l2": industry.get("l2_code"),
                "industry_l3": industry.get("l3_code"),
                "benchmark_code": settings.daily_benchmark,
                "benchmark_open": index_open,
                "benchmark_close": index_close,
                "benchmark_return": index_return,
            }
            for name in ("open", "high", "low"):
                row[name] = adjusted(bar.get(name))
            for name in ("open", "high", "low", "close"):
                row[f"{name}_raw"] = bar.get(name)
            for length in ADV_DAYS:
                known = [x for x in turnovers[-length:] if x is not None]
                full = len(turnovers) >= length and known
                row[f"adv{length}"] = sum(known) / len(known) if full else None
            rows.append(row)
            last_close = row["last_close"]
            last_factor = row["adj_factor"]
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------- forward returns


def _exit_after(days: list[dict], position: int, suspended_exit: str):
    """(date, price) of an exit scheduled for days[position]; None when it is not known."""
    if position >= len(days):
        return None, None
    if suspended_exit == "last_close":
        return days[position]["trade_date"], days[position]["last_close"]
    for day in days[position:]:
        if day["close"] is not None:
            return day["trade_date"], day["close"]
    return None, None


def forward_returns(
    panel: pd.DataFrame, eligibility: pd.DataFrame, settings: Settings
) -> pd.DataFrame:
    """labels.forward_returns; the index is the panel's own benchmark, by date."""
    index = {
        row["trade_date"]: (row["benchmark_open"], row["benchmark_close"])
        for row in _records(panel[["trade_date", "benchmark_open", "benchmark_close"]])
    }
    allowed = {(row["ts_code"], row["trade_date"]): row for row in _records(eligibility)}
    entry_step = 0 if settings.forward_return_same_close_entry else 1
    rows, universe = [], {}
    for ts_code, days in _by_stock(panel).items():
        for t, day in enumerate(days):
            following = days[t + 1] if t + 1 < len(days) else {}
            entry = day if entry_step == 0 else following
            may = allowed.get((ts_code, day["trade_date"]), {})
            row = {
                "ts_code": ts_code,
                "trade_date": day["trade_date"],
                "trading_day": day["trading_day"],
                "passes_all": day["passes_all"],
                "entry_date": entry.get("trade_date"),
                "entry_close": entry.get("close"),
                "may_buy_next_close": may.get("may_buy_next_close"),
                "open_entry_date": following.get("trade_date"),
                "entry_open": following.get("open"),
                "may_buy_next_open": may.get("may_buy_next_open"),
            }
            ends = []
            for h in settings.forward_return_days:
                for suffix, price, date, column, step in (
                    ("", row["entry_close"], row["entry_date"], 1, entry_step),
                    ("_next_open", row["entry_open"], row["open_entry_date"], 0, 1),
                ):
                    exit_date, exit_price = _exit_after(
                        days, t + step + h, settings.forward_return_suspended_exit
                    )
                    name = "exit_date" if suffix == "" else "open_exit_date"
                    row[f"{name}_{h}d"] = exit_date
                    if suffix == "_next_open":
                        ends.append(exit_date)
                    simple = log = over_index = None
                    if price is not None and exit_price is not None:
                        simple = exit_price / price - 1
                        log = math.log(exit_price / price)
                        started = index.get(date, (None, None))[column]
                        ended = index.get(exit_date, (None, None))[1]
                        if started is not None and ended is not None:
                            over_index = exit_price / price - ended / started
                    row[f"forward_return{suffix}_{h}d"] = simple
                    row[f"forward_log_return{suffix}_{h}d"] = log
                    row[f"excess_return_index{suffix}_{h}d"] = over_index
                    scheduled = t + step + h
                    if day["passes_all"] and price is not None and scheduled < len(days):
                        value = days[scheduled]["last_close"]
                        universe.setdefault((day["trade_date"], suffix, h), []).append(
                            value / price - 1
                        )
            row["label_end_date"] = None if None in ends else max(ends)
            rows.append(row)
    for row in rows:
        for h in settings.forward_return_days:
            for suffix in ("", "_next_open"):
                own = row[f"forward_return{suffix}_{h}d"]
                others = universe.get((row["trade_date"], suffix, h))
                row[f"excess_return_universe{suffix}_{h}d"] = (
                    None if own is None or not others else own - math.fsum(others) / len(others)
                )
    return pd.DataFrame(rows)


# ------------------------------------------------------------------------------------ main waves


def _label_days(days: list[dict], settings: Settings) -> list[dict]:
    """Days with the close, value and amount that the labels look at."""
    seen, held = [], None
    for day in days:
        suffix = "_raw" if settings.main_wave_unadjusted_close else ""
        close = day[f"close{suffix}"]
        held = close if close is not None else held
        amount = day["amount"]
        if settings.main_wave_amount_from_close:
            known = day["close_raw"] is not None
            amount = day["close_raw"] * day["volume"] if known else None
        seen.append(
            {
                **day,
                "open": day[f"open{suffix}"],
                "close": close,
                "held": held,
                "amount": amount or 0,
            }
        )
    return seen


def _window(values: list, t: int, length: int, partial: bool):
    """The last `length` values up to t; None before there are so many, unless `partial`."""
    if t + 1 < length and not partial:
        return None
    return [value for value in values[max(0, t + 1 - length) : t + 1] if value is not None]


def _mean_amounts(days: list[dict], settings: Settings) -> list:
    amounts = [day["amount"] for day in days]
    means = []
    for t in range(len(days)):
        window = _window(
            amounts, t, settings.main_wave_amount_days, settings.main_wave_partial_windows
        )
        means.append(sum(window) / len(window) if window else None)
    return means


def main_wave_labels(
    panel: pd.DataFrame, eligibility: pd.DataFrame, settings: Settings
) -> pd.DataFrame:
    """labels.main_wave_labels."""
    s, hold, partial = settings, settings.main_wave_hold_days, settings.main_wave_partial_windows
    may_column = f"may_buy_{s.main_wave_entry_price}"
    allowed = {
        (row["ts_code"], row["trade_date"]): row[may_column] for row in _records(eligibility)
    }
    rows = []
    for ts_code, panel_days in _by_stock(panel).items():
        days = _label_days(panel_days, s)
        mean_amounts = _mean_amounts(days, s)
        # exact: closes to 1e-8 as whole numbers, averages as fractions
        units = [None if d["held"] is None else round(d["held"] * 1e8) for d in days]
        returns = [d["returns"] for d in days]
        below, crosses, volatilities = [], [], []
        for t in range(len(days)):
            fast = _window(units, t, s.main_wave_fast_days, partial)
            slow = _window(units, t, s.main_wave_slow_days, partial)
            is_below = None
            if fast and slow:
                is_below = Fraction(sum(fast), len(fast)) < Fraction(sum(slow), len(slow))
            crosses.append(bool(is_below) and t > 0 and below[t - 1] is False)
            below.append(is_below)
            moves = _window(returns, t, s.main_wave_volatility_days, partial)
            volatility = None
            if moves is not None and len(moves) > 1:
                mean = math.fsum(moves) / len(moves)
                volatility = math.sqrt(math.fsum((x - mean) ** 2 for x in moves) / len(moves))
            elif partial:
                volatility = 0.0
            volatilities.append(volatility)

        for t, day in enumerate(days):
            threshold = None
            if volatilities[t] is not None:
                threshold = max(
                    s.main_wave_sigmas * volatilities[t] * math.sqrt(hold),
                    s.main_wave_minimum_threshold,
                )
            row = {
                "ts_code": ts_code,
                "trade_date": day["trade_date"],
                "is_fast_average_below": below[t],
                "is_death_cross": crosses[t],
                "mean_amount_cny": mean_amounts[t],
                "past_volatility": volatilities[t],
                "threshold": threshold,
            }
            path = days[t + 1 : t + 1 + hold]
            is_cut = len(path) < hold
            cut_allowed = s.main_wave_cut_windows_are_valid
            row["is_eligible"] = bool(
                day["passes_all"]
                and mean_amounts[t] is not None
                and mean_amounts[t] > s.main_wave_minimum_amount_cny
                and below[t] is False
                and (path or not cut_allowed)
            )
            entry = path[0] if path else None
            price = None
            if entry:
                price = entry["open" if s.main_wave_entry_price == "next_open" else "close"]
            row["entry_date"] = entry["trade_date"] if entry else None
            row["entry_price"] = price
            row["is_entry_possible"] = None
            if entry:
                may = bool(allowed.get((ts_code, day["trade_date"])))
                row["is_entry_possible"] = price is not None and (
                    may or not s.main_wave_entry_must_be_possible
                )

            # the exit: a death cross on the way, or the last day of the path
            exit_day = exit_date = exit_price = reason = None
            if path and (cut_allowed or not is_cut):
                last = len(path) - 1
                cross = next((d for d in range(len(path)) if crosses[t + 1 + d]), None)
                exit_day, reason = last, "time"
                if cross is not None:
                    earliest = 1 if s.main_wave_entry_day_cross == "hold" else 0
                    exit_day = min(max(cross + s.main_wave_exit_delay_days, earliest), last)
                    reason = "death_cross" if cross <= exit_day else "time"
                for later in days[t + 1 + exit_day :]:
                    if later["close"] is not None:
                        exit_date, exit_price = later["trade_date"], later["close"]
                        break
            if cut_allowed:
                is_path_known = price is not None
                is_known = entry is not None
            else:
                is_path_known = not is_cut and price is not None and exit_price is not None
                is_known = not is_cut and (exit_price is not None or price is None)
            for name in (
                "exit_day", "exit_date", "exit_reason", "hold_return", "max_gain", "peak_day",
                "max_drawdown", "max_adverse_excursion", "score", "score_height",
                "score_duration", "score_smoothness", "score_win", "score_timing", "score_penalty",
            ):  # fmt: skip
                row[name] = None
            hold_return = None
            if is_path_known:
                stop = exit_day + 1 if s.main_wave_path == "to_exit" else len(path)
                gains = [_gain(d["held"], price) for d in path[:stop]]
                hold_return = _gain(exit_price, price)
                highest = max(gains)
                drawdown, peak_so_far = 0.0, 0.0
                for gain in gains:
                    drawdown = min(drawdown, gain - peak_so_far)
                    peak_so_far = max(peak_so_far, gain)
                row |= {
                    "exit_day": exit_day,
                    "exit_date": exit_date,
                    "exit_reason": reason,
                    "hold_return": hold_return,
                    "max_gain": max(highest, 0.0),
                    "peak_day": gains.index(highest),
                    "max_drawdown": drawdown,
                    "max_adverse_excursion": min(min(gains), 0.0),
                }
            row["is_label_known"] = is_known
            valid = (
                row["is_eligible"]
                and bool(row["is_entry_possible"])
                and is_known
                and threshold is not None
                and hold_return is not None
                and hold_return >= s.main_wave_minimum_hold_return
            )
            if s.main_wave_entry_day_cross == "drop" and valid:
                valid = exit_day > 0
            row["is_label_valid"] = valid
            row["is_main_wave"] = None
            if is_known and (threshold is not None or not row["is_eligible"]):
                row["is_main_wave"] = bool(
                    valid
                    and row["max_gain"] >= threshold
                    and hold_return > 0
                    and row["max_adverse_excursion"] > -s.main_wave_max_adverse
                )
            if is_path_known:
                adverse = _clip(abs(row["max_adverse_excursion"]) / s.main_wave_max_adverse, 0, 1)
                duration = _clip(row["peak_day"] / hold, 0, 1)
                row["score_duration"] = duration
                row["score_smoothness"] = 1 - _clip(
                    abs(row["max_drawdown"]) / max(row["max_gain"], 1e-6), 0, 1
                )
                row["score_timing"] = 0.5 * duration + 0.5 * (1 - adverse)
                row["score_penalty"] = adverse
                if hold_return is not None:
                    row["score_win"] = 1.0 if hold_return > 0 else 0.0
                if threshold is not None:
                    row["score_height"] = _clip(row["max_gain"] / threshold, 0, 2) * 0.5
                if row["score_height"] is not None and row["score_win"] is not None:
                    row["score"] = 100 * (
                        0.35 * row["score_height"]
                        + 0.20 * duration
                        + 0.20 * row["score_smoothness"]
                        + 0.15 * row["score_win"]
                        + 0.10 * row["score_timing"]
                        - 0.20 * adverse
                    )
            row["label_end_date"] = None
            if is_known:
                dates = [path[-1]["trade_date"]]
                if is_path_known and exit_date is not None:
                    dates.append(exit_date)
                row["label_end_date"] = max(dates)
            rows.append(row)
    return pd.DataFrame(rows)


# ---------------------------------------------------------------------------- episodes, proximity


def main_wave_episodes(panel: pd.DataFrame, settings: Settings) -> pd.DataFrame:
    """labels.main_wave_episodes: a scan that goes on behind the peak of what it found."""
    s = settings
    rows = []
    for ts_code, panel_days in _by_stock(panel).items():
        days = _label_days(panel_days, s)
        mean_amounts = _mean_amounts(days, s)
        held = [day["held"] for day in days]
        t, found = 1, 0
        while t < len(days):
            episode = _episode_from(held, t, days[t]["passes_all"], mean_amounts[t], s)
            if episode is None:
                t += 1
                continue
            found += 1
            peak_day = episode["peak_day"]
            rows.append(
                {
                    "ts_code": ts_code,
                    "start_date": days[t]["trade_date"],
                    "episode_number": found,
                    "start_trading_day": days[t]["trading_day"],
                    "mean_amount_cny": mean_amounts[t],
                    "peak_date": days[t + peak_day]["trade_date"],
                    "label_end_date": days[t + s.wave_episode_days]["trade_date"],
                    **episode,
                }
            )
            t += peak_day + 1
    return pd.DataFrame(rows)


def _episode_from(held: list, t: int, passes_all: bool, mean_amount, s: Settings) -> dict | None:
    """The wave that starts at t, or None."""
    if not passes_all or mean_amount is None or mean_amount <= s.main_wave_minimum_amount_cny:
        return None
    before = t - s.wave_episode_prior_days
    if before < 0:
        if not s.main_wave_partial_windows:
            return None
        before = 0
    window = held[t : t + s.wave_episode_days + 1]
    if len(window) <= s.wave_episode_days:
        return None
    if None in (held[t], held[t - 1], held[before]):
        return None
    start_gain, prior_gain = _gain(held[t], held[t - 1]), _gain(held[t - 1], held[before])
    if start_gain < s.wave_episode_start_gain or prior_gain > s.wave_episode_max_prior_gain:
        return None
    gains = [_gain(value, held[t]) for value in window]
    late = window[s.wave_episode_first_peak_day :]
    peak_day = s.wave_episode_first_peak_day + late.index(max(late))
    peak_gain = gains[peak_day]
    if peak_gain < s.wave_episode_minimum_gain:
        return None
    stop = peak_day if s.wave_episode_drawdown_over == "to_peak" else s.wave_episode_days
    drawdown, highest = 0.0, window[0]
    for value in window[: stop + 1]:
        highest = max(highest, value)
        drawdown = max(drawdown, (highest - value) / window[0])
    drawdown = round(drawdown, 12)
    allowed = round(s.wave_episode_drawdown_base + s.wave_episode_drawdown_share * peak_gain, 12)
    if drawdown > allowed or round(peak_gain / peak_day, 12) < s.wave_episode_minimum_daily_gain:
        return None
    weight = _clip(
        peak_day / s.wave_quality_reference_days,
        s.wave_quality_lowest_duration_weight,
        s.wave_quality_highest_duration_weight,
    )
    return {
        "start_gain": start_gain,
        "prior_gain": prior_gain,
        "peak_day": peak_day,
        "peak_gain": peak_gain,
        "max_drawdown": drawdown,
        "target_quality": peak_gain * weight * (1 - _clip(drawdown / peak_gain, 0, 1)),
    }


def wave_proximity_targets(
    panel: pd.DataFrame, episodes: pd.DataFrame, settings: Settings
) -> pd.DataFrame:
    """labels.wave_proximity_targets."""
    starts: dict[str, dict] = {}
    for episode in _records(episodes):
        starts.setdefault(episode["ts_code"], {})[episode["start_date"]] = episode
    weights = settings.wave_proximity_weights
    rows = []
    for ts_code, days in _by_stock(panel).items():
        for t, day in enumerate(days):
            end = t + len(weights) + settings.wave_episode_days
            row = {
                "ts_code": ts_code,
                "trade_date": day["trade_date"],
                "is_label_known": end < len(days),
                "label_end_date": days[end]["trade_date"] if end < len(days) else None,
                "proximity": None,
                "target_quality": None,
                "next_start_date": None,
            }
            if row["is_label_known"]:
                row["proximity"], row["target_quality"] = 0, 0.0
                for k in range(len(weights), 0, -1):
                    episode = starts.get(ts_code, {}).get(days[t + k]["trade_date"])
                    if episode:
                        quality = episode["target_quality"] * weights[k - 1]
                        row["proximity"] = k
                        row["next_start_date"] = episode["start_date"]
                        row["target_quality"] = max(row["target_quality"], quality)
            rows.append(row)
    return pd.DataFrame(rows)
