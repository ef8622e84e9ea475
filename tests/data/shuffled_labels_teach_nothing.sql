-- A head trained on labels that were shuffled, over all rows or by whole periods, has no skill.

select
    target,
    trial,
    skill,
    value,
    base_value
from {{ ref('trial_runs') }}
where
    kind in ('label_shuffle', 'date_shuffle')
    and not abs(skill) <= {{ var('heads_null_skill') }}::double
