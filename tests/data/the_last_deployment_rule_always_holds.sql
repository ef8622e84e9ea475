-- whatever the rules before it leave open, the last decides: it asks for nothing
select *
from {{ ref('deployment_rules') }}
qualify
    row_number() over (order by position desc) = 1
    and (
        has_positions <> 'any'
        or has_positive_fold <> 'any'
        or positive_folds_rating <> 'any'
        or sharpe_spread_rating <> 'any'
        or classification <> 'any'
        or executed_status <> 'any'
    )
