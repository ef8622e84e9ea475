{{ staged_daily_source('top_list') }}
