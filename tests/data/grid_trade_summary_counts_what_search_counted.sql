-- of tune_inner the summary repeats the search's own counts, in whichever way it made the trades
with search as (

    select
        count(*) as candidate_count,
        count(*) filter (where trade_count > 0) as candidates_with_trade,
        max(trade_count) as trade_count
    from {{ ref('pm_grid_search') }}

)

select
    search.*,
    summary.candidate_count as summary_candidate_count,
    summary.candidates_with_trade as summary_candidates_with_trade,
    summary.trade_count as summary_trade_count
from search
left join {{ ref('grid_trade_summary') }} as summary
    on summary.split_id = '{{ evaluation_splits()[0] }}'
where
    search.candidate_count is distinct from summary.candidate_count
    or search.candidates_with_trade is distinct from summary.candidates_with_trade
    or search.trade_count is distinct from summary.trade_count
