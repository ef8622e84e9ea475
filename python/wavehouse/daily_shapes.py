"""Vendor tables of the daily track, as data: how each is told by its columns and what it becomes.

A shape maps a contract column to a short SQL expression. Source columns stand in braces and are
typed by what follows the colon: `{vol}` a number, `{trade_date:day}` a date, `{ts_code:code}` a
code such as 600000.SH, `{name:text}`, `{isst:flag}`. `{a|b}` is the first of several names that the
file has, and `{a?}` is NULL where the file lacks the column. All other columns are required, and
their presence tells the shape. `$as_of` and `$out_date` are the options of these names.
"""

from dataclasses import dataclass, field

OHLC = {price: f"{{{price}}}" for price in ("open", "high", "low", "close")}
KEY = {"ts_code": "{ts_code:code}", "trade_date": "{trade_date:day}"}
LOT, THOUSAND, TEN_THOUSAND, MILLION = 100, 1_000, 10_000, 1_000_000
SIZES = {"small": "sm", "medium": "md", "large": "lg", "extra_large": "elg"}


@dataclass(frozen=True)
class Kind:
    """A relation that ingest writes: its key, the type of each column, and what it is part of."""

    key: tuple[str, ...]
    columns: dict[str, str]
    assembled_into: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shape:
    """A vendor's table: `outputs` maps a kind to the expressions of its columns.

    `keep` holds a condition on the typed row by kind: a row goes to every kind whose condition
    holds. `signs` and `absent` name further columns that must, or must not, be there.
    `left_out` is a condition, and words, for rows that say nothing to the contract; `checks` are
    counts worth a note (their rows are kept); `refused` a condition under which the whole file is
    refused, and the reason; `extra` typed columns that only checks read.
    """

    vendor: str
    name: str
    outputs: dict[str, dict[str, str]]
    keep: dict[str, str] = field(default_factory=dict)
    signs: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    left_out: tuple[str, str] | None = None
    checks: dict[str, str] = field(default_factory=dict)
    refused: tuple[str, str] | None = None
    extra: dict[str, str] = field(default_factory=dict)
    securities: tuple[str, ...] = ("stock",)


def _flows(form: str) -> dict[str, str]:
    """Return `form` filled for each order size: `{size}` our word, `{short}` the vendor's."""
    filled = (form.format(size=size, short=short) for size, short in SIZES.items())
    return dict(line.split(" = ", 1) for text in filled for line in text.split("; "))


NUMBER, TEXT, DATE, FLAG = "double", "varchar", "date", "boolean"
BAR_TYPES = dict.fromkeys(
    ("open", "high", "low", "close", "pre_close", "volume", "amount", "pct_chg"), NUMBER
)
CODE_DAY = {"ts_code": TEXT, "trade_date": DATE}
CODE_DAY_KEY = ("ts_code", "trade_date")


def _numbers(names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), NUMBER)


FLOW_TYPES = (
    _numbers("net_main_amount_cny")
    | {f"net_{size}_amount_cny": NUMBER for size in SIZES}
    | _numbers("net_main_ratio")
    | {f"net_{size}_ratio": NUMBER for size in SIZES}
    | {
        f"{side}_{size}_{what}": NUMBER
        for size in SIZES
        for side in ("buy", "sell")
        for what in ("amount_cny", "volume_shares")
    }
    | _numbers("net_amount_cny net_volume_shares")
)

