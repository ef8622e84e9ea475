-- the funnel asks the gates one by one, the position manager all at once: the same rows are left
with opened as (

    {% for side in ['long', 'short'] %}
    select
        frame.split_id,
        '{{ side | upper }}' as side,
        count(*) filter (where {{ side_gate(side) }}) as row_count
    from {{ ref('backtest_frame') }} as frame
    cross join {{ ref('diagnostic_gates') }} as thresholds
    group by frame.split_id
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

funnel as (

    select
        split_id,
        side,
        min(rows_after_gate) as row_count
    from {{ ref('gate_funnel') }}
    group by split_id, side

)

select
    split_id,
    side,
    opened.row_count as opened_rows,
    funnel.row_count as funnel_rows
from opened
full outer join funnel using (split_id, side)
where opened.row_count is distinct from funnel.row_count
