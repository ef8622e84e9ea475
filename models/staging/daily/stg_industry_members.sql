{{ staged_daily_source('industry_members') }}
