"""Factors and operators against indicators that an independent library computed on real bars.

../shared/data/indicators has the daily bars of two instruments and what the library made of them.
Every published series is written here as a formula of the language, or stands in NOT_COMPARED with
the reason. Where the catalog has a factor of the same definition, the factor itself is compared;
where only a window differs, the factor's formula with the published window.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import duckdb
import numpy as np
import pytest

from factor_panels import RELATIVE, compare, put_inputs, sql_of, values_of
from warehouse import REPO, memory_connection
from wavehouse.factors.catalog import read_catalog
from wavehouse.factors.expression import Expression, normalise
from wavehouse.factors.language import parse

INDICATORS = REPO.parent / "shared" / "data" / "indicators"
pytestmark = pytest.mark.skipif(not INDICATORS.is_dir(), reason=f"no indicators at {INDICATORS}")

PRICES = ("open", "high", "low", "close")
TERMS = {
    "tr": "max(max(high - low, abs(high - delay(close, 1))), abs(low - delay(close, 1)))",
    "middle": "(high + low) / 2",
    "typical": "(high + low + close) / 3",
    "heikin": "(open + high + low + close) / 4",
    "location": "high > low ? (close - low - (high - close)) / (high - low) : 0",
    "rise": "high - delay(high, 1)",
    "fall": "delay(low, 1) - low",
    "change_pct": "(close / delay(close, 1) - 1) * 100",
}


# ---- formulas with numbers put in


def ema(x: str, *lengths: int) -> str:
    """Exponential average of weight 2 / (n + 1), of that of another length, ..."""
    for n in lengths:
        x = f"sma({x}, {n + 1}, 2)"
    return x


def wilder(x: str, n: int) -> str:
    """Wilder's average, of weight 1 / n."""
    return f"sma({x}, {n}, 1)"


def spread(x: str, n: int) -> str:
    """Deviation of the population."""
    return f"(stddev({x}, {n}) * {math.sqrt((n - 1) / n)!r})"


def highest(x: str, n: int) -> str:
    return f"ts_max({x}, {n})"


def middle_of_range(n: int) -> str:
    return f"((ts_max(high, {n}) + ts_min(low, {n})) / 2)"


def place(low: str, x: str, high: str, n: int) -> str:
    """Where x lies in the range of n rows, 0 to 100."""
    return f"(({x} - ts_min({low}, {n})) / (ts_max({high}, {n}) - ts_min({low}, {n})) * 100)"


def over_rows(term: str, rows: range) -> str:
    """Sum of a term in which {i} is each of `rows`."""
    return "(" + " + ".join(term.format(i=i, n=len(rows) - i) for i in rows) + ")"


def strength(x: str, n: int) -> str:
    """Wilder's relative strength index."""
    rises, moves = wilder(f"max(delta({x}, 1), 0)", n), wilder(f"abs(delta({x}, 1))", n)
    return f"({rises} / {moves} * 100)"


def gaussian(n: int, offset: float, sigma: float) -> str:
    """Mean of n closes, weighted by a bell whose middle is at a share `offset` of the rows."""
    weights = [math.exp(-((i - offset * (n - 1)) ** 2) / (2 * (n / sigma) ** 2)) for i in range(n)]
    parts = [f"{weight!r} * delay(close, {n - 1 - i})" for i, weight in enumerate(weights)]
    return f"({' + '.join(parts)}) / {sum(weights)!r}"


def tillson(n: int, v: float) -> str:
    """Tillson's T3: six exponential averages of averages."""
    weights = {6: -(v**3), 5: 3 * v**2 + 3 * v**3, 4: -6 * v**2 - 3 * v - 3 * v**3,
               3: 1 + 3 * v + v**3 + 3 * v**2}  # fmt: skip
    return " + ".join(f"({w!r}) * {ema('close', *[n] * times)}" for times, w in weights.items())


def peak(x: str, better: str, function: str) -> str:
    """The value two rows back where it is beyond two values on either side, NULL elsewhere."""
    before, after = (f"{function}({a}, {b})" for a, b in (("{4}", "{3}"), ("{1}", "{0}")))
    text = f"{{2}} / ({{2}} {better} {function}({before}, {after}))"
    return text.format(*(f"delay({x}, {rows})" for rows in range(5)))


