"""The grid at its edges: every search, full and pruned, keyed or not, against the evaluator."""

import functools
import math
from collections.abc import Mapping, Sequence

import duckdb
import numpy as np
import pandas as pd
import pytest

import oracle_pm as oracle
from oracle_pm import AXES, METRICS
from pm_frames import FRAME_COLUMNS, SMALL_AXES, frame_of, random_frame
from pm_world import differences, macros, rows_of, write
from warehouse import memory_connection

FORMS = ("full", "pruned")
ORDERED = ("max_drawdown_bps", "max_consecutive_losses", "score", "score_rank")
UNORDERED = tuple(name for name in METRICS if name not in ORDERED)
BEST = 11  # the best and its ten runners-up, which a pruned search ranks
FEW_AXES = {name: values[:2] for name, values in SMALL_AXES.items()}
LOOSEST = dict(zip(AXES, (0.0, 0.0, 0.0, 1.0, -50.0, -1.0), strict=True))


def axes_of(**values: Sequence[float]) -> dict[str, Sequence[float]]:
    """Return axes of a single value that nearly everything meets, but for those given."""
    return {name: values.get(name, [LOOSEST[name]]) for name in AXES}


# ---- a search by SQL and by the evaluator


def connected(frame: pd.DataFrame, axes: Mapping, threads: int = 2) -> duckdb.DuckDBPyConnection:
    candidates = pd.DataFrame(oracle.candidates(axes))
    candidates.insert(0, "candidate_id", range(1, len(candidates) + 1))
    connection = memory_connection(threads)
    write(connection, {"pm.pm_frame": frame, "pm.pm_candidates": candidates[::-1]})
    return connection


@functools.cache
def grid_macros(**settings) -> dict:
    return macros(settings)


def query_of(form: str, keys: Sequence[str] = (), **settings) -> str:
    relations = ("pm.pm_frame", "pm.pm_candidates", list(keys))
    if form == "additive":
        return grid_macros(**settings)["pm_grid_additive"](*relations)
    return grid_macros(**settings)["pm_grid_metrics"](*relations, form)


def found_by(connection: duckdb.DuckDBPyConnection, query: str, keys: Sequence[str] = ()) -> list:
    return rows_of(connection, f"({query})", ", ".join([*keys, "candidate_id"]))


def searched(
    frame: pd.DataFrame, axes: Mapping, form: str, keys: Sequence[str] = (), **settings
) -> list[dict]:
    return found_by(connected(frame, axes), query_of(form, keys, **settings), keys)


def evaluated(
    frame: pd.DataFrame, axes: Mapping, keys: Sequence[str] = (), from_zero: bool = False
) -> list[list[dict]]:
    """Return the evaluator's search of each key, in the order of the keys.

    Where every edge is unknown the grid's total and drawdown are unknown too, the evaluator's 0.
    """
    groups = [((), frame)] if not keys else frame.groupby(list(keys), sort=True)
    found = []
    for values, rows in groups:
        found.append(oracle.grid(rows[list(FRAME_COLUMNS)], axes, from_zero))
        for row in found[-1]:
            row |= dict(zip(keys, values, strict=True))
            if row["score"] is None:
                row |= {"total_weighted_edge_bps": None, "max_drawdown_bps": None}
    return found


def ranked_when_pruned(search: list[dict]) -> list[dict]:
    """Return the candidates that a pruned search ranks: as good as the eleventh that trades."""
    scores = [row["score"] for row in search if row["trade_count"] and row["score"] is not None]
    if len(scores) < BEST:
        return search
    least = round(sorted(scores)[-BEST], 9)
    return [row for row in search if row["score"] is not None and round(row["score"], 9) >= least]


def wrong_columns(
    found: list[dict], expected: list[list[dict]], form: str, keys: Sequence[str] = ()
) -> set[tuple]:
    """Return (form, column) of what differs from the evaluator's."""
    every = [row for search in expected for row in search]
    wrong = differences(found, every, [*keys, "candidate_id", *UNORDERED], form)
    if wrong or form == "full":
        return wrong | differences(found, every, ORDERED, form)
    ranked = [row for search in expected for row in ranked_when_pruned(search)]
    ours = [row for row in found if row["score_rank"] is not None]
    wrong |= differences(ours, ranked, [*keys, "candidate_id", "score", "score_rank"], form)
    ours, theirs = ([row for row in rows if row["score"] is not None] for rows in (ours, ranked))
    wrong |= differences(ours, theirs, ORDERED, form)
    # the others are left open or right
    for ours, theirs in zip(found, every, strict=True):
        known = [name for name in ORDERED if ours[name] is not None]
        wrong |= differences([ours], [theirs], known, form)
    return wrong


