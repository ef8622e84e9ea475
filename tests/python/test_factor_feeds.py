"""Feeds of several rows per stock and day, against plain loops over made-up ones."""

import functools
import random
from datetime import date, datetime, time, timedelta

import numpy as np
import pandas as pd
import pytest

from daily_compare import assert_same_rows
from daily_real import put_real
from daily_sql import build, model_sql, new_connection, write_relation
from warehouse import REAL_DAILY_DATA, REPO
from wavehouse.factors.catalog import factor_sql, read_catalog

KEYS = ["ts_code", "trade_date"]
MODELS = ("trading_seat_days", "popularity_days", "holder_days")
FAMILIES = ("hot_money", "institution_seats", "sentiment", "shareholders")
SILENCE = 4  # shorter than the default: the made-up market is months long
STOCKS, DAYS = 8, 120
ONE_DAY, THREE_DAYS = "日换手率达到20%的前5只证券", "连续三个交易日内,涨幅偏离值累计达到20%的证券"
SEATS = ("甲证券第一营业部", "甲证券第二营业部", "乙证券总部", "丙证券分公司", "丁证券北京营业部")
OTHERS = ("机构专用", "深股通专用", "沪股通专用", "中小投资者", "其他自然人", "深股通投资者")
TYPES = {
    "factors.daily_panel": {"ts_code": "varchar", "trade_date": "date", "is_suspended": "boolean"}
    | dict.fromkeys(("open", "high", "low", "close", "volume", "amount"), "double"),
    "staging.stg_top_list": {"ts_code": "varchar", "trade_date": "date", "reason": "varchar"},
    "staging.stg_top_inst": {
        "ts_code": "varchar", "trade_date": "date", "seat_number": "integer",
        "seat_name": "varchar", "side": "varchar", "reason": "varchar",
        "buy_amount_cny": "double", "sell_amount_cny": "double", "net_amount_cny": "double",
    },
    "staging.stg_ths_hot": {
        "ts_code": "varchar", "trade_date": "date", "place_number": "integer",
        "list_name": "varchar", "rank_time": "varchar", "hot_rank": "double",
        "hot_score": "double",
    },
    "staging.stg_limit_list": {
        "ts_code": "varchar", "trade_date": "date", "limit_type": "varchar",
        "sealed_amount_cny": "double", "float_market_cap_cny": "double",
    },
    "staging.stg_holders": {
        "ts_code": "varchar", "trade_date": "date", "report_date": "date",
        "holder_count": "double", "major_net_change_shares": "double",
    },
}  # fmt: skip


# ---- a made-up market


def made_up_panel(draw: random.Random) -> list[dict]:
    """Weekdays of some stocks: late listings, suspensions, a day without an amount."""
    days = [day.date() for day in pd.bdate_range("2024-01-02", periods=DAYS)]
    rows = []
    for stock in range(STOCKS):
        left_out = 0
        for day in days[draw.choice([0, 0, 20]) :]:
            left_out = draw.randint(1, 9) if draw.random() < 0.03 else max(0, left_out - 1)
            prices = dict.fromkeys(("open", "high", "low", "close"), 10.0 + stock)
            traded = {**prices, "volume": 1000.0, "amount": 1e4 * (stock + 1)}
            if draw.random() < 0.02:
                traded[draw.choice(["open", "amount"])] = None
            rows.append(
                {"ts_code": f"60000{stock}.SH", "trade_date": day, "is_suspended": left_out > 0}
                | (dict.fromkeys(traded) if left_out else traded)
            )
    return rows


