{{ staged_daily_source('northbound') }}
