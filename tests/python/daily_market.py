"""A small made-up daily market with every kind of day that the real ones have."""

import numpy as np
import pandas as pd

FIRST_DAY = "2020-01-02"


def random_daily_market(seed: int, stocks: int = 12, days: int = 160) -> dict[str, pd.DataFrame]:
    """Staging and universe relations that factors.daily_panel and the labels read.

    Prices move in coarse ticks, so that returns and averages tie; spells of trend and of calm,
    spells of suspension (an absent row, a row with the previous close, a row without prices),
    listings and delistings inside the window, a stock that never trades, ex-right days, missing
    amounts, a vendor with adjusted prices, limit-up entries, industries that change, overlap, end.

    Returns:
        Frames by schema-qualified relation, columns as in the warehouse.
    """
    rng = np.random.default_rng(seed)
    calendar = pd.bdate_range(FIRST_DAY, periods=days).date
    gates, bars, eligibility, capital, industries = [], [], [], [], []
    for stock in range(stocks):
        ts_code = f"{600000 + stock:06d}.SH"
        first = 0 if rng.random() < 0.6 else int(rng.integers(0, days // 2))
        last = days if rng.random() < 0.7 else int(rng.integers(first + 5, days + 1))
        price, factor, drift = float(rng.choice([2.0, 10.0, 20.0])), 1.0, 0.0
        tick = price / 100
        basis = "forward_adjusted" if stock % 5 == 4 else "unadjusted"
        left_out, traded_before = 0, False
        traded, limited = [], []
        for t in range(first, last):
            if rng.random() < 0.08:
                drift = float(rng.choice([-0.02, 0.0, 0.0, 0.012, 0.03]))
            if left_out == 0 and rng.random() < 0.02:
                left_out = int(rng.integers(1, 12))
            is_traded = (
                left_out == 0 and stock != stocks - 1 and not (t == first and stock % 3 == 1)
            )
            left_out = max(0, left_out - 1)
            is_limited = bool(rng.random() < 0.05)
            key = {"ts_code": ts_code, "trade_date": calendar[t]}
            previous = price
            if is_traded:
                if rng.random() < 0.03:
                    factor = round(factor * float(rng.choice([1.02, 1.5])), 6)
                    previous = price = max(tick, round(price / 1.02 / tick) * tick)
                move = drift + float(rng.normal(0, 0.012))
                price = max(tick, round(price * (1 + move) / tick) * tick)
                opened = max(tick, previous + float(rng.integers(-1, 2)) * tick)
                high = max(opened, price) + float(rng.integers(0, 2)) * tick
                low = max(tick / 2, min(opened, price) - float(rng.integers(0, 2)) * tick)
                volume = float(rng.integers(1, 60)) * 1e8 / price / 20
                amount = round(volume * (high + low) / 2, 2)
                if rng.random() < 0.03:
                    amount = None
                elif rng.random() < 0.05:
                    # more than the day's highest price can explain, by much or by little
                    amount = volume * (high + float(rng.choice([0.008, 0.05, 3.0])))
                bars.append(
                    {**key, "open": opened, "high": high, "low": low, "close": price,
                     "pre_close": previous, "pct_chg": price / previous - 1,
                     "volume": round(volume), "amount": amount, "turnover": 0.01,
                     "adj_factor": 1.0 if basis == "forward_adjusted" else factor,
                     "is_suspended": False, "price_basis": basis}
                )  # fmt: skip
            elif traded_before and rng.random() < 0.5:
                shown = None if rng.random() < 0.5 else price
                bars.append(
                    {**key, "open": shown, "high": shown, "low": shown, "close": shown,
                     "pre_close": shown, "pct_chg": None, "volume": 0.0, "amount": 0.0,
                     "turnover": None,
                     "adj_factor": 1.0 if basis == "forward_adjusted" else factor,
                     "is_suspended": True, "price_basis": basis}
                )  # fmt: skip
            traded_before = traded_before or is_traded
            passes = is_traded and t - first >= 3 and bool(rng.random() < 0.95)
            gates.append({**key, "trading_day": t + 1, "passes_all": passes})
            if rng.random() < 0.9:
                size = price * 1e9
                capital.append({**key, "market_cap_cny": size, "float_market_cap_cny": size / 2})
            traded.append(is_traded)
            limited.append(is_limited)
        for offset, t in enumerate(range(first, last)):
            has_next = offset + 1 < len(traded)
            buys = has_next and traded[offset + 1]
            eligibility.append(
                {
                    "ts_code": ts_code,
                    "trade_date": calendar[t],
                    "may_buy_next_open": buys if has_next else None,
                    "may_buy_next_close": (buys and not limited[offset + 1]) if has_next else None,
                }
            )
        begins = [0, *sorted(rng.choice(days, size=2, replace=False))]
        for number, begin in enumerate(begins):
            code = int(rng.integers(1, 40))
            ends = {0: None, 1: begin + int(rng.integers(1, days // 2)), 2: None}[number]
            industries.append(
                {
                    "ts_code": ts_code,
                    "industry_code": f"{code:06d}",
                    "l1_code": f"{code % 5:06d}",
                    "l2_code": f"{code % 11:06d}",
                    "l3_code": f"{code:06d}",
                    "in_date": calendar[begin],
                    "out_date": calendar[ends] if ends is not None and ends < days else None,
                }
            )
    index_close = 3000 * np.exp(np.cumsum(rng.normal(0, 0.01, days)))
    index = pd.DataFrame({"ts_code": "000300.SH", "trade_date": calendar, "close": index_close})
    index["open"] = index["close"] * (1 + rng.normal(0, 0.003, days))
    index = index.drop(index=[days // 3])  # a day that the index file lacks
    other = index.assign(ts_code="000905.SH", close=index["close"] * 2)
    dates = pd.DataFrame({"trade_date": calendar, "trading_day": np.arange(1, days + 1)})
    dates = dates.astype({"trading_day": "int32"})
    return {
        "staging.stg_trading_calendar": dates,
        "staging.stg_daily_bars": _typed(
            bars,
            floats="open high low close pre_close pct_chg volume amount turnover adj_factor",
            booleans="is_suspended",
        ),
        "staging.stg_daily_basic": pd.DataFrame(capital),
        "staging.stg_industry_members": pd.DataFrame(industries),
        "staging.stg_index_daily": pd.concat([index, other], ignore_index=True),
        "universe.daily_gates": _typed(gates, booleans="passes_all").astype(
            {"trading_day": "int32"}
        ),
        "universe.entry_eligibility": _typed(
            eligibility, booleans="may_buy_next_open may_buy_next_close"
        ),
    }


def market_of_closes(
    closes: dict[str, list[float]], amounts_cny: dict[str, float]
) -> dict[str, pd.DataFrame]:
    """Stocks with these closes from the first day on, that pass every gate and can be bought."""
    calendar = pd.bdate_range(FIRST_DAY, periods=max(map(len, closes.values()))).date
    keys = [
        {"ts_code": ts_code, "trade_date": calendar[t], "t": t, "close": close}
        for ts_code, path in closes.items()
        for t, close in enumerate(path)
    ]
    days = pd.DataFrame(keys)
    names = ["ts_code", "trade_date"]
    nothing = random_daily_market(0, stocks=2, days=60)
    prices = dict.fromkeys(("open", "high", "low", "close"), days["close"])
    return {
        "staging.stg_trading_calendar": pd.DataFrame(
            {"trade_date": calendar, "trading_day": np.arange(1, len(calendar) + 1)}
        ),
        "staging.stg_daily_bars": days[names].assign(
            **prices, volume=1e7, amount=days["ts_code"].map(amounts_cny), turnover=0.01,
            adj_factor=1.0, is_suspended=False, price_basis="unadjusted",
        ),
        "staging.stg_daily_basic": nothing["staging.stg_daily_basic"].head(0),
        "staging.stg_industry_members": nothing["staging.stg_industry_members"].head(0),
        "staging.stg_index_daily": nothing["staging.stg_index_daily"].head(0),
        "universe.daily_gates": days[names].assign(trading_day=days["t"] + 1, passes_all=True),
        "universe.entry_eligibility": days[names].assign(
            may_buy_next_open=True, may_buy_next_close=True
        ),
    }  # fmt: skip


def _typed(rows: list[dict], floats: str = "", booleans: str = "") -> pd.DataFrame:
    """Rows as a frame whose columns keep their type when values are missing."""
    types = dict.fromkeys(floats.split(), "float64")
    return pd.DataFrame(rows).astype(types | dict.fromkeys(booleans.split(), "boolean"))


def until(market: dict[str, pd.DataFrame], day) -> dict[str, pd.DataFrame]:
    """The market as it was known at the end of `day`."""
    known = {}
    for relation, frame in market.items():
        column = "in_date" if "in_date" in frame else "trade_date"
        cut = frame[frame[column] <= day].reset_index(drop=True)
        if relation == "universe.entry_eligibility":
            # what a stock's last day says about the next one is not known yet
            cut = cut.copy()
            names = ["may_buy_next_open", "may_buy_next_close"]
            cut.loc[cut["trade_date"] == day, names] = pd.NA
        known[relation] = cut
    return known


def shuffled(market: dict[str, pd.DataFrame], seed: int) -> dict[str, pd.DataFrame]:
    """The same rows in another order."""
    return {
        relation: frame.sample(frac=1, random_state=seed).reset_index(drop=True)
        for relation, frame in market.items()
    }
