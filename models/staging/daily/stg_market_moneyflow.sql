{{ staged_daily_source('market_moneyflow') }}
