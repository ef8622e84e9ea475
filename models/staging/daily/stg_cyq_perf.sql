{{ staged_daily_source('cyq_perf') }}
