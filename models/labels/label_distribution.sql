{%- set sets_with_sides = ['entry_labels', 'position_state_samples'] -%}

with counts as (

    {% for label_set, targets in label_sets().items() %}
    {% set last_set = loop.last %}
    {% for target in targets %}
    select
        '{{ label_set }}' as label_set,
        '{{ target }}' as target_name,
        {{ loop.first | lower }} as is_main_target,
        {{ 'side' if label_set in sets_with_sides else "'BOTH'" }} as side,
        split_id,
        {{ target }}::varchar as target_value,
        count(*) as row_count
    from {{ ref(label_set) }}
    group by all
    {{ 'union all' if not (loop.last and last_set) }}
    {% endfor %}
    {% endfor %}

)

select
    label_set,
    target_name,
    is_main_target,
    side,
    split_id,
    target_value,
    row_count,
    row_count / sum(row_count) over (
        partition by label_set, target_name, side, split_id order by target_value
        rows between unbounded preceding and unbounded following
    )::double as share_pct
from counts
order by label_set, target_name, side, split_id, target_value
