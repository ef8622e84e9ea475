{{ staged_daily_source('market_margin') }}
