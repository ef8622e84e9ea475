-- Golden cases through every route: the trainer's library, ONNX and SQL.

select
    target,
    fold,
    seed,
    route,
    largest_difference,
    tolerance,
    refusal
from {{ ref('golden_replays') }}
where
    case_count = 0
    or (largest_difference is null and refusal is null)
    or (route = 'native' and refusal is not null)
    or largest_difference > tolerance
