-- nothing is lost between the daily sources, the staged rows and the refused rows
with audited as (

    select
        source_name,
        sum(rows_read) as rows_read,
        sum(rows_rejected) as rows_rejected
    from {{ ref('load_audit') }}
    where source_name <> 'minute_bars'
    group by source_name

),

rejected as (

    select
        source_name,
        count(*) as rejected_rows
    from {{ ref('rejected_rows') }}
    where source_name not in ('minute_bars', 'ingest')
    group by source_name

),

daily_bars as (

    select
        'daily_bars' as source_name,
        count(*) + sum(duplicate_count) as staged_and_repeated
    from {{ ref('stg_daily_bars') }}

)

select *
from audited
full join rejected using (source_name)
left join daily_bars using (source_name)
where
    coalesce(rejected_rows, 0) <> rows_rejected
    or rows_read <> staged_and_repeated + rows_rejected
    or rows_read is null