MONEY_FLOW = "(location * volume)"
UP = f"({wilder('(rise > fall ? max(rise, 0) : 0)', 14)} / {wilder('tr', 14)} * 100)"
DOWN = f"({wilder('(fall > rise ? max(fall, 0) : 0)', 14)} / {wilder('tr', 14)} * 100)"
DX = f"(abs({UP} - {DOWN}) / ({UP} + {DOWN}) * 100)"
ADX = wilder(DX, 14)
JAW, TEETH, LIPS = (
    f"delay({wilder('middle', n)}, {late})" for n, late in ((13, 8), (8, 5), (5, 3))
)
AWESOME = "(mean(middle, 5) - mean(middle, 34))"
BAND = spread("close", 20)
DEVIATION = "abs(delay({x}, {{i}}) - mean({x}, 20))"
MACD = f"({ema('close', 12)} - {ema('close', 26)})"
PVO = f"(({ema('volume', 12)} - {ema('volume', 26)}) / {ema('volume', 26)} * 100)"
PMO = "(10 * sma(sma(change_pct, 35, 2), 20, 2))"
ROC_20 = "((close / delay(close, 20) - 1) * 100)"
STOCHASTIC = f"mean({place('low', 'close', 'high', 14)}, 3)"
RSI = strength("close", 14)
STOCHASTIC_RSI = place(RSI, RSI, RSI, 14)
SMI = (
    f"(100 * {ema(f'(close - {middle_of_range(13)})', 25, 2)}"
    f" / ({ema('(ts_max(high, 13) - ts_min(low, 13))', 25, 2)} / 2))"
)
TSI = f"({ema('delta(close, 1)', 25, 13)} / {ema('abs(delta(close, 1))', 25, 13)} * 100)"
PIVOT = f"((2 * {middle_of_range(20)} + close) / 3)"
BODY = "abs(close - open) >= 0.95 * (high - low)"


def gone(n: int, m: int, nested: int = 1) -> int:
    """Rows after which the start of an average of weight m / n weighs less than 1e-10.

    The library starts most averages at a mean of n rows, the language at the first value. Averages
    of averages of like length forget later.
    """
    return math.ceil(math.log(1e-10) / math.log(1 - m / n) * (0.8 + 0.2 * nested))


@dataclass(frozen=True)
class Formula:
    """What a published series is, from `after` rows after its first value on.

    `late` rows later is compared what the library writes on a row before it is known; of a running
    total its `change` over so many rows. `stock` is the instrument, 1 for the second.
    """

    text: str
    after: int = 0
    late: int = 0
    change: int = 0
    stock: int = 0


TO_MEAN = {n: gone(n, 1) for n in (3, 5, 8, 10, 13, 14, 20, 21)}  # Wilder's average
TO_EMA = {n: gone(n + 1, 2) for n in (2, 3, 5, 10, 12, 13, 20, 25, 26)}

