{{ staged_daily_source('securities') }}
