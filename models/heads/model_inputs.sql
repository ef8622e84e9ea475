with models as (

    select
        model_id,
        head,
        target,
        fold,
        unnest(inputs) as row_of
    from {{ ref('training_runs') }}

)

select
    model_id,
    head,
    target,
    fold,
    row_of.ordinal,
    row_of.feature,
    row_of.null_share,
    row_of.mean,
    row_of.standard_deviation,
    row_of.minimum,
    row_of.maximum,
    row_of.quantiles
from models