def grid_differences(
    frame: pd.DataFrame, axes: Mapping, form: str, keys: Sequence[str] = (), **settings
) -> set[tuple]:
    from_zero = settings.get("pm_drawdown_from_zero", False)
    expected = evaluated(frame, axes, keys, from_zero)
    return wrong_columns(searched(frame, axes, form, keys, **settings), expected, form, keys)


# ---- frames with little to choose


def with_edges(frame: pd.DataFrame, change) -> pd.DataFrame:
    """Return the frame with actual edges changed by a function."""
    names = [f"actual_{side}_expected_net_edge_bps" for side in ("long", "short")]
    return frame.assign(**{name: change(frame[name].astype("float64")) for name in names})


def one_known_edge(frame: pd.DataFrame, place: int) -> pd.DataFrame:
    """Return the frame with all edges unknown but of the row at a place in time."""
    kept = oracle.ordered(frame)["sample_id"].iloc[place]
    return with_edges(frame, lambda edges: edges.fillna(2.0).where(frame["sample_id"] == kept))


def edge_frames() -> dict[str, pd.DataFrame]:
    usual = random_frame(31, 180, 4)
    known = random_frame(32, 180, 4, null_rate=0.0)
    return {
        "every trade loses": with_edges(known, lambda edges: -1.0 - edges.abs()),
        "every trade wins": with_edges(known, lambda edges: 1.0 + edges.abs()),
        "every trade earns nothing": with_edges(known, lambda edges: edges * 0.0),
        "every edge is the same": with_edges(known, lambda edges: edges * 0.0 - 3.0),
        "every edge is unknown": with_edges(usual, lambda edges: edges * math.nan),
        "the first edge alone is known": one_known_edge(known.assign(**wide_open()), 0),
        "the last edge alone is known": one_known_edge(known.assign(**wide_open()), -1),
        "no row trades": usual.assign(long_prob=0.1, short_prob=0.1),
        "every probability is unknown": usual.assign(long_prob=math.nan, short_prob=math.nan),
        "every risk is unknown": usual.assign(market_risk_prob=math.nan),
        "no side is open to long": usual.assign(long_entry_prob=math.nan),
        "both sides of every row": usual.assign(short_prob=usual["long_prob"], **entries()),
        "one row": frame_of({}),
        "one row of both sides": frame_of({"short_prob": 0.9}),
        "no row": usual.iloc[:0],
        "many rows": random_frame(38, 500, 9, drift_bps=3.0),
    }


def entries() -> dict[str, float]:
    return {"long_entry_prob": 0.6, "short_entry_prob": 0.6}


