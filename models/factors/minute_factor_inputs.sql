with bars as (

    select
        bar_id,
        symbol,
        open_time_ms,
        open,
        high,
        low,
        close,
        volume,
        contiguous_minutes
    from {{ ref('stg_minute_bars') }}

),

priced as (

    select
        *,
        bar_id - contiguous_minutes + 1 as run_id,
        (high + low + close) / 3 as vwap
    from bars

),

final as (

    select
        symbol,
        open_time_ms,
        run_id,
        contiguous_minutes::bigint as stock_row,
        count(*) over (partition by open_time_ms) as day_rows,
        open,
        high,
        low,
        close,
        vwap,
        volume,
        volume * vwap as amount,
        close / lag(close) over per_run - 1 as returns
    from priced
    window per_run as (partition by run_id order by open_time_ms)

)

select * from final
