"""Build a warehouse from a data folder in a test, with dbt itself, and read it."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

REPO = Path(__file__).parents[2]
REAL_MINUTE_DATA = REPO.parent / "shared" / "data" / "minute"
UP_TO_LABELS = [
    "--exclude",
    "heads+",
    "pm",
    "backtest",
    "diagnostics",
    "release",
]  # heads take a minute
BAR_COLUMNS = ["symbol", "open_time_ms", "open", "high", "low", "close", "volume", "spread_bps"]


@dataclass(frozen=True)
class Warehouse:
    """A data folder and the DuckDB file that dbt builds from it."""

    data_dir: Path
    file: Path

    def dbt(self, *args: str, settings: dict | None = None, threads: int = 2, check: bool = True):
        """Run a dbt command in the repository; return the finished process, its output as text."""
        command = [str(Path(sys.executable).with_name("dbt")), "--no-use-colors", *args]
        command += ["--target-path", str(self.file.parent / "target")]
        command += ["--log-path", str(self.file.parent / "logs")]
        if settings:
            command += ["--vars", json.dumps(settings)]
        done = subprocess.run(
            command,
            cwd=REPO,
            env={
                **os.environ,
                "WAREHOUSE_DATA": str(self.data_dir),
                "WAREHOUSE_DB": str(self.file),
                "WAREHOUSE_MODEL_STORE": str(self.file.parent / "model_store"),
                "WAREHOUSE_THREADS": str(threads),
            },
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        if check:
            assert done.returncode == 0, done.stdout
        return done

    def connect(self, read_only: bool = True) -> duckdb.DuckDBPyConnection:
        """Open the file as any client would."""
        return duckdb.connect(str(self.file), read_only=read_only)

    def query(self, sql: str) -> pd.DataFrame:
        """Return the result of a query as a frame; times are microseconds, NULL is NaN."""
        with self.connect() as connection:
            return connection.execute(sql).df()


def write_bars(data_dir: Path, bars: pd.DataFrame, name: str = "bars.parquet") -> None:
    """Write bars as one parquet file of the minute-bar source, replacing a file of that name."""
    folder = data_dir / "minute_bars"
    folder.mkdir(parents=True, exist_ok=True)
    columns = [column for column in BAR_COLUMNS if column in bars.columns]
    bars[columns].to_parquet(folder / name, index=False)


def new_warehouse(folder: Path, bars: pd.DataFrame | None = None) -> Warehouse:
    """A warehouse file and data folder under `folder`, holding `bars` when given, not yet built."""
    warehouse = Warehouse(data_dir=folder / "data", file=folder / "warehouse.duckdb")
    warehouse.data_dir.mkdir(parents=True, exist_ok=True)
    if bars is not None:
        write_bars(warehouse.data_dir, bars)
    return warehouse
