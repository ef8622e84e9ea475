with rules as (

    select
        position,
        reason,
        eval_split,
        metric,
        comparison,
        threshold,
        nullif(reference_split, '') as reference_split
    from {{ ref('backtest_rules') }}

),

accountings as (

    select distinct
        accounting,
        is_path_honest
    from {{ ref('backtest_metrics') }}

),

known_values as (

    -- no unpivot of a subquery: a view would keep the file's name in it and break in a renamed copy
    select
        accounting,
        eval_split,
        metric,
        value
    from (
        {% for name in trade_metric_names() %}
        select
            accounting,
            eval_split,
            '{{ name }}' as metric,
            {{ name }}::double as value
        from {{ ref('backtest_metrics') }}
        {{ 'union all' if not loop.last }}
        {% endfor %}
    )
    where not isnan(value)

),

limits as (

    select
        accountings.accounting,
        accountings.is_path_honest,
        rules.*,
        observed.value as observed_value,
        reference.value as reference_value,
        case
            when rules.reference_split is null then rules.threshold
            else rules.threshold * reference.value
        end as limit_value
    from rules
    cross join accountings
    left join known_values as observed
        on
            accountings.accounting = observed.accounting
            and rules.eval_split = observed.eval_split
            and rules.metric = observed.metric
    left join known_values as reference
        on
            accountings.accounting = reference.accounting
            and rules.reference_split = reference.eval_split
            and rules.metric = reference.metric

)

select
    accounting,
    is_path_honest,
    position,
    reason,
    eval_split,
    metric,
    observed_value,
    comparison,
    limit_value,
    threshold,
    reference_split,
    reference_value,
    -- an unknown value is no pass
    coalesce(
        (reference_split is null or reference_value > 0)
        and case comparison
            when '<' then observed_value < limit_value
            when '<=' then observed_value <= limit_value
            when '>' then observed_value > limit_value
            when '>=' then observed_value >= limit_value
        end,
        true
    ) as is_violated
from limits
order by is_path_honest, position