FORMULAS = {
    "adl.adl": Formula(MONEY_FLOW, change=1),
    "adl.moneyFlowMultiplier": Formula("location"),
    "adl.moneyFlowVolume": Formula(MONEY_FLOW),
    "adx.pdi": Formula(UP, TO_MEAN[14]),
    "adx.mdi": Formula(DOWN, TO_MEAN[14]),
    "adx.dx": Formula(DX, TO_MEAN[14]),
    "adx.adx": Formula(ADX, TO_MEAN[14]),
    "adx.adxr": Formula(f"({ADX} + delay({ADX}, 14)) / 2", TO_MEAN[14]),
    "alligator.jaw": Formula(JAW, TO_MEAN[13]),
    "alligator.teeth": Formula(TEETH, TO_MEAN[8]),
    "alligator.lips": Formula(LIPS, TO_MEAN[5]),
    "alma.alma": Formula(gaussian(9, 0.85, 6)),
    "aroon.aroonUp": Formula("(25 - high_day(high, 26)) / 25 * 100"),
    "aroon.aroonDown": Formula("(25 - low_day(low, 26)) / 25 * 100"),
    "aroon.oscillator": Formula("(low_day(low, 26) - high_day(high, 26)) / 25 * 100"),
    "atr.tr": Formula("tr"),
    "atr.atr": Formula(wilder("tr", 14), TO_MEAN[14]),
    "atr.atrp": Formula(f"{wilder('tr', 14)} / close * 100", TO_MEAN[14]),
    "atr-stop.atr": Formula(wilder("tr", 21), TO_MEAN[21]),
    "awesome.oscillator": Formula(AWESOME),
    "awesome.normalized": Formula(f"{AWESOME} / middle * 100"),
    "barpart.value": Formula("close"),
    "bb.sma": Formula("mean(close, 20)"),
    "bb.upperBand": Formula(f"mean(close, 20) + 2 * {BAND}"),
    "bb.lowerBand": Formula(f"mean(close, 20) - 2 * {BAND}"),
    "bb.percentB": Formula(f"(close - mean(close, 20) + 2 * {BAND}) / (4 * {BAND})"),
    "bb.width": Formula(f"4 * {BAND} / mean(close, 20)"),
    "bb.zScore": Formula(f"(close - mean(close, 20)) / {BAND}"),
    # the library's first return is 0
    "beta.returnsEval": Formula("close / delay(close, 1) - 1", 1, stock=1),
    "beta.returnsMrkt": Formula("market_close / delay(market_close, 1) - 1", 1, stock=1),
    "beta.beta": Formula(
        "reg_beta(close / delay(close, 1), market_close / delay(market_close, 1), 50)", stock=1
    ),
    "bop.bop": Formula("mean((close - open) / (high - low), 14)"),
    "cci.cci": Formula(
        "(typical - mean(typical, 20)) / 0.015"
        f" / ({over_rows(DEVIATION.format(x='typical'), range(20))} / 20)"
    ),
    "chaikin-osc.adl": Formula(MONEY_FLOW, change=1),
    "chaikin-osc.moneyFlowMultiplier": Formula("location"),
    "chaikin-osc.moneyFlowVolume": Formula(MONEY_FLOW),
    # an average of a running total changes by the average of what is added
    "chaikin-osc.fastEma": Formula(ema(MONEY_FLOW, 3), TO_EMA[3], change=1),
    "chaikin-osc.slowEma": Formula(ema(MONEY_FLOW, 10), TO_EMA[10], change=1),
    # so two averages of it, of weights 1/2 and 2/11, lie 11/2 - 2 averages of averages apart
    "chaikin-osc.oscillator": Formula(f"3.5 * {ema(MONEY_FLOW, 10, 3)}", TO_EMA[10]),
    # the average makes some hundredths of the value: what is left of its start, too
    "chexit.chandelierExit": Formula(f"ts_max(high, 22) - 3 * {wilder('tr', 22)}", TO_MEAN[20]),
    "chop.chop": Formula(
        "log(sum(tr, 14) / (ts_max(max(high, delay(close, 1)), 14)"
        f" - ts_min(min(low, delay(close, 1)), 14))) / {math.log(14)!r} * 100"
    ),
    "cmf.cmf": Formula(f"sum({MONEY_FLOW}, 20) / sum(volume, 20)"),
    "cmf.moneyFlowMultiplier": Formula("location"),
    "cmf.moneyFlowVolume": Formula(MONEY_FLOW),
    "cmo.cmo": Formula("delta(close, 14) / sum(abs(delta(close, 1)), 14) * 100"),
    "corr.correlation": Formula("correlation(close, market_close, 20)", stock=1),
    "corr.covariance": Formula("covariance(close, market_close, 20) * 19 / 20", stock=1),
    "corr.rSquared": Formula("correlation(close, market_close, 20) ^ 2", stock=1),
    "corr.varianceA": Formula("variance(close, 20) * 19 / 20", stock=1),
    "corr.varianceB": Formula("variance(market_close, 20) * 19 / 20", stock=1),
    "crsi.rsi": Formula(strength("close", 3), TO_MEAN[3]),
    "crsi.percentRank": Formula(
        over_rows("(delay(change_pct, {i}) < change_pct)", range(1, 101)), 1
    ),
    "dema.dema": Formula(f"2 * {ema('close', 14)} - {ema('close', 14, 14)}", gone(15, 2, 2)),
    "doji.match": Formula("abs(close / open - 1) <= 0.001"),
    "doji.price": Formula("close / (abs(close / open - 1) <= 0.001)"),
    "donchian.upperBand": Formula("delay(ts_max(high, 20), 1)"),
    "donchian.lowerBand": Formula("delay(ts_min(low, 20), 1)"),
    "donchian.centerline": Formula(f"delay({middle_of_range(20)}, 1)"),
    "donchian.width": Formula(
        f"delay((ts_max(high, 20) - ts_min(low, 20)) / {middle_of_range(20)}, 1)"
    ),
    # the library subtracts an average of later rows
    "dpo.dpo": Formula("delay(close, 8) - mean(close, 14)", late=8),
    "dpo.sma": Formula("mean(close, 14)", late=8),
    "elder-ray.ema": Formula(ema("close", 13), TO_EMA[13]),
    "elder-ray.bullPower": Formula(f"high - {ema('close', 13)}", TO_EMA[13]),
    "elder-ray.bearPower": Formula(f"low - {ema('close', 13)}", TO_EMA[13]),
    "ema.ema": Formula(ema("close", 20), TO_EMA[20]),
    "epma.epma": Formula("close - reg_residual(close, bar, 10)"),
    "force.forceIndex": Formula(ema("(delta(close, 1) * volume)", 2), TO_EMA[2]),
    "fractal.fractalBear": Formula(peak("high", ">", "max"), late=2),
    "fractal.fractalBull": Formula(peak("low", "<", "min"), late=2),
    "gator.upper": Formula(f"abs({JAW} - {TEETH})", TO_MEAN[13]),
    "gator.lower": Formula(f"-abs({TEETH} - {LIPS})", TO_MEAN[8]),
    "heikinashi.close": Formula("heikin"),
    "heikinashi.open": Formula("sma(delay(heikin, 1), 2, 1)", gone(2, 1)),
    "heikinashi.high": Formula("max(high, max(sma(delay(heikin, 1), 2, 1), heikin))", gone(2, 1)),
    "heikinashi.low": Formula("min(low, min(sma(delay(heikin, 1), 2, 1), heikin))", gone(2, 1)),
    "heikinashi.volume": Formula("volume"),
    "hma.hma": Formula("decay_linear(2 * decay_linear(close, 7) - decay_linear(close, 14), 3)"),
    "ichimoku.tenkanSen": Formula(middle_of_range(9)),
    "ichimoku.kijunSen": Formula(middle_of_range(26)),
    "ichimoku.senkouSpanA": Formula(
        f"delay(({middle_of_range(9)} + {middle_of_range(26)}) / 2, 26)"
    ),
    "ichimoku.senkouSpanB": Formula(f"delay({middle_of_range(52)}, 26)"),
    "ichimoku.chikouSpan": Formula("close", late=26),
    "kama.er": Formula("abs(delta(close, 10)) / sum(abs(delta(close, 1)), 10)"),
    "keltner.centerline": Formula(ema("close", 20), TO_EMA[20]),
    "keltner.upperBand": Formula(f"{ema('close', 20)} + 2 * {wilder('tr', 10)}", TO_EMA[20]),
    "keltner.lowerBand": Formula(f"{ema('close', 20)} - 2 * {wilder('tr', 10)}", TO_EMA[20]),
    "keltner.width": Formula(f"4 * {wilder('tr', 10)} / {ema('close', 20)}", TO_EMA[20]),
    "ma-env.centerline": Formula("mean(close, 20)"),
    "ma-env.upperEnvelope": Formula("mean(close, 20) * 1.025"),
    "ma-env.lowerEnvelope": Formula("mean(close, 20) * 0.975"),
    "macd.fastEma": Formula(ema("close", 12), TO_EMA[12]),
    "macd.slowEma": Formula(ema("close", 26), TO_EMA[26]),
    "macd.macd": Formula(MACD, TO_EMA[26]),
    "macd.signal": Formula(ema(MACD, 9), TO_EMA[26]),
    "macd.histogram": Formula(f"{MACD} - {ema(MACD, 9)}", TO_EMA[26]),
    # 100 for a full bullish body, -100 for a bearish one
    "marubozu.match": Formula(f"{BODY} ? sign(close - open) * 100 : 0"),
    "marubozu.price": Formula(f"close / ({BODY})"),
    "mfi.mfi": Formula(
        "sum_if(typical * volume, typical > delay(typical, 1), 14)"
        " / sum_if(typical * volume, typical != delay(typical, 1), 14) * 100"
    ),
    "obv.obv": Formula("sign(delta(close, 1)) * volume", change=1),
    "pmo.pmo": Formula(PMO, gone(35, 2)),
    "pmo.signal": Formula(ema(PMO, 10), gone(35, 2)),
    "prs.prs": Formula("close / market_close", stock=1),
    "prs.prsPercent": Formula(
        "close / delay(close, 20) - market_close / delay(market_close, 20)", stock=1
    ),
    "pvo.pvo": Formula(PVO, TO_EMA[26]),
    "pvo.signal": Formula(ema(PVO, 9), TO_EMA[26]),
    "pvo.histogram": Formula(f"{PVO} - {ema(PVO, 9)}", TO_EMA[26]),
    "roc.momentum": Formula("delta(close, 14)"),
    "roc.roc": Formula("(close / delay(close, 14) - 1) * 100"),
    "roc-wb.roc": Formula(ROC_20),
    "roc-wb.rocEma": Formula(ema(ROC_20, 5), TO_EMA[5]),
    "roc-wb.upperBand": Formula(f"sqrt(mean({ROC_20} ^ 2, 5))"),
    "roc-wb.lowerBand": Formula(f"-sqrt(mean({ROC_20} ^ 2, 5))"),
    "rolling-pivots.pp": Formula(f"delay({PIVOT}, 1)"),
    "rolling-pivots.r1": Formula(f"delay(2 * {PIVOT} - ts_min(low, 20), 1)"),
    "rolling-pivots.s1": Formula(f"delay(2 * {PIVOT} - ts_max(high, 20), 1)"),
    "rolling-pivots.r2": Formula(f"delay({PIVOT} + (ts_max(high, 20) - ts_min(low, 20)), 1)"),
    "rolling-pivots.s2": Formula(f"delay({PIVOT} - (ts_max(high, 20) - ts_min(low, 20)), 1)"),
    "rolling-pivots.r3": Formula(f"delay(ts_max(high, 20) + 2 * ({PIVOT} - ts_min(low, 20)), 1)"),
    "rolling-pivots.s3": Formula(f"delay(ts_min(low, 20) - 2 * (ts_max(high, 20) - {PIVOT}), 1)"),
    "rsi.rsi": Formula(RSI, TO_MEAN[14]),
    "slope.slope": Formula("reg_beta(close, sequence(14))"),
    "slope.intercept": Formula(
        "mean(close, 14) - reg_beta(close, sequence, 14) * mean(bar, 14)"
    ),
    "slope.rSquared": Formula("correlation(close, bar, 14) ^ 2"),
    "slope.stdDev": Formula(spread("close", 14)),
    "sma.sma": Formula("mean(close, 20)"),
    "sma-analysis.sma": Formula("mean(close, 20)"),
    "sma-analysis.mad": Formula(f"{over_rows(DEVIATION.format(x='close'), range(20))} / 20"),
    "sma-analysis.mape": Formula(
        f"{over_rows(DEVIATION.format(x='close') + ' / delay(close, {i})', range(20))} / 20"
    ),
    "sma-analysis.mse": Formula("variance(close, 20) * 19 / 20"),
    "smi.smi": Formula(SMI),
    "smi.signal": Formula(ema(SMI, 3)),
    "smma.smma": Formula(wilder("close", 20), TO_MEAN[20]),
    "starc.centerline": Formula("mean(close, 5)"),
    "starc.upperBand": Formula(f"mean(close, 5) + 2 * {wilder('tr', 10)}", TO_MEAN[10]),
    "starc.lowerBand": Formula(f"mean(close, 5) - 2 * {wilder('tr', 10)}", TO_MEAN[10]),
    "stdev.mean": Formula("mean(close, 14)"),
    "stdev.stdDev": Formula(spread("close", 14)),
    "stdev.zScore": Formula(f"(close - mean(close, 14)) / {spread('close', 14)}"),
    "stoch.k": Formula(STOCHASTIC),
    "stoch.oscillator": Formula(STOCHASTIC),
    "stoch.d": Formula(f"mean({STOCHASTIC}, 3)"),
    "stoch.signal": Formula(f"mean({STOCHASTIC}, 3)"),
    "stoch.j": Formula(f"3 * {STOCHASTIC} - 2 * mean({STOCHASTIC}, 3)"),
    "stoch.percentJ": Formula(f"3 * {STOCHASTIC} - 2 * mean({STOCHASTIC}, 3)"),
    "stoch-rsi.stochRsi": Formula(STOCHASTIC_RSI, TO_MEAN[14]),
    "stoch-rsi.signal": Formula(f"mean({STOCHASTIC_RSI}, 3)", TO_MEAN[14]),
    "t3.t3": Formula(tillson(5, 0.7)),
    "tema.tema": Formula(
        f"3 * {ema('close', 20)} - 3 * {ema('close', 20, 20)} + {ema('close', 20, 20, 20)}",
        gone(21, 2, 3),
    ),
    "tr.tr": Formula("tr"),
    "trix.ema3": Formula(ema("close", 14, 14, 14), gone(15, 2, 3)),
    "trix.trix": Formula(
        f"({ema('close', 14, 14, 14)} / delay({ema('close', 14, 14, 14)}, 1) - 1) * 100",
        gone(15, 2, 3),
    ),
    "tsi.tsi": Formula(TSI, TO_EMA[25]),
    "tsi.signal": Formula(ema(TSI, 7), TO_EMA[25]),
    # of each row its fall from the highest close of the window up to it
    **dict.fromkeys(
        ("ulcer.ui", "ulcer.ulcerIndex"),
        Formula(
            f"sqrt({over_rows('(delay(close / ts_max(close, {n}), {i}) - 1) ^ 2', range(14))}"
            " / 14) * 100"
        ),
    ),
    "uo.ultimate": Formula(
        "("
        + " + ".join(
            f"{weight} * sum(close - min(low, delay(close, 1)), {n}) / sum(tr, {n})"
            for weight, n in ((4, 7), (2, 14), (1, 28))
        )
        + ") / 7 * 100"
    ),
    "vortex.pvi": Formula("sum(abs(high - delay(low, 1)), 14) / sum(tr, 14)"),
    "vortex.nvi": Formula("sum(abs(low - delay(high, 1)), 14) / sum(tr, 14)"),
    "vwma.vwma": Formula("sum(close * volume, 14) / sum(volume, 14)"),
    "willr.williamsR": Formula(f"{place('low', 'close', 'high', 14)} - 100"),
    "wma.wma": Formula("decay_linear(close, 14)"),
}  # fmt: skip

