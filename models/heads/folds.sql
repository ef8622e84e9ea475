with blocks as (

    select
        fold,
        fold_scheme,
        role,
        starts_at_ms,
        ends_at_ms,
        label_limit_ms
    from {{ ref('fold_blocks') }}
    where roles_without_rows is null

),

samples as (

    select
        sample_id,
        symbol,
        starts_at_ms,
        label_ends_at_ms
    from {{ ref('sample_keys') }}

)

select
    blocks.fold,
    blocks.fold_scheme,
    samples.sample_id,
    blocks.role,
    samples.symbol,
    samples.starts_at_ms,
    samples.label_ends_at_ms
from blocks
inner join samples
    on
        blocks.starts_at_ms <= samples.starts_at_ms
        and blocks.ends_at_ms > samples.starts_at_ms
where blocks.label_limit_ms is null or blocks.label_limit_ms > samples.label_ends_at_ms
