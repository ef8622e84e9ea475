{#- Only retraining without a group decides. The other importances stand beside it for reading. -#}

with drops as (

    select
        track,
        head,
        target,
        feature_group,
        metric,
        value as value_without,
        loss_without,
        loss_without_lower,
        loss_without_upper
    from {{ ref('trial_runs') }}
    where kind = 'drop_group'

),

baselines as (

    select
        track,
        target,
        value as value_with
    from {{ ref('trial_runs') }}
    where kind = 'baseline'

),

groups as (

    select
        targets.target,
        features.feature_group,
        importance.kind,
        sum(importance.value) as importance,
        count(*) as feature_count
    from {{ ref('feature_importance') }} as importance
    inner join {{ ref('head_targets') }} as targets using (target)
    inner join {{ ref('head_features') }} as features
        on
            targets.feature_list = features.feature_list
            and importance.feature = features.feature
    where importance.fold = 'anchor'
    group by targets.target, features.feature_group, importance.kind

),

importances as (

    select
        target,
        feature_group,
        max(feature_count) as feature_count,
        max(importance) filter (where kind = 'gain') as gain_share,
        max(importance) filter (where kind = 'shap') as shap_share,
        max(importance) filter (where kind = 'permutation') as permutation_loss
    from groups
    group by target, feature_group

)

select
    drops.track,
    drops.head,
    drops.target,
    drops.feature_group,
    importances.feature_count,
    drops.metric,
    baselines.value_with,
    drops.value_without,
    drops.loss_without,
    drops.loss_without_lower,
    drops.loss_without_upper,
    case
        when drops.loss_without_lower > 0 then 'keep'
        when drops.loss_without_upper <= 0 then 'drop'
        else 'undecided'
    end as verdict,
    importances.gain_share,
    importances.shap_share,
    importances.permutation_loss
from drops
inner join baselines using (track, target)
left join importances using (target, feature_group)
