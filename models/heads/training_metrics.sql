with models as (

    select
        model_id,
        head,
        target,
        fold,
        unnest(curves) as row_of
    from {{ ref('training_runs') }}

)

select
    model_id,
    head,
    target,
    fold,
    row_of.seed,
    row_of.iteration,
    row_of.role,
    row_of.metric,
    row_of.value
from models
