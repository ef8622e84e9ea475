{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days() }}",
        post_hook="{{ record_built_days() }}"
    )
}}

with days as (

    select
        ts_code,
        trade_date,
        {{ event_traded_return('panel') }} as traded_return
    from {{ ref('daily_panel') }} as panel
    {% if is_incremental() %}
    where trade_date > {{ built_until() }}
    {% endif %}

),

members as (

    select
        ts_code,
        trade_date
    from {{ ref('universe_members') }}
    where universe = {{ event_setting('event_universe') }}

)

select
    days.trade_date,
    count(members.ts_code) as member_count,
    -- a sum of integers, so that the order of the stocks does not matter
    sum(case when members.ts_code is not null then (days.traded_return * 1e15)::hugeint end)::double
    / nullif(count(case when members.ts_code is not null then days.traded_return end), 0)
    / 1e15 as mean_return
from days
left join members
    on days.ts_code = members.ts_code and days.trade_date = members.trade_date
group by days.trade_date
order by days.trade_date
