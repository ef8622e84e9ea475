{#- Predictions beside the truth, one row per output and sample, of the rows of `roles` in the fold anchor.
    The floor that may read sealed splits asks for other roles. -#}
{% macro head_evaluations(roles) %}
with samples as (

    select
        samples.*,
        folds.role
    from {{ ref('head_samples') }} as samples
    inner join {{ ref('folds') }} as folds using (sample_id)
    where
        folds.fold = 'anchor'
        and folds.role in ('{{ roles | join("', '") }}')

),

evaluated as materialized (

    select
        samples.sample_id,
        samples.symbol,
        samples.event_time,
        samples.evaluation_period,
        samples.role,
        raw_scores.scores,
        {% for output, facts in head_outputs().items() %}
        {{ facts.head }}_predictions.{{ output }},
        {% if facts.kind == 'value' %}
        {{ facts.head }}_predictions.lower_{{ output }},
        {{ facts.head }}_predictions.upper_{{ output }},
        {% endif %}
        (samples.{{ facts.truth }})::double as actual_{{ output }} {{- ',' if not loop.last }}
        {% endfor %}
    from samples
    inner join {{ ref('raw_scores') }} as raw_scores using (sample_id)
    inner join {{ ref('direction_predictions') }} as direction_predictions using (sample_id)
    inner join {{ ref('entry_predictions') }} as entry_predictions using (sample_id)
    inner join {{ ref('risk_predictions') }} as risk_predictions using (sample_id)
    inner join {{ ref('continue_predictions') }} as continue_predictions using (sample_id)
    inner join {{ ref('exit_predictions') }} as exit_predictions using (sample_id)

)

{% for output, facts in head_outputs().items() %}
select
    '{{ facts.head }}' as head,
    '{{ facts.target }}' as target,
    '{{ output }}' as output,
    '{{ facts.kind }}' as kind,
    role,
    sample_id,
    symbol,
    event_time,
    evaluation_period,
    {{ output }} as prediction,
    {{ 'lower_' ~ output if facts.kind == 'value' else 'null::double' }} as lower,
    {{ 'upper_' ~ output if facts.kind == 'value' else 'null::double' }} as upper,
    actual_{{ output }} as actual,
    scores.{{ output }} as seed_scores
from evaluated
where
    {{ output }} is not null
    and actual_{{ output }} is not null
{{ 'union all' if not loop.last }}
{%- endfor %}
{% endmacro %}
