{#- on-run-start: stop before the first model when a selected node reads a relation that neither
    exists nor is about to be built, with one line that names them and the command that makes them. -#}
{% macro require_upstream_relations() %}
    {% if execute and flags.WHICH in ['build', 'run', 'test', 'snapshot'] %}
        {% set missing = [] %}
        {% for unique_id in selected_resources %}
            {% set node = graph.nodes.get(unique_id) %}
            {% if node and (node.resource_type == 'model' or flags.WHICH == 'test' or node.resource_type == 'test') %}
                {% for parent_id in node.depends_on.nodes if parent_id not in selected_resources %}
                    {% set parent = graph.nodes.get(parent_id) %}
                    {% if parent and parent.resource_type in ['model', 'seed']
                        and parent.config.materialized != 'ephemeral' %}
                        {% set name = parent.schema ~ '.' ~ parent.alias %}
                        {% if name not in missing
                            and not adapter.get_relation(parent.database, parent.schema, parent.alias) %}
                            {% do missing.append(name) %}
                        {% endif %}
                    {% endif %}
                {% endfor %}
            {% endif %}
        {% endfor %}
        {% if missing %}
            {% set asked = (invocation_args_dict.get('select') or []) | join(' ') %}
            {% set remedy = 'dbt build --select +' ~ asked if asked and '+' not in asked[0] and ' ' not in asked else 'dbt build' %}
            {% do exceptions.raise_compiler_error(
                'Not built yet: ' ~ missing | sort | join(', ') ~ '. Build them first with `' ~ remedy ~ '`.'
            ) %}
        {% endif %}
    {% endif %}
{% endmacro %}


{#- on-run-start: a folder of daily bars alone leaves every relation of bars by the minute empty, and heads cannot
    learn from nothing. Stop before the first model and name the command that builds the daily track.
    position_state_samples is the first relation that needs rows. -#}
{% macro require_minute_bars() %}
    {% if execute and flags.WHICH in ['build', 'run']
        and 'model.wavehouse.position_state_samples' in selected_resources
        and has_market_files(source('daily_market', 'daily_bars'))
        and not has_market_files(source('market', 'minute_bars')) %}
        {% do exceptions.raise_compiler_error(
            'No minute bars: the data folder has daily_bars and no '
            ~ source('market', 'minute_bars') | string | replace("'", '')
            ~ ' (.parquet, .csv or a folder), so the minute track has nothing to learn from. Build the daily track with '
            ~ '`dbt build --select +tag:daily`, or put minute bars there.'
        ) %}
    {% endif %}
{% endmacro %}