# What ingest writes. Shares are single shares, amounts CNY, ratios decimals (0.1 = 10 %).
KINDS = {
    "daily_bars": Kind(
        CODE_DAY_KEY,
        CODE_DAY
        | BAR_TYPES
        | _numbers("adj_factor turnover")
        | {"is_suspended": FLAG, "is_st": FLAG, "price_basis": TEXT},
    ),
    "index_daily": Kind(
        CODE_DAY_KEY, CODE_DAY | _numbers("open high low close volume amount pct_chg")
    ),
    "moneyflow": Kind(CODE_DAY_KEY, CODE_DAY | FLOW_TYPES),
    "daily_basic": Kind(
        CODE_DAY_KEY,
        CODE_DAY
        | _numbers(
            "close turnover turnover_free_float volume_ratio pe pe_ttm pb ps ps_ttm "
            "dividend_yield dividend_yield_ttm total_shares float_shares free_float_shares "
            "market_cap_cny float_market_cap_cny"
        ),
    ),
    "margin": Kind(
        CODE_DAY_KEY,
        CODE_DAY
        | _numbers(
            "financing_balance_cny financing_buy_cny financing_repayment_cny "
            "short_balance_cny short_balance_shares short_sell_shares short_cover_shares "
            "margin_balance_cny"
        ),
    ),
    "cyq_perf": Kind(
        CODE_DAY_KEY,
        CODE_DAY
        | _numbers(
            "historical_low_price historical_high_price cost_5pct_price cost_15pct_price "
            "cost_50pct_price cost_85pct_price cost_95pct_price weighted_average_price "
            "winner_ratio"
        ),
    ),
    "limit_list": Kind(
        (*CODE_DAY_KEY, "limit_type"),
        CODE_DAY
        | {"limit_type": TEXT, "name": TEXT}
        | _numbers(
            "close pct_chg amount_cny board_amount_cny sealed_amount_cny float_market_cap_cny "
            "market_cap_cny turnover"
        )
        | {"first_limit_time": TEXT, "last_limit_time": TEXT}
        | _numbers("board_open_count consecutive_limit_days")
        | {"limit_statistics": TEXT},
    ),
    "top_list": Kind(
        (*CODE_DAY_KEY, "reason"),
        CODE_DAY
        | {"reason": TEXT, "name": TEXT}
        | _numbers(
            "close pct_chg turnover amount_cny listed_buy_amount_cny listed_sell_amount_cny "
            "listed_amount_cny net_amount_cny net_amount_ratio listed_amount_ratio "
            "float_market_cap_cny"
        ),
    ),
    "top_inst": Kind(
        (*CODE_DAY_KEY, "seat_name", "side", "reason"),
        CODE_DAY
        | {"seat_name": TEXT, "side": TEXT, "reason": TEXT}
        | _numbers("buy_amount_cny buy_ratio sell_amount_cny sell_ratio net_amount_cny"),
    ),
    "hk_hold": Kind(CODE_DAY_KEY, CODE_DAY | _numbers("holding_shares holding_ratio")),
    "northbound": Kind(
        ("trade_date",),
        {"trade_date": DATE}
        | _numbers(
            "northbound_amount_cny northbound_shanghai_amount_cny "
            "northbound_shenzhen_amount_cny southbound_amount_cny "
            "southbound_shanghai_amount_cny southbound_shenzhen_amount_cny"
        ),
    ),
    "holders": Kind(
        ("ts_code", "trade_date", "report_date"),
        CODE_DAY | {"report_date": DATE, "holder_count": NUMBER},
    ),
    "ths_hot": Kind(
        (*CODE_DAY_KEY, "list_name", "rank_time"),
        CODE_DAY
        | {"list_name": TEXT, "rank_time": TEXT, "name": TEXT}
        | _numbers("hot_rank hot_score pct_chg close")
        | {"concept": TEXT, "rank_reason": TEXT},
    ),
    "market_moneyflow": Kind(
        ("trade_date",),
        {"trade_date": DATE}
        | _numbers("close_shanghai pct_chg_shanghai close_shenzhen pct_chg_shenzhen")
        | _numbers("net_main_amount_cny net_main_ratio")
        | {f"net_{size}_amount_cny": NUMBER for size in SIZES}
        | {f"net_{size}_ratio": NUMBER for size in SIZES},
    ),
    "market_margin": Kind(
        ("trade_date", "exchange"),
        {"trade_date": DATE, "exchange": TEXT}
        | _numbers(
            "financing_balance_cny financing_buy_cny financing_repayment_cny "
            "short_balance_cny short_balance_shares short_sell_shares margin_balance_cny"
        ),
    ),
    # Parts: kept typed below ingested/, made into contract files together.
    "adjustment_factors": Kind(CODE_DAY_KEY, CODE_DAY | {"adj_factor": NUMBER}, ("daily_bars",)),
    "suspended_days": Kind(CODE_DAY_KEY, CODE_DAY, ("daily_bars",)),
    "security_snapshots": Kind(
        ("ts_code", "as_of"),
        {"ts_code": TEXT, "as_of": DATE, "name": TEXT, "list_status": TEXT}
        | {"list_date": DATE, "delist_date": DATE},
        ("securities", "security_names", "security_code_changes"),
    ),
    "listing_dates": Kind(
        ("ts_code",),
        {"ts_code": TEXT, "name": TEXT, "list_date": DATE},
        ("securities", "security_names"),
    ),
    "name_changes": Kind(
        ("ts_code", "start_date"),
        {"ts_code": TEXT, "name": TEXT, "start_date": DATE, "end_date": DATE},
        ("security_names",),
    ),
    "member_snapshots": Kind(
        ("index_code", "ts_code", "known_date"),
        {"index_code": TEXT, "ts_code": TEXT, "known_date": DATE},
        ("index_members",),
    ),
    "member_spans": Kind(
        ("index_code", "ts_code", "in_date"),
        {"index_code": TEXT, "ts_code": TEXT, "in_date": DATE, "out_date": DATE}
        | {"out_date_means": TEXT},
        ("index_members",),
    ),
    "industry_changes": Kind(
        ("ts_code", "in_date"),
        {"ts_code": TEXT, "in_date": DATE, "industry_code": TEXT},
        ("industry_members",),
    ),
    "industry_spans": Kind(
        ("ts_code", "in_date"),
        {"ts_code": TEXT, "in_date": DATE, "out_date": DATE, "industry_code": TEXT}
        | {f"l{level}_{what}": TEXT for level in (1, 2, 3) for what in ("code", "name")},
        ("industry_members",),
    ),
    "industry_classes": Kind(
        ("industry_code",),
        {"industry_code": TEXT, "l1_name": TEXT, "l2_name": TEXT, "l3_name": TEXT},
        ("industry_members",),
    ),
    "open_days": Kind(("trade_date",), {"trade_date": DATE}, ("trading_calendar",)),
}

