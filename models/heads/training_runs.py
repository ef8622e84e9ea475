"""Train the heads of the minute track: wavehouse.heads.training holds the code."""

from wavehouse.heads.config import MINUTE
from wavehouse.heads.training import train


def model(dbt, session):
    """Return one row per trained model."""
    dbt.config(materialized="table")
    dbt.ref("head_targets")
    dbt.ref("head_features")
    dbt.ref("head_settings")
    dbt.ref("head_samples")
    dbt.ref("fold_blocks")
    dbt.ref("folds")
    dbt.ref("sample_weights")
    dbt.ref("minute_features")
    return train(session, MINUTE)
