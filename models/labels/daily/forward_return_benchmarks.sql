{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='sync_all_columns',
        pre_hook="{{ drop_outdated_days(ahead=daily_label_settings().forward_return_days | max + 1) }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set settings = daily_label_settings() -%}
{%- set same_close = settings.forward_return_same_close_entry -%}

with days as (

    select
        ts_code,
        trade_date,
        trading_day,
        passes_all,
        open,
        close,
        last_close
    from {{ ref('daily_panel') }}
    {% if is_incremental() %}
    where trade_date > {{ built_until() }}
    {% endif %}

),

positions as (

    select
        trade_date,
        passes_all,
        {{ on_day_ahead('open', 1) }} as entry_open,
        {{ 'close' if same_close else on_day_ahead('close', 1) }} as entry_close,
        {% for h in settings.forward_return_days %}
        {% if same_close %}
        {{ on_day_ahead('last_close', h) }} as same_close_value_{{ h }}d,
        {% endif %}
        -- valued at the scheduled exit, so that no suspension keeps a day's average open
        {{ on_day_ahead('last_close', h + 1) }} as value_{{ h }}d{{ ',' if not loop.last }}
        {% endfor %}
    from days
    window per_stock as (partition by ts_code order by trade_date)

)

select
    trade_date,
    count(*) as stock_count,
    {% for h in settings.forward_return_days %}
    {{ exact_mean(('same_close_' if same_close else '') ~ 'value_' ~ h ~ 'd / entry_close - 1') }}
        as universe_return_{{ h }}d,
    {{ exact_mean('value_' ~ h ~ 'd / entry_open - 1') }}
        as universe_return_next_open_{{ h }}d{{ ',' if not loop.last }}
    {% endfor %}
from positions
where passes_all
group by trade_date
order by trade_date
