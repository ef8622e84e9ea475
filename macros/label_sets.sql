{#- The label sets and their targets: labels.label_manifest and label_distribution read this list.
    The first target of a set is its main one. -#}
{% macro label_sets() %}
    {% do return({
        'direction_labels': ['direction_label'],
        'entry_labels': ['entry_target'],
        'position_state_samples': ['entry_target'],
        'continue_labels': ['long_continue_target', 'short_continue_target'],
        'exit_labels': [
            'long_exit_target', 'short_exit_target', 'adverse_move_prob_label', 'reversal_prob_label',
            'stop_hit_prob_label', 'stagnation_prob_label',
        ],
        'risk_labels': [
            'market_risk_target', 'long_position_risk_target', 'short_position_risk_target',
            'market_drawdown_prob_label', 'volatility_expansion_prob_label', 'spike_prob_label',
            'liquidity_deterioration_prob_label', 'position_drawdown_prob_label',
        ],
    }) %}
{% endmacro %}


{#- Pre-hook: stop when a relation that must have rows has none. -#}
{% macro require_rows(relation, reason) %}
    {% if execute and flags.WHICH in ['build', 'run'] %}
        {% if not run_query('select 1 from ' ~ relation ~ ' limit 1').rows %}
            {% do exceptions.raise_compiler_error(
                relation.schema ~ '.' ~ relation.identifier ~ ' has no rows: ' ~ reason
                ~ '. Look at staging.load_audit and at the longest run of minutes in staging.stg_minute_bars.'
            ) %}
        {% endif %}
    {% endif %}
{% endmacro %}
