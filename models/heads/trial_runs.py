"""Null tests, a planted leak and drop ablations: wavehouse.heads.trials holds the code."""

from wavehouse.heads.config import MINUTE
from wavehouse.heads.trials import run_trials


def model(dbt, session):
    """Return one row per trial."""
    dbt.config(materialized="table")
    dbt.ref("head_targets")
    dbt.ref("head_features")
    dbt.ref("head_settings")
    dbt.ref("head_samples")
    dbt.ref("fold_blocks")
    dbt.ref("folds")
    dbt.ref("sample_weights")
    dbt.ref("minute_features")
    dbt.ref("raw_scores")  # not read: training and scoring first, for both want every core
    return run_trials(session, MINUTE)
