with read_rows as (

    select
        source_file,
        symbol,
        open_time_ms,
        is_repeat,
        reject_reason,
        reject_reason is null and not is_repeat as is_staged
    from {{ ref('base_minute_bars') }}

)

select
    'minute_bars' as source_name,
    source_file,
    count(*) as rows_read,
    count(*) filter (where is_staged) as rows_staged,
    count(*) filter (where is_repeat) as rows_collapsed,
    count(*) filter (where reject_reason is not null) as rows_rejected,
    count(distinct symbol) filter (where is_staged) as symbols,
    make_timestamp(min(open_time_ms) filter (where is_staged) * 1000) as first_event_time,
    make_timestamp(max(open_time_ms) filter (where is_staged) * 1000) as last_event_time
from read_rows
group by source_file
