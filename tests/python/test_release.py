"""Release: folds, gating, decisions and drift against tests/python/oracle_release.py."""

import csv
import datetime
import functools
import itertools
import math
import random
from collections.abc import Callable

import duckdb
import pyarrow as pa
import pytest

import oracle_release as oracle
from oracle_release import Evaluation, Position
from rendering import macro_context
from warehouse import REPO, memory_connection

MACROS = ("settings", "folds", "pm_settings", "head_metrics", "statistics", "release")
SETTINGS = {
    "walk_forward_release_folds": 5,
    "release_return_period_minutes": 60,
    "release_days_per_year": 365,
    "release_consistency_period_minutes": 1440,
    "drift_bins": 10,
    "drift_share_floor": 0.0001,
    "drift_top_k": 3,
    "head_metric_min_period_rows": 5,
    "head_metric_top_k": 1,
    "head_metric_bins": 6,
    "head_metric_min_bin_rows": 5,
    "head_metric_curve_bins_per_bin": 4,
    "head_metric_curve_bins_per_doubling": 8,
    "head_metric_tail_bins": 4,
    "head_metric_log_loss_clip": 1e-15,
    "head_metric_confidence": 0.8,
    "head_metric_bootstrap_draws": 0,
    "head_metric_bootstrap_seed": 7,
    "head_metric_block_periods": 3,
    "head_metric_min_blocks": 2,
}
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
START = 20_000 * DAY  # a midnight


def macros(changed: dict | None = None) -> dict[str, Callable]:
    """Return the macros by name, rendered as dbt does, with settings instead of its project."""
    return macro_context(SETTINGS | (changed or {}), MACROS)


def oracle_settings(changed: dict | None = None) -> dict:
    values = SETTINGS | (changed or {})
    return values | {
        "return_period_minutes": values["release_return_period_minutes"],
        "consistency_period_minutes": values["release_consistency_period_minutes"],
    }


def seed(name: str) -> list[dict]:
    with (REPO / "seeds" / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def moment(milliseconds: int) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=milliseconds)


def milliseconds(moment: datetime.datetime) -> int:
    return (moment - datetime.datetime(1970, 1, 1)) // datetime.timedelta(milliseconds=1)


class Tables:
    """Made-up relations in memory, and what the macros make of them."""

    def __init__(self, threads: int = 2):
        self.connection = memory_connection(threads)

    def add(self, name: str, rows: list[dict], **types: str) -> None:
        """Make a table; `types` are its columns in order, as DuckDB names them."""
        columns = ", ".join(f"{column} {kind}" for column, kind in types.items())
        self.connection.execute(f"create or replace table {name} ({columns})")
        if rows:
            places = ", ".join([f"({', '.join('?' * len(types))})"] * len(rows))
            values = [row.get(column) for row in rows for column in types]
            self.connection.execute(f"insert into {name} values {places}", values)

    def rows(self, query: str, mutation: tuple[str, str] | None = None) -> list[dict]:
        if mutation:
            assert mutation[0] in query, mutation
            query = query.replace(*mutation)
        self.connection.execute(f"create or replace table result as {query}")
        return self.connection.sql("from result").to_arrow_table().to_pylist()


def differs(found, expected, tolerance: float = 1e-9) -> bool:
    if isinstance(expected, str | bool | list) or found is None or expected is None:
        return found != expected
    if math.isinf(expected):
        return found != expected
    return not abs(found - expected) <= tolerance * max(1.0, abs(expected))


def differences(found: dict, expected: dict) -> set[tuple]:
    """Compare {key: columns}, of `found` those that are expected; return (key, column)."""
    if set(found) != set(expected):
        return {(key, "row") for key in set(found) ^ set(expected)}
    return {
        (key, column)
        for key, columns in expected.items()
        for column, value in columns.items()
        if differs(found[key][column], value)
    }


# ---- folds and the history of gating


def held(symbol: str, number: int, split: str, signal: int, edge: float | None, minutes: int = 30):
    """A position of `symbol` with its signal at a minute of the made-up market."""
    signal_ms = START + signal * MINUTE
    return Position(
        symbol, f"{symbol}@{number}", split, signal_ms, signal_ms + minutes * MINUTE, edge
    )


