{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(date_column='settled_date') }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set window_days = event_window_days('triple_barrier') -%}
{%- set multiple = event_setting('triple_barrier_volatility_multiple') %}

with

{{ event_scan(
    'triple_barrier', ['price', 'volatility_before'], keep='best', only_new=is_incremental()
) }},

paths as (

    select
        *,
        lead(panel_row) over () as next_panel_row,
        price * (1 + {{ multiple }} * volatility_before) as upper_barrier,
        price * (1 - {{ multiple }} * volatility_before) as lower_barrier,
        {{ values_ahead('price', window_days) }}
    from inputs

),

touches as (

    select
        *,
        {{ first_touch('price', '>= upper_barrier', window_days) }} as upper_days,
        {{ first_touch('price', '<= lower_barrier', window_days) }} as lower_days
    from paths
    where
        {{ stream_is_ordered() }}
        and may_start
        and rows_left >= {{ window_days }}
        -- a stock that moved by the same share every day has no volatility but what rounding leaves
        and volatility_before >= {{ event_setting('event_min_volatility') }}

),

rises as (

    select
        *,
        case upper_days
            {%- for k in range(1, window_days + 1) %}
            when {{ k }} then price_{{ k }}
            {%- endfor %}
        end / price - 1 as gain
    from touches
    where coalesce(upper_days < lower_days, upper_days is not null)

),

candidates as (

    select
        stock_id,
        row_number() over (partition by stock_id order by panel_row) as candidate_number,
        panel_row as start_row,
        panel_row + upper_days as peak_row,
        panel_row + upper_days as confirmation_row,
        null::double as theta,
        gain as magnitude,
        volatility_before as scale,
        gain / volatility_before as quality
    from rises

),

{{ settled_events('triple_barrier', keep='best') }}
