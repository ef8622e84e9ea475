{{ config(materialized='table') }}
{%- set outputs = head_outputs() -%}

with features as materialized (

    select
        split_id,
        columns(* exclude (
            sample_id, symbol, event_time, open_time_ms, known_at, split_id, walk_forward_fold,
            data_quality_flag, contiguous_minutes
        ))::double
    from {{ ref('minute_features') }}
    where split_id in ('fit', 'latest_stress')

),

samples as (

    select
        subject,
        split_id = 'latest_stress' as is_current,
        value
    from features
    unpivot include nulls (value for subject in (columns(* exclude (split_id))))
    {% for output, facts in outputs.items() %}
    union all
    select
        '{{ output }}' as subject,
        split_id = 'latest_stress' as is_current,
        {{ output }}::double as value
    from {{ ref(facts.head ~ '_predictions') }}
    where split_id in ('tune_inner', 'latest_stress')
    {% endfor %}

),

subjects as (

    select distinct
        'feature' as subject_kind,
        head_features.feature as subject,
        'fit' as baseline_split
    from {{ ref('head_features') }} as head_features
    inner join {{ ref('head_targets') }} as head_targets using (feature_list)
    where head_targets.track = 'minute'
    {% for output in outputs %}
    union all
    select
        'output' as subject_kind,
        '{{ output }}' as subject,
        'tune_inner' as baseline_split
    {% endfor %}

),

populations as (

    {{ population_drift('samples') }}

),

evaluations as (

    {{ head_evaluations(['test', 'stress']) }}

),

qualities as (

    {{ quality_drift('evaluations', 'test', 'stress') }}

),

checks as (

    {% for check_name, drift in [('psi', 'psi'), ('median_shift', 'abs(median_shift)')] %}
    select
        '{{ check_name }}' as check_name,
        subjects.subject_kind,
        subjects.subject,
        subjects.baseline_split,
        coalesce(populations.baseline_rows, 0) as baseline_rows,
        coalesce(populations.current_rows, 0) as current_rows,
        populations.{{ check_name }} as value,
        0::double as baseline,
        {{ drift }} as drift
    from subjects
    left join populations using (subject)
    union all
    {% endfor %}
    {% for check_name, drift in [
        ('precision_at_k', 'baseline_precision_at_k - current_precision_at_k'),
        ('ece', 'current_ece - baseline_ece'),
    ] %}
    select
        '{{ check_name }}' as check_name,
        'output' as subject_kind,
        output as subject,
        'tune_inner' as baseline_split,
        coalesce(baseline_rows, 0) as baseline_rows,
        coalesce(current_rows, 0) as current_rows,
        current_{{ check_name }} as value,
        baseline_{{ check_name }} as baseline,
        {{ drift }} as drift
    from qualities
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select
    checks.check_name,
    checks.subject_kind,
    checks.subject,
    checks.baseline_split,
    'latest_stress' as current_split,
    checks.baseline_rows,
    checks.current_rows,
    checks.value,
    checks.baseline,
    checks.drift,
    thresholds.warn_at,
    thresholds.alarm_at,
    {{ drift_status('checks.drift', 'thresholds.warn_at', 'thresholds.alarm_at') }} as status
from checks
left join {{ ref('drift_thresholds') }} as thresholds using (check_name)
order by checks.check_name, checks.subject_kind, checks.subject
