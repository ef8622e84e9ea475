-- no position is still held when the next split starts
select
    positions.position_id,
    positions.eval_split,
    positions.closed_at,
    boundaries.boundary_name
from {{ ref('executed_positions') }} as positions
inner join {{ ref('split_boundaries') }} as boundaries
    on
        boundaries.boundary_kind = 'split'
        and positions.signal_time < boundaries.starts_at
        and positions.closed_at >= boundaries.starts_at
