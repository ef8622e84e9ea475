"""Predict with the previous direction model: wavehouse.heads.previous holds the code."""

from wavehouse.heads.config import MINUTE
from wavehouse.heads.previous import predict_with_previous


def model(dbt, session):
    """Return a stream of one row per sample of the evaluation splits, none without a model."""
    dbt.config(materialized="table")
    dbt.ref("model_aliases")
    dbt.ref("head_targets")
    dbt.ref("minute_features")
    return predict_with_previous(session, MINUTE, "direction")
