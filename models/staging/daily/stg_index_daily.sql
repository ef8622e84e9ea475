{{ staged_daily_source('index_daily') }}
