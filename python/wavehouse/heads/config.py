"""What to train, read from the warehouse: targets, feature lists, settings and folds."""

import dataclasses
import json
import math
from typing import Any

import duckdb

from wavehouse.heads.base import OBJECTIVES, HeadsError, Target

ROUNDS_PER_EPOCH = 4


@dataclasses.dataclass(frozen=True)
class Track:
    """The relations of one market track; the rest of this package knows no other difference.

    `samples` has sample_id, symbol, event_time, evaluation_period, starts_at_ms,
    label_ends_at_ms, split_id and the label columns; `features` has sample_id, `time_column`
    (bigint), symbol, event_time (timestamp), split_id and the features. Symbols and classes are
    varchar, not enum. `folds` is keyed by fold and sample_id, `blocks` by fold and block, `weights`
    by sample_id. `cross_sectional` says that values compete within their date, so that early
    stopping ranks them there and not among all rows.
    """

    name: str
    samples: str
    features: str
    folds: str
    blocks: str
    weights: str
    time_column: str
    cross_sectional: bool = False


MINUTE = Track(
    name="minute",
    samples="heads.head_samples",
    features="factors.minute_features",
    folds="heads.folds",
    blocks="heads.fold_blocks",
    weights="heads.sample_weights",
    time_column="open_time_ms",
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The vars of the section "heads" in dbt_project.yml, as `heads.head_settings` holds them."""

    trainer: str
    trainers: dict[str, str]
    train_folds: tuple[str, ...]
    seeds: tuple[int, ...]
    scale: float
    max_rounds: int
    min_rounds: int
    patience: int
    lightgbm: dict[str, Any]
    torch: dict[str, Any]
    golden_rows: int
    importance_rows: int
    trial_targets: tuple[str, ...]

    def trainer_of(self, head: str) -> str:
        """Return the name of the trainer of `head`: lightgbm or torch."""
        return self.trainers.get(head, self.trainer)

    def params(self, trainer: str) -> dict[str, Any]:
        """Return the parameters of a trainer, scaled: more rounds, smaller steps.

        An epoch of a net counts as ROUNDS_PER_EPOCH trees.
        """
        own = dict(self.lightgbm if trainer == "lightgbm" else self.torch)
        per_round = 1 if trainer == "lightgbm" else ROUNDS_PER_EPOCH
        rounds = {
            "rounds": math.ceil(self.max_rounds * self.scale / per_round),
            "min_rounds": math.ceil(self.min_rounds / per_round),
            "patience": math.ceil(self.patience * self.scale / per_round),
            "scale": self.scale,
        }
        return rounds | own


def read_settings(con: duckdb.DuckDBPyConnection) -> Settings:
    """Return the settings in `heads.head_settings`."""
    rows = con.execute("select setting, value_json from heads.head_settings").fetchall()
    values = {name.removeprefix("heads_"): json.loads(text) for name, text in rows}
    values["importance_rows"] = int(values["importance_rows"])
    return Settings(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
    )


def read_targets(con: duckdb.DuckDBPyConnection, track: Track) -> list[Target]:
    """Return the targets of a track in the order of the seed.

    Raises HeadsError when a row contradicts itself, or names a column or list that is not there.
    """
    rows = con.execute(
        """
        select head, target, label_column, objective, string_split(classes, '|'),
            string_split(outputs, '|'), feature_list, calibration, interval_level
        from seeds.head_targets where track = $track order by rowid
        """,
        {"track": track.name},
    ).fetchall()
    known = {row[0] for row in con.execute(f"describe {track.samples}").fetchall()}
    targets = []
    for head, name, label, objective, classes, outputs, features, calibration, level in rows:
        target = Target(
            head=head,
            target=name,
            label_column=label,
            objective=objective,
            classes=tuple(classes or ()),
            outputs=tuple(outputs),
            feature_list=features,
            calibration=calibration,
            level=level,
        )
        _check(target, known, track)
        targets.append(target)
    if not targets:
        raise HeadsError(
            f"seeds.head_targets has no row of track {track.name}. Add one to "
            "seeds/head_targets.csv and run `dbt build --select head_targets+`."
        )
    return targets


def read_features(con: duckdb.DuckDBPyConnection, track: Track, feature_list: str) -> list[str]:
    """Return the features of a list in order.

    Raises HeadsError when the list is empty or names columns that the track does not have.
    """
    rows = con.execute(
        "select feature from seeds.head_features where feature_list = $name order by ordinal",
        {"name": feature_list},
    ).fetchall()
    names = [row[0] for row in rows]
    if not names:
        raise HeadsError(
            f"seeds/head_features.csv has no feature of list {feature_list!r}, which "
            "seeds/head_targets.csv names."
        )
    known = {row[0] for row in con.execute(f"describe {track.features}").fetchall()}
    missing = [name for name in names if name not in known]
    if missing:
        raise HeadsError(
            f"seeds/head_features.csv, list {feature_list!r}: {track.features} has no column "
            f"{', '.join(missing)}. Its columns: `describe {track.features}`."
        )
    return names


def read_folds(con: duckdb.DuckDBPyConnection, track: Track, wanted: tuple[str, ...]) -> list[str]:
    """Return the names of the folds that `wanted` (folds or whole schemes) stands for, in order.

    Raises HeadsError when one of them is neither a fold nor a scheme.
    """
    rows = con.execute(
        f"""
        select fold, any_value(fold_scheme) from {track.blocks}
        where roles_without_rows is null group by fold order by fold
        """
    ).fetchall()
    folds: list[str] = []
    for word in wanted:
        found = [fold for fold, scheme in rows if word in (fold, scheme)]
        if not found:
            raise HeadsError(
                f"var heads_train_folds names {word!r}, which is neither a fold with rows in every "
                f"role nor a scheme in {track.blocks}: {', '.join(row[0] for row in rows)}."
            )
        folds += [fold for fold in found if fold not in folds]
    return folds


def _check(target: Target, columns: set[str], track: Track) -> None:
    """Raise HeadsError when a row of seeds/head_targets.csv cannot be trained."""
    where = f"seeds/head_targets.csv, target {target.target!r}"
    if target.objective not in OBJECTIVES:
        raise HeadsError(
            f"{where}: objective is {target.objective!r}, expected one of {OBJECTIVES}."
        )
    if target.label_column not in columns:
        raise HeadsError(f"{where}: {track.samples} has no column {target.label_column!r}.")
    expected = len(target.classes) if target.objective == "multiclass" else 1
    if len(target.outputs) != expected or (target.objective == "multiclass") != bool(
        target.classes
    ):
        raise HeadsError(
            f"{where}: {len(target.outputs)} outputs and {len(target.classes)} classes; expected "
            "one output for each class of a multiclass target, and one output without classes else."
        )
    if target.level is not None and not 0 < target.level < 1:
        raise HeadsError(
            f"{where}: interval_level is {target.level}, expected 0 to 1, such as 0.8."
        )
    if target.level is not None and target.objective != "regression":
        raise HeadsError(
            f"{where}: a {target.objective} target has no interval; leave interval_level empty."
        )
