with bars as (

    select
        ts_code,
        trade_date,
        pre_close,
        adj_factor,
        is_suspended,
        case when not is_suspended then close end as traded_close
    from {{ ref('base_daily_bars') }}
    where reject_reason is null and not is_repeat and price_basis = 'unadjusted'

),

days as (

    select
        trade_date,
        trading_day
    from {{ ref('stg_trading_calendar') }}

),

with_previous as (

    select
        ts_code,
        trade_date,
        pre_close,
        adj_factor,
        is_suspended,
        lag(traded_close ignore nulls) over per_stock as previous_close,
        lag(adj_factor) over per_stock as previous_factor,
        lag(trade_date) over per_stock as previous_row_date,
        first_value(adj_factor) over per_stock as first_factor
    from bars
    window per_stock as (partition by ts_code order by trade_date)

),

-- a stock that starts without a factor never uses given ones: their level would not fit
with_ratios as (

    select
        *,
        first_factor is null as is_derived_throughout,
        previous_row_date is null or (first_factor is not null and previous_factor is not null)
            as starts_run,
        case
            when
                not is_suspended
                and abs(previous_close - pre_close) > {{ half_tick('ts_code') }}
                then previous_close / pre_close
            else 1::double
        end as ratio
    from with_previous
    where adj_factor is null or first_factor is null

),

steps as (

    select
        *,
        case when starts_run then coalesce(previous_factor, 1) end as run_start_factor,
        sum(starts_run::integer) over so_far as run
    from with_ratios
    where starts_run or ratio <> 1
    window so_far as (
        partition by ts_code order by trade_date
        rows between unbounded preceding and current row
    )

),

-- a list is multiplied from its start to its end, so that a factor never depends on later rows
with_levels as (

    select
        *,
        first_value(run_start_factor) over so_far
        * list_aggregate(list(ratio) over so_far, 'product') as adj_factor_after
    from steps
    window so_far as (
        partition by ts_code, run order by trade_date
        rows between unbounded preceding and current row
    )

)

select
    with_levels.ts_code,
    with_levels.trade_date,
    with_levels.previous_row_date,
    with_levels.previous_close,
    with_levels.pre_close,
    with_levels.ratio,
    with_levels.adj_factor_after as adj_factor,
    with_levels.is_derived_throughout,
    coalesce(today.trading_day - previous_day.trading_day - 1, 0) as missing_trading_days
from with_levels
left join days as today on with_levels.trade_date = today.trade_date
left join days as previous_day on with_levels.previous_row_date = previous_day.trade_date
order by with_levels.ts_code, with_levels.trade_date
