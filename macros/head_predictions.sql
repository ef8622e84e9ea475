{#- One head's predictions from heads.raw_scores: the mean over seeds, calibrated by the map of the model
    that scored the row, and the conformal interval around an edge. -#}
{% macro head_predictions(head) %}
{%- set outputs = head_outputs(head) -%}
{%- set models = {} -%}
{%- set probabilities = {} -%}
{%- set edges = {} -%}
{%- set targets = [] -%}
{%- for output, facts in outputs.items() -%}
    {%- do models.update({output: facts.target ~ '_model_id'}) -%}
    {%- if facts.kind == 'probability' -%}
        {%- do probabilities.update({output: output ~ '_score'}) -%}
    {%- else -%}
        {%- do edges.update({output: output}) -%}
    {%- endif -%}
    {%- if facts.target not in targets -%}{%- do targets.append(facts.target) -%}{%- endif -%}
{%- endfor -%}
{#- classes of one target sum to one -#}
{%- set sum_to_one = targets | length < outputs | length -%}
with scores as (

    select
        sample_id,
        symbol,
        event_time,
        split_id,
        is_out_of_sample,
        {% for target in targets %}
        models.{{ target }} as {{ target }}_model_id,
        {% endfor %}
        {% for output in probabilities %}
        list_avg(scores.{{ output }}) as {{ output }}_score,
        {% endfor %}
        {% for output in edges %}
        list_avg(scores.{{ output }}) as {{ output }},
        {% endfor %}
        unseen_null_count
    from {{ ref('raw_scores') }}

),

calibrated as (

    {{ with_probabilities('scores', probabilities, ref('calibration_maps'), models, sum_to_one) }}

),

predictions as (

    {% if edges -%}
    {{ with_intervals('calibrated', edges, ref('conformal_intervals'), models) }}
    {%- else -%}
    select * from calibrated
    {%- endif %}

)

select
    sample_id,
    symbol,
    event_time,
    split_id,
    {% for output in probabilities %}
    {{ output }},
    {% endfor %}
    {% for output in edges %}
    {{ output }},
    lower_{{ output }},
    upper_{{ output }},
    {% endfor %}
    is_out_of_sample,
    unseen_null_count,
    {% for target in targets %}
    {{ target }}_model_id {{- ',' if not loop.last }}
    {% endfor %}
from predictions
{% endmacro %}
