{%- set label_set = event_settings().anchor_label_set -%}
{%- set anchors = anchor_days() -%}
{%- set settling = event_settling_days(label_set) -%}
{%- set settled = event_settings().event_unsettled_rows == 'unknown' %}

with days as (

    select
        stock_id,
        stock_row,
        rows_left,
        ts_code,
        trade_date,
        is_in_universe
    from {{ ref('daily_event_inputs') }}

),

thresholds as (

    select quality_threshold
    from {{ ref('event_thresholds') }}
    where label_set = '{{ label_set }}'

),

events as (

    select
        ts_code,
        event_date,
        quality
    from {{ ref('label_events') }}
    where
        label_set = '{{ label_set }}'
        and quality >= (select quality_threshold from thresholds)

),

days_ahead as (

    select
        days.*,
        (select quality_threshold from thresholds) is not null as has_threshold,
        {% for k in anchors %}
        lead(events.event_date, {{ k }}) over per_stock is not null as starts_in_{{ k }},
        {% endfor %}
        {% for k in anchors %}
        lead(events.quality, {{ k }}) over per_stock as quality_in_{{ k }},
        lead(days.trade_date, {{ k + settling }}) over per_stock as settled_date_{{ k }},
        {% endfor %}
        max(days.trade_date) over (partition by days.stock_id) as last_trade_date
    from days
    left join events on days.ts_code = events.ts_code and days.trade_date = events.event_date
    window per_stock as (partition by days.stock_id order by days.stock_row)

),

known as (

    select
        *,
        {% for k in anchors %}
        has_threshold
        and {{ 'settled_date_' ~ k ~ ' is not null' if settled else 'rows_left >= ' ~ k }}
            as is_known_{{ k }}{{ ',' if not loop.last }}
        {% endfor %}
    from days_ahead

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
from known
inner join {{ ref(label_set ~ '_labels') }} as targets
    on known.ts_code = targets.ts_code and known.trade_date = targets.trade_date
order by known.ts_code, known.trade_date