A_STATE = "a state that switches or a recursion that is not linear, which the language has not"
THE_FUTURE = "drawn once the bars after it are known"
OTHER_ROWS = "rows that are not the bars"
NOT_COMPARED = {
    "atr-stop.atrStop": A_STATE,
    "atr-stop.buyStop": A_STATE,
    "atr-stop.sellStop": A_STATE,
    "crsi.connorsRsi": A_STATE,
    "crsi.rsiStreak": A_STATE,
    "crsi.streak": A_STATE,
    "dynamic": A_STATE,
    "fcb": A_STATE,
    "fisher": A_STATE,
    "htl": A_STATE,
    "hurst": "a regression over parts of the window",
    "kama.kama": A_STATE,
    "kvo": A_STATE,
    "mama": A_STATE,
    "pivot-points": "calendar months",
    "pivots": THE_FUTURE,
    "psar": A_STATE,
    "renko": OTHER_ROWS,
    "renko-atr": OTHER_ROWS,
    "slope.line": THE_FUTURE,
    "stc": "a range of 0 gives the value before, which is a state",
    "stdev-channels": THE_FUTURE,
    "supertrend": A_STATE,
    "vol-stop": A_STATE,
    "vwap": "a total since the first bar",
    "zigzag": THE_FUTURE,
    "zigzag-close": THE_FUTURE,
}


