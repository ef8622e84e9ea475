{#- Every setting of the labels as one typed dictionary: 12 and 12.0 are the same setting. -#}
{% macro label_settings() %}
    {% set settings = {} %}
    {% for name in [
        'cost_fee_bps', 'cost_slippage_bps', 'cost_funding_bps',
        'direction_long_threshold_bps', 'direction_short_threshold_bps',
        'entry_target_bps', 'entry_stop_bps', 'entry_min_expected_net_edge_bps',
        'continue_min_expected_edge_bps',
        'exit_adverse_move_bps', 'exit_stagnation_abs_return_bps',
        'risk_market_drawdown_bps', 'risk_vol_expansion_ratio', 'risk_spike_bps',
        'liquidity_spread_rank_threshold_pct', 'liquidity_deterioration_ratio',
    ] %}
        {% do settings.update({name: _number_var(name)}) %}
    {% endfor %}
    {% for name in [
        'direction_horizon_minutes', 'entry_max_hold_minutes', 'continue_horizon_minutes',
        'exit_horizon_minutes', 'risk_horizon_minutes',
    ] %}
        {% do settings.update({name: _horizon_var(name)}) %}
    {% endfor %}
    {% for name in [
        'own_exit_risk_horizons', 'label_quality_filter', 'reversal_requires_history',
        'direction_requires_contiguity',
    ] %}
        {% do settings.update({name: _boolean_var(name)}) %}
    {% endfor %}
    {% for name, allowed in {
        'entry_label_method': ['MAX_FUTURE_EDGE_V1', 'path_exit_v1'],
        'liquidity_deterioration_basis': ['current_spread_rank', 'future_spread'],
        'market_risk_mode': ['either_side', 'directional'],
        'entry_price': ['close', 'next_open'],
        'cost_mode': ['fixed', 'fixed_plus_spread'],
    }.items() %}
        {% do settings.update({name: _choice_var(name, allowed)}) %}
    {% endfor %}
    {% do settings.update({
        'price_plan_id': var('price_plan_id') | string,
        'label_version': var('label_version') | string,
    }) %}
    {% do return(settings) %}
{% endmacro %}


{% macro _refuse_var(name, value, expected) %}
    {% do exceptions.raise_compiler_error(
        "var '" ~ name ~ "' is " ~ (value | tojson) ~ ", expected " ~ expected
        ~ ". Set it in dbt_project.yml or with --vars '{" ~ name ~ ": ...}'."
    ) %}
{% endmacro %}


{% macro _number_var(name) %}
    {% set value = var(name) %}
    {% if value is not number or value is boolean %}
        {% do _refuse_var(name, value, 'a number') %}
    {% endif %}
    {% do return(value | float) %}
{% endmacro %}


{% macro _count_var(name, lowest, highest) %}
    {% set value = var(name) %}
    {% if value is not integer or value is boolean or value < lowest or value > highest %}
        {% do _refuse_var(name, value, 'a whole number from ' ~ lowest ~ ' to ' ~ highest) %}
    {% endif %}
    {% do return(value) %}
{% endmacro %}


{% macro _horizon_var(name) %}
    {% set value = var(name) %}
    {% if value is not integer or value is boolean or value < 1 or value > 480 %}
        {% do _refuse_var(name, value, 'whole minutes from 1 to 480') %}
    {% endif %}
    {% do return(value) %}
{% endmacro %}


{% macro _boolean_var(name) %}
    {% set value = var(name) %}
    {% if value is not boolean %}
        {% do _refuse_var(name, value, 'true or false') %}
    {% endif %}
    {% do return(value) %}
{% endmacro %}


{% macro _choice_var(name, allowed) %}
    {% set value = var(name) %}
    {% if value not in allowed %}
        {% do _refuse_var(name, value, 'one of ' ~ allowed | join(', ')) %}
    {% endif %}
    {% do return(value) %}
{% endmacro %}


{#- A setting as a DOUBLE literal. A bare decimal would be DECIMAL, and 1.0012 * price would differ
    in the last bit from the definition. -#}
{% macro setting(name) %}
    {%- set value = label_settings()[name] -%}
    {%- if value is boolean -%} {{ value | lower }}
    {%- elif value is string -%} '{{ value | replace("'", "''") }}'
    {%- elif value is integer -%} {{ value }}
    {%- else -%} {{ value }}::double
    {%- endif -%}
{% endmacro %}


{#- Fixed cost of a round trip in bps: fee + slippage + funding. -#}
{% macro fixed_cost_bps() -%}
    ({{ setting('cost_fee_bps') }} + {{ setting('cost_slippage_bps') }} + {{ setting('cost_funding_bps') }})
{%- endmacro %}


{#- Cost of a round trip in bps for the row of alias `samples`: fixed, or fixed plus the spread. -#}
{% macro cost_bps(samples) -%}
    {%- if label_settings().cost_mode == 'fixed_plus_spread' -%}
        ({{ fixed_cost_bps() }} + {{ samples }}.spread_bps)
    {%- else -%}
        {{ fixed_cost_bps() }}
    {%- endif -%}
{%- endmacro %}


{#- Minutes ahead of its sample that each label set looks. -#}
{% macro label_horizons() %}
    {% set settings = label_settings() %}
    {% set own = settings.own_exit_risk_horizons %}
    {% do return({
        'direction_labels': settings.direction_horizon_minutes,
        'entry_labels': settings.entry_max_hold_minutes,
        'position_state_samples': settings.entry_max_hold_minutes,
        'continue_labels': settings.continue_horizon_minutes,
        'exit_labels': settings.exit_horizon_minutes if own else settings.continue_horizon_minutes,
        'risk_labels': settings.risk_horizon_minutes if own else settings.continue_horizon_minutes,
    }) %}
{% endmacro %}


{#- The distinct horizons that labels.path_stats holds, ascending. -#}
{% macro path_stats_horizons() %}
    {% set horizons = label_horizons() %}
    {% do return([
        horizons.entry_labels, horizons.continue_labels, horizons.exit_labels, horizons.risk_labels
    ] | unique | sort) %}
{% endmacro %}


{#- The farthest any label looks, in minutes: the width of the purge. -#}
{% macro longest_label_horizon_minutes() %}
    {% do return(label_horizons().values() | max) %}
{% endmacro %}


{#- sha256 over the canonical JSON of every label setting: it changes when any of them does. -#}
{% macro price_plan_hash() -%}
    sha256('{{ tojson(label_settings(), sort_keys=true) | replace("'", "''") }}')
{%- endmacro %}


{#- on-run-start: refuse a wrong setting before the first model, by the name of the var. -#}
{% macro validate_settings() %}
    {% if execute %}
        {% do label_settings() %}
        {% do split_starts() %}
        {% do fold_settings() %}
        {% do head_settings() %}
        {% do head_metric_settings() %}
        {% do pm_settings() %}
        {% do pm_grid_settings() %}
        {% do overfitting_settings() %}
        {% do execution_settings() %}
        {% do acceptance_settings() %}
        {% do release_settings() %}
        {% do daily_universe_settings() %}
        {% do daily_panel_settings() %}
        {% do factor_feed_settings() %}
        {% do daily_label_settings() %}
        {% do event_settings() %}
        {% do factor_panel_settings() %}
        {% do factor_health_settings() %}
    {% endif %}
{% endmacro %}
