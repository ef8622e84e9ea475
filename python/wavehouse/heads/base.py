"""What every trainer of heads gives and takes; nothing here knows minutes, days or a market."""

import dataclasses
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

OBJECTIVES = ("binary", "multiclass", "regression", "ranking")


class HeadsError(Exception):
    """Training or scoring cannot go on; the text names the head, what was found and the remedy."""


class Untrainable(HeadsError):
    """The rows of one fold cannot teach one target: no label is known, or a class has no row."""


@dataclasses.dataclass(frozen=True)
class Target:
    """One thing a head learns: a row of seeds/head_targets.csv.

    `outputs` names the prediction columns: one per class, in the order of `classes`, for
    multiclass, else one. A ranking orders the rows of a cross-section; its score has no unit.
    """

    head: str
    target: str
    label_column: str
    objective: str
    classes: tuple[str, ...]
    outputs: tuple[str, ...]
    feature_list: str
    calibration: str  # isotonic, platt, auto or none
    level: float | None  # coverage of the conformal interval, such as 0.8; None: no interval


@dataclasses.dataclass(frozen=True)
class Block:
    """The rows of one role (fit, tune or calibrate) of one fold, ordered by time and key.

    `features` has one float32 column per feature, NULL where unknown; it is a pa.Table, or a
    `data.StoredFeatures`, which reads columns and batches from DuckDB when asked. `labels` is
    float64 (n,): 0/1 for binary, the class number for multiclass, the value for regression, NaN
    where the label is unknown. `weights` is float64 (n,), of mean 1 over the fit rows. `groups` is
    int64 (n,), the cross-section (date or minute) of each row, ascending; `periods` is int64 (n,),
    ascending, the spans of time (hour or date) that shuffles and resampling keep together, without
    it the groups. Values are ranked within groups where the track is `cross_sectional`, among all
    rows where it trades by level.
    """

    features: Any
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray
    periods: np.ndarray | None = None
    cross_sectional: bool = False

    @property
    def row_count(self) -> int:
        """Return how many rows the block has."""
        return self.features.num_rows


@dataclasses.dataclass(frozen=True)
class CurvePoint:
    """One point of a learning curve; `role` is fit or tune."""

    iteration: int
    role: str
    metric: str
    value: float


class Member(Protocol):
    """One fitted model of a seed. A stored model is an ensemble of members of several seeds.

    `pools` is True when a row's score depends on its whole cross-section; such a member has
    `predict_groups(features, groups)` and refuses `predict`, `onnx` and `sql`.
    """

    pools: bool
    seed: int
    features: tuple[str, ...]
    outputs: int  # columns of predict: 1, or the number of classes
    best_iteration: int
    curve: tuple[CurvePoint, ...]

    def predict(self, features: pa.Table | pa.RecordBatch) -> np.ndarray:
        """Return raw scores (n, outputs) float64: probabilities, or the value for regression.

        `features` holds at least the columns of `self.features`, float32, in any order.
        """

    def files(self) -> dict[str, bytes]:
        """Return the artifact as {file name: bytes}, the same bytes for the same training."""

    def onnx(self) -> bytes:
        """Return the member as an ONNX model: input `features` float32 (n, F), output `scores`.

        `scores` is float64 (n, outputs), or float32 where ONNX has no double for it.
        """

    def sql(self) -> list[str]:
        """Return one scalar SQL expression per output over FLOAT columns named like the features.

        Equal to `predict`: bit for bit for trees.
        """


class Trainer(Protocol):
    """A way to fit; modules `lightgbm_trainer` and `torch_trainer` have these two functions."""

    def fit(
        self,
        target: Target,
        fit: Block,
        tune: Block,
        seed: int,
        params: dict[str, Any],
        threads: int,
        shared: dict[Any, Any],
    ) -> Member:
        """Fit on the block `fit`, stop early on `tune`; see `lightgbm_trainer.fit`.

        `shared` is a dictionary that lives as long as the fold: what targets and seeds can share
        (binned Datasets, tensors on the device) is kept there. Raises HeadsError.
        """

    def load(self, files: dict[str, bytes]) -> Member:
        """Return the member that `files()` wrote. Raises HeadsError when they cannot be read."""
