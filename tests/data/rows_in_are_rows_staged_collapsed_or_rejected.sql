-- nothing is lost between the source, the staged bars and the refused rows
with read_rows as (

    select count(*) as rows_read
    from {{ ref('base_minute_bars') }}

),

staged_rows as (

    select count(*) + sum(duplicate_count) as rows_staged_and_repeated
    from {{ ref('stg_minute_bars') }}

),

rejected as (

    select count(*) as rows_rejected
    from {{ ref('rejected_rows') }}
    where source_name = 'minute_bars'

),

audited as (

    select sum(rows_read) as rows_audited
    from {{ ref('load_audit') }}
    where source_name = 'minute_bars'

)

select *
from read_rows
cross join staged_rows
cross join rejected
cross join audited
where rows_read <> rows_staged_and_repeated + rows_rejected or rows_read <> rows_audited
