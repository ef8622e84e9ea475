-- what a set of trades earns by period is what the search says it earns
with sums as (

    select
        candidate_id,
        sum(trade_count) as trade_count,
        sum(weighted_edge_bps) as total_weighted_edge_bps
    from {{ ref('pm_period_returns') }}
    group by candidate_id

)

select
    grid.candidate_id,
    grid.trade_count,
    sums.trade_count as trade_count_of_periods,
    grid.total_weighted_edge_bps,
    sums.total_weighted_edge_bps as total_of_periods
from {{ ref('pm_trials') }} as trials
inner join {{ ref('pm_grid_search') }} as grid using (candidate_id)
left join sums using (candidate_id)
where
    grid.trade_count is distinct from sums.trade_count
    or coalesce(
        abs(grid.total_weighted_edge_bps - sums.total_weighted_edge_bps)
        > 1e-6 * greatest(1, abs(grid.total_weighted_edge_bps)), true
    )
