{{ staged_daily_source('margin') }}
