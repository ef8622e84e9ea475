"""What both sample markets share: options that know their limits, and the ownership of files.

`wavehouse sample` replaces files that it wrote and touches no other.
"""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import click
import pyarrow as pa
import pyarrow.parquet as pq

OWNER_KEY = b"wavehouse.sample"  # in a file's metadata: this command wrote it


def setting(default: float, low: float, high: float, text: str) -> float:
    """Return a dataclass field that knows its limits and its help."""
    metadata = {"low": low, "high": high, "help": text}
    return dataclasses.field(default=default, metadata=metadata)


def check_limits(options: object) -> None:
    """Raise ValueError when a field of the dataclass `options` is outside its limits."""
    for field in dataclasses.fields(options):
        found, limits = getattr(options, field.name), field.metadata
        if limits and not limits["low"] <= found <= limits["high"]:  # NaN is outside too
            allowed = f"{limits['low']:,} to {limits['high']:,}"
            raise ValueError(f"{field.name} is {found}; allowed is {allowed}")


def options_of(options: type) -> Callable[[Callable], Callable]:
    """Return a decorator that adds a click option for every field that has limits."""

    def decorate(command: Callable) -> Callable:
        for field in reversed([field for field in dataclasses.fields(options) if field.metadata]):
            kind = click.IntRange if isinstance(field.default, int) else click.FloatRange
            add = click.option(
                "--" + field.name.replace("_", "-"),
                type=kind(field.metadata["low"], field.metadata["high"]),
                default=field.default,
                help=field.metadata["help"],
            )
            command = add(command)
        return command

    return decorate


def claim_folder(folder: Path, wanted: list[Path], force: bool) -> list[Path]:
    """Make `folder` and return the files in it that an earlier sample wrote.

    A file is a sample's when its name and its metadata both say so. Raises FileExistsError when
    the folder holds other Parquet or CSV files and not `force`, or when one of them has the name
    of a file in `wanted`, and OSError when the disk refuses.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data = data_files(folder)
    ours = [path for path in data if path.parent == folder and is_sample(path)]
    others = [path for path in data if path not in ours]
    clashing = [path for path in others if path in wanted]
    if clashing or (others and not force):
        listed = ", ".join(path.name for path in (clashing or others)[:3])
        remedy = "give another --data-dir, or "
        remedy += "move them away" if clashing else "--force to write beside them"
        raise FileExistsError(
            f"{folder} holds data that `wavehouse sample` did not write "
            f"(files: {len(others)}, such as {listed}); {remedy}"
        )
    return ours


def data_files(folder: Path) -> list[Path]:
    """Return the Parquet and CSV files in `folder` and below it, sorted."""
    suffixes = (".parquet", ".csv", ".csv.gz")
    return [path for path in sorted(folder.rglob("*")) if path.name.lower().endswith(suffixes)]


def is_sample(path: Path) -> bool:
    """Whether `path` is a Parquet file that this command wrote."""
    if not (path.name.startswith("sample-") and path.suffix == ".parquet"):
        return False
    try:
        return OWNER_KEY in (pq.read_schema(path).metadata or {})
    except (pa.ArrowInvalid, OSError):
        return False  # unreadable, so nothing shows that we may replace it


def write_parquet(path: Path, table: pa.Table) -> None:
    """Write `table` beside `path` under a name no reader looks for, then rename it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        pq.write_table(table, temporary, compression="zstd", row_group_size=122_880)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
