{#- Which model could have known what. A champion is valid from the end of the last label that it
    learned from until the next champion is; CPCV models test and never predict. -#}

with trained as (

    select
        track,
        head,
        target,
        model_id,
        fold,
        valid_from_ms
    from {{ ref('training_runs') }}
    where fold_scheme <> 'cpcv'
    qualify
        row_number() over (
            partition by track, target, valid_from_ms
            order by list_position(['anchor', 'expanding', 'rolling'], fold_scheme), fold
        ) = 1

),

champions as (

    select
        *,
        'champion' as alias,
        lead(valid_from_ms) over (partition by track, target order by valid_from_ms)
            as valid_to_ms
    from trained

),

previous as (

    select
        track,
        head,
        target,
        model_id,
        fold,
        epoch_ms(valid_from) as valid_from_ms,
        'previous' as alias,
        null::bigint as valid_to_ms
    from {{ ref('model_registry') }}
    where
        fold_scheme <> 'cpcv'
        and model_id not in (select training_runs.model_id from {{ ref('training_runs') }})
    qualify
        row_number() over (
            partition by track, target
            order by trained_at desc, valid_from desc, model_id asc
        ) = 1

),

aliases as (

    select * from champions
    union all by name
    select * from previous

)

select
    track,
    head,
    target,
    alias,
    model_id,
    fold,
    valid_from_ms,
    valid_to_ms,
    make_timestamp(valid_from_ms * 1000) as valid_from
from aliases
