"""wavehouse: a SQL-first analytics warehouse for trading research, on dbt and DuckDB."""


def __getattr__(name: str) -> object:
    """Import `connect` when it is asked for: the command and dbt start without DuckDB's client."""
    if name == "connect":
        from wavehouse.warehouse import connect

        return connect
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
