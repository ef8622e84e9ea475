with limits as (

    select
        ts_code,
        trade_date,
        board,
        limit_rule_id,
        limit_up_price,
        limit_down_price,
        traded_above_limit_up,
        traded_below_limit_down
    from {{ ref('price_limits') }}
    where traded_above_limit_up or traded_below_limit_down

),

gates as (

    select
        ts_code,
        trade_date,
        days_since_listing,
        is_st
    from {{ ref('daily_gates') }}

),

bars as (

    select
        ts_code,
        trade_date,
        pre_close,
        high,
        low,
        close,
        price_basis
    from {{ ref('stg_daily_bars') }}

)

select
    limits.*,
    bars.pre_close,
    bars.high,
    bars.low,
    bars.close,
    bars.price_basis,
    gates.days_since_listing,
    gates.is_st
from limits
inner join gates using (ts_code, trade_date)
inner join bars using (ts_code, trade_date)
