"""Ask whether the previous direction model can predict: wavehouse.heads.previous holds the code."""

from wavehouse.heads.config import MINUTE
from wavehouse.heads.previous import previous_model


def model(dbt, session):
    """Return one row: the model that alias `previous` names for direction."""
    dbt.config(materialized="table")
    dbt.ref("model_aliases")
    dbt.ref("head_targets")
    dbt.ref("minute_features")
    return previous_model(session, MINUTE, "direction")
