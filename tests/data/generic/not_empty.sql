{#- Fails when the model has no rows. With `delivered`, a source, only where the source has a file. -#}
{% test not_empty(model, delivered=none) %}

select 'no rows' as problem
where
    not exists (select 1 from {{ model }})
    {% if delivered is not none %}
    and {{ has_market_files(delivered) }}
    {% endif %}

{% endtest %}
