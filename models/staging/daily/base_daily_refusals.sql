{#- Judges the optional sources a second time for what their staging models left out: few of them
    have rows at a time, and their models stay one line each. -#}
{% set present = [] %}
{% for name in daily_sources() %}
    {% if has_market_files(source('daily_market', name)) %}
        {% do present.append(name) %}
    {% endif %}
{% endfor %}

{% for name in present %}
select *
from (
    with {{ daily_source_verdicts(name) }}

    select
        '{{ name }}' as source_name,
        source_file,
        row_key,
        reject_reason,
        row_json
    from verdicts
    where reject_reason is not null or is_repeat
)
union all
{% endfor %}
select
    null::varchar as source_name,
    null::varchar as source_file,
    null::varchar as row_key,
    null::varchar as reject_reason,
    null::json as row_json
where false
