with bars as (

    select
        ts_code,
        trade_date,
        pre_close,
        adj_factor,
        adj_factor_source,
        lag(adj_factor) over per_stock as previous_adj_factor,
        row_number() over per_stock as stock_row,
        lag(case when not is_suspended then close end ignore nulls) over per_stock
            as previous_close
    from {{ ref('stg_daily_bars') }}
    window per_stock as (partition by ts_code order by trade_date)

),

-- days on which the factor changes, and by how much the reference price says that it should
changes as (

    select
        *,
        {{ half_tick('ts_code') }} as half_tick,
        coalesce(abs(previous_close - pre_close) > half_tick, false) as is_ex_right,
        case when is_ex_right then previous_close / pre_close else 1 end as explained_change,
        case when is_ex_right then half_tick / pre_close else 0 end as rounding
    from bars
    where adj_factor <> previous_adj_factor and adj_factor_source = 'given'

),

-- a factor is back when it is what it was before, but for what went ex-right meanwhile
with_returns as (

    select
        *,
        lead(adj_factor) over per_stock as next_adj_factor,
        coalesce(
            lead(stock_row) over per_stock - stock_row <= {{ var('daily_wobble_max_days') }}
            and abs(
                lead(adj_factor) over per_stock
                / (previous_adj_factor * lead(explained_change) over per_stock) - 1
            ) <= {{ var('daily_wobble_tolerance') }} + lead(rounding) over per_stock,
            false
        ) as has_returned
    from changes
    window per_stock as (partition by ts_code order by trade_date)

),

with_what_came_before as (

    select
        *,
        coalesce(lag(has_returned and not is_ex_right) over per_stock, false) as is_return
    from with_returns
    window per_stock as (partition by ts_code order by trade_date)

)

select
    ts_code,
    trade_date,
    adj_factor,
    previous_adj_factor,
    next_adj_factor,
    adj_factor / previous_adj_factor - 1 as relative_change,
    has_returned
from with_what_came_before
where not is_ex_right and not is_return
order by ts_code, trade_date
