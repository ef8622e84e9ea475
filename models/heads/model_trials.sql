with trials as (

    select
        track,
        head,
        target,
        fold,
        trial,
        kind,
        feature_group,
        seed,
        best_iteration,
        metric,
        value,
        base_value,
        skill,
        row_count,
        'calibrate' as role
    from {{ ref('trial_runs') }}

),

models as (

    select
        track,
        head,
        target,
        fold,
        unnest(members) as member
    from {{ ref('training_runs') }}

),

fits as (

    select
        track,
        head,
        target,
        fold,
        'fit:' || member.seed as trial,
        'fit' as kind,
        member.seed,
        member.best_iteration,
        member.tune_metric as metric,
        member.tune_value as value,
        'tune' as role
    from models

),

tested as (

    select
        track,
        head,
        target,
        fold,
        unnest(test_metrics) as found
    from {{ ref('training_runs') }}

),

fold_tests as (

    select
        track,
        head,
        target,
        fold,
        'fold_test' as trial,
        'fold_test' as kind,
        found.metric,
        found.value,
        found.row_count,
        'test' as role
    from tested

)

select * from trials
union all by name
select * from fits
union all by name
select * from fold_tests
