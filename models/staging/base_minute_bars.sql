{#- Reads the source once and judges every row once: staging.stg_minute_bars, rejected_rows and
    load_audit all rest on it. -#}
{% set rows = market_rows(
    source('market', 'minute_bars'),
    required=['symbol', 'open_time_ms', 'open', 'high', 'low', 'close', 'volume'],
    optional=['spread_bps'],
    remedy='Write the sample with `wavehouse sample`, or point WAREHOUSE_DATA at your own folder.'
) %}

with read_rows as (

    {% for select in rows.selects %}
    {{ select }}
    {{ 'union all' if not loop.last }}
    {% else %}
    select * from {{ source('market', 'minute_bars') }}
    {% endfor %}

),

typed as (

    select
        ---------- keys
        nullif(trim(symbol::varchar), '') as symbol,
        try_cast(open_time_ms::varchar as bigint) as open_time_ms,

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

judged as (

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
        end as own_reject_reason,
        hash(open, high, low, close, volume, spread_bps, is_spread_invalid) as bar_hash
    from typed

),

repeated_keys as (

    select
        symbol,
        open_time_ms,
        count(*) as row_count,
        min(bar_hash) <> max(bar_hash) as is_conflict
    from judged
    where own_reject_reason is null
    group by symbol, open_time_ms
    having count(*) > 1

),

compared as (

    select
        judged.*,
        coalesce(
            judged.own_reject_reason,
            case when repeated_keys.is_conflict then 'conflicting_duplicate_key' end
        ) as reject_reason,
        coalesce(repeated_keys.row_count, 1) as row_count
    from judged
    left join repeated_keys
        on
            judged.symbol = repeated_keys.symbol
            and judged.open_time_ms = repeated_keys.open_time_ms
            and judged.own_reject_reason is null

),

single_rows as (

    select
        *,
        false as is_repeat
    from compared
    where reject_reason is not null or row_count = 1

),

-- of exact repeats of a bar one is kept, from the first file by name
repeated_rows as (

    select
        *,
        row_number() over (partition by symbol, open_time_ms order by source_file) > 1 as is_repeat
    from compared
    where reject_reason is null and row_count > 1

),

verdicts as (

    select * from single_rows
    union all
    select * from repeated_rows

)

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
    row_count - 1 as duplicate_count,
    is_repeat,
    source_file,
    reject_reason,
    case
        when reject_reason is not null then to_json(struct_pack(
            {% for name in rows.raw_columns %}
            {{ adapter.quote(name) }} := raw_row.{{ adapter.quote(name) }}::varchar
            {{- ',' if not loop.last }}
            {% endfor %}
        ))
    end as row_json
from verdicts
