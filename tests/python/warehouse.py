"""Build a warehouse from a data folder in a test, with dbt itself, and read it."""

import atexit
import functools
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd

from dbt_process import run_dbt

REPO = Path(__file__).parents[2]
REAL_DAILY_DATA = REPO.parent / "shared" / "data" / "daily"
REAL_MINUTE_DATA = REPO.parent / "shared" / "data" / "minute"
# the minute track without what rests on heads, which take a minute, and without the daily track
UP_TO_LABELS = [
    *("--exclude", "heads+", "pm", "backtest", "diagnostics", "release"),
    *("tag:daily", "load_audit", "rejected_rows"),  # these two read both tracks
]
# what changed since the last build is a question of the daily universe too: its seeds are hashed
BEYOND_STAGING = ["daily_day_hashes", "daily_built_days"]
BAR_COLUMNS = ["symbol", "open_time_ms", "open", "high", "low", "close", "volume", "spread_bps"]


class ParseCache:
    """What dbt parsed, by settings, for every warehouse of a test run.

    To parse the project costs more than most commands of a test. dbt parses anew for another data
    folder or file, though nothing it parses depends on where they lie: so it is given links here,
    which stand for the folders of the command that runs.
    """

    def __init__(self):
        self.folder = Path(tempfile.mkdtemp(prefix="wavehouse-parse-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)

    def link(self, name: str, folder: Path) -> Path:
        """Return a path that stands for `folder` until the name is linked again."""
        link = self.folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(folder.absolute())
        return link

    def parse_of(self, *key) -> Path:
        """Return the place of what was parsed with these settings."""
        return self.folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.msgpack"


@functools.cache
def parse_cache() -> ParseCache:
    """The cache of this process."""
    return ParseCache()


@dataclass(frozen=True)
class Warehouse:
    """A data folder and the DuckDB file that dbt builds from it."""

    data_dir: Path
    file: Path

    def dbt(self, *args: str, settings: dict | None = None, threads: int = 2, check: bool = True):
        """Run a dbt command in the repository; return the finished process, its output as text."""
        target = self.file.parent / "target"
        cache = parse_cache()
        data = cache.link("data", self.data_dir)
        file = cache.link("warehouse", self.file.parent) / self.file.name
        its_parse = target / "partial_parse.msgpack"
        parsed = cache.parse_of(self.file.name, settings or {})
        if parsed.exists():
            target.mkdir(exist_ok=True)
            shutil.copyfile(parsed, its_parse)
        command = ["--no-use-colors", *args, "--target-path", str(target)]
        command += ["--log-path", str(self.file.parent / "logs")]
        if settings:
            command += ["--vars", json.dumps(settings)]
        done = run_dbt(
            command,
            REPO,
            {
                **os.environ,
                "WAREHOUSE_DATA": str(data),
                "WAREHOUSE_DB": str(file),
                "WAREHOUSE_MODEL_STORE": str(self.file.parent / "model_store"),
                "WAREHOUSE_THREADS": str(threads),
            },
        )
        for link in (data, file):
            done.stdout = done.stdout.replace(str(link), str(link.resolve()))
        if its_parse.exists() and not parsed.exists():
            shutil.copyfile(its_parse, parsed)
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


def memory_connection(threads: int = 2) -> duckdb.DuckDBPyConnection:
    """Return an empty database in memory, with the optimizers of profiles.yml."""
    return duckdb.connect(config={"threads": threads, "disabled_optimizers": "column_lifetime"})


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
