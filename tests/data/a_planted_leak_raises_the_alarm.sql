-- The label among the features has to be noticed, or the next test could not notice a leak either.

select
    target,
    trial,
    skill
from {{ ref('trial_runs') }}
where
    kind = 'planted_leak'
    and not skill > {{ var('heads_leak_alarm') }}::double
