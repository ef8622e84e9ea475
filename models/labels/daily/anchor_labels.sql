{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(ahead=event_label_days(event_settings().anchor_label_set), stock_days=panel_days()) }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set label_set = event_settings().anchor_label_set -%}
{%- set anchors = anchor_days() %}

with

{{ days_and_events(label_set, only_rebuilt=is_incremental()) }}

days_ahead as (

    select
        days.*,
        {% for k in anchors %}
        lead(events.event_date, {{ k }}) over per_stock is not null as starts_in_{{ k }},
        lead(events.quality, {{ k }}) over per_stock as quality_in_{{ k }},
        {{ settled_date_ahead(label_set, k) }} as settled_date_{{ k }},
        {{ is_start_known(label_set, k) }} as is_known_{{ k }},
        {% endfor %}
        max(days.trade_date) over (partition by days.ts_code) as last_trade_date
    from days
    left join events on days.ts_code = events.ts_code and days.trade_date = events.event_date
    window per_stock as (partition by days.ts_code order by days.stock_row)

)

select
    known.ts_code,
    known.trade_date,
    '{{ label_set }}' as label_set,
    known.is_in_universe,
    {% for k in anchors %}
    case when known.is_known_{{ k }} then known.starts_in_{{ k }}::tinyint end as anchor_t{{ k }},
    {% endfor %}
    {% for k in anchors %}
    case when known.is_known_{{ k }} then known.quality_in_{{ k }} end as anchor_t{{ k }}_quality,
    {% endfor %}
    targets.t1 as within_t1,
    targets.t3 as within_t3,
    targets.t5 as within_t5,
    -- a negative that no event follows for long: the rows to draw background from
    1 - targets.e20 as is_background,
    {% for k in anchors %}
    case
        when known.is_known_{{ k }} then coalesce(known.settled_date_{{ k }}, known.last_trade_date)
    end as anchor_t{{ k }}_label_end_date,
    {% endfor %}
    targets.e20_label_end_date as is_background_label_end_date
from days_ahead as known
inner join {{ ref(label_set ~ '_labels') }} as targets
    on known.ts_code = targets.ts_code and known.trade_date = targets.trade_date
order by known.ts_code, known.trade_date
