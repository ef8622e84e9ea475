{{ staged_daily_source('hk_hold') }}
