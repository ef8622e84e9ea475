{% set spec = daily_sources()['top_inst'] %}

with seats as (

    {{ staged_daily_source('top_inst') }}

)

-- rows of a stock and day are many and have no key of their own
select
    ts_code,
    trade_date,
    row_number() over (
        partition by ts_code, trade_date
        order by {{ (spec['keys'] | list + spec['values'] | list) | join(', ') }}
    ) as seat_number,
    seats.* exclude (ts_code, trade_date)
from seats
order by ts_code, trade_date, seat_number
