{#- Checked settings of the position manager. -#}
{% macro pm_settings() %}
    {% set settings = {
        'pm_edge_basis': _choice_var('pm_edge_basis', pm_edge_bases()),
        'pm_drawdown_from_zero': _boolean_var('pm_drawdown_from_zero'),
        'pm_config_version': var('pm_config_version') | string,
    } %}
    {% for name in [
        'pm_direction_weight_bps', 'pm_edge_scale_bps', 'pm_edge_strength_cap', 'pm_min_planned_ratio',
        'pm_max_planned_ratio',
    ] %}
        {% do settings.update({name: _number_var(name)}) %}
    {% endfor %}
    {% if settings.pm_edge_scale_bps <= 0 %}
        {% do _refuse_var('pm_edge_scale_bps', settings.pm_edge_scale_bps, 'a number above 0') %}
    {% endif %}
    {% if settings.pm_min_planned_ratio > settings.pm_max_planned_ratio %}
        {% do _refuse_var(
            'pm_min_planned_ratio', settings.pm_min_planned_ratio,
            'at most pm_max_planned_ratio (' ~ settings.pm_max_planned_ratio ~ ')'
        ) %}
    {% endif %}
    {% do return(settings) %}
{% endmacro %}


{#- What a trade may be said to have earned, the reference's first. -#}
{% macro pm_edge_bases() %}
    {% do return(['max_future_edge', 'gross_edge', 'future_return', 'executed']) %}
{% endmacro %}


{#- The axes of the grid in nesting order: the first turns slowest. -#}
{% macro pm_axes() %}
    {% do return([
        'long_open_prob', 'short_open_prob', 'min_entry_prob', 'max_market_risk_prob',
        'min_expected_edge_bps', 'min_direction_margin',
    ]) %}
{% endmacro %}


{#- The splits that a run is judged on, in time order; search reads the first alone. -#}
{% macro evaluation_splits() %}
    {% do return(['tune_inner', 'validation_locked', 'latest_stress']) %}
{% endmacro %}
