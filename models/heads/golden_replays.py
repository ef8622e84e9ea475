"""Replay the golden cases of stored models: wavehouse.heads.replay holds the code."""

from wavehouse.heads.config import MINUTE
from wavehouse.heads.replay import replay


def model(dbt, session):
    """Return one row per model, seed and route."""
    dbt.config(materialized="table")
    dbt.ref("training_runs")
    dbt.ref("model_aliases")
    return replay(session, MINUTE)
