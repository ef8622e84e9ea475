"""factors.factor_health and its page against definitions written out slowly, on a made-up panel."""

import re
from dataclasses import dataclass
from xml.etree import ElementTree

import duckdb
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from scipy import stats

from daily_incremental_models import RenderedModel
from daily_sql import model_source, new_connection, put
from wavehouse.cli import main

FACTORS = (
    "plain", "levels", "slow", "flat", "rare", "absent", "signal", "two", "tiny", "last"
)  # fmt: skip
SETTINGS = {
    "factor_health_horizon_days": 4,
    "factor_health_min_names": 12,
    "factor_health_top_share": 0.2,
}
RARE = ("absent", "tiny")  # a few days would decide their place among the others
AHEAD = 5  # the horizon and the day of entry
STOCKS, DAYS = 30, 62
MODEL = "factor_health_days"
NUMBERS = ("ic", "rank_ic", "autocorrelation", "turnover")


@dataclass
class World:
    """Relations that the model reads, as frames."""

    days: pd.DataFrame  # daily_panel: a row per stock and listed day
    panel: pd.DataFrame  # factor_panel: a row per traded one
    sanitizer: pd.DataFrame

    def until(self, last: pd.Timestamp) -> "World":
        frames = (self.days, self.panel, self.sanitizer)
        return World(*(frame[frame["trade_date"] <= last] for frame in frames))


def made_up_world(seed: int = 1) -> World:
    """Suspensions, a stock that leaves and one that comes back, ties, constants, unknown values."""
    rng = np.random.default_rng(seed)
    dates = pd.bdate_range("2024-01-02", periods=DAYS)
    rows = []
    for stock in range(STOCKS):
        price, slow = 10.0 + stock, rng.normal()
        traded = None
        for day, date in enumerate(dates):
            price *= float(np.exp(rng.normal(0, 0.02)))
            slow = 0.9 * slow + rng.normal(0, 0.3)
            if (stock == 3 and day > 40) or (stock == 4 and 20 <= day < 30) or stock == 5 > day:
                continue  # delisted, away, not listed yet
            price = 20.0 + day % 3 if stock in (7, 8, 9) else price  # their returns tie
            suspended = rng.random() < 0.04
            traded = traded if suspended else price
            rows.append(
                {
                    "ts_code": f"{600000 + stock}.SH", "trade_date": date, "trading_day": day + 1,
                    "passes_all": True, "open": None if suspended else price,
                    "close": None if suspended else price, "last_close": traded, "slow": slow,
                    "in_universe": stock != 6 and rng.random() > 0.05,
                }
            )  # fmt: skip
    days = pd.DataFrame(rows)
    panel = days[days["close"].notna()].reset_index(drop=True)
    size, day = len(panel), panel["trading_day"].to_numpy()
    noise = rng.normal(size=size)
    values = {
        "plain": noise * 10.0 ** rng.integers(-3, 4, size),
        "levels": rng.integers(0, 4, size).astype(float),
        "slow": panel["slow"],
        "flat": np.where(day % 3 == 0, 7.0, rng.normal(size=size)),  # constant every third day
        "rare": np.where(rng.random(size) < 0.5, np.nan, rng.integers(0, 9, size)),
        "absent": np.where(day < 45, np.nan, noise),
        "signal": -np.log(panel["close"].astype(float)),
        "two": (rng.random(size) < 0.6).astype(float),  # no place is above 80 %
        "tiny": noise * 10.0 ** (-4.0 * day - 100),  # squares leave the range of a double
        "last": np.where(rng.random(size) < 0.1, np.nan, rng.normal(size=size)),
    }
    panel = panel[["ts_code", "trade_date", "trading_day", "in_universe"]].assign(**values)
    # a day on which nothing is in the universe
    panel.loc[panel["trading_day"] == 33, "in_universe"] = False
    counted = rng.integers(0, 3, (DAYS, len(FACTORS), 2))
    sanitizer = pd.DataFrame(
        [
            {
                "factor_id": name, "trade_date": date,
                "nonfinite_count": counted[i, j, 0], "clipped_count": counted[i, j, 1],
            }
            for i, date in enumerate(dates) for j, name in enumerate(FACTORS) if j != 3
        ]
    )  # fmt: skip
    return World(days.drop(columns=["slow", "in_universe"]), panel, sanitizer)


