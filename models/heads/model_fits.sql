with models as (

    select
        model_id,
        head,
        target,
        fold,
        unnest(members) as row_of
    from {{ ref('training_runs') }}

)

select
    model_id,
    head,
    target,
    fold,
    row_of.seed,
    row_of.best_iteration,
    row_of.rounds,
    row_of.tune_metric,
    row_of.tune_value,
    row_of.cpu_seconds
from models
