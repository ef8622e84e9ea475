with scores as (

    {% for side in ['long', 'short'] %}
    select
        sample_id,
        symbol,
        event_time,
        split_id,
        '{{ side | upper }}' as side,
        {{ side }}_entry_prob as score,
        actual_{{ side }}_expected_net_edge_bps as actual_edge_bps,
        {{ side }}_executed_net_bps as executed_edge_bps,
        {{ side }}_entry_target as entry_target
    from {{ ref('backtest_frame') }}
    where
        {{ side }}_entry_prob is not null
        and actual_{{ side }}_expected_net_edge_bps is not null
        and {{ side }}_entry_target is not null
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

ranked as (

    select
        *,
        row_number() over (
            partition by split_id, side order by score, event_time, symbol, sample_id
        ) as score_rank,
        count(*) over (partition by split_id, side) as side_rows
    from scores

),

-- rank r of n lies in the first tenth whose upper cut, 1 + (n - 1) x tenth / 10, is not below r
bucketed as (

    select
        *,
        greatest(1, (10 * (score_rank - 1) + side_rows - 2) // nullif(side_rows - 1, 0)) as bucket
    from ranked

)

select
    split_id,
    side,
    bucket,
    count(*) as row_count,
    min(score) as score_min,
    max(score) as score_max,
    avg(entry_target::double) as hit_rate,
    {{ exact_mean('actual_edge_bps') }} as avg_actual_edge_bps,
    {{ exact_mean('executed_edge_bps') }} as avg_executed_edge_bps
from bucketed
group by split_id, side, bucket
order by {{ split_order() }}, side, bucket
