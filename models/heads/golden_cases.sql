with models as (

    select
        model_id,
        head,
        target,
        fold,
        unnest(golden) as row_of
    from {{ ref('training_runs') }}

)

select
    model_id,
    head,
    target,
    fold,
    row_of.case_id,
    row_of.sample_id,
    row_of.output,
    row_of.inputs,
    row_of.seed_scores,
    row_of.prediction
from models
