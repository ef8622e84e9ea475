"""The real daily files as the relations that panel and labels read, with simple stand-in gates."""

import duckdb

from warehouse import REAL_DAILY_DATA

# columns of staging.stg_daily_bars out of each file, in its units
BARS = {
    "tushare_szmain_2024": """
        select ts_code, trade_date, open, high, low, close, pre_close, pct_chg / 100 as pct_chg,
            vol * 100 as volume, amount * 1000 as amount, null::double as turnover, adj_factor,
            vol is null or vol = 0 as is_suspended, null::boolean as is_st,
            'unadjusted' as price_basis
        from '{file}'
    """,
    "baostock_hs300_2020_2025": """
        select ts_code, trade_date, open, high, low, close, pre_close, pct_chg / 100 as pct_chg,
            vol_shares::double as volume, amount_cny as amount, turn / 100 as turnover,
            exp(sum(ln(coalesce(previous_close / pre_close, 1))) over (
                partition by ts_code order by trade_date
            )) as adj_factor,
            tradestatus = 0 or coalesce(vol_shares, 0) = 0 as is_suspended, is_st = 1 as is_st,
            'unadjusted' as price_basis
        from (
            select *, lag(close) over (partition by ts_code order by trade_date) as previous_close
            from '{file}'
        )
    """,
    "baostock_st_suspended_2019_2020": """
        select ts_code, trade_date, open_qfq as open, high_qfq as high, low_qfq as low,
            close_qfq as close, preclose_qfq as pre_close, pct_chg / 100 as pct_chg,
            vol_shares::double as volume, amount_cny as amount, turn / 100 as turnover,
            1::double as adj_factor,
            tradestatus = 0 or coalesce(vol_shares, 0) = 0 as is_suspended, is_st = 1 as is_st,
            'forward_adjusted' as price_basis
        from '{file}'
    """,
}
RELATIONS = """
    create table staging.stg_trading_calendar as
    select trade_date, row_number() over (order by trade_date)::integer as trading_day
    from (select distinct trade_date from staging.stg_daily_bars)
    order by trade_date;

    create table universe.daily_gates as
    with spans as (
        select ts_code, min(trade_date) as first_date, max(trade_date) as last_date
        from staging.stg_daily_bars
        group by ts_code
    )
    select
        spans.ts_code,
        calendar.trade_date,
        calendar.trading_day,
        coalesce(not bars.is_suspended, false)
            and not coalesce(bars.is_st, false)
            and (regexp_matches(spans.ts_code, '^60[0135][0-9]{{3}}.SH$')
                or regexp_matches(spans.ts_code, '^00[0123][0-9]{{3}}.SZ$'))
            and (first_date = (select min(trade_date) from staging.stg_trading_calendar)
                or calendar.trading_day - first_day.trading_day >= 60) as passes_all
    from spans
    inner join staging.stg_trading_calendar as calendar
        on calendar.trade_date between spans.first_date and spans.last_date
    inner join staging.stg_trading_calendar as first_day
        on spans.first_date = first_day.trade_date
    left join staging.stg_daily_bars as bars
        on spans.ts_code = bars.ts_code and calendar.trade_date = bars.trade_date
    order by spans.ts_code, calendar.trade_date;

    create table universe.entry_eligibility as
    select
        gates.ts_code,
        gates.trade_date,
        lead(not bars.is_suspended) over per_stock as may_buy_next_open,
        lead(not bars.is_suspended and abs(bars.pct_chg) < 0.095) over per_stock
            as may_buy_next_close
    from universe.daily_gates as gates
    left join staging.stg_daily_bars as bars
        on gates.ts_code = bars.ts_code and gates.trade_date = bars.trade_date
    window per_stock as (partition by gates.ts_code order by gates.trade_date)
    order by gates.ts_code, gates.trade_date;

    create table staging.stg_daily_basic (
        ts_code varchar, trade_date date, market_cap_cny double, float_market_cap_cny double
    );
    create table staging.stg_industry_members (
        ts_code varchar, industry_code varchar, l1_code varchar, l2_code varchar, l3_code varchar,
        in_date date, out_date date
    );
    create table staging.stg_index_daily as
    select ts_code, trade_date, open::double as open, close::double as close
    from '{index_file}'
"""


# stocks with the longest suspensions, the wildest days and the first names
SOME_STOCKS = """
    delete from staging.stg_daily_bars
    where ts_code not in (
        (select ts_code from staging.stg_daily_bars group by ts_code
         order by count(*) filter (where not is_suspended), ts_code limit {count})
        union
        (select ts_code from staging.stg_daily_bars group by ts_code
         order by max(abs(pct_chg)) desc, ts_code limit {count})
        union
        (select ts_code from staging.stg_daily_bars group by ts_code order by ts_code limit {count})
    );
    delete from universe.daily_gates
    where ts_code not in (select ts_code from staging.stg_daily_bars);
    delete from universe.entry_eligibility
    where ts_code not in (select ts_code from staging.stg_daily_bars)
"""


def put_real(connection: duckdb.DuckDBPyConnection, name: str, count: int | None = None) -> None:
    """Write the relations of one file, of up to three times `count` stocks when it is given."""
    bars = BARS[name].format(file=REAL_DAILY_DATA / f"{name}.parquet")
    connection.execute(
        f"create table staging.stg_daily_bars as from ({bars}) order by ts_code, trade_date"
    )
    index_file = REAL_DAILY_DATA / "index_daily_2010_2026.parquet"
    connection.execute(RELATIONS.format(index_file=index_file))
    if count:
        connection.execute(SOME_STOCKS.format(count=count))
