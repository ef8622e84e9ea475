-- a day that the calendar leaves out would drop its bars here
select
    bars.ts_code,
    bars.trade_date
from {{ ref('stg_daily_bars') }} as bars
anti join {{ ref('daily_gates') }} as gates using (ts_code, trade_date)
