-- Metrics are there for every accounting and scope, traded or not, and say which are sealed.
with expected (eval_split, is_sealed) as (

    values
    ('tune_inner', false),
    ('validation_locked', true),
    ('latest_stress', true),
    ('sealed', true),
    ('combined', false)

),

accountings (accounting, is_path_honest) as (

    values
    ('label_edge', false),
    ('executed', true)

)

select *
from expected
cross join accountings
full outer join {{ ref('backtest_metrics') }} as metrics
    using (accounting, is_path_honest, eval_split, is_sealed)
where metrics.trade_count is null or expected.eval_split is null
