"""A model: the members of one target in one fold, their calibrator, intervals and golden cases."""

import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from wavehouse.heads import calibration, lightgbm_trainer, store
from wavehouse.heads.base import HeadsError, Member, Trainer
from wavehouse.heads.calibration import CalibrationMap, ConformalIntervals

MANIFEST, CALIBRATOR, INTERVALS = "manifest.json", "calibrator.parquet", "intervals.parquet"
GOLDEN_IN, GOLDEN_OUT = "golden_in.parquet", "golden_out.parquet"
ONNX = "member.onnx"
TRAINERS = ("lightgbm", "torch")


def trainer_named(name: str) -> Trainer:
    """Return the module that fits and loads the members of a trainer; torch is imported late."""
    if name == "lightgbm":
        return lightgbm_trainer
    if name == "torch":
        from wavehouse.heads import torch_trainer

        return torch_trainer
    raise HeadsError(f"trainer is {name!r}, expected one of {', '.join(TRAINERS)}.")


@dataclasses.dataclass(frozen=True)
class Model:
    """What the store keeps of one target in one fold.

    `manifest` says what was trained on what; `calibrators` has the map of each probability output,
    `intervals` that of each output with an interval.
    """

    manifest: dict[str, Any]
    members: tuple[Member, ...]
    calibrators: dict[str, CalibrationMap]
    intervals: dict[str, ConformalIntervals]

    @property
    def features(self) -> tuple[str, ...]:
        """Return the names of the inputs in order."""
        return tuple(self.manifest["features"])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Return the names of the prediction columns."""
        return tuple(self.manifest["outputs"])

    @property
    def pools(self) -> bool:
        """Return whether a row's score depends on its whole cross-section."""
        return any(member.pools for member in self.members)

    def seed_scores(
        self, features: pa.Table | pa.RecordBatch, groups: np.ndarray | None = None
    ) -> np.ndarray:
        """Return raw scores (n, outputs, members) float64."""
        return np.stack(
            [member_scores(member, features, groups) for member in self.members], axis=2
        )

    def predictions(self, seed_scores: np.ndarray) -> np.ndarray:
        """Return calibrated predictions (n, outputs) from `seed_scores`, as the SQL models do."""
        raw = ensemble_scores(seed_scores)
        maps = [self.calibrators[output] for output in self.outputs if output in self.calibrators]
        if not maps:
            return raw
        if len(maps) > 1:
            return calibration.apply_classes(maps, raw)
        return calibration.apply(maps[0], raw[:, 0])[:, None]

    def files(self, golden: dict[str, pa.Table]) -> dict[str, bytes]:
        """Return every file of the model; `golden` has the tables of GOLDEN_IN and GOLDEN_OUT."""
        files = {MANIFEST: _json(self.manifest)}
        for member in self.members:
            for name, content in member.files().items():
                files[f"seed_{member.seed}/{name}"] = content
            if (graph := _onnx(member)) is not None:
                files[f"seed_{member.seed}/{ONNX}"] = graph
        if self.calibrators:
            files[CALIBRATOR] = _parquet(calibration.calibrators_to_arrow(self.calibrators))
        if self.intervals:
            files[INTERVALS] = _parquet(calibration.intervals_to_arrow(self.intervals))
        return files | {name: _parquet(table) for name, table in golden.items()}


def load(root: Path, model_id: str) -> tuple[Model, dict[str, bytes]]:
    """Return a stored model and its files, every hash checked.

    Raises ModelStoreError when the store does not hold it whole, HeadsError when it is of a
    trainer that this version does not know.
    """
    files = store.read(root, model_id)
    manifest = json.loads(files[MANIFEST])
    trainer = trainer_named(manifest["trainer"])
    members = []
    for seed in manifest["seeds"]:
        prefix = f"seed_{seed}/"
        own = {
            name.removeprefix(prefix): content
            for name, content in files.items()
            if name.startswith(prefix)
        }
        member = trainer.load(own)
        member.seed = seed
        members.append(member)
    calibrators, intervals = {}, {}
    if CALIBRATOR in files:
        calibrators = calibration.calibrators_from_arrow(read_parquet(files[CALIBRATOR]))
    if INTERVALS in files:
        intervals = calibration.intervals_from_arrow(read_parquet(files[INTERVALS]))
    return Model(manifest, tuple(members), calibrators, intervals), files


def member_scores(
    member: Member, features: pa.Table | pa.RecordBatch, groups: np.ndarray | None
) -> np.ndarray:
    """Return the raw scores (n, outputs) of one member; `groups` (n,) is for members that pool."""
    if member.pools and groups is not None:
        return member.predict_groups(features, groups)
    return member.predict(features)


def ensemble_scores(seed_scores: np.ndarray) -> np.ndarray:
    """Return the mean over seeds (n, outputs) of (n, outputs, seeds), summed in their order."""
    total = seed_scores[:, :, 0].copy()
    for number in range(1, seed_scores.shape[2]):
        total += seed_scores[:, :, number]
    return total / seed_scores.shape[2]


def read_parquet(content: bytes) -> pa.Table:
    """Return the table in the bytes of a parquet file."""
    return pq.read_table(io.BytesIO(content))


def _onnx(member: Member) -> bytes | None:
    """Return the ONNX form of a member, None where it has none (a net that pools a group)."""
    try:
        return member.onnx()
    except HeadsError:
        return None


def _json(value: Any) -> bytes:
    """Return canonical JSON."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def _parquet(table: pa.Table) -> bytes:
    """Return a table as the bytes of a parquet file, the same for the same rows."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", store_schema=False)
    return sink.getvalue()