def model(name: str, settings: dict | None = None) -> RenderedModel:
    """Return the model, of the made-up factors."""
    source = model_source(name)
    listed = ", ".join(f"'{factor}'" for factor in FACTORS)
    source = re.sub(r"factor_ids = \[.*?\]", f"factor_ids = [{listed}]", source, flags=re.DOTALL)
    return RenderedModel(name, SETTINGS | (settings or {}), {name: source})


class Build:
    """A warehouse in memory that takes worlds; `health` is the relation of days."""

    def __init__(self, settings: dict | None = None, faults: dict | None = None):
        self.connection = new_connection()
        self.model = model(MODEL, settings)
        self.ref = self.model.context["ref"]
        self.faults = faults or {}
        self.connection.execute(
            f"""
            create table {self.ref("daily_built_days")}
                (relation varchar, trade_date date, input_hash ubigint);
            create table {self.ref("daily_day_hashes")}
                (source varchar, trade_date date, day_hash hugeint);
            """
        )

    def deliver(self, world: World) -> None:
        """Replace what the model reads, and say from what each day was made."""
        calendar = world.days[["trade_date", "trading_day"]].drop_duplicates()
        put(
            self.connection,
            {
                self.ref("stg_trading_calendar"): calendar,
                self.ref("daily_panel"): world.days,
                self.ref("factor_panel"): world.panel.drop(columns="trading_day"),
                self.ref("factor_sanitizer"): world.sanitizer,
            },
        )
        for relation in ("stg_trading_calendar", "daily_panel", "factor_panel", "factor_sanitizer"):
            self.connection.execute(
                f"alter table {self.ref(relation)} alter trade_date type date;"
                f"delete from {self.ref('daily_built_days')} where relation = '{relation}'"
            )
        for relation in ("daily_panel", "factor_panel"):
            self.connection.execute(
                f"insert into {self.ref('daily_built_days')} select '{relation}', trade_date,"
                f" hash(list(rows_of_day order by ts_code))"
                f" from {self.ref(relation)} as rows_of_day group by trade_date"
            )

    def build(self, is_incremental: bool = False) -> pd.DataFrame:
        """Run the model as dbt does; return its rows."""
        before, select, after = self.model.incremental if is_incremental else self.model.full
        for text, other in self.faults.items():
            assert text in before
            before = before.replace(text, other)
        start = "insert into" if is_incremental else "create or replace table"
        self.connection.execute(before)
        self.connection.execute(
            f"{start} {self.model.relation} {'' if is_incremental else 'as'} {select}"
        )
        self.connection.execute(after)
        return self.health()

    def health(self) -> pd.DataFrame:
        return self.connection.execute(
            f"from {self.model.relation} order by factor_id, trade_date"
        ).df()

    def monthly(self) -> pd.DataFrame:
        return self.connection.execute(
            f"from ({model('factor_health').full[1]}) order by factor_id, month"
        ).df()


def health_of(world: World, settings: dict | None = None, faults: dict | None = None):
    built = Build(settings, faults)
    built.deliver(world)
    built.build()
    return built


# ---- the definitions


def defined_forward_returns(world: World, entry: int = 1, horizon: int = 4) -> dict:
    rows = {(r.ts_code, r.trading_day): r for r in world.days.itertuples()}
    found = {}
    for code, day in rows:
        bought, sold = rows.get((code, day + entry)), rows.get((code, day + entry + horizon))
        if bought and sold and not pd.isna(bought.close):
            found[code, day] = sold.last_close / bought.close - 1
    return found


def correlation(x, y, enough: int) -> tuple[float, float]:
    """Pearson and Spearman, NaN of too few, of constants and of what is as good as one."""
    if len(x) < enough or np.ptp(x) <= 1e-140 or np.ptp(y) <= 1e-140:
        return np.nan, np.nan
    return stats.pearsonr(x, y).statistic, stats.spearmanr(x, y).statistic


