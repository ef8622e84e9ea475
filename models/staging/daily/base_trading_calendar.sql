{{ staged_daily_source('trading_calendar') }}