# ---- factors of the catalog


@dataclass(frozen=True)
class Factor:
    """What published series make of a factor, or of its formula with parts of it replaced."""

    published: Callable[["Published"], np.ndarray]
    after: int = 0
    replaced: dict[str, str] = field(default_factory=dict)


def before(values: np.ndarray, rows: int) -> np.ndarray:
    """The values of so many rows before."""
    return np.r_[np.full(rows, np.nan), values[:-rows]]


def total(values: np.ndarray, rows: int) -> np.ndarray:
    """The sum over so many rows."""
    sums = [sum(values[max(0, row - rows + 1) : row + 1]) for row in range(values.size)]
    return np.where(np.arange(values.size) < rows - 1, np.nan, sums)


WINDOW_14 = {f", {n}, 1": ", 14, 1" for n in (6, 12, 24)}
WINDOW_20 = {f"(close, {n})": "(close, 20)" for n in (5, 6, 10, 12, 24, 60)}
MEANS_OF_3 = {", 9)": ", 14)", "sma(": "mean(", ", 3, 1)": ", 3)"}
FACTORS = {
    "tech_ma5_ratio": Factor(lambda p: p.close / p["starc.centerline"] - 1),
    "tech_ma20_ratio": Factor(lambda p: p.close / p["sma.sma"] - 1),
    "tech_ma10_ratio": Factor(lambda p: p.close / p["sma.sma"] - 1, 0, WINDOW_20),
    "tech_ma60_ratio": Factor(lambda p: p.close / p["sma.sma"] - 1, 0, WINDOW_20),
    "tech_ma5_ma20_ratio": Factor(lambda p: p["starc.centerline"] / p["sma.sma"] - 1),
    "tech_kdj_k": Factor(lambda p: p["stoch.k"], 0, MEANS_OF_3),
    "tech_kdj_d": Factor(lambda p: p["stoch.d"], 0, MEANS_OF_3),
    "tech_kdj_j": Factor(lambda p: p["stoch.j"], 0, MEANS_OF_3),
    "tech_macd_dif": Factor(lambda p: p["macd.macd"] / p.close, TO_EMA[26]),
    "tech_macd_dea": Factor(lambda p: p["macd.signal"] / p.close, TO_EMA[26]),
    "tech_macd_histogram": Factor(lambda p: 2 * p["macd.histogram"] / p.close, TO_EMA[26]),
    # ours takes the deviation of a sample
    "tech_boll_percent": Factor(lambda p: 0.5 + p["bb.zScore"] * math.sqrt(19 / 20) / 4),
    "tech_boll_width": Factor(lambda p: p["bb.width"] * math.sqrt(20 / 19)),
    "tech_atr_14_ratio": Factor(lambda p: p["atr.atrp"] / 100, TO_MEAN[14]),
    "tech_rsi_6": Factor(lambda p: p["rsi.rsi"], TO_MEAN[14], WINDOW_14),
    "tech_rsi_12": Factor(lambda p: p["rsi.rsi"], TO_MEAN[14], WINDOW_14),
    "tech_rsi_24": Factor(lambda p: p["rsi.rsi"], TO_MEAN[14], WINDOW_14),
    "tech_roc_12": Factor(lambda p: p["roc.roc"] / 100, 0, {"12": "14"}),
    "tech_obv_20d": Factor(
        lambda p: (p["obv.obv"] - before(p["obv.obv"], 20)) / total(p.volume, 20)
    ),
    "tech_wr_14": Factor(lambda p: -p["willr.williamsR"]),
    "cmf_60d_pct_amt": Factor(lambda p: p["cmf.cmf"], 0, {"60": "20", "amount": "volume"}),
    "cmf_120d_pct_amt": Factor(lambda p: p["cmf.cmf"], 0, {"120": "20", "amount": "volume"}),
    "gtja_011": Factor(lambda p: p["adl.adl"] - before(p["adl.adl"], 6)),
    "gtja_014": Factor(lambda p: p["roc.momentum"], 0, {"5": "14"}),
    "gtja_018": Factor(lambda p: p["roc.roc"] / 100 + 1, 0, {"5": "14"}),
    "gtja_020": Factor(lambda p: p["roc.roc"], 0, {"6": "14"}),
    "gtja_031": Factor(lambda p: (p.close / p["sma.sma"] - 1) * 100, 0, WINDOW_20),
    "gtja_034": Factor(lambda p: p["sma.sma"] / p.close, 0, WINDOW_20),
    "gtja_043": Factor(lambda p: p["obv.obv"] - before(p["obv.obv"], 6)),
    "gtja_057": Factor(lambda p: p["stoch.k"], 0, MEANS_OF_3),
    "gtja_060": Factor(lambda p: p["adl.adl"] - before(p["adl.adl"], 20)),
    "gtja_063": Factor(lambda p: p["rsi.rsi"], TO_MEAN[14], WINDOW_14),
    "gtja_065": Factor(lambda p: p["sma.sma"] / p.close, 0, WINDOW_20),
    "gtja_066": Factor(lambda p: (p.close / p["sma.sma"] - 1) * 100, 0, WINDOW_20),
    "gtja_067": Factor(lambda p: p["rsi.rsi"], TO_MEAN[14], WINDOW_14),
    "gtja_071": Factor(lambda p: (p.close / p["sma.sma"] - 1) * 100, 0, WINDOW_20),
    "gtja_079": Factor(lambda p: p["rsi.rsi"], TO_MEAN[14], WINDOW_14),
    "gtja_084": Factor(lambda p: p["obv.obv"] - before(p["obv.obv"], 20)),
    "gtja_088": Factor(lambda p: p["roc-wb.roc"]),
    "gtja_089": Factor(lambda p: 2 * p["macd.histogram"], TO_EMA[26]),
    "gtja_096": Factor(lambda p: p["stoch.d"], 0, MEANS_OF_3),
    "gtja_103": Factor(lambda p: p["aroon.aroonDown"], 0, {"low, 20": "low, 26", "20": "25"}),
    "gtja_106": Factor(lambda p: p["roc-wb.roc"] / 100 * before(p.close, 20)),
    "gtja_111": Factor(
        lambda p: np.diff(p["chaikin-osc.slowEma"] - p["chaikin-osc.fastEma"], prepend=np.nan),
        TO_EMA[10],
    ),
    "gtja_112": Factor(lambda p: p["cmo.cmo"], 0, {"12": "14"}),
    "gtja_116": Factor(lambda p: p["slope.slope"], 0, {"20": "14"}),
    "gtja_128": Factor(lambda p: p["mfi.mfi"]),
    "gtja_133": Factor(
        lambda p: p["aroon.oscillator"],
        0,
        {"low, 20": "low, 26", "high, 20": "high, 26", "20": "25"},
    ),
    "gtja_161": Factor(lambda p: total(p["tr.tr"], 12) / 12),
    "gtja_175": Factor(lambda p: total(p["tr.tr"], 6) / 6),
}


