-- Every kind of regime counts every trade of a split once, and loses no edge.
with sums as (

    select
        accounting,
        eval_split,
        regime_kind,
        sum(trade_count) as trade_count,
        sum(total_weighted_edge_bps) as total_bps
    from {{ ref('regime_metrics') }}
    group by accounting, eval_split, regime_kind

)

select
    sums.*,
    metrics.trade_count as split_trade_count,
    metrics.total_weighted_edge_bps
from sums
inner join {{ ref('backtest_metrics') }} as metrics using (accounting, eval_split)
where
    sums.trade_count <> metrics.trade_count
    or abs(sums.total_bps - metrics.total_weighted_edge_bps)
    > 1e-9 * greatest(1, abs(metrics.total_weighted_edge_bps))
