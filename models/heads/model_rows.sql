with models as (

    select
        model_id,
        head,
        target,
        fold,
        unnest(roles) as row_of
    from {{ ref('training_runs') }}

)

select
    model_id,
    head,
    target,
    fold,
    row_of.role,
    row_of.row_count,
    row_of.labelled_row_count,
    row_of.positive_count,
    row_of.first_starts_at_ms,
    row_of.last_label_ends_at_ms,
    row_of.rows_hash
from models
