{#- Fails for each of `columns` that holds a NULL, with the count. Columns of a key are tested by
    unique_combination already. -#}
{% test known_columns(model, columns) %}

select column_name, null_count
from (
    select
        {% for column in columns %}
        count(*) - count({{ column }}) as {{ column }} {{- ',' if not loop.last }}
        {% endfor %}
    from {{ model }}
)
unpivot (null_count for column_name in ({{ columns | join(', ') }}))
where null_count > 0

{% endtest %}
