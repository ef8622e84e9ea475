with counts as (

    {% for label_set, spec in daily_label_sets().items() if spec.is_counted %}
    {% set last_set = loop.last %}
    {% for target in spec.targets %}
    select
        '{{ label_set }}' as label_set,
        '{{ target }}' as target_name,
        {{ loop.first | lower }} as is_main_target,
        year({{ spec.day }}) as trade_year,
        coalesce({{ target }}::integer::varchar, 'unknown') as target_value,
        count(*) as row_count
    from {{ ref(label_set) }}
    where {{ spec.rows }}
    group by all
    {{ 'union all' if not (loop.last and last_set) }}
    {% endfor %}
    {% endfor %}

)

select
    label_set,
    target_name,
    is_main_target,
    trade_year,
    target_value,
    row_count,
    case
        when target_value <> 'unknown'
            then
                row_count / (sum(row_count) filter (where target_value <> 'unknown') over (
                    partition by label_set, target_name, trade_year order by target_value
                    rows between unbounded preceding and unbounded following
                ))::double
    end as known_share
from counts
order by label_set, target_name, trade_year, target_value
