-- unadjusted and forward-adjusted prices of one stock do not fit together: deliver one of them
select
    ts_code,
    count(distinct price_basis) as price_bases
from {{ ref('stg_daily_bars') }}
group by ts_code
having count(distinct price_basis) > 1
