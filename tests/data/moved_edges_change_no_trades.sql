-- predictions alone decide which trades a candidate admits, so a draw has those of the search
select
    draws.draw,
    draws.candidate_id,
    draws.trade_count,
    grid.trade_count as trade_count_of_search
from {{ ref('pm_null_search') }} as draws
inner join {{ ref('pm_grid_search') }} as grid using (candidate_id)
where draws.trade_count <> grid.trade_count
