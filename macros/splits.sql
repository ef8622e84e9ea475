{#- Splits by time. A boundary is the first minute (epoch ms) of a split; rows whose longest label
    window reaches the boundary are purged, rows within the embargo after it are dropped. -#}

{#- The three boundaries in order as {split_id: start}, checked: fractions of the bars or dates. -#}
{% macro split_starts() %}
    {% set starts = {
        'tune_inner': var('split_tune_start'),
        'validation_locked': var('split_validation_start'),
        'latest_stress': var('split_stress_start'),
    } %}
    {% set kinds = [] %}
    {% for split_id, start in starts.items() %}
        {% if start is number and start is not boolean %}
            {% if start <= 0 or start >= 1 %}
                {% do exceptions.raise_compiler_error(
                    'the start of split ' ~ split_id ~ ' is ' ~ start ~ ', expected a fraction of the bars '
                    ~ "between 0 and 1 or a UTC date such as '2025-06-01'"
                ) %}
            {% endif %}
            {% do kinds.append('fraction') %}
        {% else %}
            {% if not modules.re.fullmatch('[0-9]{4}-[0-9]{2}-[0-9]{2}([ T][0-9]{2}:[0-9]{2}(:[0-9]{2})?)?', start | string) %}
                {% do exceptions.raise_compiler_error(
                    'the start of split ' ~ split_id ~ " is '" ~ start ~ "', expected a UTC date or timestamp "
                    ~ "such as '2025-06-01' or '2025-06-01 12:00'"
                ) %}
            {% endif %}
            {% do kinds.append('date') %}
        {% endif %}
    {% endfor %}
    {% set values = starts.values() | list %}
    {% if kinds | unique | list | length == 1 and values != values | sort %}
        {% do exceptions.raise_compiler_error(
            'split starts are ' ~ values | join(', ') ~ ', expected ascending: tune_inner, validation_locked, latest_stress'
        ) %}
    {% endif %}
    {% do return(starts) %}
{% endmacro %}


{#- A boundary as epoch ms: the bar at a fraction of all bars, or a date. -#}
{% macro split_start_ms(start, open_time_ms) -%}
    {%- if start is number -%}
        quantile_disc({{ open_time_ms }}, {{ start }}::double)
    {%- else -%}
        max(epoch_ms('{{ start }}'::timestamp))
    {%- endif -%}
{%- endmacro %}


{#- True when a row's longest label window [t, t + horizon] reaches the boundary, or when the row
    lies within the embargo after it. -#}
{% macro touches_boundary(open_time_ms, boundary_ms) -%}
    {%- set purge_ms = longest_label_horizon_minutes() * 60000 -%}
    {%- set embargo_ms = var('split_embargo_minutes') * 60000 -%}
    coalesce(
        {{ open_time_ms }} >= {{ boundary_ms }} - {{ purge_ms }} and {{ open_time_ms }} < {{ boundary_ms }} + {{ embargo_ms }},
        false
    )
{%- endmacro %}
