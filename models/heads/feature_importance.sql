with models as (

    select
        model_id,
        head,
        target,
        fold,
        unnest(importance) as row_of
    from {{ ref('training_runs') }}

)

select
    model_id,
    head,
    target,
    fold,
    row_of.feature,
    row_of.kind,
    row_of.value
from models
