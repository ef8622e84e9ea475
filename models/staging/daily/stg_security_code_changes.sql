{{ staged_daily_source('security_code_changes') }}
