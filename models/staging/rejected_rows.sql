{% set ingest_rejects = source('market', 'ingest_rejects') %}
{% set files = market_files(ingest_rejects | string | replace("'", '')).parquet %}

with judged as (

    select
        'minute_bars' as source_name,
        source_file,
        {{ row_key('symbol', 'open_time_ms') }} as row_key,
        reject_reason as reason,
        row_json
    from {{ ref('base_minute_bars') }}
    where reject_reason is not null

)

{% if files %}
, not_ingested as (

    select
        'ingest' as source_name,
        source_file || ':' || source_row as source_file,
        {{ row_key('symbol', 'open_time_ms') }} as row_key,
        reason,
        raw_row::json as row_json
    from {{ market_scan(files, 'parquet') }}

)
{% endif %}

select * from judged
{% if files %}
union all
select * from not_ingested
{% endif %}
