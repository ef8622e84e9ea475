{% set spec = daily_sources()['ths_hot'] %}

with places as (

    {{ staged_daily_source('ths_hot') }}

)

-- rows of a stock and day are many and have no key of their own
select
    ts_code,
    trade_date,
    row_number() over (
        partition by ts_code, trade_date
        order by {{ (spec['keys'] | list + spec['values'] | list) | join(', ') }}
    ) as place_number,
    places.* exclude (ts_code, trade_date)
from places
order by ts_code, trade_date, place_number
