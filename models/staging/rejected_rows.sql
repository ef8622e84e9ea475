{% set tracks = [
    {
        'bars': 'minute_bars',
        'key': ['symbol', 'open_time_ms'],
        'not_ingested': source('market', 'ingest_rejects'),
    },
    {
        'bars': 'daily_bars',
        'key': ['ts_code', 'trade_date'],
        'not_ingested': source('daily_market', 'ingest_rejects_daily'),
    },
] %}

with other_daily_sources as (

    select
        source_name,
        source_file,
        row_key,
        reject_reason as reason,
        row_json
    from {{ ref('base_daily_refusals') }}
    where reject_reason is not null

)

{% for track in tracks %}
select
    '{{ track.bars }}' as source_name,
    source_file,
    {{ row_key(track.key) }} as row_key,
    reject_reason as reason,
    row_json
from {{ ref('base_' ~ track.bars) }}
where reject_reason is not null
union all
{% set files = market_files(track.not_ingested | string | replace("'", '')).parquet %}
{% if files %}
select
    'ingest' as source_name,
    source_file || ':' || source_row as source_file,
    {{ row_key(track.key) }} as row_key,
    reason,
    raw_row::json as row_json
from {{ market_scan(files, 'parquet') }}
union all
{% endif %}
{% endfor %}
select * from other_daily_sources
