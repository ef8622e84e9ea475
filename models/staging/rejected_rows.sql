{% set minute_rejects = source('market', 'ingest_rejects') | string | replace("'", '') %}
{% set daily_rejects = source('daily_market', 'ingest_rejects_daily') | string | replace("'", '') %}
{% set minute_files = market_files(minute_rejects).parquet %}
{% set daily_files = market_files(daily_rejects).parquet %}

with minute_bars as (

    select
        'minute_bars' as source_name,
        source_file,
        {{ row_key('symbol', 'open_time_ms') }} as row_key,
        reject_reason as reason,
        row_json
    from {{ ref('base_minute_bars') }}
    where reject_reason is not null

),

daily_bars as (

    select
        'daily_bars' as source_name,
        source_file,
        {{ row_key('ts_code', 'trade_date') }} as row_key,
        reject_reason as reason,
        row_json
    from {{ ref('base_daily_bars') }}
    where reject_reason is not null

),

other_daily_sources as (

    select
        source_name,
        source_file,
        row_key,
        reject_reason as reason,
        row_json
    from {{ ref('base_daily_refusals') }}
    where reject_reason is not null

)

{% if minute_files %}
, not_ingested_minutes as (

    select
        'ingest' as source_name,
        source_file || ':' || source_row as source_file,
        {{ row_key('symbol', 'open_time_ms') }} as row_key,
        reason,
        raw_row::json as row_json
    from {{ market_scan(minute_files, 'parquet') }}

)
{% endif %}

{% if daily_files %}
, not_ingested_days as (

    select
        'ingest' as source_name,
        source_file || ':' || source_row as source_file,
        {{ row_key('ts_code', 'trade_date') }} as row_key,
        reason,
        raw_row::json as row_json
    from {{ market_scan(daily_files, 'parquet') }}

)
{% endif %}

select * from minute_bars
union all
select * from daily_bars
union all
select * from other_daily_sources
{% if minute_files %}
union all
select * from not_ingested_minutes
{% endif %}
{% if daily_files %}
union all
select * from not_ingested_days
{% endif %}