BAOSTOCK_STATE = {
    "turnover": "{turn?} / 100",
    "is_suspended": "not {tradestatus?:flag}",
    "is_st": "{is_st|isst?:flag}",
}
BAOSTOCK_VALUATION = {"pe_ttm": "{pe_ttm|pettm}", "pb": "{pb_mrq|pbmrq}"}
BAOSTOCK_KEY = {"ts_code": "{ts_code|code:code}", "trade_date": "{trade_date|date:day}"}
BAOSTOCK_BARS = {
    **BAOSTOCK_KEY,
    **OHLC,
    "pre_close": "{pre_close|preclose}",
    "volume": "{vol_shares|volume}",
    "amount": "{amount_cny|amount}",
    "pct_chg": "{pct_chg|pctchg?} / 100",
    **BAOSTOCK_STATE,
    "price_basis": "case {adjustflag?} when 2 then 'forward_adjusted' "
    "when 1 then 'backward_adjusted' else 'unadjusted' end",
}
BACKWARD = (
    "price_basis = 'backward_adjusted'",
    "prices are adjusted backward (adjustflag 1). Expected unadjusted (3) or forward-adjusted (2) "
    "prices; query them again with adjustflag 3.",
)

SHAPES = (
    # ---- bars --------------------------------------------------------------------------------
    Shape(
        "tushare",
        "daily",
        {
            "daily_bars": {
                **KEY,
                **OHLC,
                "pre_close": "{pre_close}",
                "volume": f"{{vol}} * {LOT}",
                "amount": f"{{amount}} * {THOUSAND}",
                "pct_chg": "{pct_chg?} / 100",
                "adj_factor": "{adj_factor?}",
                "turnover": "{turnover_rate?} / 100",
                "price_basis": "'unadjusted'",
            },
            "index_daily": {
                **KEY,
                **OHLC,
                "volume": f"{{vol}} * {LOT}",
                "amount": f"{{amount}} * {THOUSAND}",
                "pct_chg": "{pct_chg?} / 100",
            },
        },
        keep={
            "daily_bars": "security_class(ts_code) = 'stock'",
            "index_daily": "security_class(ts_code) = 'index'",
        },
        securities=("stock", "index"),
    ),
    Shape(
        "any",
        "index bars with volume in shares",
        {
            "index_daily": {
                **KEY,
                **OHLC,
                "volume": "{volume}",
                "amount": "{amount_cny?}",
                "pct_chg": "{pct_chg} / 100",
            }
        },
        absent=("pre_close", "preclose", "vol", "tradestatus"),
        checks={"rows without prices": "close is null"},
        securities=("index",),
    ),
    Shape(
        "baostock",
        "query_history_k_data_plus",
        {"daily_bars": BAOSTOCK_BARS},
        absent=("pe_ttm", "pettm"),
        refused=BACKWARD,
    ),
    Shape(
        "baostock",
        "query_history_k_data_plus with valuation",
        {
            "daily_bars": BAOSTOCK_BARS,
            "daily_basic": {
                **BAOSTOCK_KEY,
                "close": "{close}",
                "turnover": "{turn?} / 100",
                **BAOSTOCK_VALUATION,
            },
        },
        keep={"daily_basic": "not coalesce(is_suspended, false)"},
        refused=BACKWARD,
    ),
    Shape(
        "baostock",
        "forward-adjusted bars (*_qfq)",
        {
            "daily_bars": {
                **BAOSTOCK_KEY,
                **{price: f"{{{price}_qfq}}" for price in OHLC},
                "pre_close": "{pre_close_qfq|preclose_qfq}",
                "volume": "{vol_shares|volume}",
                "amount": "{amount_cny|amount}",
                "pct_chg": "{pct_chg|pctchg?} / 100",
                **BAOSTOCK_STATE,
                "price_basis": "'forward_adjusted'",
            }
        },
    ),
    Shape(
        "tushare",
        "adj_factor",
        {"adjustment_factors": {**KEY, "adj_factor": "{adj_factor}"}},
        absent=("open",),
    ),
    Shape(
        "tushare",
        "suspend_d",
        {"suspended_days": KEY},
        signs=("suspend_type",),
        left_out=(
            "{suspend_type:text} <> 'S' or {suspend_timing?:text} is not null",
            "resumptions and halts within a day",
        ),
    ),
    # ---- names, listings ---------------------------------------------------------------------
    Shape(
        "tushare",
        "stock_basic",
        {
            "security_snapshots": {
                "ts_code": "{ts_code:code}",
                "as_of": "coalesce({as_of?:day}, $as_of)",
                "name": "{name:text}",
                "list_status": "upper({list_status?:text})",
                "list_date": "{list_date?:day}",
                "delist_date": "{delist_date?:day}",
            }
        },
        signs=("as_of|list_date|list_status",),
        absent=("trade_date", "start_date", "issue_date", "in_date", "index_code"),
        checks={
            "delist dates on a status other than D": "delist_date is not null "
            "and list_status <> 'D'",
            "names with full-width letters or blanks": "name <> plain_name(name)",
            "names with the mark of one day (XD, XR, DR, N, C)": "regexp_matches("
            "name, '^(XD|XR|DR|N|C)[^A-Z]')",
        },
    ),
    Shape(
        "baostock",
        "query_stock_basic",
        {
            "security_snapshots": {
                "ts_code": "{code:code}",
                "as_of": "coalesce({as_of?:day}, $as_of)",
                "name": "{code_name:text}",
                "list_status": "case {status} when 1 then 'L' when 0 then 'D' end",
                "list_date": "{ipodate:day}",
                "delist_date": "{outdate:day}",
            }
        },
    ),
    Shape(
        "tushare",
        "new_share",
        {
            "listing_dates": {
                "ts_code": "{ts_code:code}",
                "name": "{name:text}",
                "list_date": "{issue_date:day}",
            }
        },
        signs=("ipo_date",),
        left_out=("{issue_date:day} is null", "issues without a listing date (not listed then)"),
    ),
    Shape(
        "tushare",
        "namechange",
        {
            "name_changes": {
                "ts_code": "{ts_code:code}",
                "name": "{name:text}",
                "start_date": "{start_date:day}",
                "end_date": "{end_date:day} + 1",
            }
        },
    ),
    # ---- index members, industries -----------------------------------------------------------
    Shape(
        "tushare",
        "index_weight",
        {
            "member_snapshots": {
                "index_code": "{index_code:code}",
                "ts_code": "{con_code:code}",
                "known_date": "{trade_date:day}",
            }
        },
    ),
    Shape(
        "baostock",
        "query_hs300_stocks, query_zz500_stocks, query_sz50_stocks with index_code",
        {
            "member_snapshots": {
                "index_code": "{index_code:code}",
                "ts_code": "{code:code}",
                "known_date": "{updatedate:day}",
            }
        },
    ),
    Shape(
        "any",
        "monthly index members",
        {
            "member_snapshots": {
                "index_code": "{index_code:code}",
                "ts_code": "{con_code:code}",
                "known_date": "last_day(try_cast({snapshot_month:text} || '-01' as date))",
            }
        },
    ),
    Shape(
        "any",
        "index member spans",
        {
            "member_spans": {
                "index_code": "{index_code:code}",
                "ts_code": "{con_code|ts_code:code}",
                "in_date": "{in_date:day}",
                "out_date": "{out_date:day}",
                "out_date_means": "$out_date",
            }
        },
        absent=("l1_code", "sw_code"),
    ),
    Shape(
        "tushare",
        "index_member_all",
        {
            "industry_spans": {
                "ts_code": "{ts_code:code}",
                "in_date": "{in_date:day}",
                "out_date": "{out_date?:day}",
                "industry_code": "{l3_code:text}",
                **{
                    f"l{level}_{what}": f"{{l{level}_{what}:text}}"
                    for level in (1, 2, 3)
                    for what in ("code", "name")
                },
            }
        },
    ),
    Shape(
        "any",
        "Shenwan industry history",
        {
            "industry_changes": {
                "ts_code": "{symbol|ts_code:code}",
                "in_date": "day_known({in_date:raw})",
                "industry_code": "{sw_code:text}",
            }
        },
        absent=("l1_name",),
        checks={
            "changes stamped with a clock time": "has_clock",
            "changes recorded more than 90 days after their date": "recorded_late",
        },
        extra={
            "has_clock": "moment({in_date:raw})::time <> time '00:00:00'",
            "recorded_late": "{update_time?:day} > {in_date:day} + 90",
        },
    ),
    Shape(
        "any",
        "Shenwan class codes",
        {
            "industry_classes": {
                "industry_code": "{sw_code:text}",
                **{f"l{level}_name": f"{{l{level}_name:text}}" for level in (1, 2, 3)},
            }
        },
    ),
    # ---- feeds -------------------------------------------------------------------------------
    Shape(
        "tushare",
        "moneyflow",
        {
            "moneyflow": {
                **KEY,
                "net_main_amount_cny": f"({{buy_lg_amount}} + {{buy_elg_amount}} "
                f"- {{sell_lg_amount}} - {{sell_elg_amount}}) * {TEN_THOUSAND}",
                **_flows(
                    "net_{size}_amount_cny = ({{buy_{short}_amount}} - {{sell_{short}_amount}}) "
                    f"* {TEN_THOUSAND}"
                ),
                **_flows(
                    "; ".join(
                        (
                            f"{side}_{{size}}_amount_cny = {{{{{side}_{{short}}_amount}}}} * "
                            f"{TEN_THOUSAND}; {side}_{{size}}_volume_shares = "
                            f"{{{{{side}_{{short}}_vol}}}} * {LOT}"
                        )
                        for side in ("buy", "sell")
                    )
                ),
                "net_amount_cny": f"{{net_mf_amount}} * {TEN_THOUSAND}",
                "net_volume_shares": f"{{net_mf_vol}} * {LOT}",
            }
        },
        checks={
            "rows whose buys and sells differ by more than 1 %": "abs("
            + " + ".join(f"net_{size}_amount_cny" for size in SIZES)
            + ") > 0.01 * ("
            + " + ".join(f"buy_{size}_amount_cny" for size in SIZES)
            + ")"
        },
    ),
    Shape(
        "any",
        "money flow by order size",
        {
            "moneyflow": {
                **KEY,
                "net_main_amount_cny": "{net_main_cny}",
                "net_small_amount_cny": "{net_small_cny}",
                "net_medium_amount_cny": "{net_mid_cny}",
                "net_large_amount_cny": "{net_big_cny}",
                "net_extra_large_amount_cny": "{net_super_cny}",
                "net_main_ratio": "{net_main_pct} / 100",
                "net_small_ratio": "{net_small_pct} / 100",
                "net_medium_ratio": "{net_mid_pct} / 100",
                "net_large_ratio": "{net_big_pct} / 100",
                "net_extra_large_ratio": "{net_super_pct} / 100",
            }
        },
        checks={
            "rows that do not balance (main + medium + small off zero by more than 10 CNY)": "abs("
            "net_main_amount_cny + net_medium_amount_cny + net_small_amount_cny) > 10",
            "rows of the years before the file's main year": "year(trade_date) < "
            "(select mode(year(trade_date)) from typed_rows)",
        },
    ),
    Shape(
        "tushare",
        "daily_basic",
        {
            "daily_basic": {
                **KEY,
                "close": "{close?}",
                "turnover": "{turnover_rate} / 100",
                "turnover_free_float": "{turnover_rate_f?} / 100",
                "volume_ratio": "{volume_ratio?}",
                **{name: f"{{{name}?}}" for name in ("pe", "pe_ttm", "pb", "ps", "ps_ttm")},
                "dividend_yield": "{dv_ratio?} / 100",
                "dividend_yield_ttm": "{dv_ttm?} / 100",
                "total_shares": f"{{total_share}} * {TEN_THOUSAND}",
                "float_shares": f"{{float_share}} * {TEN_THOUSAND}",
                "free_float_shares": f"{{free_share?}} * {TEN_THOUSAND}",
                "market_cap_cny": f"{{total_mv}} * {TEN_THOUSAND}",
                "float_market_cap_cny": f"{{circ_mv}} * {TEN_THOUSAND}",
            }
        },
    ),
    Shape(
        "tushare",
        "margin_detail",
        {
            "margin": {
                **KEY,
                "financing_balance_cny": "{rzye}",
                "financing_buy_cny": "{rzmre}",
                "financing_repayment_cny": "{rzche}",
                "short_balance_cny": "{rqye}",
                "short_balance_shares": "{rqyl}",
                "short_sell_shares": "{rqmcl}",
                "short_cover_shares": "{rqchl}",
                "margin_balance_cny": "{rzrqye}",
            }
        },
        checks={"rows with negative short cover": "short_cover_shares < 0"},
    ),
    Shape(
        "tushare",
        "margin",
        {
            "market_margin": {
                "trade_date": "{trade_date:day}",
                "exchange": "{exchange_id:text}",
                "financing_balance_cny": "{rzye}",
                "financing_buy_cny": "{rzmre}",
                "financing_repayment_cny": "{rzche}",
                "short_balance_cny": "{rqye}",
                "short_balance_shares": "{rqyl?}",
                "short_sell_shares": "{rqmcl}",
                "margin_balance_cny": "{rzrqye}",
            }
        },
    ),
    Shape(
        "tushare",
        "cyq_perf",
        {
            "cyq_perf": {
                **KEY,
                "historical_low_price": "{his_low}",
                "historical_high_price": "{his_high}",
                **{f"cost_{p}pct_price": f"{{cost_{p}pct}}" for p in (5, 15, 50, 85, 95)},
                "weighted_average_price": "{weight_avg}",
                "winner_ratio": "{winner_rate} / 100",
            }
        },
    ),
    Shape(
        "tushare",
        "limit_list_d",
        {
            "limit_list": {
                **KEY,
                "limit_type": "{limit:text}",
                "name": "{name?:text}",
                "close": "{close?}",
                "pct_chg": "{pct_chg?} / 100",
                "amount_cny": "{amount?}",
                "board_amount_cny": "{limit_amount?}",
                "sealed_amount_cny": "{fd_amount}",
                "float_market_cap_cny": "{float_mv?}",
                "market_cap_cny": "{total_mv?}",
                "turnover": "{turnover_ratio?} / 100",
                "first_limit_time": "{first_time:text}",
                "last_limit_time": "{last_time:text}",
                "board_open_count": "{open_times}",
                "consecutive_limit_days": "{limit_times?}",
                "limit_statistics": "{up_stat?:text}",
            }
        },
    ),
    Shape(
        "tushare",
        "top_list",
        {
            "top_list": {
                **KEY,
                "reason": "{reason:text}",
                "name": "{name?:text}",
                "close": "{close?}",
                "pct_chg": "{pct_change|pct_chg?} / 100",
                "turnover": "{turnover_rate?} / 100",
                "amount_cny": "{amount}",
                "listed_buy_amount_cny": "{l_buy}",
                "listed_sell_amount_cny": "{l_sell}",
                "listed_amount_cny": "{l_amount}",
                "net_amount_cny": "{net_amount}",
                "net_amount_ratio": "{net_rate?} / 100",
                "listed_amount_ratio": "{amount_rate?} / 100",
                "float_market_cap_cny": "{float_values?}",
            }
        },
    ),
    Shape(
        "tushare",
        "top_inst",
        {
            "top_inst": {
                **KEY,
                "seat_name": "{exalter:text}",
                "side": "case {side?} when 0 then 'buy' when 1 then 'sell' end",
                "reason": "{reason?:text}",
                "buy_amount_cny": "{buy}",
                "buy_ratio": "{buy_rate?} / 100",
                "sell_amount_cny": "{sell}",
                "sell_ratio": "{sell_rate?} / 100",
                "net_amount_cny": "{net_buy}",
            }
        },
    ),
    Shape(
        "tushare",
        "hk_hold",
        {"hk_hold": {**KEY, "holding_shares": "{vol}", "holding_ratio": "{ratio} / 100"}},
    ),
    Shape(
        "tushare",
        "moneyflow_hsgt",
        {
            "northbound": {
                "trade_date": "{trade_date:day}",
                "northbound_amount_cny": f"{{north_money}} * {MILLION}",
                "northbound_shanghai_amount_cny": f"{{hgt}} * {MILLION}",
                "northbound_shenzhen_amount_cny": f"{{sgt}} * {MILLION}",
                "southbound_amount_cny": f"{{south_money}} * {MILLION}",
                "southbound_shanghai_amount_cny": f"{{ggt_ss}} * {MILLION}",
                "southbound_shenzhen_amount_cny": f"{{ggt_sz}} * {MILLION}",
            }
        },
    ),
    Shape(
        "tushare",
        "stk_holdernumber",
        {
            "holders": {
                "ts_code": "{ts_code:code}",
                "trade_date": "{ann_date:day}",
                "report_date": "{end_date:day}",
                "holder_count": "{holder_num}",
            }
        },
    ),
    Shape(
        "tushare",
        "ths_hot",
        {
            "ths_hot": {
                **KEY,
                "list_name": "{data_type?:text}",
                "rank_time": "{rank_time?:text}",
                "name": "{ts_name?:text}",
                "hot_rank": "{rank}",
                "hot_score": "{hot}",
                "pct_chg": "{pct_change?} / 100",
                "close": "{current_price?}",
                "concept": "{concept?:text}",
                "rank_reason": "{rank_reason?:text}",
            }
        },
    ),
    Shape(
        "tushare",
        "moneyflow_mkt_dc",
        {
            "market_moneyflow": {
                "trade_date": "{trade_date:day}",
                "close_shanghai": "{close_sh}",
                "pct_chg_shanghai": "{pct_change_sh} / 100",
                "close_shenzhen": "{close_sz}",
                "pct_chg_shenzhen": "{pct_change_sz} / 100",
                "net_main_amount_cny": "{net_amount}",
                "net_main_ratio": "{net_amount_rate} / 100",
                **_flows("net_{size}_amount_cny = {{buy_{short}_amount}}"),
                **_flows("net_{size}_ratio = {{buy_{short}_amount_rate}} / 100"),
            }
        },
    ),
    Shape(
        "tushare",
        "trade_cal",
        {"open_days": {"trade_date": "{cal_date:day}"}},
        left_out=("not {is_open:flag}", "closed days"),
    ),
    Shape(
        "baostock",
        "query_trade_dates",
        {"open_days": {"trade_date": "{calendar_date:day}"}},
        left_out=("not {is_trading_day:flag}", "closed days"),
    ),
)
