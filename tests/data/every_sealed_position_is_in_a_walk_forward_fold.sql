-- once under its symbol, once under ALL
with positions as (

    select count(*) as position_count
    from {{ ref('executed_positions') }}
    where eval_split in {{ "('" ~ sealed_splits() | join("', '") ~ "')" }}

),

folds as (

    select
        sum(position_count * (subject = 'ALL')::int) as all_count,
        sum(position_count * (subject <> 'ALL')::int) as symbol_count
    from {{ ref('walk_forward_folds') }}

)

select *
from positions
cross join folds
where position_count <> all_count or position_count <> symbol_count
