{#- Fails when one of `columns` holds anything but 0 and 1. -#}
{% test binary_columns(model, columns) %}

select {{ columns | join(', ') }}
from {{ model }}
where
    {% for column in columns %}
    {{ column }} is null or {{ column }} not in (0, 1) {{ 'or' if not loop.last }}
    {% endfor %}

{% endtest %}
