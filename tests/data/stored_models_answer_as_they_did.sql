-- Golden cases through every route: the trainer's library, ONNX and SQL. An earlier model may be
-- gone from the store; a model of the last training may not.

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
    largest_difference > tolerance
    or (
        model_id in (select training_runs.model_id from {{ ref('training_runs') }} as training_runs)
        and (
            case_count = 0
            or (largest_difference is null and refusal is null)
            or (route = 'native' and refusal is not null)
        )
    )
