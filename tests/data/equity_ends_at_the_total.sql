-- An equity curve ends at the total of its metrics, and falls as deep as their drawdown.
with ends as (

    select
        accounting,
        'combined' as eval_split,
        count(*) as trade_count,
        max_by(equity_bps, run_index) as total_bps,
        max(drawdown_bps) as drawdown_bps
    from {{ ref('equity_curve') }}
    group by accounting
    union all
    select
        accounting,
        eval_split,
        count(*) as trade_count,
        max_by(split_equity_bps, trade_index) as total_bps,
        max(split_drawdown_bps) as drawdown_bps
    from {{ ref('equity_curve') }}
    group by accounting, eval_split

)

select
    metrics.accounting,
    metrics.eval_split,
    metrics.trade_count,
    ends.trade_count as curve_trade_count,
    metrics.total_weighted_edge_bps,
    ends.total_bps,
    metrics.max_drawdown_bps,
    ends.drawdown_bps
from {{ ref('backtest_metrics') }} as metrics
left join ends using (accounting, eval_split)
where
    metrics.eval_split <> 'sealed'
    and (
        metrics.trade_count <> coalesce(ends.trade_count, 0)
        or abs(metrics.total_weighted_edge_bps - coalesce(ends.total_bps, 0))
        > 1e-9 * greatest(1, abs(metrics.total_weighted_edge_bps))
        or abs(metrics.max_drawdown_bps - coalesce(ends.drawdown_bps, 0))
        > 1e-9 * greatest(1, metrics.max_drawdown_bps)
    )