# ---- what was published


class Published(dict):
    """{indicator.metric: values on the bars}, nan where there is none; the bars are attributes."""

    def __init__(self, bars, results):
        super().__init__()
        self.close, self.volume = bars["close"].to_numpy(float), bars["volume"].to_numpy(float)
        rows = {day: row for row, day in enumerate(bars["trade_date"])}
        for name, part in results.groupby("name"):
            self[name] = np.full(len(rows), np.nan)
            self[name][[rows[day] for day in part["trade_date"]]] = part["value"]


@dataclass
class Computed:
    """The published series, and what SQL and the evaluator make of the formulas."""

    published: Published
    found: dict[str, np.ndarray]
    expected: dict[str, np.ndarray]
    wrong: dict[str, str]


@pytest.fixture(scope="module")
def computed() -> Computed:
    source = duckdb.connect()
    quotes = source.sql(
        f"select * from '{INDICATORS / 'quotes.parquet'}' order by series, trade_date"
    ).df()
    results = source.sql(
        "select indicator || '.' || metric as name, trade_date, value"
        f" from '{INDICATORS / 'results_long.parquet'}'"
    ).df()
    bars = quotes[quotes["series"] == "Bars"]
    assert list(bars["trade_date"]) == list(quotes["trade_date"][len(bars) :])
    day = np.tile(np.arange(len(bars)), 2)
    frame = {
        "stock": (quotes["series"] != "Bars").to_numpy(int),
        "day": day,
        "bar": day + 1.0,
        "market_close": np.tile(bars["close"].to_numpy(float), 2),
        **{name: quotes[name].to_numpy(float) for name in (*PRICES, "volume")},
    }
    # what was paid is not in these files; Chaikin money flow by amount is compared by volume
    frame["amount"] = frame["volume"] * frame["close"]
    connection = memory_connection(1)
    put_inputs(connection, frame)
    formulas = expressions()
    warm = dict.fromkeys((*PRICES, "volume", "amount", "bar", "market_close"), 0)
    found, names = {}, list(formulas)
    for first in range(0, len(names), 20):
        some = {name: formulas[name] for name in names[first : first + 20]}
        found |= values_of(connection, sql_of(some, warm))
    wrong, _, expected = compare(formulas, frame, found)
    return Computed(Published(bars, results), found, expected, wrong)