def made_up_seats(draw: random.Random, keys: list[tuple]) -> tuple[list[dict], list[dict]]:
    """Lists of a few stock-days, most seats on both sides and under two reasons."""
    top_list, top_inst = [], []
    for ts_code, day in keys:
        if draw.random() > 0.1:
            continue
        reasons = draw.choice([[ONE_DAY], [ONE_DAY, "振幅值达15%"], [THREE_DAYS], [None]])
        reasons = [*reasons, THREE_DAYS] if draw.random() < 0.2 else reasons
        if draw.random() < 0.9:
            top_list += [
                {"ts_code": ts_code, "trade_date": day, "reason": reason} for reason in reasons
            ]
        if draw.random() < 0.1:
            continue
        seats = draw.sample(SEATS, draw.randint(0, 5)) + draw.choices(OTHERS, k=draw.randint(0, 4))
        amounts = [(draw.randint(0, 10**9) / 100, draw.randint(0, 10**9) / 100) for _ in seats]
        for reason in reasons:
            for seat, (bought, sold) in zip(seats, amounts, strict=True):
                scale = 2.5 if reason == THREE_DAYS else 1.0
                row = {
                    "ts_code": ts_code, "trade_date": day, "seat_name": seat, "reason": reason,
                    "buy_amount_cny": round(bought * scale, 2),
                    "sell_amount_cny": round(sold * scale, 2),
                    "net_amount_cny": round((bought - sold) * scale, 2),
                }  # fmt: skip
                kind = draw.random()
                if kind < 0.05:  # one side is not told
                    row |= {"sell_amount_cny": None}
                elif kind < 0.08:  # nor what is left
                    row |= {"buy_amount_cny": None, "net_amount_cny": None}
                elif kind < 0.12:
                    row |= {"net_amount_cny": None}
                elif kind < 0.3:  # each list tells its own side
                    top_inst.append({**row, "side": "buy", "sell_amount_cny": 0.0})
                    top_inst.append({**row, "side": "sell", "buy_amount_cny": 0.0})
                    continue
                sides = draw.choice([["buy"], ["sell"], ["buy", "sell"]])
                top_inst += [{**row, "side": side} for side in sides]
    return top_list, [{**row, "seat_number": place} for place, row in enumerate(top_inst)]


def made_up_places(draw: random.Random, keys: list[tuple]) -> tuple[list[dict], list[dict]]:
    """Places of several lists and times, some after midnight; limits of all kinds."""
    hot, limits = [], []
    for ts_code, day in keys:
        for _ in range(draw.choice([0, 0, 1, 2, 5])):
            midnight = day + timedelta(days=draw.choice([0, 0, 0, 1]))
            times = ["9:45:00", "11:30:00", "22:30:00", f"{midnight} 00:30:00", f"{day} 15:00:00"]
            hot.append(
                {
                    "ts_code": ts_code, "trade_date": day, "place_number": len(hot),
                    "list_name": draw.choice(["热股", "热股", "新股", None]),
                    "rank_time": draw.choice([*times, "evening", None]),
                    "hot_rank": draw.choice([None, 0.0, *map(float, range(1, 9))]),
                    "hot_score": draw.choice([None, float(draw.randint(1, 10**6))]),
                }
            )  # fmt: skip
        for kind in "UDZ":
            if draw.random() < 0.2:
                cap = draw.choice([None, 0.0, 1e8])
                limits.append(
                    {"ts_code": ts_code, "trade_date": day, "limit_type": kind,
                     "sealed_amount_cny": draw.choice([None, 1e6]), "float_market_cap_cny": cap}
                )  # fmt: skip
    return hot, limits


def made_up_holders(draw: random.Random, stocks: list[str], first: date, last: date) -> list[dict]:
    """Announcements on any day of the week: late, corrected, several a day, too early, none."""
    found = {}
    for ts_code in stocks:
        for _ in range(25):
            announced = first + timedelta(days=draw.randint(-30, (last - first).days))
            quarter = date(announced.year - 1, 12, 31) if announced.month < 4 else None
            report = draw.choice([quarter or date(announced.year, 3, 31), announced])
            report -= timedelta(days=draw.choice([0, 0, 91, -4]))
            shares = float(draw.randint(-(10**6), 10**6))
            found[ts_code, announced, report] = {
                "ts_code": ts_code, "trade_date": announced, "report_date": report,
                "holder_count": draw.choice([None, float(draw.randint(1, 10**5))]),
                "major_net_change_shares": draw.choice([None, shares]),
            }  # fmt: skip
    return list(found.values())


def with_a_hole(rows: list[dict], first: date, last: date) -> list[dict]:
    """Without what a feed tells between two days, as where a delivery is missing."""
    return [row for row in rows if not first <= row["trade_date"] <= last]


