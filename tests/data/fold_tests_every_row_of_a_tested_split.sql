-- the embargo of the heads drops rows to learn from, never rows to test: in the fold `anchor` the
-- tested roles are the splits, in the others the walk-forward blocks that end the fold's name
with wanted_roles (split_id, role) as (

    values
    ('tune_inner', 'test'),
    ('validation_locked', 'locked'),
    ('latest_stress', 'stress')

),

folds as (

    select
        fold,
        role,
        sample_id
    from {{ ref('folds') }}
    where role in ('test', 'locked', 'stress')

),

fold_names as (

    select
        fold,
        case when fold <> 'anchor' then string_split(fold, '_')[2:] end as tested_blocks
    from {{ ref('folds') }}
    group by fold

),

samples as (

    select
        sample_id,
        split_id,
        walk_forward_fold
    from {{ ref('minute_features') }}

),

expected as (

    select
        fold_names.fold,
        wanted_roles.role,
        samples.sample_id
    from samples
    inner join wanted_roles using (split_id)
    inner join fold_names on fold_names.fold = 'anchor'
    union all
    select
        fold_names.fold,
        'test' as role,
        samples.sample_id
    from samples
    inner join (
        select
            fold,
            unnest(tested_blocks)::integer as tested_block
        from fold_names
        where fold <> 'anchor'
    ) as fold_names
        on samples.walk_forward_fold = fold_names.tested_block

),

-- a sum over rows, so that their order does not matter
expected_rows as (

    select
        fold,
        role,
        count(*) as row_count,
        sum(hash(sample_id)::hugeint) as rows_hash
    from expected
    group by fold, role

),

found_rows as (

    select
        fold,
        role,
        count(*) as row_count,
        sum(hash(sample_id)::hugeint) as rows_hash
    from folds
    group by fold, role

)

select
    fold,
    role,
    expected_rows.row_count as expected_row_count,
    found_rows.row_count as found_row_count
from expected_rows
full outer join found_rows using (fold, role)
where expected_rows.rows_hash is distinct from found_rows.rows_hash