def expressions() -> dict[str, Expression]:
    """{column: expression} of all formulas and factors."""
    terms: dict[str, Expression] = {}
    for name, text in TERMS.items():
        terms[name] = parse(text, name, dict(terms))
    texts = {column(name): formula.text for name, formula in FORMULAS.items()}
    catalog = {factor.factor_id: factor for factor in read_catalog(REPO).factors}
    for name, factor in FACTORS.items():
        # terms are put in and names are of one form in the tree's own text
        texts[name] = str(catalog[name].expression)
        for old, new in factor.replaced.items():
            texts[name] = texts[name].replace(old, new)
        assert bool(factor.replaced) == (texts[name] != str(catalog[name].expression)), name
    return {name: normalise(parse(text, name, terms)) for name, text in texts.items()}


def column(name: str) -> str:
    return name.replace("-", "_").replace(".", "_").lower()


def apart(found: np.ndarray, published: np.ndarray, after: int) -> str:
    """How two series differ from `after` rows after the first published one on, "" if nowhere.

    Near 0, where what is left of a difference of prices has few good digits, the tolerance is that
    of a value of the series' median size.
    """
    row = np.arange(published.size)
    known = ~np.isnan(published)
    compared = row >= np.flatnonzero(known)[0] + after
    if np.sum(compared & known) < 5:
        return "nothing to compare"
    size = np.maximum(np.abs(published), np.nanmedian(np.abs(published)))
    differ = (np.isnan(found) == known) | (np.abs(found - published) > RELATIVE * size)
    if not np.any(differ & compared):
        return ""
    first = np.flatnonzero(differ & compared)[0]
    return (
        f"{np.sum(differ & compared)} of {np.sum(compared)} rows, as row {first}: "
        f"{found[first]!r}, published {published[first]!r}"
    )


