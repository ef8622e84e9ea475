with minute_bars as (

    select
        'minute_bars' as source_name,
        source_file,
        symbol,
        make_timestamp(open_time_ms * 1000) as event_time,
        is_repeat,
        reject_reason
    from {{ ref('base_minute_bars') }}

),

daily_bars as (

    select
        'daily_bars' as source_name,
        source_file,
        ts_code as symbol,
        trade_date::timestamp as event_time,
        is_repeat,
        reject_reason
    from {{ ref('base_daily_bars') }}

),

bars as (

    select * from minute_bars
    union all
    select * from daily_bars

),

bar_files as (

    select
        source_name,
        source_file,
        count(*) as rows_read,
        count(*) filter (where reject_reason is null and not is_repeat) as rows_staged,
        count(*) filter (where is_repeat) as rows_collapsed,
        count(*) filter (where reject_reason is not null) as rows_rejected,
        count(distinct symbol) filter (where reject_reason is null and not is_repeat) as symbols,
        min(event_time) filter (where reject_reason is null and not is_repeat) as first_event_time,
        max(event_time) filter (where reject_reason is null and not is_repeat) as last_event_time
    from bars
    group by source_name, source_file

),

-- counted apart: in the files, in the staged relation, and among what was left out
other_files as (

    {{ daily_files_read() }}

),

other_staged as (

    {{ daily_rows_staged() }}

),

other_left_out as (

    select
        source_name,
        source_file,
        count(*) filter (where reject_reason is null) as rows_collapsed,
        count(*) filter (where reject_reason is not null) as rows_rejected
    from {{ ref('base_daily_refusals') }}
    group by source_name, source_file

),

other_sources as (

    select
        other_files.source_name,
        other_files.source_file,
        other_files.rows_read,
        coalesce(other_staged.rows_staged, 0) as rows_staged,
        coalesce(other_left_out.rows_collapsed, 0) as rows_collapsed,
        coalesce(other_left_out.rows_rejected, 0) as rows_rejected,
        coalesce(other_staged.symbols, 0) as symbols,
        other_staged.first_event_time,
        other_staged.last_event_time
    from other_files
    left join other_staged using (source_name, source_file)
    left join other_left_out using (source_name, source_file)

)

select * from bar_files
union all
select * from other_sources
