{%- set run_id = acceptance_settings().run_id -%}

with verdicts as (

    select
        accounting,
        case when bool_or(is_violated) then 'REJECTED' else 'PASS' end as status,
        coalesce(list(reason order by position) filter (where is_violated), []::varchar[])
            as status_reasons
    from {{ ref('backtest_rule_checks') }}
    group by accounting

),

metrics as (

    select
        accounting,
        '{' || string_agg('"' || eval_split || '":' || metrics_json, ',' order by eval_split) || '}'
            as metrics_json
    from (
        select
            accounting,
            eval_split,
            {{ trade_metrics_json('metrics') }} as metrics_json
        from {{ ref('backtest_metrics') }} as metrics
    )
    group by accounting

),

label_sets as (

    select
        '{'
        || string_agg('"' || label_set || '":"' || data_hash || '"', ',' order by label_set)
        || '}' as data_hashes
    from {{ ref('label_manifest') }}

),

models as (

    select
        '{'
        || string_agg(
            '"' || target || '@' || fold || '":"' || model_id || '"', ',' order by target, fold
        )
        || '}' as model_ids
    from {{ ref('model_aliases') }}
    where alias = 'champion' and track = 'minute'

),

price_plan as (

    select price_plan_hash
    from {{ ref('price_plan') }}

),

config as (

    select
        config_hash,
        threshold_hash,
        edge_basis
    from {{ ref('pm_config') }}

),

rules as (

    select
        string_agg(
            concat_ws(
                ' ', position, reason, eval_split, metric, comparison, threshold, reference_split
            ),
            ',' order by position
        ) as definition
    from {{ ref('backtest_rules') }}

),

inputs as (

    select
        config.*,
        '{"config_hash":"' || config.config_hash
        || '","edge_basis":"' || config.edge_basis
        || '","label_data_hashes":' || label_sets.data_hashes
        || ',"model_ids":' || models.model_ids
        || ',"price_plan_hash":"' || price_plan.price_plan_hash
        || '","rules_hash":"' || sha256(rules.definition)
        || '","settings_hash":"' || {{ trade_settings_hash() }} || '"}' as inputs_json
    from config
    cross join label_sets
    cross join models
    cross join price_plan
    cross join rules

),

manifest as (

    select
        'backtest-' || {{ "'" ~ run_id ~ "'" if run_id else 'sha256(inputs.inputs_json)[:12]' }}
            as backtest_manifest_id,
        'VALIDATION_PM_BACKTEST' as mode,
        label_edge.status,
        label_edge.status_reasons,
        executed.status as executed_status,
        executed.status_reasons as executed_status_reasons,
        inputs.edge_basis,
        inputs.threshold_hash,
        inputs.config_hash as pm_config_hash_sha256,
        label_edge_metrics.metrics_json,
        executed_metrics.metrics_json as executed_metrics_json,
        inputs.inputs_json
    from inputs
    inner join verdicts as label_edge on label_edge.accounting = 'label_edge'
    inner join verdicts as executed on executed.accounting = 'executed'
    inner join metrics as label_edge_metrics on label_edge_metrics.accounting = 'label_edge'
    inner join metrics as executed_metrics on executed_metrics.accounting = 'executed'

)

select
    *,
    '{"backtest_manifest_id":"' || backtest_manifest_id
    || '","executed":{"is_path_honest":true,"metrics":' || executed_metrics_json
    || ',"status":"' || executed_status
    || '","status_reasons":' || executed_status_reasons::json
    || '},"metrics":' || metrics_json
    || ',"mode":"' || mode
    || '","pm_config_hash_sha256":"' || pm_config_hash_sha256
    || '","status":"' || status
    || '","status_reasons":' || status_reasons::json || '}' as payload_json
from manifest
