{#- Reads the source once and judges every row once: staging.stg_minute_bars, rejected_rows and
    load_audit all rest on it. The stages are not materialized: each branch below scans the files
    again for the few columns it needs, which costs a third of carrying all of them through. -#}
{% set rows = market_rows(
    source('market', 'minute_bars'),
    required=['symbol', 'open_time_ms', 'open', 'high', 'low', 'close', 'volume'],
    optional=['spread_bps'],
    remedy=none if has_market_files(source('daily_market', 'daily_bars'))
    else 'Write the sample with `wavehouse sample`, or point WAREHOUSE_DATA at your own folder.'
) %}

with read_rows as not materialized (

    {% for select in rows.selects %}
    {{ select }}
    {{ 'union all' if not loop.last }}
    {% else %}
    select * from {{ source('market', 'minute_bars') }}
    {% endfor %}

),

typed as not materialized (

    select
        ---------- keys
        case when trim(symbol::varchar) <> '' then symbol::varchar end as symbol,
        try_cast(open_time_ms as bigint) as open_time_ms,

        ---------- prices
        try_cast(open as double) as open,
        try_cast(high as double) as high,
        try_cast(low as double) as low,
        try_cast(close as double) as close,

        ---------- volume and spread
        try_cast(volume as double) as volume,
        try_cast(spread_bps as double) as quoted_spread_bps,
        volume is not null and try_cast(volume as double) is null as is_volume_unparsable,
        spread_bps is not null and try_cast(spread_bps as double) is null as is_spread_unparsable,

        ---------- provenance
        source_file,
        has_too_many_fields,
        raw_row
    from read_rows

),

judged as not materialized (

    select
        *,
        case
            when quoted_spread_bps >= 0 and isfinite(quoted_spread_bps) then quoted_spread_bps
        end as spread_bps,
        is_spread_unparsable
        or coalesce(quoted_spread_bps < 0 or not isfinite(quoted_spread_bps), false)
            as is_spread_invalid,
        case
            when has_too_many_fields then 'malformed_line'
            when symbol is null or open_time_ms is null then 'null_or_unparsable_key'
            when open_time_ms not between 0 and {{ last_open_time_ms() }} then 'time_out_of_range'
            when open_time_ms % 60000 <> 0 then 'time_not_on_minute'
            when open is null or high is null or low is null or close is null
                then 'null_or_unparsable_price'
            when not (isfinite(open) and isfinite(high) and isfinite(low) and isfinite(close))
                then 'non_finite_price'
            when open <= 0 or high <= 0 or low <= 0 or close <= 0 then 'non_positive_price'
            when high < low then 'high_below_low'
            when greatest(open, close) > high or least(open, close) < low
                then 'open_or_close_outside_range'
            when is_volume_unparsable then 'unparsable_volume'
            when not isfinite(volume) then 'non_finite_volume'
            when volume < 0 then 'negative_volume'
        end as own_reject_reason
    from typed

),

{{ repeat_verdicts(
    keys=['symbol', 'open_time_ms'],
    row_hash='hash(open, high, low, close, volume, spread_bps, is_spread_invalid)',
    raw_columns=rows.raw_columns
) }}

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
    is_repeat,
    source_file,
    reject_reason,
    row_json
from verdicts
