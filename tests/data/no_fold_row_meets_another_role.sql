-- the labels of a role are over before another role begins: no head learns from a label that reads
-- into rows of a later role, nor from rows that the label of a tested row has read
with runs as (

    {{ fold_role_runs() }}

)

select
    earlier.fold,
    earlier.role,
    earlier.starts_at_ms,
    earlier.label_ends_at_ms,
    later.role as met_role,
    later.starts_at_ms as met_at_ms
from runs as earlier
inner join runs as later
    on
        earlier.fold = later.fold
        and earlier.run_number < later.run_number
        and earlier.label_ends_at_ms >= later.starts_at_ms
where earlier.role <> later.role
