with names as (

    {{ staged_daily_source('security_names') }}

),

-- some vendors write the marks in full-width letters
plain_names as (

    select
        *,
        upper(translate(name, 'ＳＴ＊ｓｔ', 'ST*ST')) as plain_name
    from names

)

select
    ts_code,
    start_date,
    name,
    end_date,
    contains(plain_name, 'ST') as is_st_name,
    contains(plain_name, '退') as is_delisting_name,
    source_file
from plain_names
order by ts_code, start_date
