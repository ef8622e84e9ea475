{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(date_column='confirmation_date') }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set rises_enough = 'today.price >= legs.extreme_price * (1 + legs.theta)' -%}
{%- set falls_enough = 'today.price <= legs.extreme_price * (1 - legs.theta)' -%}
{%- set turns =
    '(case when legs.is_rising then ' ~ falls_enough ~ ' else ' ~ rises_enough ~ ' end)'
%}

with recursive thetas (theta) as (

    values
    {% for theta in event_settings().directional_change_thresholds %}
    ({{ theta }}::double){{ ',' if not loop.last }}
    {% endfor %}

),

stocks as (

    select
        ts_code,
        row_number() over (order by ts_code) as stock_id,
        min(stock_row) as first_row
    from {{ ref('daily_event_inputs') }}
    where price is not null
    group by ts_code

),

-- A turn tells all that its leg starts from: the days before it are not read again.
starts as (

    select
        stocks.ts_code,
        thetas.theta,
        {% if is_incremental() %}
        coalesce(last_turns.is_rise, false) as is_rising,
        coalesce(last_turns.confirmation_row, stocks.first_row) as stock_row,
        {% else %}
        false as is_rising,
        stocks.first_row as stock_row,
        {% endif %}
        {{ event_panel_row('stocks.stock_id', 'stock_row') }} as panel_row
    from stocks
    cross join thetas
    {% if is_incremental() %}
    left join (
        select
            ts_code,
            theta,
            max(confirmation_row) as confirmation_row,
            max_by(is_rise, confirmation_row) as is_rise
        from {{ this }}
        group by ts_code, theta
    ) as last_turns
        on stocks.ts_code = last_turns.ts_code and thetas.theta = last_turns.theta
    {% endif %}

),

inputs as (

    select
        {{ event_panel_row('stocks.stock_id', 'days.stock_row') }} as panel_row,
        days.ts_code,
        days.trade_date,
        days.stock_row,
        days.price
    from {{ ref('daily_event_inputs') }} as days
    inner join stocks on days.ts_code = stocks.ts_code
    inner join (
        select
            ts_code,
            min(stock_row) as first_row
        from starts
        group by ts_code
    ) as first_days
        on days.ts_code = first_days.ts_code and days.stock_row >= first_days.first_row

),

-- A stock is in a falling leg, whose extreme is its low, or in a rising one, whose extreme is its
-- high. One step a day, all stocks and thresholds at once.
legs as (

    select
        inputs.panel_row,
        starts.theta,
        starts.is_rising,
        inputs.price as extreme_price,
        inputs.panel_row as extreme_row,
        false as has_turned,
        null::double as turn_price,
        null::bigint as turn_row
    from starts
    inner join inputs on starts.panel_row = inputs.panel_row

    union all

    select
        today.panel_row,
        legs.theta,
        legs.is_rising <> {{ turns }} as is_rising,
        case
            when {{ turns }} then today.price
            when legs.is_rising then greatest(legs.extreme_price, today.price)
            else least(legs.extreme_price, today.price)
        end as extreme_price,
        case
            when {{ turns }} then today.panel_row
            when legs.is_rising and today.price <= legs.extreme_price then legs.extreme_row
            when not legs.is_rising and today.price >= legs.extreme_price then legs.extreme_row
            else today.panel_row
        end as extreme_row,
        {{ turns }} as has_turned,
        legs.extreme_price as turn_price,
        legs.extreme_row as turn_row
    from legs
    inner join inputs as today on legs.panel_row + 1 = today.panel_row

)

select
    turning_days.ts_code,
    legs.theta,
    legs.is_rising as is_rise,
    turning_days.trade_date as turn_date,
    confirmations.trade_date as confirmation_date,
    turning_days.stock_row as turn_row,
    confirmations.stock_row as confirmation_row,
    legs.turn_price,
    confirmations.price as confirmation_price
from legs
inner join inputs as turning_days on legs.turn_row = turning_days.panel_row
inner join inputs as confirmations on legs.panel_row = confirmations.panel_row
where legs.has_turned
order by turning_days.ts_code, legs.theta, confirmations.stock_row