def made_up_market(
    seed: int,
    minutes: int = 4_000,
    symbols: tuple[str, ...] = ("B", "A"),
    rate: float = 0.02,
    null_rate: float = 0.0,
    drift: float = 1.0,
) -> tuple[list[Position], list[tuple]]:
    """Positions, some of which close at one time, and rows with gaps; Z never trades."""
    chance = random.Random(seed)
    positions, rows = [], []
    for symbol in (*symbols, "Z"):
        begins, ends = chance.randrange(200), minutes - chance.randrange(200)
        for minute in range(begins, ends, 1 if symbol != "Z" else 97):
            split = ("tune_inner", "validation_locked", "latest_stress")[3 * minute // minutes]
            if 1000 < minute % 2880 < 2500 and symbol == symbols[0]:
                continue  # whole days without a row
            rows.append((symbol, START + minute * MINUTE, split))
            if symbol != "Z" and chance.random() < rate:
                edge = round(chance.gauss(drift, 8.0), 1)
                positions.append(
                    held(
                        symbol,
                        len(positions),
                        split,
                        minute,
                        None if chance.random() < null_rate else edge,
                        chance.choice([1, 5, 45]),
                    )
                )
    return positions, rows


def market_of_edges() -> tuple[list[Position], list[tuple]]:
    """Ten days, two a fold; signals at the first and last minute of each, and days that earn 0."""
    rows = [("A", START + hour * HOUR, "validation_locked") for hour in range(240)]
    rows.append(("A", START + 10 * DAY - MINUTE, "latest_stress"))
    positions = [
        held("A", number, "validation_locked", minute, edge)
        for number, (minute, edge) in enumerate(
            (1440 * day + minute, edge if day % 3 else 0.0)
            for day in range(10)
            for minute, edge in ((0, 3.0 + day), (1439, -1.0))
        )
    ]
    return positions, rows


def market_tables(positions: list[Position], rows: list[tuple], threads: int = 2) -> Tables:
    tables = Tables(threads)
    records = [
        {
            "symbol": p.symbol,
            "position_id": p.position_id,
            "eval_split": p.split,
            "signal_time": moment(p.signal_ms),
            "closed_at": moment(p.closed_ms),
            "weighted_edge_bps": p.edge,
        }
        for p in positions
    ]
    schema = pa.schema(
        [
            ("symbol", pa.string()),
            ("position_id", pa.string()),
            ("eval_split", pa.string()),
            ("signal_time", pa.timestamp("us")),
            ("closed_at", pa.timestamp("us")),
            ("weighted_edge_bps", pa.float64()),
        ]
    )
    tables.connection.register("arrow_positions", pa.Table.from_pylist(records, schema=schema))
    frame = [
        {"symbol": symbol, "event_time": moment(time_ms), "split_id": split}
        for symbol, time_ms, split in rows
    ]
    schema = pa.schema(
        [("symbol", pa.string()), ("event_time", pa.timestamp("us")), ("split_id", pa.string())]
    )
    tables.connection.register("arrow_frame", pa.Table.from_pylist(frame, schema=schema))
    for name in ("positions", "frame"):
        tables.connection.execute(f"create table {name} as from arrow_{name}")
    return tables


def fold_rows(tables: Tables, changed: dict | None = None, mutation=None) -> dict:
    found = tables.rows(macros(changed)["release_folds"]("positions", "frame"), mutation)
    for row in found:
        row["starts_at"], row["ends_at"] = map(milliseconds, (row["starts_at"], row["ends_at"]))
    return {(row["subject"], row["fold"]): row for row in found}


def history_rows(tables: Tables, changed: dict | None = None, mutation=None) -> dict:
    found = tables.rows(macros(changed)["release_history"]("positions", "frame"), mutation)
    return {(row["subject"], row["checkpoint"]): row for row in found}


MARKETS = [
    ({"seed": 1}, {}),
    ({"seed": 2, "null_rate": 0.05}, {"walk_forward_release_folds": 7}),
    (
        {"seed": 3, "rate": 0.003, "drift": -1.0},
        {"release_return_period_minutes": 37, "release_consistency_period_minutes": 600},
    ),
    (
        {"seed": 4, "symbols": ("A",), "rate": 0.2},
        {"walk_forward_release_folds": 2, "release_days_per_year": 250},
    ),
]


@pytest.mark.parametrize(("market", "changed"), MARKETS)
def test_folds_and_history_equal_their_definitions(market, changed):
    positions, rows = made_up_market(**market)
    tables = market_tables(positions, rows)
    settings = oracle_settings(changed)
    expected = oracle.folds(positions, rows, settings)
    assert differences(fold_rows(tables, changed), expected) == set()
    assert any(not row["position_count"] for row in expected.values())
    expected = oracle.history(positions, rows, settings)
    assert differences(history_rows(tables, changed), expected) == set()


def test_edges_of_folds_and_days_equal_their_definitions():
    positions, rows = market_of_edges()
    tables, settings = market_tables(positions, rows), oracle_settings()
    assert differences(fold_rows(tables), oracle.folds(positions, rows, settings)) == set()
    assert differences(history_rows(tables), oracle.history(positions, rows, settings)) == set()


def test_folds_meet_without_a_gap_and_hold_every_position_once():
    positions, rows = made_up_market(5)
    found = fold_rows(market_tables(positions, rows), {"walk_forward_release_folds": 7})
    for subject in ("A", "B", "Z", "ALL"):
        own = [found[subject, fold] for fold in range(1, 8)]
        assert all(a["ends_at"] == b["starts_at"] for a, b in itertools.pairwise(own))
        sealed = [p for p in positions if p.split in oracle.SEALED]
        held_here = [p for p in sealed if subject in ("ALL", p.symbol)]
        assert sum(row["position_count"] for row in own) == len(held_here)
        lengths = {row["ends_at"] - row["starts_at"] for row in own}
        assert max(lengths) - min(lengths) <= 1  # ms


@pytest.fixture(scope="module")
def one_day() -> Callable:
    """One symbol with rows on a sealed day of ten hours, and the positions that a test gives."""

    def tables(*positions: Position) -> Tables:
        rows = [("A", START + minute * MINUTE, "validation_locked") for minute in range(600)]
        return market_tables(list(positions), rows)

    return tables


def test_a_signal_at_a_border_opens_the_later_fold(one_day):
    found = fold_rows(
        one_day(
            held("A", 1, "validation_locked", 119, 1.0),
            held("A", 2, "validation_locked", 120, 2.0),
        )
    )
    assert found["A", 1]["return_bps"] == 1.0
    assert found["A", 2]["return_bps"] == 2.0


def test_a_first_loss_is_a_drawdown_and_equity_runs_by_closing_time(one_day):
    found = fold_rows(
        one_day(
            held("A", 1, "validation_locked", 0, -3.0, minutes=1),
            held("A", 2, "validation_locked", 5, 5.0, minutes=90),
            held("A", 3, "validation_locked", 6, -4.0, minutes=1),
        )
    )
    assert found["A", 1]["max_drawdown_bps"] == 7.0
    assert found["A", 1]["profit_factor"] == 5 / 7


def test_returns_that_do_not_vary_have_no_sharpe_ratio_and_no_fitness(one_day):
    every_hour = [held("A", hour, "validation_locked", 60 * hour, 0.1) for hour in range(10)]
    tables = one_day(*every_hour)
    assert all(row["sharpe"] is None for row in fold_rows(tables).values())
    assert all(row["fitness"] is None for row in history_rows(tables).values())
    assert all(row["is_positive"] for row in fold_rows(tables).values())


def test_an_unknown_result_makes_everything_that_rests_on_it_unknown(one_day):
    tables = one_day(
        held("A", 1, "validation_locked", 10, 5.0),
        held("A", 2, "validation_locked", 130, None),
        held("A", 3, "validation_locked", 131, 5.0),
    )
    fold = fold_rows(tables)["A", 2]
    assert fold["position_count"] == 2
    assert not fold["is_positive"]
    for name in ("return_bps", "profit_factor", "max_drawdown_bps", "sharpe"):
        assert fold[name] is None
    before, after = history_rows(tables)["A", 1], history_rows(tables)["A", 2]
    for name in ("profit_factor", "max_drawdown_pct", "fitness"):
        assert before[name] is not None
        assert after[name] is None


def test_fitness_of_two_equally_frequent_returns_is_known(one_day):
    """Two equally frequent values: skewness 0, kurtosis 1, so Phi(SR sqrt(n - 1)) is left."""
    edges = [3.0, -1.0] * 5
    tables = one_day(
        *(held("A", hour, "validation_locked", 60 * hour, edges[hour]) for hour in range(10))
    )
    final = history_rows(tables)["A", 5]
    ratio = 1 / math.sqrt(40 / 9)
    assert not differs(final["skewness"], 0.0)
    assert not differs(final["kurtosis"], 1.0)
    assert not differs(final["fitness"], 0.5 * math.erfc(-ratio * 3 / math.sqrt(2)))


def test_the_tune_split_and_row_order_and_threads_change_nothing():
    positions, rows = made_up_market(6)
    before = market_tables(positions, rows, threads=1)
    sealed = [p for p in positions if p.split in oracle.SEALED]
    sealed_rows = [row for row in rows if row[2] in oracle.SEALED]
    assert len(sealed) < len(positions)
    random.Random(0).shuffle(sealed)
    random.Random(0).shuffle(sealed_rows)
    after = market_tables(sealed, sealed_rows, threads=2)
    assert fold_rows(before) == fold_rows(after)  # to the last bit
    assert history_rows(before) == history_rows(after)


def test_a_symbol_may_not_be_named_all():
    tables = market_tables([], [("ALL", START, "validation_locked")])
    with pytest.raises(duckdb.Error, match="a symbol is named ALL"):
        fold_rows(tables)


# ---- gating

HISTORY = {
    "subject": "varchar",
    "checkpoint": "bigint",
    "fitness": "double",
    "profit_factor": "double",
    "consistency_pct": "double",
    "max_drawdown_pct": "double",
}
BEST = {"fitness": 0.9, "profit_factor": 9.0, "consistency_pct": 100.0, "max_drawdown_pct": 0.0}


def gating_rows(histories: dict[str, list[dict]], judged: str, mutation=None) -> dict:
    tables = Tables()
    rows = [
        {"subject": subject, "checkpoint": number} | checkpoint
        for subject, checkpoints in histories.items()
        for number, checkpoint in enumerate(checkpoints, start=1)
    ]
    random.Random(1).shuffle(rows)
    tables.add("history", rows, **HISTORY)
    tables.add(
        "limits",
        seed("gating_thresholds"),
        classification="varchar",
        rank="integer",
        criterion="varchar",
        comparison="varchar",
        threshold="double",
    )
    query = macros()["gate"]("history", "limits", judged=judged)
    return {row["subject"]: row for row in tables.rows(query, mutation)}


def expected_gating(histories: dict[str, list[dict]], judged: str) -> dict:
    return {
        subject: oracle.gate(
            [{"checkpoint": n} | values for n, values in enumerate(checkpoints, start=1)], judged
        )
        for subject, checkpoints in histories.items()
    }


def edge_histories() -> dict[str, list[dict]]:
    """Each value at each threshold and a step to both sides, the others beyond reproach."""
    histories = {}
    for limits in (oracle.APPROVED, oracle.REVIEW):
        for name, limit in limits.items():
            around = (limit, math.nextafter(limit, -9), math.nextafter(limit, 99))
            for value in (*around, None, math.nan, math.inf, -math.inf):
                histories[f"{name} {limit} {value}"] = [BEST | {name: value}]
    histories["on every threshold"] = [dict(oracle.APPROVED)]
    histories["on every lower threshold"] = [dict(oracle.REVIEW)]
    return histories


def checkpoint_histories() -> dict[str, list[dict]]:
    """Random histories of few values, so that ties occur, some of them unknown."""
    chance = random.Random(3)
    return {
        f"history {number}": [
            BEST
            | {
                "fitness": chance.choice([0.4, 0.6, 0.6, 0.9, None, math.nan]),
                "profit_factor": chance.choice([1.0, 1.5, 2.0]),
            }
            for _ in range(chance.randrange(1, 6))
        ]
        for number in range(60)
    }


@pytest.mark.parametrize("judged", ["used", "final"])
def test_gating_is_that_of_document_004_at_every_edge(judged):
    histories = edge_histories() | checkpoint_histories()
    expected = expected_gating(histories, judged)
    assert {row["classification"] for row in expected.values()} == {"APPROVED", "REVIEW", "DROP"}
    assert differences(gating_rows(histories, judged), expected) == set()


def test_the_best_checkpoint_is_used_where_it_beats_the_final_one():
    def checkpoint(fitness, profit_factor=9.0):
        return BEST | {"fitness": fitness, "profit_factor": profit_factor}

    histories = {
        "beaten": [checkpoint(0.8, 1.5), checkpoint(0.9), checkpoint(0.9, 1.0), checkpoint(0.2)],
        "equal": [checkpoint(0.9, 1.0), checkpoint(0.9)],
        "unknown": [checkpoint(0.9), checkpoint(None)],
    }
    used = gating_rows(histories, "used")
    assert used["beaten"]["checkpoint_index"] == 2  # the earliest of equals
    assert used["beaten"]["classification"] == "APPROVED"
    assert used["equal"]["use_checkpoint"] is False
    assert used["equal"]["judged_checkpoint"] == 2
    assert used["unknown"]["classification"] == "DROP"
    final = gating_rows(histories, "final")
    assert final["beaten"]["use_checkpoint"] is True
    assert final["beaten"]["judged_checkpoint"] == 4
    assert final["beaten"]["classification"] == "DROP"


@pytest.mark.parametrize(
    ("comparison", "passes"), [(">=", (1, 2)), (">", (2,)), ("<=", (0, 1)), ("<", (0,))]
)
def test_a_comparison_is_false_for_what_is_unknown(comparison, passes):
    condition = macros()["meets"]("value", "comparison", "threshold")
    connection = duckdb.connect()
    for value in (0.0, 1.0, 2.0, None, math.nan):
        for threshold in (1.0, None):
            found = connection.execute(
                f"select {condition}"
                " from (select $1::double as value, $2 as comparison, $3::double as threshold)",
                [value, comparison, threshold],
            ).fetchall()
            assert found == [(threshold is not None and value in passes,)]


def test_gate_refuses_another_word():
    with pytest.raises(ValueError, match="judged is 'best', expected used or final"):
        macros()["gate"]("history", "limits", judged="best")


# ---- walk-forward summary

FOLDS = {
    "subject": "varchar",
    "fold": "bigint",
    "starts_at": "timestamp",
    "ends_at": "timestamp",
    "period_count": "bigint",
    "position_count": "bigint",
    "return_bps": "double",
    "sharpe": "double",
    "is_positive": "boolean",
}


def summary_rows(folds: dict, mutation=None, changed: dict | None = None) -> dict:
    tables = Tables()
    rows = [{"subject": s, "fold": number} | row for (s, number), row in folds.items()]
    tables.add("folds", rows, **FOLDS)
    tables.add(
        "limits",
        seed("walk_forward_thresholds"),
        criterion="varchar",
        rating="varchar",
        rank="integer",
        measure="varchar",
        comparison="varchar",
        threshold="double",
    )
    query = macros(changed)["release_summary"]("folds", "limits")
    return {row["subject"]: row for row in tables.rows(query, mutation)}


def random_folds(seed: int = 4, subjects: int = 80) -> dict:
    """Two to ten folds whose values are few, so that shares and spreads meet the thresholds."""
    chance = random.Random(seed)
    folds = {}
    for subject in range(subjects):
        for fold in range(1, chance.choice([2, 5, 5, 5, 10]) + 1):
            earned = chance.choice([None, 0.0, -2.0, 1.0, 1.0, 3.0])
            if subject % 9 == 0:
                earned = abs(earned or 1.0)
            folds[f"S{subject}", fold] = {
                "period_count": chance.choice([24, 25]),
                "position_count": chance.randrange(4),
                "return_bps": earned,
                "sharpe": chance.choice([None, -2.0, 2.0, 2.0, 3.0]),
                "is_positive": earned is not None and earned > 0,
            }
    # standard deviations of exactly 1 and 2
    for subject, ratios in {"one": [-1, 0, 1], "two": [-2, 0, 2]}.items():
        for fold, ratio in enumerate(ratios, start=1):
            folds[subject, fold] = folds["S0", 1] | {"sharpe": float(ratio)}
    return folds


def test_the_summary_and_its_ratings_equal_their_definitions():
    folds = random_folds()
    expected = oracle.by_subject(folds, lambda rows: oracle.summary(rows, oracle_settings()))
    for criterion in ("positive_folds", "sharpe_spread", "fold_returns"):
        ratings = {row[f"{criterion}_rating"] for row in expected.values()} - {None}
        assert ratings == {"good", "marginal", "poor"}
    assert expected["one"]["sharpe_spread_rating"] == "marginal"
    assert expected["two"]["sharpe_spread_rating"] == "marginal"
    assert differences(summary_rows(folds), expected) == set()


@pytest.mark.parametrize(
    ("positive", "rating"),
    [(0, "poor"), (2, "poor"), (3, "marginal"), (4, "good"), (5, "good")],
)
def test_positive_folds_of_five_are_rated_as_document_004_says(positive, rating):
    fold = {"period_count": 24, "position_count": 1, "sharpe": 1.0}
    folds = {
        ("A", n): fold
        | {"return_bps": 1.0 if n <= positive else -1.0, "is_positive": n <= positive}
        for n in range(1, 6)
    }
    assert summary_rows(folds)["A"]["positive_folds_rating"] == rating


# ---- deployment


def combinations() -> list[tuple]:
    """Every combination of what the rules look at, unknown included."""
    ratings = ("good", "marginal", "poor", None)
    return list(
        itertools.product(
            (0, 7), (0, 3), ratings, ratings, ("APPROVED", "REVIEW", "DROP", None),
            ("PASS", "REJECTED", None),
        )
    )  # fmt: skip


@functools.cache
def decision_rows(mutation: tuple[str, str] | None = None) -> dict[tuple, list[dict]]:
    """Return the decisions on every combination, the backtest's verdicts one after the other."""
    found = {}
    for status in ("PASS", "REJECTED", None):
        tables = Tables()
        own = {f"S{n:04}": c for n, c in enumerate(combinations()) if c[5] == status}
        tables.add(
            "summary",
            [
                dict(
                    zip(
                        ("position_count", "positive_folds", "positive_folds_rating",
                         "sharpe_spread_rating"),
                        combination, strict=False,
                    )
                )
                | {"subject": subject}
                for subject, combination in own.items()
            ],
            subject="varchar", position_count="bigint", positive_folds="bigint",
            positive_folds_rating="varchar", sharpe_spread_rating="varchar",
            fold_returns_rating="varchar", fold_count="bigint", positive_share="double",
            sharpe_mean="double", sharpe_stddev="double", return_bps="double",
        )  # fmt: skip
        tables.add(
            "gating",
            [
                {"subject": subject, "classification": combination[4]}
                for subject, combination in own.items()
                if combination[4]  # an unknown class has no row
            ],
            subject="varchar", classification="varchar", flags="varchar[]",
            use_checkpoint="boolean", fitness="double", profit_factor="double",
            consistency_pct="double", max_drawdown_pct="double",
        )  # fmt: skip
        tables.add(
            "manifest",
            [{"executed_status": status}] if status else [],  # no backtest at all
            executed_status="varchar", executed_status_reasons="varchar[]", status="varchar",
            backtest_manifest_id="varchar",
        )  # fmt: skip
        rules = seed("deployment_rules")
        types = dict.fromkeys(rules[0], "varchar") | {"position": "integer"}
        tables.add("rules", rules, **types)
        query = macros()["decide_deployment"]("summary", "gating", "manifest", "rules")
        for row in tables.rows(query, mutation):
            found.setdefault(own[row["subject"]], []).append(row)
    return found


def test_every_combination_has_one_decision_that_of_the_first_rule():
    found = decision_rows()
    assert set(found) == set(combinations())
    assert len(found) == 2 * 2 * 4 * 4 * 4 * 3
    wrong = {}
    for combination, rows in found.items():
        expected = oracle.decision(*combination)
        if [(row["decision"], row["rule"]) for row in rows] != [expected]:
            wrong[combination] = (rows, expected)
    assert wrong == {}


def test_only_what_is_known_and_passes_is_deployed():
    for combination, (row,) in decision_rows().items():
        _, positive, folds_rating, spread_rating, classification, status = combination
        if row["decision"] == "LIVE":
            assert (folds_rating, spread_rating) == ("good", "good")
            assert (classification, status) == ("APPROVED", "PASS")
        if row["decision"] in ("LIVE", "PAPER"):
            assert positive
            assert status == "PASS"
            assert None not in (folds_rating, spread_rating, classification)
            assert "poor" not in (folds_rating, spread_rating)


def test_every_rule_of_the_seed_decides_somewhere():
    rules = {row["rule"] for rows in decision_rows().values() for row in rows}
    assert rules == {row["rule"] for row in seed("deployment_rules")}


# ---- drift


def random_samples(seed: int) -> dict[str, tuple[list, list]]:
    """Features as drift meets them: moved, tied, constant, missing, infinite."""
    chance = random.Random(seed)

    def values(count, draw, null_rate=0.0):
        return [None if chance.random() < null_rate else draw() for _ in range(count)]

    def normal(centre=0.0, spread=1.0):
        return lambda: chance.gauss(centre, spread)

    grid = [0.0, 0.0, 0.0, 1.0, 2.0, 5.0]
    return {
        "same": (values(300, normal()), values(200, normal())),
        "moved": (values(200, normal()), values(150, normal(1.0))),
        "wider": (values(101, normal()), values(77, normal(0.0, 3.0))),
        "far": (values(100, normal()), values(50, normal(50.0))),
        "tied": (values(200, lambda: chance.choice(grid)), values(99, lambda: chance.choice(grid))),
        "binary": (values(100, lambda: float(chance.random() < 0.3)), values(60, lambda: 1.0)),
        "constant": ([2.0] * 40, [2.0] * 30),
        "constant_moved_down": ([2.0] * 40, [1.0] * 30),
        "constant_moved_up": ([2.0] * 40, [3.0] * 30),
        "missing": (values(100, normal(), 0.3), values(80, normal(), 0.05)),
        "lost": (values(50, normal()), [None] * 20),
        "came": ([None] * 30, values(20, normal())),
        "never": ([None] * 30, [None] * 20),
        "few": (values(4, normal()), values(3, normal())),
        "one": ([1.0], [1.0]),
        "no_current": (values(10, normal()), []),
        "no_baseline": ([], values(10, normal())),
        "not_finite": (
            [*values(50, normal()), math.inf, math.nan],
            [*values(50, normal()), -math.inf, math.nan, math.nan],
        ),
    }


def drift_rows(samples: dict, changed: dict | None = None, mutation=None) -> dict:
    tables = Tables()
    rows = [
        {"subject": subject, "is_current": is_current, "value": value}
        for subject, sides in samples.items()
        for is_current, values in zip((False, True), sides, strict=True)
        for value in values
    ]
    schema = pa.schema(
        [("subject", pa.string()), ("is_current", pa.bool_()), ("value", pa.float64())]
    )
    tables.connection.register("samples", pa.Table.from_pylist(rows, schema=schema))
    query = macros(changed)["population_drift"]("samples")
    return {row["subject"]: row for row in tables.rows(query, mutation)}


def expected_drift(samples: dict, changed: dict | None = None) -> dict:
    settings = SETTINGS | (changed or {})
    expected = {}
    for subject, sides in samples.items():
        baseline, current = (
            [value if value is not None and math.isfinite(value) else None for value in side]
            for side in sides
        )
        expected[subject] = {
            "baseline_rows": len(baseline),
            "current_rows": len(current),
            "psi": oracle.population_stability(
                baseline, current, settings["drift_bins"], settings["drift_share_floor"]
            ),
            "median_shift": oracle.median_shift(baseline, current),
        }
    return expected


@pytest.mark.parametrize(
    "changed", [{}, {"drift_bins": 4, "drift_share_floor": 0.01}, {"drift_bins": 2}]
)
def test_psi_and_median_shift_equal_their_definitions(changed):
    samples = random_samples(5)
    expected = expected_drift(samples, changed)
    assert differences(drift_rows(samples, changed), expected) == set()


def test_psi_sees_what_it_must_and_nothing_else():
    found = drift_rows(random_samples(6))
    assert found["constant"]["psi"] == 0
    assert found["never"]["psi"] == 0
    assert found["same"]["psi"] < 0.2
    # everything left its bin: (1 - floor) ln(1 / floor) on both sides
    expected = 2 * (1 - 0.0001) * math.log(1 / 0.0001)
    for subject in ("constant_moved_down", "constant_moved_up", "came"):
        assert not differs(found[subject]["psi"], expected)
    assert found["lost"]["psi"] > 9
    assert found["no_current"]["psi"] is None
    assert found["constant_moved_down"]["median_shift"] == -math.inf
    assert found["lost"]["median_shift"] is None


def random_evaluations(seed: int, hours: int, symbols: int, steps: int | None) -> list[Evaluation]:
    """Evaluations with fewer symbols at some times, scores that tie, some values unknown."""
    chance = random.Random(seed)
    rows = []
    for hour, minute in itertools.product(range(hours), range(2)):
        for symbol in range(chance.randrange(1, symbols + 1)):
            score = chance.random()
            actual = float(chance.random() < score)
            if steps:
                score = round(score * steps) / steps
            rows.append(
                Evaluation(
                    f"S{symbol}@{hour}:{minute}",
                    hour,
                    minute,
                    chance.choice([None, math.nan]) if chance.random() < 0.04 else score,
                    None if chance.random() < 0.04 else actual,
                )
            )
    return rows


def evaluations() -> dict[str, tuple[list[Evaluation], list[Evaluation]]]:
    return {
        "smooth": (random_evaluations(1, 9, 8, None), random_evaluations(2, 6, 8, None)),
        "stepped": (random_evaluations(3, 9, 8, 4), random_evaluations(4, 6, 8, 3)),
        "few_symbols": (random_evaluations(5, 9, 8, None), random_evaluations(6, 6, 2, None)),
        "one_score": (random_evaluations(7, 3, 5, 1), random_evaluations(8, 2, 5, 1)),
    }


def quality_rows(series: dict, changed: dict | None = None, mutation=None) -> dict:
    tables = Tables()
    rows = [
        {
            "output": output,
            "kind": "probability",
            "role": role,
            "sample_id": row.sample_id,
            "event_time": moment(row.hour * HOUR + row.minute * MINUTE),
            "evaluation_period": moment(row.hour * HOUR),
            "prediction": row.prediction,
            "actual": row.actual,
        }
        for output, sides in series.items()
        for role, side in zip(("test", "stress"), sides, strict=True)
        for row in side
    ]
    others = [row | {"role": "locked", "prediction": 0.0} for row in rows]
    others += [row | {"output": "edge", "kind": "value"} for row in rows]
    kinds = (
        "varchar",
        "varchar",
        "varchar",
        "varchar",
        "timestamp",
        "timestamp",
        "double",
        "double",
    )
    schema = [
        (name, {"timestamp": pa.timestamp("us"), "double": pa.float64()}.get(kind, pa.string()))
        for name, kind in zip(rows[0], kinds, strict=True)
    ]
    table = pa.Table.from_pylist(rows + others, schema=pa.schema(schema))
    tables.connection.register("evaluations", table)
    query = macros(changed)["quality_drift"]("evaluations", "test", "stress")
    return {row["output"]: row for row in tables.rows(query, mutation)}


def expected_quality(series: dict, changed: dict | None = None) -> dict:
    settings = SETTINGS | (changed or {})
    expected = {}
    for output, sides in series.items():
        expected[output] = {}
        for name, side in zip(("baseline", "current"), sides, strict=True):
            expected[output] |= {
                f"{name}_rows": len(oracle.evaluated(side)),
                f"{name}_precision_at_k": oracle.precision_at_k(side, settings["drift_top_k"]),
                f"{name}_ece": oracle.calibration_error(
                    side,
                    settings["head_metric_bins"],
                    settings["head_metric_min_bin_rows"],
                ),
            }
    return expected


@pytest.mark.parametrize("changed", [{}, {"drift_top_k": 1, "head_metric_bins": 3}])
def test_precision_and_calibration_equal_their_definitions(changed):
    series = evaluations()
    expected = expected_quality(series, changed)
    assert expected["few_symbols"]["baseline_precision_at_k"] is not None
    assert (expected["few_symbols"]["current_precision_at_k"] is None) == (not changed)
    assert differences(quality_rows(series, changed), expected) == set()


def test_drift_statuses_are_inclusive_and_an_unknown_drift_has_none():
    status = macros()["drift_status"]("drift", "warn_at", "alarm_at")
    connection = duckdb.connect()
    for row in seed("drift_thresholds"):
        name, warn, alarm = row["check_name"], float(row["warn_at"]), float(row["alarm_at"])
        below = [math.nextafter(value, -9) for value in (warn, alarm)]
        for drift in (warn, alarm, *below, -1.0, math.inf, -math.inf, None, math.nan):
            found = connection.execute(
                f"select {status} from (select $1::double as drift, $2 as warn_at, $3 as alarm_at)",
                [drift, warn, alarm],
            ).fetchall()
            assert found == [(oracle.drift_status(name, drift),)], (name, drift)


# ---- the tests can fail


MUTATIONS = [
    ("folds", "greatest(max(equity_bps) over so_far, 0)", "max(equity_bps) over so_far"),
    ("folds", "// spans.length_ms + 1 as fold", "// (spans.length_ms + 60000) + 1 as fold"),
    ("folds", "count(*) = count(weighted_edge_bps)", "true"),
    ("folds", "order by closed_at, symbol, position_id\n", "order by time_ms, position_id\n"),
    ("folds", "select unnest(range(1, 6))", "select unnest(range(2, 6))"),
    ("folds", "stddev_samp(return_bps", "stddev_pop(return_bps"),
    ("folds", "null then 0 else positions_of_periods", "null then 1 else positions_of_periods"),
    ("folds", "('validation_locked', 'latest_stress')", "('validation_locked')"),
    ("history", "fold_positions.fold <= checkpoints", "fold_positions.fold = checkpoints"),
    ("history", "(return_moments.kurtosis - 1) / 4", "return_moments.kurtosis / 4"),
    ("history", "1 - return_moments.skewness", "1 + return_moments.skewness"),
    ("history", "sqrt(return_moments.period_count - 1)", "sqrt(return_moments.period_count)"),
    ("history", "return_bps > 0", "return_bps >= 0"),
    ("history", "checkpoints.ends_at_ms > days.first_time_ms", "true"),
    ("gating", "fitness desc, checkpoint)", "fitness desc, checkpoint desc)"),
    ("gating", "bests.best_fitness > last.fitness", "bests.best_fitness >= last.fitness"),
    ("gating", "nullif(fitness, 'nan'::double)", "fitness"),
    ("gating", "having bool_and(is_met)", "having bool_or(is_met)"),
    ("gating", "order by classes.rank) = 1", "order by classes.rank desc) = 1"),
    ("gating", "inequalities.threshold", "inequalities.threshold + 1e-9"),
    ("summary", "stddev_samp", "stddev_pop"),
    ("summary", "count(*) = count(value)", "true"),
    ("summary", "return_bps < 0", "return_bps <= 0"),
    ("decisions", "order by position) = 1", "order by position desc) = 1"),
    ("decisions", "summary.positive_folds > 0", "summary.positive_folds >= 0"),
    ("decisions", "left join manifest", "inner join manifest"),
    ("drift", "cuts_up_to - cuts_below > 1", "cuts_up_to - cuts_below > 0"),
    ("drift", "when is_unknown then -1", "when is_unknown then 0"),
    ("drift", "value <= cut_5", "value < cut_5"),
    ("drift", "ln(current_share / baseline_share)", "ln(baseline_share / current_share)"),
    ("drift", "isfinite(value)", "not isnan(value)"),
    ("quality", "having count(*) >= 3", "having count(*) > 3"),
    ("quality", "-prediction, 'sample_id'", "prediction, 'sample_id'"),
    ("quality", "- row_count as middle", "as middle"),
    ("quality", "kind = 'probability'", "true"),
    ("quality", "sum(row_count * highest_positives)", "avg(highest_positives) * sum(row_count)"),
]  # fmt: skip


@pytest.fixture(scope="module")
def mutated() -> dict[str, Callable]:
    """For each family, a function that says whether a mutation of its SQL is noticed."""
    markets = []
    settings = oracle_settings()
    for positions, rows in (
        made_up_market(1),
        made_up_market(2, null_rate=0.05),
        market_of_edges(),
    ):
        markets.append(
            (
                market_tables(positions, rows),
                oracle.folds(positions, rows, settings),
                oracle.history(positions, rows, settings),
            )
        )
    histories = edge_histories() | checkpoint_histories()
    gating = expected_gating(histories, "used")
    folds = random_folds()
    summary = oracle.by_subject(folds, lambda rows: oracle.summary(rows, oracle_settings()))
    samples, series = random_samples(5), evaluations()
    drift, quality = expected_drift(samples), expected_quality(series)

    def decisions(mutation):
        found = decision_rows(mutation)
        return set(found) != set(combinations()) or any(
            [(row["decision"], row["rule"]) for row in rows] != [oracle.decision(*combination)]
            for combination, rows in found.items()
        )

    return {
        "folds": lambda m: any(differences(fold_rows(t, {}, m), f) for t, f, _ in markets),
        "history": lambda m: any(differences(history_rows(t, {}, m), h) for t, _, h in markets),
        "gating": lambda m: differences(gating_rows(histories, "used", m), gating),
        "summary": lambda m: differences(summary_rows(folds, m), summary),
        "decisions": decisions,
        "drift": lambda m: differences(drift_rows(samples, {}, m), drift),
        "quality": lambda m: differences(quality_rows(series, {}, m), quality),
    }


@pytest.mark.parametrize(("family", "old", "new"), MUTATIONS)
def test_a_fault_in_the_sql_is_noticed(mutated, family, old, new):
    assert mutated[family]((old, new))


# ---- settings


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("walk_forward_release_folds", 1, "a whole number from 2"),
        ("walk_forward_release_folds", 2.5, "a whole number from 2"),
        ("release_return_period_minutes", 0, "a whole number from 1"),
        ("release_days_per_year", 0, "a number above 0"),
        ("release_days_per_year", "year", "a number"),
        ("release_consistency_period_minutes", -1, "a whole number from 1"),
        ("drift_bins", 1, "a whole number from 2"),
        ("drift_share_floor", 0, "a number between 0 and 0.5"),
        ("drift_top_k", True, "a whole number from 1"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(name, value, expected):
    with pytest.raises(ValueError, match=f"(?s)var '{name}'.*expected {expected}"):
        macros({name: value})["release_settings"]()


# ---- in the warehouse


def test_release_of_the_sample_equals_its_definition(sample_warehouse):
    """Folds, history, gating, summary and decisions, from the positions that were held."""
    held_there = sample_warehouse.query(
        "select symbol, position_id, eval_split, epoch_ms(signal_time) as signal_ms,"
        " epoch_ms(closed_at) as closed_ms, weighted_edge_bps"
        " from backtest.executed_positions"
    )
    positions = [
        Position(*row[:5], None if math.isnan(row[5]) else row[5])
        for row in held_there.itertuples(index=False)
    ]
    frame = sample_warehouse.query(
        "select symbol, epoch_ms(event_time), split_id from backtest.backtest_frame"
    )
    rows = list(frame.itertuples(index=False, name=None))
    settings = oracle_settings()
    with sample_warehouse.connect() as connection:

        def table(name: str) -> list[dict]:
            return connection.sql(f"from release.{name}").to_arrow_table().to_pylist()

        folds = {(row["subject"], row["fold"]): row for row in table("walk_forward_folds")}
        for row in folds.values():
            for name in ("starts_at", "ends_at"):
                row[name] = milliseconds(row[name])
        history = {(row["subject"], row["checkpoint"]): row for row in table("gating_history")}
        gating = {row["subject"]: row for row in table("model_gating")}
        summary = {row["subject"]: row for row in table("walk_forward_summary")}
        decisions = {row["subject"]: row for row in table("deployment_decisions")}
        ((status,),) = connection.execute(
            "select executed_status from backtest.backtest_manifest"
        ).fetchall()
    assert differences(folds, oracle.folds(positions, rows, settings)) == set()
    assert differences(history, oracle.history(positions, rows, settings)) == set()
    expected = oracle.by_subject(history, lambda group: oracle.gate(group, "final"))
    assert differences(gating, expected) == set()
    expected = oracle.by_subject(folds, lambda group: oracle.summary(group, settings))
    assert differences(summary, expected) == set()
    assert set(decisions) == set(summary) == set(gating)
    for subject, row in decisions.items():
        assert (row["decision"], row["rule"]) == oracle.decision(
            summary[subject]["position_count"],
            summary[subject]["positive_folds"],
            summary[subject]["positive_folds_rating"],
            summary[subject]["sharpe_spread_rating"],
            gating[subject]["classification"],
            status,
        )


def test_drift_of_the_sample_covers_every_feature_and_output(sample_warehouse):
    checks = sample_warehouse.query("from release.drift_check")
    features = sample_warehouse.query(
        "select distinct feature from seeds.head_features"
        " join seeds.head_targets using (feature_list) where track = 'minute'"
    )
    outputs = sample_warehouse.query(
        "select unnest(string_split(outputs, '|')) as output from seeds.head_targets"
        " where track = 'minute'"
    )
    for check_name in ("psi", "median_shift"):
        subjects = set(checks.loc[checks["check_name"] == check_name, "subject"])
        assert subjects == set(features["feature"]) | set(outputs["output"])
    both = sample_warehouse.query(
        "select checks.subject, checks.baseline, metrics.value"
        " from release.drift_check as checks"
        " join heads.head_metrics as metrics"
        " on metrics.output = checks.subject and metrics.metric = checks.check_name"
        " where checks.check_name = 'ece' and metrics.role = 'test'"
    )
    assert len(both) == 12
    assert (abs(both["baseline"] - both["value"]) < 1e-12).all()


def test_psi_of_the_sample_equals_its_definition(sample_warehouse):
    """On a few features, ties and missing values among them, and one output."""
    names = ["ret_5m_bps", "minute_of_day", "spread_rank_24h_pct", "zero_volume_share_60m_pct"]
    features = sample_warehouse.query(
        f"select split_id, {', '.join(names)} from factors.minute_features"
        " where split_id in ('fit', 'latest_stress')"
    )
    output = sample_warehouse.query(
        "select split_id, long_prob from heads.direction_predictions"
        " where split_id in ('tune_inner', 'latest_stress')"
    )
    found = sample_warehouse.query(
        "select subject, value from release.drift_check where check_name = 'psi'"
    ).set_index("subject")["value"]
    for frame, baseline, columns in (
        (features, "fit", names),
        (output, "tune_inner", ["long_prob"]),
    ):
        for name in columns:
            sides = [
                [None if math.isnan(value) else float(value) for value in frame.loc[rows, name]]
                for rows in (frame["split_id"] == baseline, frame["split_id"] == "latest_stress")
            ]
            expected = stability_of_many(*sides)
            assert not differs(found[name], expected), name


def stability_of_many(baseline: list, current: list) -> float:
    """population_stability of the oracle, each distinct value placed once."""
    known = sorted(value for value in baseline if value is not None)
    cuts = [known[max(1, -(-k * len(known) // 10)) - 1] for k in range(1, 10)]
    place = {value: oracle.bin_of(value, cuts) for value in {*baseline, *current}}
    shares = []
    for side in (current, baseline):
        counts = {}
        for value in side:
            counts[place[value]] = counts.get(place[value], 0) + 1
        shares.append({name: count / len(side) for name, count in counts.items()})
    index = 0.0
    for name in set(place.values()):
        p, q = (max(0.0001, share.get(name, 0.0)) for share in shares)
        index += (p - q) * math.log(p / q)
    return index
