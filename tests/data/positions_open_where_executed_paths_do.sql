-- a position and the single order of its signal are filled in the same minute at the same price
select
    positions.position_id,
    positions.opened_at,
    positions.entry_price,
    paths.entry_time,
    paths.entry_price as path_entry_price
from {{ ref('executed_positions') }} as positions
left join {{ ref('executed_paths') }} as paths
    on positions.position_id = paths.sample_id and positions.side = paths.side
where
    positions.opened_at is distinct from paths.entry_time
    or positions.entry_price is distinct from paths.entry_price
