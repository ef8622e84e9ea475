-- Out of sample nobody orders the future this well: look for a feature that knows it.

select
    output,
    role,
    metric,
    value
from {{ ref('head_metrics') }}
where
    role = 'test'
    and (
        (metric = 'roc_auc' and 2 * value - 1 > {{ var('heads_leak_alarm') }}::double)
        or (
            metric in ('ic', 'rank_ic', 'pooled_rank_ic')
            and value > {{ var('heads_leak_alarm') }}::double
        )
    )
