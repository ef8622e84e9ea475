{#- Fails when a floating-point column of the model holds a NaN or an infinity. NULL means unknown and
    passes. Columns are read from the relation, so a new one is tested from its first day. -#}
{% test finite_columns(model) %}

{%- set floats = [] -%}
{%- if execute -%}
    {%- for column in adapter.get_columns_in_relation(model) if column.dtype | upper in ['DOUBLE', 'FLOAT'] -%}
        {%- do floats.append(column.name) -%}
    {%- endfor -%}
{%- endif %}

select column_name, bad_count
from (
    select
        {% for name in floats %}
        count(*) filter (where not isfinite({{ name }})) as {{ name }},
        {% endfor %}
        0::bigint as no_float_columns
    from {{ model }}
)
unpivot (bad_count for column_name in ({{ (floats + ['no_float_columns']) | join(', ') }}))
where bad_count > 0

{% endtest %}
