{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(date_column='settled_date') }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set windows = event_settings().trend_scanning_windows -%}
{%- set window_days = event_window_days('trend_scanning') %}

with

{{ event_scan('trend_scanning', ['price'], keep='first', only_new=is_incremental()) }},

paths as (

    select
        *,
        lead(panel_row) over () as next_panel_row,
        {{ values_ahead('price', window_days) }}
    from inputs

),

starts as (

    select
        stock_id,
        panel_row,
        0::double as gain_0,
        {% for k in range(1, window_days) %}
        ln(price_{{ k }} / price) as gain_{{ k }}{{ ',' if not loop.last }}
        {% endfor %}
    from paths
    where
        {{ stream_is_ordered() }}
        and may_start
        and rows_left >= {{ window_days }}

),

lines as (

    select
        *,
        {% for days in windows %}
        {{ line_slope('gain', days) }} as slope_{{ days }},
        {{ sum_of('gain', days) }} / {{ days }} as mean_{{ days }}{{ ',' if not loop.last }}
        {% endfor %}
    from starts

),

fits as (

    select
        stock_id,
        panel_row,
        {% for days in windows %}
        slope_{{ days }},
        {{ line_slope_error('gain', days) }} as slope_error_{{ days }}{{ ',' if not loop.last }}
        {% endfor %}
    from lines

),

scans as (

    select
        stock_id,
        panel_row,
        {% for days in windows %}
        slope_{{ days }},
        slope_error_{{ days }},
        abs(slope_{{ days }} / slope_error_{{ days }}) as strength_{{ days }},
        {% endfor %}
        greatest(
            {% for days in windows -%}
            abs(slope_{{ days }} / slope_error_{{ days }}){{ ', ' if not loop.last }}
            {%- endfor %}
        ) as strength
    from fits

),

strongest as (

    select
        stock_id,
        panel_row,
        {% for column, name in {
            '': 'trend_days', 'slope_': 'slope', 'slope_error_': 'slope_error',
        }.items() %}
        case
            {%- for days in windows %}
            when strength_{{ days }} = strength then {{ column }}{{ days }}
            {%- endfor %}
        end as {{ name }}{{ ',' if not loop.last }}
        {% endfor %}
    from scans

),

candidates as (

    select
        stock_id,
        row_number() over (partition by stock_id order by panel_row) as candidate_number,
        panel_row as start_row,
        panel_row + trend_days as peak_row,
        panel_row + {{ window_days }} as confirmation_row,
        null::double as theta,
        slope as magnitude,
        slope_error as scale,
        slope / slope_error as quality
    from strongest
    where slope > 0

),

{{ settled_events('trend_scanning', keep='first') }}
