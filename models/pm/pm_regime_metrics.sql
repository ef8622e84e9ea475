{{ trade_metrics(ref('pm_trades'), ['split_id', 'side']) }}
order by split_id, side
