{{ config(materialized='table') }}

with frame as (

    select
        *,
        {{ pm_period_start('event_time') }} as period_start
    from {{ ref('pm_frame') }}

),

trade_sets as (

    select
        trade_set_id,
        min(candidate_id) as candidate_id
    from {{ ref('pm_grid_search') }}
    where trade_count > 0
    group by trade_set_id

),

trials as (

    select candidates.*
    from {{ ref('pm_candidates') }} as candidates
    inner join trade_sets using (candidate_id)

),

period_sums as (

    {{ pm_grid_additive('frame', 'trials', ['period_start']) }}

)

select
    trade_sets.trade_set_id,
    trade_sets.candidate_id,
    period_sums.period_start,
    period_sums.trade_count,
    period_sums.weighted_edge_sum_bps as weighted_edge_bps
from period_sums
inner join trade_sets using (candidate_id)
where period_sums.trade_count > 0
order by trade_sets.candidate_id, period_sums.period_start
