{#- Checked settings of the honest search. -#}
{% macro overfitting_settings() %}
    {% set blocks = _count_var('pm_pbo_blocks', 2, 14) %}
    {% if blocks % 2 %}
        {% do _refuse_var('pm_pbo_blocks', blocks, 'an even number from 2 to 14') %}
    {% endif %}
    {% do return({
        'pm_period_minutes': _count_var('pm_period_minutes', 1, 10080),
        'pm_pbo_blocks': blocks,
        'pm_null_draws': _count_var('pm_null_draws', 0, 10000),
        'pm_null_seed': _count_var('pm_null_seed', 0, 2147483647),
        'pm_null_method': _choice_var('pm_null_method', ['shuffle', 'rotate']),
    }) %}
{% endmacro %}


{#- Start of the period that a time lies in; periods follow each other from 1970 on. -#}
{% macro pm_period_start(time) -%}
    time_bucket(
        interval '{{ overfitting_settings().pm_period_minutes }} minutes', {{ time }}, timestamp '1970-01-01'
    )
{%- endmacro %}