def defined_days(world: World, entry: int = 1, enough: int = 12, share: float = 0.2):
    """One row per factor and day, a day at a time."""
    returns = defined_forward_returns(world, entry)
    panel = world.panel[world.panel["in_universe"]]
    by_day = dict(list(panel.groupby("trading_day")))
    rows = []
    for name in FACTORS:
        before: dict = {"ranks": {}, "top": set(), "day": None}
        for day, section in by_day.items():
            known = section.dropna(subset=name)
            value = dict(zip(known["ts_code"], known[name], strict=True))
            pairs = [code for code in value if (code, day) in returns]
            ic, rank_ic = correlation(
                [value[code] for code in pairs], [returns[code, day] for code in pairs], enough
            )
            ranks = dict(zip(value, stats.rankdata(list(value.values())), strict=True))
            top = {code for code in ranks if ranks[code] > (1 - share) * len(ranks)}
            follows = before["day"] == day - 1
            both = [code for code in ranks if follows and code in before["ranks"]]
            kept, _ = correlation(
                [ranks[code] for code in both], [before["ranks"][code] for code in both], enough
            )
            turnover = np.nan
            if (
                follows
                and min(len(ranks), len(before["ranks"])) >= enough
                and top
                and before["top"]
            ):
                turnover = len(top - before["top"]) / len(top)
            rows.append(
                {
                    "factor_id": name, "trade_date": section["trade_date"].iloc[0],
                    "row_count": len(section), "known_count": len(value),
                    "distinct_count": len(set(value.values())), "pair_count": len(pairs),
                    "ic": ic, "rank_ic": rank_ic, "autocorrelation": kept, "turnover": turnover,
                }
            )  # fmt: skip
            before = {"ranks": ranks, "top": top, "day": day}
    return pd.DataFrame(rows).sort_values(["factor_id", "trade_date"], ignore_index=True)


def defined_months(days: pd.DataFrame, sanitizer: pd.DataFrame) -> pd.DataFrame:
    rows = []
    months = days["trade_date"].dt.to_period("M")
    for (name, month), found in days.groupby(["factor_id", months]):
        cleaned = sanitizer[
            (sanitizer["factor_id"] == name) & (sanitizer["trade_date"].dt.to_period("M") == month)
        ]
        known = found[found["known_count"] > 0]
        row = {
            "factor_id": name, "month": month.to_timestamp(), "day_count": len(found),
            "row_count": found["row_count"].sum(),
            "null_share": 1 - found["known_count"].sum() / found["row_count"].sum(),
            "distinct_share": (known["distinct_count"] / known["known_count"]).mean(),
            "nonfinite_count": cleaned["nonfinite_count"].sum(),
            "clipped_count": cleaned["clipped_count"].sum(), "ic_days": found["ic"].count(),
        }  # fmt: skip
        for each in ("ic", "rank_ic"):
            row |= {each: found[each].mean(), f"{each}_std": found[each].std(ddof=1)}
            row[f"{each}_ir"] = row[each] / row[f"{each}_std"]
        row |= {each: found[each].mean() for each in ("autocorrelation", "turnover")}
        rows.append(row)
    return pd.DataFrame(rows)


