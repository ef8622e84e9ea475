{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(date_column='settled_date') }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set max_days = event_window_days('directional_change') -%}
{%- set at_later_high = event_settings().directional_change_magnitude == 'later_high' %}

with

{{ event_scan('directional_change', ['price'], keep='best', only_new=is_incremental()) }},

changes as (

    select
        changes.theta,
        changes.is_rise,
        changes.turn_price,
        changes.confirmation_price,
        {{ event_panel_row('searches.stock_id', 'changes.turn_row') }} as turn_row,
        {{ event_panel_row('searches.stock_id', 'changes.confirmation_row') }} as confirmation_row,
        lead(changes.confirmation_row) over (
            partition by searches.stock_id, changes.theta order by changes.confirmation_row
        ) - changes.turn_row as days_to_next
    from {{ ref('directional_changes') }} as changes
    inner join searches
        on changes.ts_code = searches.ts_code and changes.turn_row >= searches.first_row

),

rises as (

    select
        inputs.stock_id,
        changes.theta,
        changes.turn_row as low_row,
        changes.turn_price as low_price,
        changes.confirmation_row,
        changes.confirmation_price,
        changes.days_to_next
    from changes
    inner join inputs on changes.turn_row = inputs.panel_row
    where
        changes.is_rise
        and inputs.may_start
        and inputs.rows_left >= {{ max_days }}

),

{% if at_later_high %}
-- the first high of the rising leg, as far as it lies within the longest duration
leg_days as (

    select
        *,
        unnest(
            range(confirmation_row, low_row + least({{ max_days + 1 }}, days_to_next))
        ) as panel_row
    from rises

),

peaks as (

    select
        leg_days.stock_id,
        leg_days.theta,
        leg_days.low_row,
        leg_days.low_price,
        leg_days.confirmation_row,
        max(struct_pack(price := inputs.price, row_before := -inputs.panel_row)) as high
    from leg_days
    inner join inputs on leg_days.panel_row = inputs.panel_row
    group by all

),

highs as (

    select
        *,
        -high.row_before as peak_row,
        high.price as peak_price
    from peaks

),
{% else %}
highs as (

    select
        *,
        confirmation_row as peak_row,
        confirmation_price as peak_price
    from rises

),
{% endif %}

candidates as (

    select
        stock_id,
        row_number() over (partition by stock_id order by low_row, theta) as candidate_number,
        low_row as start_row,
        peak_row,
        confirmation_row,
        theta,
        peak_price / low_price - 1 as magnitude,
        {{ event_setting('directional_change_quality_unit') }} as scale,
        (peak_price / low_price - 1) / {{ event_setting('directional_change_quality_unit') }}
            as quality
    from highs
    where
        peak_row - low_row
        between {{ event_setting('directional_change_min_days') }} and {{ max_days }}

),

{{ settled_events('directional_change', keep='best') }}
