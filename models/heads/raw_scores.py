"""Score every row of the minute track: wavehouse.heads.scoring holds the code."""

from wavehouse.heads.config import MINUTE
from wavehouse.heads.scoring import score


def model(dbt, session):
    """Return a stream of one row per sample."""
    dbt.config(materialized="table")
    dbt.ref("model_aliases")
    dbt.ref("minute_features")
    return score(session, MINUTE)
