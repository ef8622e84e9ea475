with accepted as (

    select
        ts_code,
        trade_date,
        open,
        high,
        low,
        close,
        pre_close,
        pct_chg,
        volume,
        amount,
        turnover,
        adj_factor,
        is_suspended,
        is_st,
        price_basis,
        duplicate_count,
        source_file
    from {{ ref('base_daily_bars') }}
    where reject_reason is null and not is_repeat

),

steps as (

    select
        ts_code,
        trade_date,
        ratio,
        adj_factor,
        is_derived_throughout,
        missing_trading_days
    from {{ ref('adj_factor_steps') }}

),

with_factors as (

    select
        accepted.* exclude (adj_factor),
        case
            when accepted.price_basis = 'forward_adjusted' then 'none'
            when
                accepted.adj_factor is not null
                and not coalesce(steps.is_derived_throughout, false)
                then 'given'
            else 'derived'
        end as adj_factor_source,
        case adj_factor_source
            when 'none' then 1
            when 'given' then accepted.adj_factor
            else steps.adj_factor
        end as adj_factor,
        adj_factor_source = 'derived'
        and steps.trade_date = accepted.trade_date
        and steps.ratio <> 1
        and steps.missing_trading_days > 0 as is_step_after_gap
    from accepted
    asof left join steps
        on accepted.ts_code = steps.ts_code and accepted.trade_date >= steps.trade_date

)

select
    ---------- keys
    ts_code,
    trade_date,

    ---------- prices
    open,
    high,
    low,
    close,
    pre_close,
    coalesce(pct_chg, close / pre_close - 1) as pct_chg,

    ---------- volume
    volume,
    amount,
    turnover,

    ---------- adjustment
    adj_factor,
    adj_factor_source,

    ---------- states
    is_suspended,
    is_st,
    price_basis,

    ---------- quality
    case
        when is_suspended and (volume > 0 or amount > 0) then 'SUSPENDED_WITH_TRADES'
        when is_suspended then 'SUSPENDED'
        when pre_close is null then 'PRE_CLOSE_UNKNOWN'
        when is_step_after_gap then 'STEP_AFTER_GAP'
        when abs(pct_chg - (close / pre_close - 1)) > {{ var('daily_pct_chg_tolerance') }}
            then 'PCT_CHG_DISAGREES'
        when coalesce(amount, 0) = 0 then 'AMOUNT_UNKNOWN'
        when
            price_basis = 'unadjusted'
            and not amount / volume between low - 2 * {{ half_tick('ts_code') }}
            and high + 2 * {{ half_tick('ts_code') }}
            then 'VWAP_OUTSIDE_RANGE'
        else 'OK'
    end as data_quality_flag,
    duplicate_count,

    ---------- provenance
    source_file
from with_factors
order by ts_code, trade_date
