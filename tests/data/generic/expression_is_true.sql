{#- Fails for rows where `expression` is false or unknown; `where` narrows the rows looked at. -#}
{% test expression_is_true(model, expression, where='true') %}

select *
from {{ model }}
where ({{ where }}) and not coalesce({{ expression }}, false)

{% endtest %}
