with models as (

    select
        model_id,
        head,
        target,
        fold,
        unnest(calibration) as row_of
    from {{ ref('training_runs') }}

)

select
    model_id,
    head,
    target,
    fold,
    row_of.output,
    row_of.ordinal,
    row_of.method,
    row_of.score_from,
    row_of.probability_from,
    row_of.slope,
    row_of.logit_slope,
    row_of.logit_intercept,
    row_of.base_rate,
    row_of.row_count,
    row_of.positive_count
from models
