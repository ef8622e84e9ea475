-- a NaN or an infinity in a number of any optional daily source, all in one query
{% for name, spec in daily_sources().items() %}
    {% set numbers = [] %}
    {% for column, kind in spec['values'].items() if kind == 'double' %}
        {% do numbers.append('not isfinite(' ~ column ~ ')') %}
    {% endfor %}
    {% if numbers %}
select
    '{{ name }}' as source_name,
    count(*) as bad_rows
from {{ daily_relation(name) }}
where {{ numbers | join('\n    or ') }}
having count(*) > 0
union all
    {% endif %}
{% endfor %}
select
    null as source_name,
    0 as bad_rows
where false
