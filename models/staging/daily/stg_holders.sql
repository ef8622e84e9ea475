{{ staged_daily_source('holders') }}
