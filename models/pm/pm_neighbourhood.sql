with axes as (

    select
        axis,
        value::double as value,
        row_number() over (partition by axis order by value::double) as place
    from {{ ref('pm_grid_axes') }}

),

best as (

    select *
    from {{ ref('pm_grid_search') }}
    where score_rank = 1

),

best_values as (

    {% for axis in pm_axes() %}
    select '{{ axis }}' as axis, {{ axis }} as value from best
    {{- ' union all' if not loop.last }}
    {% endfor %}

),

steps as (

    select
        axes.axis,
        axes.value,
        axes.place - here.place as step
    from best_values
    inner join axes as here using (axis, value)
    inner join axes
        on here.axis = axes.axis and abs(axes.place - here.place) = 1

),

neighbours as (

    {% for moved in pm_axes() %}
    select
        steps.axis,
        steps.step,
        best.{{ moved }} as best_value,
        steps.value,
        best.score as best_score,
        grid.*
    from best
    inner join steps on steps.axis = '{{ moved }}'
    inner join {{ ref('pm_grid_search') }} as grid
        on
            steps.value = grid.{{ moved }}
            {% for axis in pm_axes() if axis != moved %}
            and best.{{ axis }} = grid.{{ axis }}
            {% endfor %}
    {{- ' union all' if not loop.last }}
    {% endfor %}

)

select
    axis,
    step::integer as step,
    best_value,
    value,
    candidate_id,
    trade_set_id,
    trade_count,
    win_rate,
    avg_weighted_edge_bps,
    total_weighted_edge_bps,
    profit_factor,
    score,
    score_rank,
    case when best_score > 0 then score / best_score end as score_ratio
from neighbours
order by axis, step
