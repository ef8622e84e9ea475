"""The model store: a folder per model, named by the hash of all it holds.

    model_store/<model_id>/SHA256SUMS          hash and name of every other file
                          /manifest.json       target, fold, parameters, features, data hashes
                          /seed_<n>/member.txt (LightGBM) or member.safetensors and member.json
                          /seed_<n>/member.onnx
                          /calibrator.parquet  /intervals.parquet
                          /golden_in.parquet   /golden_out.parquet

The model_id is the SHA-256 of SHA256SUMS, so the same training has the same id, and one changed
byte anywhere is noticed; `sha256sum -c SHA256SUMS` checks a folder by hand. Nothing here is a
pickle or runs code when it is read.
"""

import hashlib
import os
import shutil
from pathlib import Path

from wavehouse.heads.base import HeadsError

SUMS = "SHA256SUMS"


class ModelStoreError(HeadsError):
    """A stored model is missing or damaged; the text names the file and the remedy."""


def file_hashes(files: dict[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of every file in hexadecimal, by name."""
    return {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}


def model_id_of(files: dict[str, bytes]) -> str:
    """Return the id that `write` would give to these files."""
    return hashlib.sha256(_sums(files)).hexdigest()


def write(root: Path, files: dict[str, bytes]) -> str:
    """Keep the files of a model and return its model_id; the folder appears whole or not at all.

    A model that is there already, and whole, is left alone; a damaged one is replaced.
    """
    model_id = model_id_of(files)
    folder = root / model_id
    if folder.exists():
        try:
            read(root, model_id)
        except ModelStoreError:
            shutil.rmtree(folder)
        else:
            return model_id
    temporary = root / f".{os.getpid()}.{model_id}"
    shutil.rmtree(temporary, ignore_errors=True)
    for name, content in (files | {SUMS: _sums(files)}).items():
        path = temporary / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    os.replace(temporary, folder)
    return model_id


def read(root: Path, model_id: str) -> dict[str, bytes]:
    """Return the files of a model after checking every hash.

    A file that SHA256SUMS does not list is not read, as `sha256sum -c` would not. Raises
    ModelStoreError when the model is not there, or any file is missing or changed, or lies outside
    the folder.
    """
    folder = root / model_id
    remedy = (
        "Train it again with `dbt build --select training_runs+`, or restore the folder; "
        "WAREHOUSE_MODEL_STORE names another store."
    )
    if not folder.is_dir():
        raise ModelStoreError(f"model {model_id} is not in the store {root}. {remedy}")
    sums = _bytes(folder / SUMS, remedy)
    if (found := hashlib.sha256(sums).hexdigest()) != model_id:
        raise ModelStoreError(
            f"{folder / SUMS} has SHA-256 {found}, expected {model_id}: the list of files was "
            f"changed. {remedy}"
        )
    files = {}
    for line in sums.decode().splitlines():
        expected, _, name = line.partition("  ")
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ModelStoreError(f"{folder / SUMS} lists {name!r} outside its folder. {remedy}")
        files[name] = _bytes(folder / name, remedy)
        if (found := hashlib.sha256(files[name]).hexdigest()) != expected:
            raise ModelStoreError(
                f"{folder / name} has SHA-256 {found}, expected {expected}: the file was changed "
                f"or damaged. {remedy}"
            )
    return files


def model_ids(root: Path) -> list[str]:
    """Return the ids of all models in the store; a folder that a crash left half is none."""
    names = (path.parent.name for path in root.glob(f"*/{SUMS}"))
    return sorted(name for name in names if not name.startswith("."))


def _sums(files: dict[str, bytes]) -> bytes:
    """Return the content of SHA256SUMS, as sha256sum writes it."""
    return "".join(f"{digest}  {name}\n" for name, digest in file_hashes(files).items()).encode()


def _bytes(path: Path, remedy: str) -> bytes:
    """Return a file's content; raise ModelStoreError when it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelStoreError(f"{path} cannot be read: {error.strerror}. {remedy}") from error
