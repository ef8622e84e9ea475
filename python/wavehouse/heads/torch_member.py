"""A fitted net as an artifact: its files, its scores, and the rows they are computed from."""

import contextlib
import dataclasses
import json
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import safetensors
import safetensors.torch
import torch
from torch.nn import functional

from wavehouse.heads import torch_export, torch_net
from wavehouse.heads.base import CurvePoint, HeadsError
from wavehouse.heads.data import StoredFeatures
from wavehouse.heads.torch_net import Batch, Net, Shape

CHUNK_ROWS = {"cpu": 1024, "cuda": 65_536}  # rows scored at once; a shorter chunk is padded
FORMAT = 1
WEIGHTS_FILE, CONFIG_FILE = "member.safetensors", "member.json"
TORCH_SETTINGS = threading.RLock()  # they are the process's: two fits would undo each other's


@dataclasses.dataclass(frozen=True)
class Groups:
    """Rows by cross-section: group g has the rows order[starts[g] : starts[g] + sizes[g]]."""

    order: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, rows: np.ndarray) -> "Groups":
        """Return the groups of `rows` (row numbers) by the ids (n,) of all rows."""
        order = rows[np.argsort(ids[rows], kind="stable")]
        ordered = ids[order]
        fresh = np.r_[True, ordered[1:] != ordered[:-1]][: len(order)]
        starts = np.flatnonzero(fresh)
        return cls(order, starts, np.diff(np.r_[starts, len(order)]))

    def batches(self, chosen: np.ndarray, batch_rows: int, device: torch.device) -> Iterator[Batch]:
        """Yield batches of whole groups, in the order of the `chosen` groups.

        A batch ends with the group that reaches the next multiple of `batch_rows`.
        """
        sizes = self.sizes[chosen]
        begins = np.cumsum(sizes) - sizes
        cuts = np.flatnonzero(np.diff(begins // batch_rows)) + 1
        for part in np.split(chosen, cuts):
            if not len(part):
                continue
            sizes = self.sizes[part]
            within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            rows = self.order[np.repeat(self.starts[part], sizes) + within]
            codes = np.repeat(np.arange(len(part)), sizes)
            yield Batch(
                torch.from_numpy(rows).to(device), torch.from_numpy(codes).to(device), len(part)
            )


class TorchMember:
    """A fitted net of one seed: `config` is its member.json, `tensors` its member.safetensors."""

    def __init__(self, config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        self.config = config
        self.tensors = tensors
        self.seed: int = config["seed"]
        self.features = tuple(config["features"])
        self.outputs: int = config["outputs"]
        self.best_iteration: int = config["best_iteration"]
        self.curve = tuple(CurvePoint(*point) for point in config["curve"])
        # What cuda trained is read without it too.
        self.device = pick_device("cpu" if config["params"]["device"] == "cpu" else "auto")
        moved = {name: tensor.to(self.device) for name, tensor in tensors.items()}
        self.stats = {name: moved[name] for name in ("center", "inverse_scale", "missing")}
        self.net = Net(net_shape(config["params"], tensors, self.outputs), moved["missing"])
        self.layers = torch_net.dense_layers(moved)

    @property
    def pools(self) -> bool:
        """Return whether a row's score depends on its whole cross-section."""
        return self.net.shape.pool

    def predict(self, features: pa.Table | pa.RecordBatch) -> np.ndarray:
        """Return raw scores (n, outputs) float64: probabilities, or values for regression.

        Chunks are padded to one size, so that the matrix product rounds a row alike whatever rows
        are beside it: scores do not depend on the batch. Raises HeadsError when a feature is
        missing, or when the net pools and so must see whole groups.
        """
        self._refuse_pool("predict", "Use predict_groups with the group of each row.")
        raw = to_tensor(features, self.features)
        chunk_rows = CHUNK_ROWS[self.device.type]
        scores = np.empty((len(raw), self.outputs))
        with reproducible(self.device):
            batch = Batch(torch.arange(chunk_rows, device=self.device))
            for start in range(0, len(raw), chunk_rows):
                chunk = raw[start : start + chunk_rows].to(self.device)
                padded = functional.pad(chunk, (0, 0, 0, chunk_rows - len(chunk)))
                found = self._score(torch_net.scale_(padded, self.stats), batch)
                scores[start : start + chunk_rows] = found[: len(chunk)]
        return scores

    def predict_groups(self, features: pa.Table | pa.RecordBatch, groups: np.ndarray) -> np.ndarray:
        """Return raw scores (n, outputs) float64 given the group (n,) of each row, in any order.

        A net that pools needs every row of a cross-section here, those without a label too; one
        that does not pool gives what `predict` gives. Raises HeadsError when a feature is missing
        or the numbers of rows differ.
        """
        if len(groups) != features.num_rows:
            raise HeadsError(
                f"predict_groups was given {features.num_rows} rows and {len(groups)} groups; "
                "expected one group for each row."
            )
        if not self.net.shape.pool:
            return self.predict(features)
        raw = to_tensor(features, self.features).to(self.device)
        scores = np.empty((len(raw), self.outputs))
        found = Groups.of(np.asarray(groups), np.arange(len(groups)))
        every = np.arange(len(found.sizes))
        with reproducible(self.device):
            scaled = torch_net.scale_(raw, self.stats)
            for batch in found.batches(every, CHUNK_ROWS[self.device.type], self.device):
                scores[batch.rows.cpu().numpy()] = self._score(scaled, batch)
        return scores

    def files(self) -> dict[str, bytes]:
        """Return the weights as safetensors and the rest as JSON with sorted keys."""
        text = json.dumps(self.config, sort_keys=True, indent=1, allow_nan=False)
        return {
            WEIGHTS_FILE: safetensors.torch.save(self.tensors),
            CONFIG_FILE: text.encode() + b"\n",
        }

    def onnx(self) -> bytes:
        """Return the net with its scaling as an ONNX model, see `torch_export.to_onnx`.

        Raises HeadsError when the net pools.
        """
        self._refuse_pool("onnx", "It is scored natively, by predict_groups.")
        return torch_export.to_onnx(self.stats, self.layers, *self._output())

    def sql(self) -> list[str]:
        """Return one SQL expression per output, see `torch_export.to_sql`.

        Equal to `predict` to 1e-6 of the score's scale. Raises HeadsError when the net pools or
        is too large.
        """
        self._refuse_pool("sql", "It is scored natively, by predict_groups.")
        return torch_export.to_sql(self.features, self.stats, self.layers, *self._output())

    def _output(self) -> tuple[str, float, float]:
        return self.config["objective"], self.config["score_scale"], self.config["score_offset"]

    @torch.inference_mode()
    def _score(self, scaled: torch.Tensor, batch: Batch) -> np.ndarray:
        """Return the scores (b, outputs) of a batch of scaled rows."""
        outputs = self.net.outputs(self.layers, scaled, batch)
        return torch_net.ensemble_scores(outputs, *self._output()).cpu().numpy()

    def _refuse_pool(self, what: str, remedy: str) -> None:
        if self.net.shape.pool:
            raise HeadsError(
                f"{what} scores row by row, and this net pools (param pool): a score depends on "
                f"all rows of the cross-section. {remedy}"
            )


def load(files: dict[str, bytes]) -> TorchMember:
    """Return the member whose `files()` these are. Raises HeadsError when they cannot be read."""
    try:
        config = json.loads(files[CONFIG_FILE])
        tensors = safetensors.torch.load(files[WEIGHTS_FILE])
        if config["format"] != FORMAT:
            raise ValueError(f"format {config['format']}, expected {FORMAT}")
        member = TorchMember(config, tensors)
        expected = torch_net.initial_weights(member.net.shape, torch.Generator())
        sizes = {name: tuple(value.shape) for name, value in expected.items()}
        sizes |= {name: (len(member.features),) for name in ("center", "inverse_scale")}
        sizes["missing"] = tuple(tensors["missing"].shape)
        found = {name: tuple(value.shape) for name, value in tensors.items()}
        if found != sizes:
            raise ValueError(f"tensors {found}, expected {sizes}")
    except (
        AttributeError,
        IndexError,
        KeyError,
        RuntimeError,
        TypeError,
        ValueError,
        safetensors.SafetensorError,
    ) as error:
        raise HeadsError(
            f"{WEIGHTS_FILE} and {CONFIG_FILE} are not a torch member: {error!r}. Train it again."
        ) from error
    return member


def to_tensor(
    source: pa.Table | pa.RecordBatch | pa.RecordBatchReader | StoredFeatures,
    features: Sequence[str],
    rows: int | None = None,
) -> torch.Tensor:
    """Return the columns `features` of Arrow rows as float32 (n, F) on the CPU, NULL as NaN.

    Batch by batch into one preallocated tensor, so a reader never has more than one batch beside
    it; a reader does not know its length, which `rows` must give.

    Raises HeadsError when a feature is missing or not a number, or when a reader has another
    number of rows.
    """
    schema = source.schema
    ordinals = [schema.get_field_index(name) for name in features]
    missing = [name for name, ordinal in zip(features, ordinals, strict=True) if ordinal < 0]
    if missing:
        raise HeadsError(
            f"the rows have no feature {', '.join(missing)}, or have it twice; the net needs the "
            f"{len(features)} features it was fitted with, by name, in any order."
        )
    for name, ordinal in zip(features, ordinals, strict=True):
        kind = schema.field(ordinal).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise HeadsError(f"feature {name} is {kind}, expected FLOAT. Cast it in SQL.")
    if isinstance(source, pa.RecordBatchReader):
        if rows is None:
            raise HeadsError("a reader does not say how many rows it has: give `rows`.")
        batches = source
    else:
        rows = source.num_rows
        batches = [source] if isinstance(source, pa.RecordBatch) else source.to_batches()
    values = np.empty((rows, len(features)), dtype=np.float32)
    found = 0
    for batch in batches:
        start, found = found, found + batch.num_rows
        if found <= rows:
            for column, ordinal in enumerate(ordinals):
                values[start:found, column] = batch.column(ordinal).to_numpy(zero_copy_only=False)
    if found != rows:
        raise HeadsError(f"the reader has {found} rows, expected {rows}.")
    return torch.from_numpy(values)


def net_shape(settings: dict[str, Any], stats: dict[str, torch.Tensor], outputs: int) -> Shape:
    """Return the sizes of the net."""
    return Shape(
        inputs=len(stats["center"]) + len(stats["missing"]),
        hidden=tuple(settings["hidden"]),
        outputs=outputs,
        members=settings["members"],
        pool=settings["pool"],
    )


def pick_device(name: str) -> torch.device:
    """Return the device of a name. Raises HeadsError when it is not there."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise HeadsError("device is cuda and torch sees none. Leave it auto, or set it to cpu.")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


@contextlib.contextmanager
def reproducible(device: torch.device, threads: int = 1) -> Iterator[None]:
    """Let every kernel give the same bits again, on `threads` CPU threads; put back what was.

    One thread is the rule: nets of this size gain nothing from a second, and lose much when the
    machine is busy and threads wait for each other.
    """
    if device.type == "cuda":  # cuBLAS reads this when it starts
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    with TORCH_SETTINGS:
        deterministic = torch.are_deterministic_algorithms_enabled()
        warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
        threads_before = torch.get_num_threads()
        precision = torch.get_float32_matmul_precision()
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(max(1, threads))
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.set_num_threads(threads_before)
            torch.set_float32_matmul_precision(precision)