def compare(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert set(found.columns) == set(expected.columns)
    for column in expected.columns:
        if expected[column].dtype.kind == "f":
            np.testing.assert_allclose(
                found[column].astype(float), expected[column], rtol=1e-9, atol=2e-12, err_msg=column
            )
        else:
            assert list(found[column]) == list(expected[column]), column


@pytest.fixture(scope="module")
def world() -> World:
    return made_up_world()


@pytest.fixture(scope="module")
def expected_days(world) -> pd.DataFrame:
    return defined_days(world)


@pytest.fixture(scope="module")
def built(world) -> Build:
    return health_of(world)


# ---- the relations


def test_days_are_those_of_the_definitions(built, expected_days):
    compare(built.health(), expected_days)


def test_months_are_those_of_the_definitions(built, expected_days, world):
    compare(built.monthly(), defined_months(expected_days, world.sanitizer))


def test_the_made_up_panel_has_every_edge(expected_days, world):
    days = expected_days.set_index("factor_id")
    assert days.loc["flat", "ic"].isna().sum() > 15  # constant days
    assert (days.loc["absent", "known_count"] == 0).sum() > 30
    assert (
        5 < days.loc["tiny", "ic"].notna().sum() < days.loc["tiny", "turnover"].notna().sum() - 30
    )
    assert days.loc["two", "turnover"].isna().all()
    assert days.loc["two", "rank_ic"].notna().any()
    assert (days.loc["rare", "known_count"] < 12).any()
    assert days["ic"].isna().groupby(level=0).sum().ge(AHEAD).all()  # the last days
    assert len(set(expected_days["trade_date"])) == DAYS - 1  # one without a universe
    for column in NUMBERS:
        assert days[column].notna().sum() > 100, column
    returns = list(defined_forward_returns(world).items())
    sections = pd.DataFrame([(day, value) for (_, day), value in returns])
    assert sections.duplicated().sum() > 10  # equal returns on a day
    assert world.days["close"].isna().sum() > 20


def test_values_that_differ_in_the_last_bit_correlate_somehow_or_not_at_all():
    """DuckDB's corr is NaN for some of them, and a month's mean would be."""
    rng, connection = np.random.default_rng(1), new_connection()
    context = RenderedModel(MODEL, SETTINGS).context
    sql = context["_section_correlation"]("x", "y", 12)
    raw, found = [], []
    for _ in range(300):
        level = 10.0 ** rng.integers(-3, 4) * rng.random()
        x = np.where(rng.random(20) < 0.2, level, np.nextafter(level, np.inf))
        values = {"x": list(x), "y": list(rng.normal(size=20))}
        rows = "select unnest($x) as x, unnest($y) as y"
        query = f"select corr(x, y), {sql} from ({rows})"
        plain, guarded = connection.execute(query, values).fetchall()[0]
        raw.append(plain)
        found.append(guarded)
    assert any(value is not None and np.isnan(value) for value in raw)
    assert all(value is None or abs(value) <= 1 for value in found)
    assert sum(value is None for value in found) < 100


def test_another_entry_is_that_of_the_labels(world):
    built = health_of(world, {"forward_return_same_close_entry": True})
    compare(built.health(), defined_days(world, entry=0))


@pytest.mark.parametrize("same_close", [False, True])
def test_forward_returns_are_those_of_the_labels(world, same_close):
    settings = {
        "forward_return_suspended_exit": "last_close",
        "forward_return_same_close_entry": same_close,
        "forward_return_days": [4],
    }
    whole = world.days[world.days["ts_code"] != "600004.SH"]  # labels have no day to wait for it
    built = health_of(World(whole, world.panel, world.sanitizer), settings)
    put(
        built.connection,
        {
            built.ref("entry_eligibility"): whole[["ts_code", "trade_date"]].assign(
                may_buy_next_open=True, may_buy_next_close=True
            )
        },
    )
    exits = RenderedModel("forward_return_exits", settings).full[1]
    entry, leave = (
        ("same_close", "same_close_exit_close_4d")
        if same_close
        else ("entry_close", "exit_close_4d")
    )
    joined = built.connection.execute(
        f"""
        select ours.forward_return, theirs.{leave} / theirs.{entry} - 1 as forward_return_4d
        from factor_forward_returns as ours
        full join ({exits}) as theirs using (ts_code, trade_date)
        """
    ).df()
    assert joined["forward_return"].notna().sum() > 1000
    pd.testing.assert_series_equal(
        joined["forward_return"], joined["forward_return_4d"], check_names=False, rtol=0, atol=0
    )


@pytest.mark.parametrize("day", [25, 43, 56])
def test_later_days_change_nothing_but_what_waits_for_them(world, built, day):
    dates = sorted(set(world.days["trade_date"]))
    cut = health_of(world.until(dates[day])).health()
    whole = built.health()
    settled = whole["trade_date"] <= dates[day - AHEAD]
    pd.testing.assert_frame_equal(
        cut[cut["trade_date"] <= dates[day - AHEAD]].reset_index(drop=True),
        whole[settled].reset_index(drop=True),
    )
    waiting = [column for column in whole if column not in ("ic", "rank_ic", "pair_count")]
    pd.testing.assert_frame_equal(
        cut[waiting], whole.loc[whole["trade_date"] <= dates[day], waiting].reset_index(drop=True)
    )
    assert cut.loc[cut["trade_date"] > dates[day - AHEAD], "ic"].isna().all()


def deliveries(world: World, built: Build) -> pd.DataFrame:
    """Build day by day in a few steps, one of them a correction of the past."""
    dates = sorted(set(world.days["trade_date"]))
    corrected = world.panel.copy()
    corrected.loc[corrected["trading_day"] == 22, "plain"] *= -1
    first = World(world.days, corrected, world.sanitizer)
    built.deliver(first.until(dates[30]))
    built.build()
    for last, delivered in ((31, first), (31, first), (40, first), (45, world), (61, world)):
        built.deliver(delivered.until(dates[last]))
        rows = built.build(is_incremental=True)
    return rows


def test_days_added_are_days_built_at_once(world, built):
    grown = Build()
    pd.testing.assert_frame_equal(deliveries(world, grown), built.health())
    # more factors than one statement measures
    assert grown.model.incremental[0].count("insert into measured_factor_days") == 2


def test_another_horizon_makes_every_day_anew(world):
    short, long = model(MODEL), model(MODEL, {"factor_health_horizon_days": 5})
    assert short.full[1] != long.full[1]


FAULTS = {
    "the universe does not matter": ("where factor_panel.in_universe", ""),
    "the entry is not waited for": ("lead(close, 1)", "lead(close, 0)"),
    "the exit is a day early": ("lead(last_close, 5)", "lead(last_close, 4)"),
    "ties share the first place": ("round(placed.share_up_to * known.known_count)", "first_place"),
    "ties of the pairs share the first place": (
        "round(cume_dist() over by_value * count(*) over of_day)", "0"
    ),
    "ties of returns share the first place": (
        "round(cume_dist() over by_return * count(*) over of_day)", "0"
    ),
    "rows without a forward return are ranked": (
        "from stacked\n    where forward_return is not null", "from stacked",
    ),
    "too few stocks count": ("count(*) >= 12", "count(*) >= 11"),
    "the last row counts as the day before": (
        "lag(factor_day) over of_stock = factor_day - 1 as", "true as"
    ),
    "the first top is all new": ("and tops_before.top_count > 0", ""),
    "few stocks have a top": ("least(known.known_count, known_before.known_count) >= 12", "true"),
    "what has no square correlates": ("max(factor_value) - min(factor_value) > 1e-140", "true"),
    "the top is a quarter": ("(1 - 0.2::double)", "(1 - 0.25::double)"),
    "the bottom is the top": ("place > (1 - 0.2::double)", "place < (1 - 0.2::double)"),
    "unknown values are known": ("where factor_value is not null", ""),
    "another stock was there before": (
        "partition by factor_stock order by factor_day", "order by factor_day, factor_stock"
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_noticed(world, expected_days, fault):
    text, other = FAULTS[fault]
    found = health_of(world, faults={text: other}).health()
    with pytest.raises(AssertionError):
        compare(found, expected_days)


def test_a_fault_of_growing_is_noticed(world, built):
    grown = Build(faults={})
    before, select, after = grown.model.incremental
    text = "where trade_date >= ("
    assert text in before
    # the day before the first new one is not read
    grown.model.incremental = before.replace(text, "where trade_date > ("), select, after
    with pytest.raises(AssertionError):
        pd.testing.assert_frame_equal(deliveries(world, grown), built.health())


# ---- the page


def report(file, output, *arguments):
    return CliRunner().invoke(
        main, ["report", "factors", "--db", str(file), "--output", str(output), *arguments]
    )


@pytest.fixture(scope="module")
def warehouse_file(built, tmp_path_factory):
    """A file with the relations that the page reads; a family never known, two others."""
    file = tmp_path_factory.mktemp("health") / "health.duckdb"
    months = built.monthly()
    families = pd.DataFrame(
        [
            {"factor_id": name, "family": family, "direction": 0}
            for name, family in zip(FACTORS, ["first"] * 5 + ["second_one"] * 5, strict=True)
        ]
        + [{"factor_id": "never", "family": "third", "direction": -1}]
    )
    never = months[months["factor_id"] == "two"].assign(
        factor_id="never", null_share=1.0, distinct_share=np.nan, ic_days=0,
        **dict.fromkeys((*NUMBERS, "ic_std", "ic_ir", "rank_ic_std", "rank_ic_ir"), np.nan),
    )  # fmt: skip
    with duckdb.connect(str(file)) as connection:
        connection.execute("create schema factors")
        put(
            connection,
            {
                "factors.factor_health": pd.concat([months, never]),
                "factors.factor_catalog": families,
            },
        )
    return file


@pytest.fixture(scope="module")
def page(warehouse_file, tmp_path_factory) -> str:
    output = tmp_path_factory.mktemp("page") / "deep" / "factors.html"
    done = report(warehouse_file, output)
    assert done.exit_code == 0, done.output
    return output.read_text()


def test_the_page_is_one_file_without_network_or_script(page):
    text = re.sub(r"data:image/png;base64,[\w+/=\s]+", "", page)
    addresses = set(re.findall(r"(?:https?:)?//[\w./-]+", text))
    names = ("http://www.w3.org/", "http://purl.org/", "http://creativecommons.org/")
    assert all(address.startswith(names) for address in addresses), addresses
    assert not re.search("<script|<link|@import", page)


def test_every_plot_is_there_once(page):
    pictures = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    names = [re.search(r'\bid="([^"]+)"', picture)[1] for picture in pictures]
    assert names == [
        "families", "factors", "rank-ic", "rank-ic-ir", "gaps", "turnover", "autocorrelation",
    ]  # fmt: skip
    for picture in pictures:
        ElementTree.fromstring(picture)
    months = pictures[1]
    assert all(name in months for name in FACTORS if name not in RARE)
    assert "never" not in months
    assert not any(name in pictures[i] for i in (1, 2, 3, 5) for name in RARE)
    assert "2 of the factors have a rank IC on less than a quarter of the days" in page
    assert "third" in pictures[4]


def test_the_table_pools_the_days_of_all_months(page, expected_days):
    cells = {
        row[0]: row
        for row in (
            re.findall(r"<td[^>]*>(.*?)</td>", line)
            for line in re.findall("<tr>.*?</tr>", page, re.DOTALL)
        )
        if row
    }
    assert set(cells) == {*FACTORS, "never"}
    for name, found in expected_days.groupby("factor_id"):
        daily = found["rank_ic"].dropna()
        _, _, _, days, rank_ic, ratio, ic, unknown, *_ = cells[name]
        assert days == f"{len(daily)}"
        assert rank_ic == f"{daily.mean():,.4f}"
        assert ratio == f"{daily.mean() / daily.std(ddof=1):,.2f}"
        assert ic == f"{found['ic'].mean():,.4f}"
        share = 1 - found["known_count"].sum() / found["row_count"].sum()
        assert unknown == f"{100 * share:.1f} %"
    assert cells["never"][4:7] == ["–"] * 3
    ratios = [
        (name in (*RARE, "never"), -abs(float(row[5].replace("–", "0"))))
        for name, row in cells.items()
    ]
    assert ratios == sorted(ratios)


def test_the_same_warehouse_gives_the_same_page(page, warehouse_file, tmp_path):
    assert report(warehouse_file, tmp_path / "again.html").exit_code == 0
    assert (tmp_path / "again.html").read_text() == page


@pytest.mark.parametrize("family", ["second_one", "third"])
def test_a_page_of_one_family(warehouse_file, tmp_path, family):
    output = tmp_path / "family.html"
    done = report(warehouse_file, output, "--family", family)
    assert done.exit_code == 0, done.output
    text = output.read_text()
    assert ">plain<" not in text
    assert (">signal<" in text) == (family == "second_one")


def test_an_unknown_family_is_refused_by_name(warehouse_file, tmp_path):
    done = report(warehouse_file, tmp_path / "none.html", "--family", "forth")
    assert done.exit_code == 1
    assert "'forth'; families are first, second_one, third" in done.output
    assert not list(tmp_path.iterdir())


def test_a_warehouse_without_factors_says_what_makes_them(tmp_path):
    file = tmp_path / "empty.duckdb"
    duckdb.connect(str(file)).close()
    done = report(file, tmp_path / "none.html")
    assert done.exit_code == 1
    assert "dbt build --select +factor_health" in done.output