def wide_open() -> dict[str, float]:
    """What lets a row open LONG at every candidate."""
    return entries() | {
        "long_prob": 0.7,
        "short_prob": 0.1,
        "market_risk_prob": 0.2,
        "pred_long_expected_net_edge_bps": 9.0,
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", edge_frames())
def test_a_frame_with_little_to_choose_is_searched_as_the_evaluator_does(case, form):
    assert grid_differences(edge_frames()[case], FEW_AXES, form) == set()


def test_what_the_frames_are_named_for_is_so():
    def counts(case: str, name: str) -> set:
        (search,) = evaluated(edge_frames()[case], FEW_AXES)
        return {row[name] for row in search}

    assert counts("every trade loses", "win_rate") == counts("every trade loses", "profit_factor")
    assert counts("every trade loses", "win_rate") == {0.0}
    assert counts("every trade wins", "profit_factor") == {math.inf}
    assert counts("every trade earns nothing", "total_weighted_edge_bps") == {0.0}
    assert counts("every edge is unknown", "score") == {None}
    assert min(counts("every edge is unknown", "trade_count")) > 0
    for case in ("no row trades", "every probability is unknown", "every risk is unknown",
                 "no row"):  # fmt: skip
        assert counts(case, "score") == {oracle.NO_TRADES_SCORE}
    for case in ("the first edge alone is known", "the last edge alone is known"):
        assert None not in counts(case, "score")
        assert max(counts(case, "trade_count")) == 180


def test_nothing_is_known_of_edges_that_are_all_unknown():
    frame = edge_frames()["every edge is unknown"]
    unknown = ("avg_actual_edge_bps", "avg_weighted_edge_bps", "total_weighted_edge_bps",
               "max_drawdown_bps", "score")  # fmt: skip
    for form in FORMS:
        for row in searched(frame, FEW_AXES, form):
            assert {row[name] for name in unknown} == {None}
            assert (row["win_rate"], row["profit_factor"]) == (0.0, math.inf)


# the strict half of the candidates trades unknown edges alone
PARTLY_UNKNOWN = (
    frame_of(
        *[{"long_entry_prob": 0.4}] * 3,
        *[{"long_entry_prob": 0.9, "actual_long_expected_net_edge_bps": math.nan}] * 3,
        short_entry_prob=0.0,
    ),
    axes_of(min_entry_prob=[0.5, 0.3], long_open_prob=np.linspace(0.1, 0.8, 8)),
)


@pytest.mark.parametrize("form", FORMS)
def test_candidates_of_unknown_score_are_the_last(form):
    assert grid_differences(*PARTLY_UNKNOWN, form) == set()
    ranks = {row["candidate_id"]: row["score_rank"] for row in searched(*PARTLY_UNKNOWN, form)}
    loose = [number for number in ranks if number % 2 == 0]
    assert sorted(ranks, key=ranks.get)[:8] == loose


# ---- axes


SHAPES = {
    "single values": axes_of(),
    "one axis": axes_of(min_entry_prob=[0.6, 0.1, 0.3]),
    # more steps than a chunk has bits
    "a long axis": axes_of(max_market_risk_prob=[round(step * 0.01, 2) for step in range(101)]),
    "uneven axes": axes_of(
        long_open_prob=np.linspace(0.43, 0.61, 37),
        short_open_prob=[0.5, 0.6],
        min_expected_edge_bps=[-8.0, 7.0, 7.5, 31.0, 40.0],
    ),
    "values met by nothing": axes_of(
        long_open_prob=[0.5, 2.0], short_open_prob=[2.0, 0.5], min_expected_edge_bps=[0.0, 1e9]
    ),
    "every value twice": {name: [*values, *values] for name, values in axes_of(
        long_open_prob=[0.54, 0.5], min_entry_prob=[0.1, 0.4]
    ).items()},
    "zeros of either sign": axes_of(
        min_expected_edge_bps=[-0.0, 0.0], min_direction_margin=[0.0, -0.0]
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES)
def test_axes_of_any_shape_are_searched_as_the_evaluator_does(shape, form):
    assert grid_differences(random_frame(33, 200, 4), SHAPES[shape], form) == set()


@pytest.mark.parametrize("form", [*FORMS, "additive"])
@pytest.mark.parametrize("rows", [0, 20])
def test_a_grid_too_large_is_refused_with_what_to_do(form, rows):
    frame = random_frame(34, 20).iloc[:rows]
    axes = axes_of(long_open_prob=[0.5, 0.6], min_entry_prob=[0.1, 0.2, 0.3])
    assert len(searched(frame, axes, form, pm_max_candidates=6)) == 6
    message = (
        r"pm grid: 6 candidates \(long_open_prob 2 x short_open_prob 1 x min_entry_prob 3"
        r" x max_market_risk_prob 1 x min_expected_edge_bps 1 x min_direction_margin 1\)"
        r" are more than the 5 of var pm_max_candidates:"
        r" take values out of seeds/pm_grid_axes.csv or raise the var"
    )
    with pytest.raises(duckdb.Error, match=message):
        searched(frame, axes, form, pm_max_candidates=5)


# ---- several searches in one


def keyed_frame() -> pd.DataFrame:
    """Groups of very different size; the same samples in several; one without a trade."""
    usual = random_frame(35, 400, 5, drift_bps=2.0)
    parts = {
        ("b", 2): usual,
        ("b", 1): usual.assign(
            actual_long_expected_net_edge_bps=usual["actual_long_expected_net_edge_bps"][::-1].array
        ),
        ("a", 10): random_frame(36, 30, 2),
        ("a", 9): usual.assign(long_prob=0.0, short_prob=0.0),
        ("c", 1): with_edges(usual.iloc[:120], lambda edges: edges * math.nan),
        ("c", 3): frame_of({}),
    }
    rows = [part.assign(block=block, draw=draw) for (block, draw), part in parts.items()]
    return pd.concat(rows).sample(frac=1, random_state=1)


@pytest.mark.parametrize("from_zero", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_each_key_is_searched_as_if_alone(form, from_zero):
    settings = {"pm_drawdown_from_zero": True} if from_zero else {}
    assert grid_differences(keyed_frame(), FEW_AXES, form, ["block", "draw"], **settings) == set()


@pytest.mark.parametrize("form", FORMS)
def test_a_key_without_rows_has_no_search(form):
    frame = keyed_frame()
    assert searched(frame.iloc[:0], FEW_AXES, form, ["draw"]) == []


def additive_expected(frame: pd.DataFrame, axes: Mapping) -> list[dict]:
    row = oracle.columns_of(oracle.ordered(frame[list(FRAME_COLUMNS)]))
    found = []
    for candidate_id, thresholds in enumerate(oracle.candidates(axes), start=1):
        trades = oracle.admitted(row, thresholds)
        actual = oracle.known(trades["actual_edge_bps"])
        weighted = oracle.known(trades["weighted_edge_bps"])
        found.append(
            {
                "candidate_id": candidate_id,
                "trade_count": len(trades["side"]),
                "win_count": sum(edge > 0 for edge in actual),
                "known_count": len(actual),
                "actual_edge_sum_bps": math.fsum(actual),
                "weighted_edge_sum_bps": math.fsum(weighted),
                "weighted_edge_square_sum": math.fsum(edge * edge for edge in weighted),
                "gain_sum_bps": math.fsum(edge for edge in weighted if edge > 0),
                "loss_sum_bps": -math.fsum(edge for edge in weighted if edge < 0),
                "planned_ratio_sum": math.fsum(trades["planned_ratio"]),
            }
        )
    return found


def test_sums_of_each_key_are_the_evaluators():
    frame, keys = keyed_frame(), ["block", "draw"]
    expected = [
        dict(zip(keys, values, strict=True)) | row
        for values, rows in frame.groupby(keys)
        for row in additive_expected(rows, FEW_AXES)
    ]
    found = searched(frame, FEW_AXES, "additive", keys)
    assert differences(found, expected, list(expected[0])) == set()


# ---- ties


def tying_frame(gain_bps: float) -> pd.DataFrame:
    """Thirty trades, then five equal ones: each is given up at the second value of one axis."""
    odd = [
        {"long_prob": 0.6},
        {"long_prob": 0.05, "short_prob": 0.6},
        {"long_entry_prob": 0.4},
        {"market_risk_prob": 0.25},
        {"long_prob": 0.8, "short_prob": 0.65},
    ]
    usual = [{"actual_long_expected_net_edge_bps": (-4.0, 6.0, 1.0)[i % 3]} for i in range(30)]
    equal = {f"actual_{side}_expected_net_edge_bps": gain_bps for side in ("long", "short")}
    return frame_of(*usual, *(row | equal for row in odd))


TYING_AXES = axes_of(
    long_open_prob=[0.5, 0.7],
    short_open_prob=[0.5, 0.7],
    min_entry_prob=[0.3, 0.5],
    max_market_risk_prob=[0.3, 0.2],
    min_expected_edge_bps=[1.0],
    min_direction_margin=[0.1, 0.2],
)
TIES = {
    # 32 candidates by how many of the equal trades they give up
    "gains": (tying_frame(5.0), TYING_AXES, [1, 1, 5, 5, 10, 10]),
    "losses": (tying_frame(-5.0), TYING_AXES, [1, 1, 5, 5, 10, 10]),
    # every candidate takes the same trades
    "one set": (
        frame_of(*[{}] * 9),
        axes_of(min_entry_prob=[0.3, 0.2, 0.1, 0.0], long_open_prob=[0.3, 0.2, 0.1, 0.0]),
        [16],
    ),
    # no candidate takes a trade
    "no set": (frame_of({"long_prob": 0.0, "short_prob": 0.0}), TYING_AXES
               | {"long_open_prob": [0.5, 0.6]}, [32]),
}  # fmt: skip


@pytest.mark.parametrize("case", TIES)
def test_ties_go_to_the_first_candidate_and_pruned_is_the_first_eleven_of_full(case):
    frame, axes, sizes = TIES[case]
    full, pruned = (searched(frame, axes, form) for form in FORMS)
    expected = evaluated(frame, axes)
    scores = [round(row["score"], 9) for row in sorted(full, key=lambda row: row["score_rank"])]
    assert sorted(map(scores.count, set(scores))) == sizes
    assert wrong_columns(full, expected, "full") == set()
    assert wrong_columns(pruned, expected, "pruned") == set()
    ranked = [row for row in pruned if row["score_rank"] is not None]
    first = sorted(full, key=lambda row: row["score_rank"])[: len(ranked)]
    assert len(ranked) >= BEST
    assert sorted(ranked, key=lambda row: row["score_rank"]) == first


@pytest.mark.parametrize("drift", [-3.0, 4.0])
def test_pruned_is_the_first_eleven_of_full_to_the_bit(drift):
    frame = random_frame(37, 700, 3, drift_bps=drift)
    full, pruned = (searched(frame, SMALL_AXES, form) for form in FORMS)
    ranked = [row for row in pruned if row["score_rank"] is not None]
    assert BEST <= len(ranked) < len(full) / 4
    assert ranked == [row for row in full if row["score_rank"] <= len(ranked)]


# ---- what does not change a search


@pytest.mark.parametrize("form", [*FORMS, "additive"])
def test_threads_and_order_of_rows_leave_every_bit_of_each_key(form):
    frame, keys = keyed_frame(), ["block", "draw"]
    query = query_of(form, keys)
    one = found_by(connected(frame, FEW_AXES, threads=1), query, keys)
    turned = frame.sample(frac=1, random_state=9)
    assert found_by(connected(turned, FEW_AXES, threads=2), query, keys) == one


# ---- each of these must be noticed


@functools.cache
def battery() -> list[tuple]:
    """Return (connection, keys, search by the evaluator) of frames searched rightly above."""
    cases = [
        (*TIES["gains"][:2], ()),
        (*TIES["losses"][:2], ()),
        (*PARTLY_UNKNOWN, ()),
        (edge_frames()["every trade loses"], FEW_AXES, ()),
        (keyed_frame(), FEW_AXES, ("block", "draw")),
        (edge_frames()["many rows"], FEW_AXES, ()),
    ]
    return [
        (connected(frame, axes), keys, evaluated(frame, axes, keys)) for frame, axes, keys in cases
    ]


def is_noticed(form: str, text: str, other: str) -> bool:
    for connection, keys, expected in battery():
        query = query_of(form, keys)
        if text in query:
            found = found_by(connection, query.replace(text, other), keys)
            if wrong_columns(found, expected, form, keys):
                return True
    return False


FAULTS = [
    # steps and sides
    ("full", "list_reverse_sort(", "list_sort("),
    ("full", "- coalesce(of_both.trade_count, 0)", ""),
    ("full", "where winner.is_long = winner.prefers_long", "where winner.is_long"),
    ("full", "is_long <> prefers_long", "is_long"),
    ("full", "order by event_time, symbol, sample_id", "order by event_time, sample_id"),
    ("pruned", "order by event_time, symbol, sample_id", "order by event_time, sample_id"),
    ("pruned", "open_legs & ~((open_legs & contested_legs) << 1)", "open_legs"),
    (
        "pruned",
        "chosen.min_direction_margin_step <= legs.min_direction_margin_steps",
        "chosen.min_direction_margin_step < legs.min_direction_margin_steps",
    ),
    ("pruned", "when legs.is_long then chosen.long", "when not legs.is_long then chosen.long"),
    (
        "pruned",
        "legs.min_expected_edge_bps_steps >= steps.min_expected_edge_bps_step",
        "legs.min_expected_edge_bps_steps > steps.min_expected_edge_bps_step",
    ),
    # drawdown and runs
    *((form, "known & (known - 1) as later", "known as later") for form in FORMS),
    ("full", "'-inf'::double as drawdown_at_end,", "0::double as drawdown_at_end,"),
    ("pruned", "'drawdown_at_end': '-inf'::double", "'drawdown_at_end': 0::double"),
    *(
        (form, "later.losses_at_end = later.trade_count", "later.losses_at_end > later.trade_count")
        for form in FORMS
    ),
    *((form, "bit_count(losing & (other - 1))", "bit_count(losing)") for form in FORMS),
    # which candidates are folded, and their order
    ("pruned", "<= 16 then 1", "<= 3 then 1"),
    ("pruned", "grid_bounds.bound >= cutoffs.score", "grid_bounds.bound > 9 + cutoffs.score"),
    ("pruned", "candidates_up_to_here >= 11", "candidates_up_to_here >= 1"),
    ("pruned", "partition by group_id order by score desc", "order by score desc"),
    ("pruned", "partition by sets.group_id order by", "order by"),
    *(
        (form, "nulls last, grid_additive.candidate_id", "nulls last, -grid_additive.candidate_id")
        for form in FORMS
    ),
    *((form, "partition by grid_additive.group_id", "") for form in FORMS),
    ("full", "desc nulls last, grid_additive", "desc nulls first, grid_additive"),
]


@pytest.mark.parametrize(("form", "text", "other"), FAULTS)
def test_a_fault_in_the_grid_is_noticed(form, text, other):
    assert any(text in query_of(form, keys) for _, keys, _ in battery())
    assert is_noticed(form, text, other)
