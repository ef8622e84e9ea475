{#- Checked settings of acceptance. -#}
{% macro acceptance_settings() %}
    {% set run_id = var('run_id') %}
    {% set is_name = modules.re.fullmatch('[A-Za-z0-9._-]{0,100}', run_id | string) %}
    {% if run_id is boolean or run_id is none or not is_name %}
        {% do _refuse_var(
            'run_id', run_id, 'up to 100 letters, digits, dots, dashes and underscores'
        ) %}
    {% endif %}
    {% set cases = var('backtest_failure_cases') %}
    {% if cases is not integer or cases is boolean or cases < 1 %}
        {% do _refuse_var('backtest_failure_cases', cases, 'a whole number from 1') %}
    {% endif %}
    {% do return({'run_id': run_id | string, 'backtest_failure_cases': cases}) %}
{% endmacro %}


{#- How a trade is counted, and whether it could have been traded so. -#}
{% macro accountings() %}
    {% do return({'label_edge': false, 'executed': true}) %}
{% endmacro %}


{#- What metrics are given for, with the evaluation splits that each takes in their order. -#}
{% macro acceptance_scopes() %}
    {% set splits = evaluation_splits() %}
    {% set scopes = {} %}
    {% for split_id in splits %}
        {% do scopes.update({split_id: [split_id]}) %}
    {% endfor %}
    {% do scopes.update({'sealed': splits[1:], 'combined': splits}) %}
    {% do return(scopes) %}
{% endmacro %}


{#- SHA-256 of the settings that trades and positions are made with. -#}
{% macro trade_settings_hash() -%}
    {%- set settings = {'execution': execution_settings(), 'pm': pm_settings()} -%}
    sha256('{{ tojson(settings, sort_keys=true) | replace("'", "''") }}')
{%- endmacro %}


{#- The nine metrics as canonical JSON. -#}
{% macro trade_metrics_json(metrics='metrics') -%}
    '{' || {% for name in trade_metric_names() | sort %}'"{{ name }}":'
        || {{ json_number(metrics ~ '.' ~ name) }}{{ " || ',' || " if not loop.last }}{% endfor %}
        || '}'
{%- endmacro %}
