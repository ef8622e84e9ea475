{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(date_column='settled_date') }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set window_days = event_window_days('excess_adaptive') -%}
{%- set first_peak = event_settings().excess_adaptive_min_peak_days -%}
{%- set prior_days = event_settings().excess_adaptive_prior_days %}

with

{{ event_scan(
    'excess_adaptive', ['price', 'traded_return', 'benchmark_level', 'volatility_before'],
    keep='first', only_new=is_incremental(), back=prior_days + 1
) }},

paths as (

    select
        *,
        lead(panel_row) over () as next_panel_row,
        lag(price) over () as previous_price,
        lag(price, {{ prior_days + 1 }}) over () as price_before_prior_days,
        {{ values_ahead('price', window_days) }},
        {{ values_ahead('benchmark_level', window_days) }}
    from inputs

),

starts as (

    select
        *,
        greatest(
            {{ event_setting('excess_adaptive_min_excess') }},
            {{ event_setting('excess_adaptive_volatility_multiple') }} * volatility_before
        ) as excess_threshold,
        {% for k in range(first_peak, window_days + 1) %}
        (price_{{ k }} / price - 1) - (benchmark_level_{{ k }} / benchmark_level - 1)
            as excess_{{ k }}{{ ',' if not loop.last }}
        {% endfor %}
    from paths
    where
        {{ stream_is_ordered() }}
        and may_start
        and stock_row > {{ prior_days }}
        and rows_left >= {{ window_days }}
        and traded_return >= {{ event_setting('excess_adaptive_min_gain') }}
        and previous_price / price_before_prior_days - 1
        <= {{ event_setting('excess_adaptive_max_prior_gain') }}
        and volatility_before is not null

),

rises as (

    select
        *,
        greatest(
            {% for k in range(first_peak, window_days + 1) -%}
            excess_{{ k }}{{ ', ' if not loop.last }}
            {%- endfor %}
        ) as excess
    from starts

),

peaks as (

    select
        *,
        case
            {%- for k in range(first_peak, window_days + 1) %}
            when excess_{{ k }} = excess then {{ k }}
            {%- endfor %}
        end as peak_days,
        price as highest_0,
        {% for k in range(1, window_days + 1) -%}
        greatest(highest_{{ k - 1 }}, price_{{ k }}) as highest_{{ k }}{{ ',' if not loop.last }}
        {% endfor %}
    from rises
    where excess >= excess_threshold

),

falls as (

    select
        *,
        -- of the way to the peak: what the price does after it is no part of the rise
        greatest(
            {% for k in range(1, window_days + 1) -%}
            case when peak_days >= {{ k }} then (highest_{{ k }} - price_{{ k }}) / price end
            {{- ', ' if not loop.last }}
            {% endfor %}
        ) as drawdown
    from peaks

),

candidates as (

    select
        stock_id,
        row_number() over (partition by stock_id order by panel_row) as candidate_number,
        panel_row as start_row,
        panel_row + peak_days as peak_row,
        panel_row + {{ window_days }} as confirmation_row,
        null::double as theta,
        excess as magnitude,
        excess_threshold as scale,
        excess / excess_threshold as quality
    from falls
    where
        drawdown
        <= {{ event_setting('excess_adaptive_drawdown_base') }}
        + {{ event_setting('excess_adaptive_drawdown_share') }} * excess
        and excess / peak_days >= {{ event_setting('excess_adaptive_min_excess_per_day') }}

),

{{ settled_events('excess_adaptive', keep='first') }}
