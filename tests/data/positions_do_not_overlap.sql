-- a symbol holds one position at a time; the next may open on a signal of the minute it left in
with neighbours as (

    select
        position_id,
        signal_time,
        lag(closed_at) over (
            partition by symbol, eval_split order by signal_time
        ) as previous_closed_at
    from {{ ref('executed_positions') }}

)

select *
from neighbours
where signal_time < previous_closed_at
