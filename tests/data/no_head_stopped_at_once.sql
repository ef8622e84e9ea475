-- Early stopping keeps heads_min_rounds at least: a head of one tree must not ship.

with members as (

    select
        target,
        fold,
        params_json,
        unnest(members) as member
    from {{ ref('training_runs') }}

)

select
    target,
    fold,
    member.seed,
    member.best_iteration
from members
where member.best_iteration < (params_json ->> 'min_rounds')::integer
