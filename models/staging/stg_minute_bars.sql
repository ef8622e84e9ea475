with accepted as (

    select
        symbol,
        open_time_ms,
        open,
        high,
        low,
        close,
        volume,
        spread_bps,
        is_spread_invalid,
        duplicate_count,
        source_file
    from {{ ref('base_minute_bars') }}
    where reject_reason is null and not is_repeat

),

with_runs as (

    select
        *,
        row_number() over (order by symbol, open_time_ms) as bar_id,
        coalesce(
            open_time_ms - lag(open_time_ms) over per_symbol <> 60000, true
        ) as starts_run
    from accepted
    window per_symbol as (partition by symbol order by open_time_ms)

),

with_run_lengths as (

    select
        *,
        bar_id - max(case when starts_run then bar_id end) over so_far + 1 as contiguous_minutes
    from with_runs
    window so_far as (
        partition by symbol order by open_time_ms
        rows between unbounded preceding and current row
    )

)

select
    ---------- ids
    bar_id,
    symbol,

    ---------- time
    open_time_ms,
    make_timestamp(open_time_ms * 1000) as event_time,
    make_timestamp(open_time_ms * 1000)::date as bar_date,

    ---------- prices
    open,
    high,
    low,
    close,

    ---------- volume and spread
    volume,
    spread_bps,

    ---------- quality
    contiguous_minutes::integer as contiguous_minutes,
    case
        when is_spread_invalid then 'SPREAD_INVALID'
        when contiguous_minutes = 1 then 'GAP_BEFORE'
        when volume = 0 then 'ZERO_VOLUME'
        else 'OK'
    end as data_quality_flag,
    is_spread_invalid,
    duplicate_count,

    ---------- provenance
    source_file
from with_run_lengths
order by symbol, open_time_ms
