with curve as (

    {{ trades_with_equity(ref('pm_trades'), ['split_id']) }}

)

select
    event_time,
    trade_index,
    weighted_edge_bps,
    equity_bps,
    drawdown_bps
from curve
order by trade_index
