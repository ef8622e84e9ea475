"""Event labels of the daily label floor against their definitions, on made-up and on real bars."""

import datetime
import math

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oracle_daily_events as oracle
from daily_event_models import EVENT_MODELS, LABEL_SETS, MODELS, build
from daily_sql import model_sql, new_connection, put, rendering_context
from oracle_daily_events import HORIZONS, Rules, Stock
from warehouse import REAL_DAILY_DATA

FEW = settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FIT = {"daily_fit_start": "2024-01-15", "daily_fit_end": "2024-12-31"}
# liquid half of the time, and a rate that leaves room between the best and the worst event
BASE = FIT | {
    "event_min_amount_cny": 2.0e7,
    "event_positive_rate": 0.02,
    "event_max_positive_rate": 0.03,
}
BASE_RULES = {"min_amount": 2.0e7, "rate": 0.02, "max_rate": 0.03}
OTHERS = BASE | {
    "event_amount_days": 5,
    "event_volatility_half_life_days": 4,
    "event_unsettled_rows": "reference",
    "event_positive_rate": 0.5,  # more than there are events: the lowest quality
    "event_max_positive_rate": 0.6,
    "anchor_label_set": "directional_change",
    "excess_adaptive_min_gain": 0.0,
    "excess_adaptive_max_prior_gain": 0.1,
    "excess_adaptive_prior_days": 2,
    "excess_adaptive_window_days": 9,
    "excess_adaptive_min_peak_days": 1,
    "excess_adaptive_min_excess": 0.03,
    "excess_adaptive_volatility_multiple": 1.0,
    "excess_adaptive_drawdown_base": 0.05,
    "excess_adaptive_drawdown_share": 0.25,
    "excess_adaptive_min_excess_per_day": 0.002,
    "trend_scanning_windows": [4, 7],
    "triple_barrier_volatility_multiple": 1.5,
    "triple_barrier_days": 6,
    "directional_change_thresholds": [0.04],
    "directional_change_min_days": 1,
    "directional_change_max_days": 12,
    "directional_change_quality_unit": 0.05,
    "directional_change_magnitude": "confirmation",
}
OTHER_RULES = BASE_RULES | {
    "amount_days": 5, "half_life": 4, "settled_only": False, "rate": 0.5, "max_rate": 0.6,
    "min_gain": 0.0, "max_prior_gain": 0.1, "prior_days": 2, "window": 9, "min_peak": 1,
    "min_excess": 0.03, "volatility_multiple": 1.0, "drawdown_base": 0.05,
    "drawdown_share": 0.25, "min_excess_per_day": 0.002, "trend_windows": (4, 7),
    "barrier_multiple": 1.5, "barrier_days": 6, "thetas": (0.04,), "change_min_days": 1,
    "change_max_days": 12, "quality_unit": 0.05, "later_high": False,
}  # fmt: skip
CASES = {"defaults": (BASE, Rules(**BASE_RULES)), "others": (OTHERS, Rules(**OTHER_RULES))}


