-- labels.path_stats streams over the stored order: no ORDER BY, the stored order is the question
select
    bar_id,
    next_bar_id
from (
    select
        bar_id,
        lead(bar_id) over () as next_bar_id
    from {{ ref('stg_minute_bars') }}
)
where next_bar_id <> bar_id + 1