def failures(
    values: dict[str, np.ndarray], published: Published, names: list[str]
) -> dict[str, str]:
    """{name: how it differs} of formulas and factors."""
    rows, found = published.close.size, {}
    for name in names:
        if name in FACTORS:
            series, after, mine = (
                FACTORS[name].published(published), FACTORS[name].after, values[name][:rows]
            )  # fmt: skip
        else:
            formula = FORMULAS[name]
            series, after = published[name], formula.after
            series = before(series, formula.late) if formula.late else series
            series = series - before(series, formula.change) if formula.change else series
            mine = values[column(name)][formula.stock * rows : (formula.stock + 1) * rows]
        if said := apart(mine, series, after):
            found[name] = said
    return found


# ---- tests


def test_every_published_series_is_compared_or_has_its_reason(computed):
    left_out = {
        name
        for name in computed.published
        if name in NOT_COMPARED or name.split(".")[0] in NOT_COMPARED
    }
    assert left_out.isdisjoint(FORMULAS)
    assert left_out | set(FORMULAS) == set(computed.published)
    used = {name.split(".")[0] for name in left_out} | left_out
    assert set(NOT_COMPARED) <= used


@pytest.mark.parametrize("name", ["found", "expected"])
def test_formulas_give_what_was_published(name, computed):
    wrong = failures(getattr(computed, name), computed.published, list(FORMULAS))
    assert not wrong, "\n".join(f"{each}: {said}" for each, said in wrong.items())


@pytest.mark.parametrize("name", ["found", "expected"])
def test_factors_give_what_was_published(name, computed):
    wrong = failures(getattr(computed, name), computed.published, list(FACTORS))
    assert not wrong, "\n".join(f"{each}: {said}" for each, said in wrong.items())


def test_sql_gives_what_the_evaluator_does(computed):
    assert not computed.wrong, "\n".join(f"{name}: {said}" for name, said in computed.wrong.items())


def test_a_wrong_window_is_seen(computed):
    published = computed.published
    values = dict(computed.found)
    for name, other in (("sma_sma", "bb_upperband"), ("rsi_rsi", "crsi_rsi")):
        values[name] = computed.found[other]
    values["tech_wr_14"] = values["tech_wr_14"] * (1 + 2e-9)
    wrong = failures(values, published, ["sma.sma", "rsi.rsi", "tech_wr_14", "ema.ema"])
    assert wrong.keys() == {"sma.sma", "rsi.rsi", "tech_wr_14"}