def random_stocks(seed: int, count: int = 12, days: int = 260) -> list[Stock]:
    """Calm and wild stocks, coarse ticks, late listings, delistings, suspensions, NULLs."""
    random = np.random.default_rng(seed)
    dates = [day.date() for day in pd.bdate_range("2024-01-01", periods=days)]
    stocks = []
    for number in range(count):
        first = int(random.integers(0, days // 3)) if number % 4 == 1 else 0
        last = int(random.integers(2 * days // 3, days)) if number % 5 == 2 else days
        length = last - first
        moves = random.standard_t(4, length) * random.choice([0.01, 0.02, 0.03])
        moves += np.repeat(random.normal(0, 0.006, length // 15 + 1), 15)[:length]
        if number % 6 == 3:
            moves[20:40] = 0.0 if number % 12 == 3 else math.log(1.05)
        tick = 0.01 if number % 3 else 0.25
        close = np.round(10 * np.exp(np.cumsum(moves)) / tick) * tick
        close = np.maximum(close, tick)
        suspended = random.random(length) < (0.03 if number % 2 else 0.0)
        if number % 7 == 4:
            suspended[30:75] = True
        if number % 7 == 5:
            suspended[:3] = True
        amount = np.exp(random.normal(16.8, 0.8, length))
        amount[random.random(length) < 0.003] = math.nan
        amount[suspended & (random.random(length) < 0.5)] = math.nan
        returns, before = [], math.nan
        for t in range(length):
            if suspended[t]:
                # what a suspended day holds differs from source to source
                close[t] = random.choice([math.nan, 1.0, before])
                returns.append(random.choice([math.nan, 0.0]))
                continue
            returns.append(close[t] / before - 1)
            before = close[t]
        if number in (3, 6):  # no price, though not suspended
            close[50], returns[50] = (math.nan if number == 3 else 0.0), math.nan
            suspended[50:52] = False
            close[51], returns[51] = close[49], math.nan
        member = random.random(length) < 0.97
        member[:10] = False
        stocks.append(
            Stock(
                f"{600000 + number}.SH", dates[first:last], [float(c) for c in close],
                [float(r) for r in returns], [float(a) for a in amount],
                [bool(s) for s in suspended], [bool(m) for m in member],
            )
        )  # fmt: skip
    return stocks


def frames(stocks: list[Stock]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """daily_panel and universe_members of the stocks; another universe has every row."""
    panel = pd.concat(
        pd.DataFrame(
            {
                "ts_code": stock.code,
                "trade_date": stock.dates,
                "close": stock.close,
                "returns": stock.returns,
                "amount": stock.amount,
                "is_suspended": stock.suspended,
                "is_member": stock.member,
            }
        )
        for stock in stocks
    )
    panel["trade_date"] = pd.to_datetime(panel["trade_date"]).astype("datetime64[s]").dt.date
    keys = panel[["ts_code", "trade_date"]]
    members = pd.concat(
        [
            keys[panel["is_member"].astype(bool)].assign(universe="MAIN_BOARD_NON_ST"),
            keys.assign(universe="ANOTHER"),
        ]
    )
    panel = panel.drop(columns="is_member")
    return panel.astype(object).where(panel.notna(), None).astype(
        {"close": float, "returns": float, "amount": float, "is_suspended": bool}
    ), members


def built(stocks, settings, **options):
    return build(*frames(stocks), settings, **options)


def fetched(connection, relation: str, order: str) -> list[dict]:
    return connection.sql(f"from {relation} order by {order}").to_arrow_table().to_pylist()


def close_to(found, expected, tolerance=1e-9) -> bool:
    """Equal; floats to a relative tolerance, NULL and nan the same."""
    if expected is None or (isinstance(expected, float) and math.isnan(expected)):
        return found is None
    if isinstance(expected, float):
        return found is not None and math.isclose(found, expected, rel_tol=tolerance)
    return found == expected


def differing_events(connection, stocks, rules, label_set) -> list:
    expected = []
    for stock in sorted(stocks, key=lambda stock: stock.code):
        for event in oracle.settled_events(stock, label_set, rules):
            settled = oracle.settled_day(event, label_set, rules)
            days = (event.start, event.peak, event.confirmation, settled)
            expected.append(
                (stock.code, *(stock.dates[day] for day in days), event.peak - event.start,
                 event.theta, event.magnitude, event.scale, event.quality)
            )  # fmt: skip
    columns = (
        "ts_code", "event_date", "peak_date", "confirmation_date", "settled_date",
        "duration_days", "theta", "magnitude", "scale", "quality",
    )  # fmt: skip
    rows = fetched(connection, f"{label_set}_events", "ts_code, event_date")
    if len(rows) != len(expected):
        return ["rows", len(rows), len(expected)]
    return [
        (column, row, theirs)
        for row, theirs in zip(rows, expected, strict=True)
        for column, value in zip(columns, theirs, strict=True)
        if not close_to(row[column], value, 1e-7 if label_set == "trend_scanning" else 1e-9)
    ]


def differing_inputs(connection, stocks) -> list:
    found = {
        (row["ts_code"], row["trade_date"]): row
        for row in fetched(connection, "daily_event_inputs", "all")
    }
    different = []
    for stock in stocks:
        for t, date in enumerate(stock.dates):
            row = found.pop((stock.code, date))
            expected = {
                "stock_row": t,
                "price": stock.price[t],
                "traded_return": stock.traded_return(t),
                "mean_amount_cny": stock.mean_amount[t],
                "volatility_before": stock.volatility[t - 1] if t else math.nan,
                "benchmark_level": stock.benchmark[t],
                "is_in_universe": stock.member[t],
                "is_traded": stock.traded(t),
            }
            different += [
                (name, row[name], value)
                for name, value in expected.items()
                if not close_to(row[name], value)
            ]
    return different + list(found)


def differing_benchmarks(connection, stocks) -> list:
    """Days whose members or mean return are others than counted stock by stock."""
    members: dict = {}
    for stock in stocks:
        for t, date in enumerate(stock.dates):
            day = members.setdefault(date, [])
            if stock.member[t]:
                day.append(stock.traded_return(t))
    different = []
    for row in fetched(connection, "event_benchmarks", "all"):
        day = members.pop(row["trade_date"])
        known = [value for value in day if not math.isnan(value)]
        mean = sum(known) / len(known) if known else math.nan
        if row["member_count"] != len(day) or not math.isclose(
            row["mean_return"] if known else 0, mean if known else 0, rel_tol=1e-9, abs_tol=1e-15
        ):
            different.append((row, len(day), mean))
    return different + list(members)


def differing_turns(connection, stocks, rules) -> list:
    """Changes of direction that differ from a plain scan, and those missing."""
    columns = (
        "ts_code", "theta", "is_rise", "turn_date", "confirmation_date", "turn_row",
        "confirmation_row", "turn_price", "confirmation_price",
    )  # fmt: skip
    found = [
        tuple(row[column] for column in columns)
        for row in fetched(connection, "directional_changes", "all")
    ]
    expected = [
        (
            stock.code, theta, is_rise, stock.dates[turn], stock.dates[end], turn, end,
            stock.price[turn], stock.price[end],
        )
        for stock in stocks
        for theta in rules.thetas
        for is_rise, turn, end in oracle.directional_turns(stock, theta)
    ]  # fmt: skip
    return sorted({*found} ^ {*expected})


def differing_thresholds(connection, stocks, rules) -> list:
    fit = [datetime.date.fromisoformat(FIT[name]) for name in ("daily_fit_start", "daily_fit_end")]
    different = []
    for row in fetched(connection, "event_thresholds", "label_set"):
        expected = oracle.threshold(stocks, row["label_set"], rules, *fit)
        names = ("cell_count", "event_count", "quality_threshold", "positive_count")
        different += [
            (name, row["label_set"], row[name], value)
            for name, value in zip(names, expected, strict=True)
            if not close_to(row[name], value, 1e-7)
        ]
    return different


def differing_labels(connection, stocks, rules, label_set, anchored: bool = False) -> list:
    taus = dict(
        connection.sql("select label_set, quality_threshold from event_thresholds").fetchall()
    )
    # the evaluator's quality may differ from the threshold in the last digits
    tau = taus[label_set] * (1 - 1e-9) if taus[label_set] is not None else None
    found = {
        (row["ts_code"], row["trade_date"]): row
        for row in fetched(connection, f"{label_set}_labels", "all")
    }
    anchors = {
        (row["ts_code"], row["trade_date"]): row
        for row in fetched(connection, "anchor_labels", "all")
    }
    different = [] if set(found) == set(anchors) else ["keys"]
    for stock in stocks:
        wanted = {}
        for target, days in HORIZONS.items():
            wanted[target] = oracle.labels(stock, label_set, rules, tau, days)
        exact = {k: oracle.labels(stock, label_set, rules, tau, k, exactly=True) for k in (1, 3, 5)}
        for t, date in enumerate(stock.dates):
            row = found.pop((stock.code, date))
            for target in HORIZONS:
                names = (target, f"{target}_label_end_date")
                for name, value in zip(names, wanted[target][t], strict=True):
                    if row[name] != value:
                        different.append((stock.code, date, name, row[name], value))
            if anchored:
                anchor = anchors[stock.code, date]
                for k, rows in exact.items():
                    names = (f"anchor_t{k}", f"anchor_t{k}_label_end_date")
                    for name, value in zip(names, rows[t], strict=True):
                        if anchor[name] != value:
                            different.append((stock.code, date, name, anchor[name], value))
                    if anchor[f"within_t{k}"] != wanted[f"t{k}"][t][0]:
                        different.append((stock.code, date, f"within_t{k}"))
    return different + list(found)


def differing(relation, connection, stocks, rules, anchor_label_set="excess_adaptive") -> list:
    """What of a relation differs from the evaluator; anchors are compared with their labels."""
    if relation == "daily_event_inputs":
        return differing_inputs(connection, stocks)
    if relation == "event_benchmarks":
        return differing_benchmarks(connection, stocks)
    if relation == "directional_changes":
        return differing_turns(connection, stocks, rules)
    if relation == "event_thresholds":
        return differing_thresholds(connection, stocks, rules)
    if relation in EVENT_MODELS:
        return differing_events(connection, stocks, rules, relation.removesuffix("_events"))
    if relation == "anchor_labels":
        return differing_labels(connection, stocks, rules, anchor_label_set, anchored=True)
    return differing_labels(connection, stocks, rules, relation.removesuffix("_labels"))


def differences(connection, stocks, rules, anchor_label_set="excess_adaptive") -> dict:
    """Relations that differ from the evaluator, with their first differences."""
    found = {
        relation: differing(relation, connection, stocks, rules, anchor_label_set)[:3]
        for relation in MODELS
        if relation != "label_events"
    }
    return {relation: rows for relation, rows in found.items() if rows}


@pytest.fixture(scope="module")
def markets():
    """By case: stocks, their built relations and the rules."""
    found = {}
    for name, (case_settings, rules) in CASES.items():
        stocks = random_stocks(1)
        oracle.prepare(stocks, rules)
        found[name] = stocks, built(stocks, case_settings), rules
    yield found
    for _, connection, _ in found.values():
        connection.close()


@pytest.mark.parametrize("name", CASES)
def test_every_relation_equals_the_evaluator(markets, name):
    stocks, connection, rules = markets[name]
    anchor = CASES[name][0].get("anchor_label_set", "excess_adaptive")
    assert differences(connection, stocks, rules, anchor) == {}
    for label_set in LABEL_SETS:
        ((events, positives),) = connection.sql(
            f"""
            select
                (select count(*) from {label_set}_events),
                (select count(*) from {label_set}_labels where t3 = 1)
            """
        ).fetchall()
        assert events > 20, label_set
        assert positives > 5, label_set


def real_rows(stock_count: int | None = None) -> pd.DataFrame:
    """daily_panel and membership of CSI300 stocks, adjusted by the exchange's reference prices."""
    file = REAL_DAILY_DATA / "baostock_hs300_2020_2025.parquet"
    if not file.exists():
        pytest.skip(f"no {file}")
    stocks = f"in (select distinct ts_code from '{file}' order by 1 limit {stock_count or 10000})"
    return (
        duckdb.connect()
        .execute(
            f"""
            with bars as (
                select
                    ts_code,
                    trade_date,
                    close,
                    pre_close,
                    amount_cny,
                    is_st = 1 as is_st,
                    tradestatus = 0 as is_suspended,
                    lag(close) over (partition by ts_code order by trade_date) as previous_close
                from '{file}'
                where ts_code {stocks}
            )

            select
                ts_code,
                trade_date,
                close * product(coalesce(previous_close / pre_close, 1))
                    over (partition by ts_code order by trade_date) as close,
                case
                    when not is_suspended and previous_close is not null then close / pre_close - 1
                end as returns,
                amount_cny as amount,
                is_suspended,
                not is_suspended and not is_st as is_member
            from bars
            order by all
            """
        )
        .df()
    )


def stocks_of(rows: pd.DataFrame) -> list[Stock]:
    return [
        Stock(
            code,
            [date.date() for date in own["trade_date"]],
            *(own[name].tolist() for name in ("close", "returns", "amount")),
            own["is_suspended"].tolist(),
            own["is_member"].tolist(),
        )
        for code, own in rows.groupby("ts_code")
    ]


def test_real_stocks_equal_the_evaluator():
    stocks = stocks_of(real_rows(8))
    oracle.prepare(stocks, Rules())
    connection = built(stocks, FIT)
    assert differences(connection, stocks, Rules()) == {}
    ((events,),) = connection.sql("select count(*) from label_events").fetchall()
    assert events > 500


FAULTS = {
    # what is wrong: model, text, other text
    "a_suspended_day_has_the_price_it_is_delivered_with": (
        "daily_event_inputs", "not panel.is_suspended and panel.close > 0", "true",
    ),
    "volatility_starts_at_once": (
        "daily_event_inputs", "sqrt(before.return_variance)",
        "sqrt(coalesce(before.return_variance, 0))",
    ),
    "variance_starts_above_zero": (
        "daily_event_inputs", "today.traded_return is not null then 0 end",
        "today.traded_return is not null then 1e-5 end",
    ),
    "an_unknown_return_forgets_the_volatility": (
        "daily_event_inputs", "before.return_variance,\n            case", "case",
    ),
    "the_index_holds_every_stock": (
        "event_benchmarks", "members.ts_code is not null", "true",
    ),
    "the_prior_gain_is_a_day_short": (
        "excess_adaptive_events", "lag(price, 6)", "lag(price, 5)",
    ),
    "drawdown_counts_days_after_the_peak": (
        "excess_adaptive_events", "peak_days >=", "20 >=",
    ),
    "no_peak_on_the_third_day": (
        "excess_adaptive_events", "when excess_3 = excess then 3", "",
    ),
    "an_event_may_start_on_the_peak_of_another": (
        "trend_scanning_events", "start_row > scanned.kept_peak_row",
        "start_row >= scanned.kept_peak_row",
    ),
    "falling_trends_are_events": (
        "trend_scanning_events", "where slope > 0", "where true",
    ),
    "the_slope_error_counts_a_parameter_less": (
        "trend_scanning_events", " / 18 / ", " / 19 / ",
    ),
    "the_lower_barrier_is_forgotten": (
        "triple_barrier_events", "upper_days < lower_days", "true",
    ),
    "the_better_candidate_does_not_take_over": (
        "triple_barrier_events", "or candidates.quality > scanned.kept_quality", "",
    ),
    "the_high_may_lie_beyond_the_window": (
        "directional_change_events", "least(31, days_to_next)", "days_to_next",
    ),
    "a_change_is_confirmed_beyond_its_threshold_only": (
        "directional_changes", "today.price >= legs.extreme_price * (1 + legs.theta)",
        "today.price > legs.extreme_price * (1 + 1.01 * legs.theta)",
    ),
    "thresholds_read_days_that_the_fit_window_does_not_settle": (
        "event_thresholds", "- label_sets.settling_days", "- 20",
    ),
    "the_threshold_is_one_rank_too_high": (
        "event_thresholds", "positive_count >= wanted_count", "positive_count >= wanted_count - 1",
    ),
    "an_event_of_the_day_itself_counts": (
        "excess_adaptive_labels", "between 1 following", "between 0 following",
    ),
    "labels_end_where_the_window_of_starts_ends": (
        "trend_scanning_labels", "lead(days.trade_date, 21)", "lead(days.trade_date, 1)",
    ),
    "an_anchor_stands_a_day_too_early": (
        "anchor_labels", "lead(events.event_date, 3)", "lead(events.event_date, 4)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(markets, fault):
    stocks, connection, rules = markets["defaults"]
    model, text, other = FAULTS[fault]
    sql = model_sql(model, BASE)
    assert text in sql
    connection.begin()
    try:
        connection.execute(f"create or replace table {model} as {sql.replace(text, other)}")
        assert differing(model, connection, stocks, rules)
    finally:
        connection.rollback()


def events_of(connection, condition="true") -> list:
    return connection.sql(f"from label_events where {condition} order by all").fetchall()


def known_labels(connection, last) -> dict:
    """Every label that ends by `last`, by relation and label."""
    found = {}
    for label_set in LABEL_SETS:
        for target in HORIZONS:
            found[label_set, target] = connection.sql(
                f"""
                select ts_code, trade_date, {target}, {target}_label_end_date
                from {label_set}_labels
                where {target}_label_end_date <= '{last}'
                order by all
                """
            ).fetchall()
    for k in (1, 3, 5):
        found["anchor_labels", k] = connection.sql(
            f"""
            select ts_code, trade_date, anchor_t{k}, anchor_t{k}_quality
            from anchor_labels
            where anchor_t{k}_label_end_date <= '{last}'
            order by all
            """
        ).fetchall()
    found["background"] = connection.sql(
        f"""
        select ts_code, trade_date, is_background
        from anchor_labels
        where is_background_label_end_date <= '{last}'
        order by all
        """
    ).fetchall()
    return found


@FEW
@given(seed=st.integers(0, 99), days=st.integers(130, 250), noisy=st.booleans())
def test_later_rows_change_nothing_that_is_known(seed, days, noisy):
    stocks = random_stocks(seed, count=6)
    calendar = sorted({date for stock in stocks for date in stock.dates})
    last = calendar[days]
    fitted = BASE | {"daily_fit_end": str(calendar[days - 5])}
    others = [oracle.cut(stock, last) for stock in stocks]
    if noisy:
        random = np.random.default_rng(seed)
        others = random_stocks(seed, count=6)
        for stock in others:
            for t, date in enumerate(stock.dates):
                if date > last:
                    stock.close[t] *= random.uniform(0.8, 1.25)
                    stock.returns[t] = random.normal(0, 0.05)
                    stock.amount[t] = 1e9 * random.random()
                    stock.member[t] = bool(random.random() < 0.5)
    whole, other = built(stocks, fitted), built(others, fitted)
    settled = f"settled_date <= '{last}'"
    assert events_of(whole, settled) == events_of(other, settled)
    thresholds = "from event_thresholds order by label_set"
    assert whole.sql(thresholds).fetchall() == other.sql(thresholds).fetchall()
    assert known_labels(whole, last) == known_labels(other, last)
    if not noisy:
        assert events_of(other) == events_of(whole, settled)
    inputs = f"""
        select *
        from daily_event_inputs
        where trade_date <= '{last}'
        order by all
    """
    assert whole.sql(inputs).fetchall() == other.sql(inputs).fetchall()


@FEW
@given(seed=st.integers(0, 99), exponents=st.lists(st.integers(-8, 8), min_size=6, max_size=6))
def test_the_unit_of_prices_changes_nothing(seed, exponents):
    stocks, scaled = random_stocks(seed, count=6), random_stocks(seed, count=6)
    for stock, exponent in zip(scaled, exponents, strict=True):
        stock.close = [close * 2.0**exponent for close in stock.close]
    models = MODELS[: MODELS.index("label_events") + 1]
    found, other = (built(rows, BASE, models=models) for rows in (stocks, scaled))
    assert events_of(found) == events_of(other) != []


def test_stocks_outside_the_universe_change_nothing(markets):
    stocks, connection, _ = markets["defaults"]
    strangers = random_stocks(7, count=3)
    for number, stock in enumerate(strangers):
        # between, before and after the codes of the market
        stock.code = ("600003.AA", "000001.SZ", "999999.SH")[number]
        stock.member = [False] * len(stock.dates)
    other = built([*strangers, *stocks], BASE)
    assert events_of(connection) == events_of(other)
    last = stocks[0].dates[-1]
    found, others = known_labels(connection, last), known_labels(other, last)
    codes = {stock.code for stock in strangers}
    assert found == {
        name: [row for row in rows if row[0] not in codes] for name, rows in others.items()
    }


def chain(*values) -> pd.DataFrame:
    """Candidates of one stock: (start, peak, quality)."""
    rows = pd.DataFrame(values, columns=["start_row", "peak_row", "quality"])
    return rows.assign(stock_id=1, candidate_number=np.arange(len(rows)) + 1)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=25
    ),
    st.sampled_from(["first", "best"]),
)
def test_overlapping_candidates_leave_what_a_plain_scan_keeps(steps, keep):
    starts = np.cumsum([step for step, _, _ in steps])
    candidates = [
        oracle.Event(int(start), int(start) + length, 0, 0.0, 0.0, float(quality))
        for start, (_, length, quality) in zip(starts, steps, strict=True)
    ]
    kept = oracle.without_overlaps(candidates)
    if keep == "first":
        kept, free = [], -1
        for event in candidates:
            if event.start > free:
                kept.append(event)
                free = event.peak
    rows = chain(*((event.start, event.peak, event.quality) for event in candidates))
    connection = duckdb.connect()
    connection.register("candidates", rows)
    sql = rendering_context({})["without_overlaps"]("candidates", keep)
    found = connection.execute(f"from ({sql}) select candidate_number order by all").fetchall()
    assert [candidates[number - 1] for (number,) in found] == kept


@pytest.mark.parametrize(
    ("qualities", "cells", "rate", "max_rate", "expected"),
    [
        ([5, 4, 3, 2, 1], 100, 0.02, 0.03, 4),  # the second highest
        ([5, 4, 4, 4, 1], 100, 0.02, 0.03, 5),  # its ties would make 4 of 100
        ([5, 4, 4, 4, 1], 100, 0.02, 0.04, 4),
        ([5, 5, 5], 100, 0.01, 0.02, 5),  # nothing higher to move to
        ([2, 1], 100, 0.5, 0.6, 1),  # fewer events than wanted
        ([2, 1], 10, 0.01, 0.2, 2),  # at least one
        ([], 10, 0.01, 0.2, None),
    ],
)
def test_the_threshold_is_the_quality_at_the_wanted_rank(
    qualities, cells, rate, max_rate, expected
):
    connection = new_connection()
    connection.execute(
        f"""
        create table labels.event_benchmarks as
        select
            date '2024-01-01' + range::integer as trade_date,
            1 as member_count
        from range({cells + 20})
        """
    )
    rows = pd.DataFrame(
        {
            "quality": np.array(qualities, float),
            "label_set": "excess_adaptive",
            "event_date": datetime.date(2024, 1, 2),
            "settled_date": datetime.date(2024, 1, 22),
        }
    )
    put(connection, {"labels.label_events": rows})
    sql = model_sql(
        "event_thresholds",
        {
            "daily_fit_end": 1.0,
            "event_positive_rate": rate,
            "event_max_positive_rate": max_rate,
        },
    )
    found = connection.execute(
        f"select cell_count, quality_threshold from ({sql}) where label_set = 'excess_adaptive'"
    ).fetchall()
    assert found == [(cells, expected)]


@pytest.mark.parametrize("share", [0.0, 0.25, 0.6, 1.0])
def test_a_share_of_the_trading_days_bounds_the_fit_window(share):
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(3 * number) for number in range(40)]
    connection = duckdb.connect()
    connection.register("dates", pd.DataFrame({"trade_date": days}))
    bounds = {"daily_fit_start": "2024-01-05", "daily_fit_end": share}
    sql = rendering_context(bounds)["daily_fit_window"]
    start, end = connection.execute(sql("dates")).fetchall()[0]
    assert start == datetime.date(2024, 1, 5)
    assert end.isoformat()[:10] == str(days[max(math.ceil(share * 40) - 1, 0)])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("event_unsettled_rows", "guess"),
        ("anchor_label_set", "main_wave"),
        ("directional_change_magnitude", "peak"),
        ("event_positive_rate", "0.8 %"),
        ("triple_barrier_days", 0),
        ("trend_scanning_windows", [10, 5]),
        ("trend_scanning_windows", [2, 5]),
        ("directional_change_thresholds", []),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(name, value):
    with pytest.raises(ValueError, match=f"var '{name}'"):
        rendering_context({name: value})["event_settings"]()


def test_a_wrong_fit_window_is_refused():
    with pytest.raises(ValueError, match="var 'daily_fit_end'"):
        rendering_context({"daily_fit_end": 2022})["daily_fit_window"]("dates")


def test_an_empty_panel_builds_empty_relations():
    panel, members = frames(random_stocks(1, count=1))
    connection = build(panel.head(0), members.head(0))
    for model in MODELS:
        rows = connection.sql(f"from {model}").fetchall()
        if model == "event_thresholds":
            assert [row[-1] for row in rows] in ([], [None] * 4)
        else:
            assert rows == [], model


def test_without_a_member_nothing_is_labelled():
    panel, members = frames(random_stocks(1, count=2))
    connection = build(panel, members[members["universe"] == "ANOTHER"], BASE)
    assert events_of(connection) == []
    found = connection.sql("select count(*), count(t1) from triple_barrier_labels").fetchall()
    assert found == [(len(panel), 0)]
