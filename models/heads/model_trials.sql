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
        null as feature_group,
        member.seed,
        member.best_iteration,
        member.tune_metric as metric,
        member.tune_value as value,
        null as base_value,
        null as skill,
        null as row_count,
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
        null as feature_group,
        null as seed,
        null as best_iteration,
        found.metric,
        found.value,
        null as base_value,
        null as skill,
        found.row_count,
        'test' as role
    from tested

)

select * from trials
union all
select * from fits
union all
select * from fold_tests
