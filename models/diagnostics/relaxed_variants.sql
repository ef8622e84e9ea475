with frame as (

    select
        split_id,
        long_prob,
        short_prob,
        long_entry_prob,
        short_entry_prob,
        market_risk_prob,
        pred_long_expected_net_edge_bps,
        pred_short_expected_net_edge_bps,
        actual_long_expected_net_edge_bps,
        actual_short_expected_net_edge_bps,
        long_executed_net_bps,
        short_executed_net_bps
    from {{ ref('backtest_frame') }}

),

variants as (

    select *
    from {{ ref('diagnostic_variants') }}

),

splits as (

    {{ split_rows(evaluation_splits()) }}

),

-- a row that passes both sides counts once for each
picks as (

    {% for side in ['long', 'short'] %}
    select
        frame.split_id,
        variants.variant,
        '{{ side | upper }}' as side,
        frame.actual_{{ side }}_expected_net_edge_bps as actual_edge_bps,
        frame.{{ side }}_executed_net_bps as executed_edge_bps
    from frame
    inner join variants on {{ side_gate(side, 'frame', 'variants') }}
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

metrics as (

    select
        split_id,
        variant,
        count(*) as row_count,
        count(*) filter (where actual_edge_bps > 0) / count(*)::double as win_rate,
        {{ exact_mean('actual_edge_bps') }} as avg_actual_edge_bps,
        {{ exact_mean('executed_edge_bps') }} as avg_executed_edge_bps,
        count(*) filter (where side = 'LONG') as long_rows,
        count(*) filter (where side = 'SHORT') as short_rows
    from picks
    group by split_id, variant

)

select
    splits.split_id,
    variants.position,
    variants.variant,
    coalesce(metrics.row_count, 0) as row_count,
    coalesce(metrics.win_rate, 0) as win_rate,
    -- unknown where no edge is known, 0 where there is no row
    case when metrics.row_count > 0 then metrics.avg_actual_edge_bps else 0 end
        as avg_actual_edge_bps,
    case when metrics.row_count > 0 then metrics.avg_executed_edge_bps else 0 end
        as avg_executed_edge_bps,
    coalesce(metrics.long_rows, 0) as long_rows,
    coalesce(metrics.short_rows, 0) as short_rows
from splits
cross join variants
left join metrics
    on
        splits.split_id = metrics.split_id
        and variants.variant = metrics.variant
order by {{ split_order('splits.split_id') }}, variants.position
