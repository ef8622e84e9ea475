{#- The outputs of the minute heads at compile time, when seeds cannot be read: a test holds this equal to
    seeds/head_targets.csv. truth is the expression of the actual value over heads.head_samples. -#}
{% macro head_outputs(head=none) %}
    {% set outputs = {} %}
    {% for output, class in {'long_prob': 'LONG', 'short_prob': 'SHORT', 'neutral_prob': 'NEUTRAL'}.items() %}
        {% do outputs.update({output: {
            'head': 'direction', 'target': 'direction', 'kind': 'probability',
            'truth': "direction_label = '" ~ class ~ "'",
        }}) %}
    {% endfor %}
    {% for output, target in {
        'long_entry_prob': ['entry', 'long_entry'],
        'short_entry_prob': ['entry', 'short_entry'],
        'market_risk_prob': ['risk', 'market_risk'],
        'long_position_risk_prob': ['risk', 'long_position_risk'],
        'short_position_risk_prob': ['risk', 'short_position_risk'],
        'long_continue_prob': ['continue', 'long_continue'],
        'short_continue_prob': ['continue', 'short_continue'],
        'long_exit_prob': ['exit', 'long_exit'],
        'short_exit_prob': ['exit', 'short_exit'],
    }.items() %}
        {% do outputs.update({output: {
            'head': target[0], 'target': target[1], 'kind': 'probability', 'truth': target[1] ~ '_target',
        }}) %}
    {% endfor %}
    {% for output, target in {
        'long_expected_net_edge_bps': ['entry', 'long_entry_edge'],
        'short_expected_net_edge_bps': ['entry', 'short_entry_edge'],
        'long_expected_continue_edge_bps': ['continue', 'long_continue_edge'],
        'short_expected_continue_edge_bps': ['continue', 'short_continue_edge'],
        'long_expected_exit_edge_bps': ['exit', 'long_exit_edge'],
        'short_expected_exit_edge_bps': ['exit', 'short_exit_edge'],
    }.items() %}
        {% do outputs.update({output: {
            'head': target[0], 'target': target[1], 'kind': 'value', 'truth': 'actual_' ~ output,
        }}) %}
    {% endfor %}
    {% if head is none %}
        {% do return(outputs) %}
    {% endif %}
    {% set own = {} %}
    {% for output, facts in outputs.items() if facts.head == head %}
        {% do own.update({output: facts}) %}
    {% endfor %}
    {% do return(own) %}
{% endmacro %}
