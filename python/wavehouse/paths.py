"""Where the data folder and the warehouse file are, resolved the same way everywhere."""

import os
from pathlib import Path

SAMPLE_DATA_DIR = Path("data/sample")
WAREHOUSE_FILE = Path("warehouse.duckdb")


def data_dir() -> Path:
    """Return the folder of market data: `$WAREHOUSE_DATA`, else the sample's folder."""
    return Path(os.environ.get("WAREHOUSE_DATA") or SAMPLE_DATA_DIR).expanduser()


def warehouse_file() -> Path:
    """Return the DuckDB file that dbt writes: `$WAREHOUSE_DB`, else `warehouse.duckdb`."""
    return Path(os.environ.get("WAREHOUSE_DB") or WAREHOUSE_FILE).expanduser()


def model_store_dir() -> Path:
    """Return the folder of stored models: `$WAREHOUSE_MODEL_STORE`, else beside the warehouse."""
    folder = os.environ.get("WAREHOUSE_MODEL_STORE")
    return Path(folder).expanduser() if folder else warehouse_file().parent / "model_store"
