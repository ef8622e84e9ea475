with best as (

    {% for axis in pm_axes() %}
    select
        '{{ axis }}' as axis,
        {{ axis }} as value
    from {{ ref('pm_grid_search') }}
    where score_rank = 1
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select
    defaults.section,
    defaults.setting,
    coalesce(best.value, defaults.default_value::double) as value,
    defaults.value_type,
    defaults.default_value::double as default_value,
    defaults.taken_from
from {{ ref('pm_config_defaults') }} as defaults
left join best on defaults.taken_from = best.axis
order by defaults.section, defaults.setting
