{%- set horizons = label_horizons() -%}

with summaries as (

    {% for label_set, targets in label_sets().items() %}
    select
        '{{ label_set }}' as label_set,
        '{{ targets[0] }}' as main_target,
        {{ horizons[label_set] }}::smallint as horizon_minutes,
        count(*) as row_count,
        min(event_time) as first_event_time,
        max(event_time) as last_event_time,
        -- a sum over rows, so that their order does not matter
        md5(count(*) || ':' || coalesce(sum(hash(rows_read)::hugeint), 0)) as data_hash
    from {{ ref(label_set) }} as rows_read
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

price_plan as (

    select price_plan_hash
    from {{ ref('price_plan') }}

)

select
    summaries.label_set,
    {{ setting('label_version') }} as label_version,
    summaries.main_target,
    summaries.horizon_minutes,
    summaries.row_count,
    summaries.first_event_time,
    summaries.last_event_time,
    price_plan.price_plan_hash as settings_hash,
    summaries.data_hash
from summaries
cross join price_plan
