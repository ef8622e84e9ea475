with delivered_days as (

    select trade_date
    from {{ ref('base_trading_calendar') }}

),

traded_days as (

    select distinct trade_date
    from {{ ref('base_daily_bars') }}
    where reject_reason is null

    union

    select trade_date
    from {{ ref('stg_index_daily') }}

),

-- a calendar that ends before the bars do is carried on by them; inside its span it alone counts
open_days as (

    select trade_date
    from delivered_days

    union all

    select traded_days.trade_date
    from traded_days
    where
        not exists (select 1 from delivered_days)
        or traded_days.trade_date < (select min(delivered_days.trade_date) from delivered_days)
        or traded_days.trade_date > (select max(delivered_days.trade_date) from delivered_days)

)

select
    trade_date,
    row_number() over by_date as trading_day,
    lag(trade_date) over by_date as previous_trade_date,
    lead(trade_date) over by_date as next_trade_date
from open_days
window by_date as (order by trade_date)
order by trade_date
