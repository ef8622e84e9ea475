-- rows n ahead are days n ahead: between two rows of a stock no trading day is missing
select
    ts_code,
    trade_date,
    trading_day,
    lag(trading_day) over (partition by ts_code order by trade_date) as previous_trading_day
from {{ ref('daily_panel') }}
qualify trading_day <> previous_trading_day + 1
