-- rows to learn from, their labels included, lie in the split `fit` of the fold `anchor` and before
-- `validation_locked` in every other fold, whose tested rows end there as well
with boundaries as (

    select
        max(starts_at_ms) filter (where boundary_name = 'tune_inner') as tune_inner_ms,
        max(starts_at_ms) filter (where boundary_name = 'validation_locked') as validation_locked_ms
    from {{ ref('split_boundaries') }}

),

last_labels as (

    select
        fold,
        role,
        max(label_ends_at_ms) as label_ends_at_ms
    from {{ ref('folds') }}
    group by fold, role

)

select last_labels.*
from last_labels
cross join boundaries
where
    (
        last_labels.fold = 'anchor'
        and last_labels.role in ('fit', 'tune', 'calibrate')
        and last_labels.label_ends_at_ms >= boundaries.tune_inner_ms
    )
    or (
        last_labels.fold <> 'anchor'
        and last_labels.label_ends_at_ms >= boundaries.validation_locked_ms
    )