def made_up(seed: int, panel: list[dict] | None = None) -> dict[str, list[dict]]:
    """Every relation that the models read, with a hole of weeks in each feed of rare rows."""
    draw = random.Random(seed)
    panel = made_up_panel(draw) if panel is None else panel
    keys = [(row["ts_code"], row["trade_date"]) for row in panel]
    days = sorted({day for _, day in keys})
    keys += [("999999.SH", day) for day in days[::7]]  # not in the panel
    hole = days[len(days) // 3], days[len(days) // 2]
    top_list, top_inst = made_up_seats(draw, keys)
    hot, limits = made_up_places(draw, keys)
    stocks = sorted({ts_code for ts_code, _ in keys})
    return {
        "factors.daily_panel": panel,
        "staging.stg_top_list": top_list,
        "staging.stg_top_inst": with_a_hole(top_inst, *hole),
        "staging.stg_ths_hot": hot,
        "staging.stg_limit_list": limits,
        "staging.stg_holders": with_a_hole(made_up_holders(draw, stocks, days[0], days[-9]), *hole),
    }


# ---- the relations, written from their definitions


def kind_of(seat_name: str) -> str:
    if "机构专用" in seat_name:
        return "institution"
    if "股通专用" in seat_name:
        return "connect"
    return "class" if seat_name.endswith(("投资者", "自然人")) else "broker"


def covered_days(days: list[date], fed: list[date], silence: int) -> set[date]:
    """Days at most `silence` trading days after one on which the feed had a row."""
    counted = {min(day for day in days if day >= fed_day) for fed_day in fed if fed_day <= days[-1]}
    return {
        day
        for place, day in enumerate(days)
        if counted & set(days[max(0, place - silence) : place + 1])
    }


def expected_seats(market: dict[str, list[dict]], silence: int) -> pd.DataFrame:
    panel = [row for row in market["factors.daily_panel"] if not row["is_suspended"]]
    days = sorted({row["trade_date"] for row in panel})
    top_inst = market["staging.stg_top_inst"]
    covered = covered_days(days, [row["trade_date"] for row in top_inst], silence)
    listed = {(row["ts_code"], row["trade_date"]) for row in market["staging.stg_top_list"]}
    of_stock: dict[tuple, list[dict]] = {}
    for row in top_inst:
        of_stock.setdefault((row["ts_code"], row["trade_date"]), []).append(row)
    found = []
    for key in ((row["ts_code"], row["trade_date"]) for row in panel):
        rows = of_stock.get(key, [])
        if key[1] not in covered or (key in listed and not rows):
            continue
        trades, institutions = set(), {}
        for row in rows:
            bought, sold, net = (row[f"{what}_amount_cny"] for what in ("buy", "sell", "net"))
            if bought is not None and sold is not None:
                net = bought - sold
            net = None if net is None else round(100 * net)
            kind, reason = kind_of(row["seat_name"]), row["reason"]
            if kind == "institution":
                institutions.setdefault(reason, set()).add((bought, sold, net))
            if reason is None or not ("连续" in reason or "累计" in reason):
                trades.add((kind, row["seat_name"], bought, sold, net))
        brokers = {}
        for kind, seat, _, _, net in trades:
            if kind == "broker":
                brokers.setdefault(seat, []).append(net)
        known = all(None not in nets for nets in brokers.values())
        sizes = sorted((abs(sum(nets)) for nets in brokers.values()), reverse=True) if known else []
        bought_less_sold = [net for kind, *_, net in trades if kind == "institution"]
        told = None not in bought_less_sold
        found.append(
            {
                "ts_code": key[0],
                "trade_date": key[1],
                "hot_money_net_cny": sum(map(sum, brokers.values())) / 100 if known else None,
                "hot_money_seats": len(
                    {row["seat_name"] for row in rows if kind_of(row["seat_name"]) == "broker"}
                ),
                "hot_money_moved_cny": sum(sizes) / 100 if known else None,
                "hot_money_top3_cny": sum(sizes[:3]) / 100 if known else None,
                "institution_net_cny": sum(bought_less_sold) / 100 if told else None,
                "institution_seats": max(map(len, institutions.values()), default=0),
            }
        )
    return pd.DataFrame(found)


def taken_at(row: dict) -> datetime | None:
    text = row["rank_time"] or ""
    try:
        if " " in text:
            return datetime.strptime(text, "%Y-%m-%d %H:%M:%S")
        hours, minutes, seconds = map(int, text.split(":"))
        return datetime.combine(row["trade_date"], time(hours, minutes, seconds))
    except ValueError:
        return None


def expected_popularity(market: dict[str, list[dict]]) -> pd.DataFrame:
    lists: dict[tuple, dict[str, list[dict]]] = {}
    for row in market["staging.stg_ths_hot"]:
        moment = taken_at(row)
        if moment is None or moment.date() <= row["trade_date"]:
            stocks = lists.setdefault((row["list_name"], row["trade_date"]), {})
            rank = row["hot_rank"] if (row["hot_rank"] or 0) >= 1 else None
            stocks.setdefault(row["ts_code"], []).append((moment, rank, row["hot_score"]))
    places: dict[tuple, list[tuple]] = {}
    for (name, day), stocks in lists.items():
        ranks = [rank for rows in stocks.values() for _, rank, _ in rows if rank is not None]
        for ts_code, rows in stocks.items():
            latest = max((moment for moment, *_ in rows if moment), default=None)
            last = [row for row in rows if row[0] == latest]
            _, rank, score = min(last, key=lambda row: (row[1] or np.inf, -(row[2] or -np.inf)))
            share = None if rank is None else 1 - (rank - 1) / max(ranks)
            places.setdefault((ts_code, day), []).append((share, name, score))
    sealed = {
        (row["ts_code"], row["trade_date"]): row
        for row in market["staging.stg_limit_list"]
        if row["limit_type"] == "U"
    }
    found = []
    for key in places.keys() | sealed.keys():
        share, _, score = min(
            places.get(key, [(None, None, None)]),
            key=lambda place: (-(place[0] or -1.0), place[1] is None, place[1] or ""),
        )
        row, ratio = sealed.get(key), None
        if row and row["sealed_amount_cny"] is not None and row["float_market_cap_cny"]:
            ratio = row["sealed_amount_cny"] / row["float_market_cap_cny"]
        found.append((*key, share, score, ratio))
    return pd.DataFrame(found, columns=[*KEYS, "hot_pct", "hot_score", "sealed_ratio"])


def expected_holders(market: dict[str, list[dict]], silence: int) -> pd.DataFrame:
    needed = ("open", "high", "low", "close", "volume", "amount")
    panel = [
        row
        for row in market["factors.daily_panel"]
        if not row["is_suspended"] and None not in [row[name] for name in needed]
    ]
    days = sorted({row["trade_date"] for row in panel})
    feed = sorted(market["staging.stg_holders"], key=lambda row: row["trade_date"])
    told = [
        max(row["trade_date"], row["report_date"])
        for row in feed
        if row["major_net_change_shares"] is not None
    ]
    covered = covered_days(days, told, silence)
    found = []
    for ts_code in sorted({row["ts_code"] for row in panel}):
        own = sorted(row["trade_date"] for row in panel if row["ts_code"] == ts_code)
        rows = [row for row in feed if row["ts_code"] == ts_code]
        before = own[0] - timedelta(days=1)
        for day in own:
            known = [row for row in rows if max(row["trade_date"], row["report_date"]) <= day]
            counts = [row for row in known if row["holder_count"] is not None]
            change, news, count, since = 0.0, False, None, None
            if counts:
                of = max(row["report_date"] for row in counts)
                latest = [row for row in counts if row["report_date"] == of][-1]
                count, since = latest["holder_count"], max(latest["trade_date"], of)
            for row in known:
                if row["major_net_change_shares"] is None:
                    continue
                if max(row["trade_date"], row["report_date"]) > before:
                    earlier = [
                        other["major_net_change_shares"]
                        for other in rows
                        if other["report_date"] == row["report_date"]
                        and other["trade_date"] < row["trade_date"]
                        and other["major_net_change_shares"] is not None
                    ]
                    change += row["major_net_change_shares"] - (earlier[-1] if earlier else 0)
                    news = True
            change = change if news or day in covered else None
            if count is not None or change is not None:
                age = None if since is None else (day - since).days
                is_new = since is not None and since > before
                found.append((ts_code, day, count, age, is_new, change))
            before = day
    columns = [*KEYS, "holder_count", "count_age_days", "is_new_count", "major_net_change_shares"]
    return pd.DataFrame(found, columns=columns)


# ---- the tests


def put(connection, market: dict[str, list[dict]]) -> None:
    for relation, types in TYPES.items():
        rows = pd.DataFrame(market[relation], columns=list(types), dtype=object)
        write_relation(connection, relation, rows.where(rows.notna(), None), types)


def models_of(market: dict[str, list[dict]], silence: int = SILENCE) -> dict[str, pd.DataFrame]:
    """The models' rows over a market, by name."""
    connection = new_connection()
    put(connection, market)
    build(connection, MODELS, {"factor_feed_silence_days": silence})
    return {
        model: connection.sql(f"from factors.{model} order by ts_code, trade_date").df()
        for model in MODELS
    }


def assert_as_defined(market: dict[str, list[dict]], silence: int) -> dict[str, pd.DataFrame]:
    found = models_of(market, silence)
    expected = {
        "trading_seat_days": expected_seats(market, silence),
        "popularity_days": expected_popularity(market),
        "holder_days": expected_holders(market, silence),
    }
    for model, rows in expected.items():
        assert_same_rows(found[model], rows, KEYS, model, rtol=1e-12)
        assert set(found[model].columns) == set(rows.columns)
    return found


@pytest.mark.parametrize(("seed", "silence"), [(1, SILENCE), (2, SILENCE), (3, 0), (4, 20)])
def test_relations_follow_their_definitions(seed, silence):
    market = made_up(seed)
    found = assert_as_defined(market, silence)
    seats, popularity, holders = (found[model] for model in MODELS)
    assert 10 < (seats["hot_money_seats"] > 0).sum() < len(seats) / 2
    assert (seats["hot_money_moved_cny"] > seats["hot_money_top3_cny"]).sum() > 5
    assert seats["hot_money_net_cny"].isna().any()
    assert (seats["institution_seats"] > 1).any()
    assert popularity.drop(columns=KEYS).notna().sum().min() > 10
    assert holders["is_new_count"].sum() > 20
    assert holders["major_net_change_shares"].isna().any()
    assert (holders["major_net_change_shares"] == 0).any()
    traded = sum(not row["is_suspended"] for row in market["factors.daily_panel"])
    assert len(seats) < traded  # the hole is no row of zeros


def published_by(row: dict, relation: str, day: date) -> bool:
    if relation == "staging.stg_ths_hot" and taken_at(row):
        return max(row["trade_date"], taken_at(row).date()) <= day
    return row["trade_date"] <= day


@pytest.mark.parametrize("seed", [5, 6])
def test_what_is_published_later_changes_nothing(seed):
    market = made_up(seed)
    days = sorted({row["trade_date"] for row in market["factors.daily_panel"]})
    whole = models_of(market)
    edge = len(days) // 2  # where the feeds' hole ends
    for day in (*days[17:edge:15], *days[edge - 1 : edge + 3], *days[90::10]):
        early = {
            relation: [row for row in rows if published_by(row, relation, day)]
            for relation, rows in market.items()
        }
        for model, found in models_of(early).items():
            known = whole[model][whole[model]["trade_date"] <= pd.Timestamp(day)]
            pd.testing.assert_frame_equal(found, known.reset_index(drop=True), check_exact=True)
            assert len(known) > 10


def test_order_of_rows_changes_nothing():
    market = made_up(7)
    draw = random.Random(0)
    mixed = {relation: draw.sample(rows, len(rows)) for relation, rows in market.items()}
    whole = models_of(market)
    for model, found in models_of(mixed).items():
        pd.testing.assert_frame_equal(found, whole[model], check_exact=True)


@functools.cache
def catalog():
    return read_catalog(REPO)


def factors_of(market: dict[str, list[dict]]) -> pd.DataFrame:
    """The factors of the four families over a market, with 1e8 tradable shares of each stock."""
    connection = new_connection()
    put(connection, market)
    build(connection, MODELS)
    names = [each.factor_id for each in catalog().factors if each.family in FAMILIES]
    read = catalog().columns()
    own = [name for name in read if name.split(".")[0] in MODELS]
    feeds = ", ".join(f"{name}::double as {name.replace('.', '__')}" for name in own)
    joins = " ".join(f"left join factors.{model} using (ts_code, trade_date)" for model in MODELS)
    connection.execute(
        f"""
        create table inputs as
        select
            ts_code, trade_date, amount, 1e8 as daily_basic__float_shares, {feeds},
            dense_rank() over (order by ts_code) as stock_number,
            row_number() over (partition by ts_code order by trade_date) as stock_row,
            count(*) over (partition by trade_date) as day_rows
        from factors.daily_panel {joins}
        where not is_suspended and open is not null and amount is not null
        """
    )
    sql = factor_sql(catalog(), names, "inputs", "duckdb")
    return connection.sql(f"from ({sql}) order by ts_code, trade_date").df()


def test_factors_read_what_the_relations_say():
    market = made_up(8)
    market["factors.daily_panel"] = [
        row for row in market["factors.daily_panel"] if row["open"] and row["amount"]
    ]
    found = factors_of(market).set_index(KEYS)
    models = {name: rows.set_index(KEYS) for name, rows in models_of(market, 20).items()}
    seats, holders = models["trading_seat_days"], models["holder_days"]
    checked = dict.fromkeys(("hm_net_5d", "inst_net_30d_amount_ratio", "sh_holder_num_chg_30d"), 0)
    for ts_code, rows in found.groupby(level=0):
        keys = list(rows.index)
        for place, key in enumerate(keys):
            last = {n: keys[place - n + 1 : place + 1] if place + 1 >= n else [] for n in (5, 30)}
            told = {n: [k for k in last[n] if k in seats.index] for n in (5, 30)}
            nets = [seats["hot_money_net_cny"][k] for k in told[5]]
            net = sum(nets) if len(nets) == 5 else np.nan
            assert found["hm_net_5d"][key] == pytest.approx(net, abs=1e-6, nan_ok=True)
            nets = [seats["institution_net_cny"][k] for k in told[30]]
            amount = 30 * 1e4 * (int(ts_code[5]) + 1)
            net = sum(nets) / amount if len(nets) == 30 else np.nan
            ratio = found["inst_net_30d_amount_ratio"][key]
            assert ratio == pytest.approx(net, abs=1e-9, nan_ok=True)
            change = np.nan
            if place >= 30 and keys[place - 30] in holders.index:
                then, now = (holders["holder_count"][k] for k in (keys[place - 30], key))
                if any(holders["is_new_count"][k] for k in last[30]):
                    change = now / then - 1
            assert found["sh_holder_num_chg_30d"][key] == pytest.approx(change, nan_ok=True)
            for name in checked:
                checked[name] += not np.isnan(found[name][key])
    assert min(checked.values()) > 50


def test_absent_feeds_are_unknown_and_no_zeros():
    market = made_up(9) | {relation: [] for relation in TYPES if relation.startswith("staging")}
    assert all(rows.empty for rows in models_of(market).values())
    found = factors_of(market)
    assert len(found) > 500
    assert found.drop(columns=KEYS).isna().all(axis=None)


def test_counts_alone_say_nothing_of_trades():
    """The table of counts has no column of trades: 0 would say that nobody traded."""
    market = made_up(10)
    for row in market["staging.stg_holders"]:
        row["major_net_change_shares"] = None
    holders = models_of(market)["holder_days"]
    assert len(holders) > 100
    assert holders["major_net_change_shares"].isna().all()
    assert factors_of(market)["sh_major_net_60d"].isna().all()


def test_silence_is_a_number_of_days():
    with pytest.raises(ValueError, match="factor_feed_silence_days"):
        model_sql("holder_days", {"factor_feed_silence_days": -1})


@pytest.mark.parametrize("name", ["baostock_st_suspended_2019_2020", "tushare_szmain_2024"])
def test_relations_on_a_real_panel(name):
    """Real days, listings and suspensions; no feed of these kinds is among the real files."""
    if not (REAL_DAILY_DATA / f"{name}.parquet").exists():
        pytest.skip(f"no real bars beside the checkout: ../shared/data/daily/{name}.parquet")
    connection = new_connection()
    put_real(connection, name, count=3)
    build(connection, ("daily_panel",))
    columns = ", ".join(TYPES["factors.daily_panel"])
    frame = connection.sql(
        f"select {columns} from factors.daily_panel order by ts_code, trade_date"
    )
    names = frame.columns
    panel = [dict(zip(names, row, strict=True)) for row in frame.fetchall()]
    assert_as_defined(made_up(11, panel), SILENCE)
