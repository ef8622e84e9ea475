with frame as (

    select
        sample_id,
        symbol,
        event_time,
        split_id,
        -- LONG on equal probabilities, SHORT where they cannot be compared
        case when long_prob >= short_prob then 'LONG' else 'SHORT' end as side,
        case when long_prob >= short_prob then long_prob else short_prob end as score,
        case
            when long_prob >= short_prob then actual_long_expected_net_edge_bps
            else actual_short_expected_net_edge_bps
        end as actual_edge_bps,
        case when long_prob >= short_prob then long_executed_net_bps else short_executed_net_bps end
            as executed_edge_bps
    from {{ ref('backtest_frame') }}

),

ranked as (

    select
        *,
        row_number() over (
            partition by split_id
            order by score desc nulls last, event_time asc, symbol asc, sample_id asc
        ) as score_rank,
        count(*) over (partition by split_id) as split_rows
    from frame

),

fractions as (

    select unnest({{ diagnostic_points().top_fractions }}::double[]) as fraction

)

select
    ranked.split_id,
    fractions.fraction,
    count(*) as row_count,
    count(*) filter (where ranked.actual_edge_bps > 0) / count(*)::double as win_rate,
    {{ exact_mean('ranked.actual_edge_bps') }} as avg_actual_edge_bps,
    {{ exact_mean('ranked.executed_edge_bps') }} as avg_executed_edge_bps,
    count(*) filter (where ranked.side = 'LONG') as long_rows,
    count(*) filter (where ranked.side = 'SHORT') as short_rows,
    min(ranked.score) as score_min
from ranked
inner join fractions
    on ranked.score_rank <= greatest(1, floor(ranked.split_rows * fractions.fraction))
group by ranked.split_id, fractions.fraction
order by {{ split_order('ranked.split_id') }}, fractions.fraction
