{{ staged_daily_source('daily_basic') }}
