{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(ahead=daily_label_settings().wave_proximity_weights | length + daily_label_settings().wave_episode_days, stock_days=traded_panel_days()) }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set settings = daily_label_settings() -%}
{%- set weights = settings.wave_proximity_weights -%}
{#- a start on the farthest day is decided so many days later -#}
{%- set ahead = weights | length + settings.wave_episode_days -%}

with days as (

    select
        ts_code,
        trade_date,
        trading_day,
        max(trading_day) over (partition by ts_code) as last_trading_day
    from {{ ref('daily_panel') }} as daily_panel
    {% if is_incremental() %}
    {{ of_stocks_to_rebuild('daily_panel', 'build_from') }}
    {% endif %}

),

calendar as (

    select
        trading_day,
        trade_date
    from {{ ref('stg_trading_calendar') }}

),

weights (days_before_start, weight) as (

    values
    {% for weight in weights %}
    ({{ loop.index }}::smallint, {{ weight }}::double){{ ',' if not loop.last }}
    {% endfor %}

),

approaches as (

    select
        episodes.ts_code,
        episodes.start_trading_day - weights.days_before_start as trading_day,
        max(episodes.target_quality * weights.weight) as target_quality,
        min(weights.days_before_start) as proximity,
        min(episodes.start_date) as next_start_date
    from {{ ref('main_wave_episodes') }} as episodes
    cross join weights
    group by all

)

select
    ---------- keys
    days.ts_code,
    days.trade_date,

    ---------- label
    calendar.trade_date is not null as is_label_known,
    case when calendar.trade_date is not null then coalesce(approaches.proximity, 0) end
        as proximity,
    case when calendar.trade_date is not null then coalesce(approaches.target_quality, 0) end
        as target_quality,
    case when calendar.trade_date is not null then approaches.next_start_date end
        as next_start_date,

    ---------- how far the row looks
    calendar.trade_date as label_end_date
from days
left join approaches
    on days.ts_code = approaches.ts_code and days.trading_day = approaches.trading_day
left join calendar
    on
        days.trading_day + {{ ahead }} = calendar.trading_day
        and days.trading_day + {{ ahead }} <= days.last_trading_day
order by days.ts_code, days.trade_date
