{{ staged_daily_source('limit_list') }}
