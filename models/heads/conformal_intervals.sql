with models as (

    select
        model_id,
        head,
        target,
        fold,
        unnest(intervals) as row_of
    from {{ ref('training_runs') }}

)

select
    model_id,
    head,
    target,
    fold,
    row_of.output,
    row_of.bin,
    row_of.prediction_from,
    row_of.lower_offset,
    row_of.upper_offset,
    row_of.row_count,
    row_of.level
from models
