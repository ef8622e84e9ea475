{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(ahead=2, stock_days=sellable_days()) }}",
        post_hook="{{ record_built_days() }}"
    )
}}

with gates as (

    select
        ts_code,
        trade_date,
        trading_day,
        data_ok and not_suspended as is_traded,
        passes_all
    from {{ ref('daily_gates') }} as daily_gates
    {% if is_incremental() %}
    {{ of_stocks_to_rebuild('daily_gates', 'build_from') }}
    {% endif %}

),

limits as (

    select
        ts_code,
        trade_date,
        is_limit_up_close,
        is_limit_down_close,
        opened_at_limit_up,
        opened_at_limit_down,
        is_one_price
    from {{ ref('price_limits') }}

),

calendar as (

    select
        trading_day,
        next_trade_date
    from {{ ref('stg_trading_calendar') }}

),

data_end as (

    select max(trading_day) as last_day
    from gates

),

-- where the limits are unknown, a day with more than one price is taken to trade both ways
tradable as (

    select
        gates.ts_code,
        gates.trade_date,
        gates.trading_day,
        gates.passes_all,
        gates.is_traded
        and not coalesce(limits.opened_at_limit_up, limits.is_one_price) as may_buy_at_open,
        gates.is_traded
        and not coalesce(limits.is_limit_up_close, limits.is_one_price) as may_buy_at_close,
        gates.is_traded
        and not coalesce(limits.opened_at_limit_down, limits.is_one_price) as may_sell_at_open,
        gates.is_traded
        and not coalesce(limits.is_limit_down_close, limits.is_one_price) as may_sell_at_close
    from gates
    inner join limits using (ts_code, trade_date)

),

ahead as (

    select
        *,
        lead(trading_day) over per_stock as next_row_day,
        lead(may_buy_at_open) over per_stock as next_row_buy_at_open,
        lead(may_buy_at_close) over per_stock as next_row_buy_at_close,
        min(case when may_sell_at_open or may_sell_at_close then trade_date end) over (
            partition by ts_code order by trading_day
            range between 2 following and unbounded following
        ) as first_sell_date
    from tradable
    window per_stock as (partition by ts_code order by trading_day)

),

-- no row on the next day means that the stock is no longer there, unless the data end
next_day as (

    select
        ahead.*,
        case
            when ahead.trading_day < data_end.last_day
                then
                    coalesce(
                        ahead.next_row_day = ahead.trading_day + 1 and ahead.next_row_buy_at_open,
                        false
                    )
        end as may_buy_next_open,
        case
            when ahead.trading_day < data_end.last_day
                then
                    coalesce(
                        ahead.next_row_day = ahead.trading_day + 1 and ahead.next_row_buy_at_close,
                        false
                    )
        end as may_buy_next_close
    from ahead
    cross join data_end

)

select
    ---------- ids
    next_day.ts_code,
    next_day.trade_date,

    ---------- known at the close
    next_day.passes_all as decision_eligible,
    next_day.may_sell_at_open,
    next_day.may_sell_at_close,

    ---------- outcomes of the next day and later
    calendar.next_trade_date,
    next_day.may_buy_next_open,
    next_day.may_buy_next_close,
    case when next_day.may_buy_next_open then next_day.first_sell_date end as first_sell_date
from next_day
inner join calendar using (trading_day)
order by next_day.ts_code, next_day.trade_date
