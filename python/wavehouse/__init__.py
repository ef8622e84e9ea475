"""wavehouse: a SQL-first analytics warehouse for trading research, on dbt and DuckDB."""
