{%- set settings = daily_settings_json() -%}

with summaries as (

    {% for label_set, spec in daily_label_sets().items() %}
    {% set target = spec.targets[0] %}
    select
        '{{ label_set }}' as label_set,
        '{{ target }}' as main_target,
        count(*) as row_count,
        count({{ target }}) filter (where {{ spec.rows }}) as known_count,
        {% if spec.is_counted %}
        avg(({{ target }}::integer = 1)::integer)
            filter (where {{ spec.rows }}) as base_rate,
        {% else %}
        null::double as base_rate,
        {% endif %}
        min({{ spec.day }}) as first_trade_date,
        max({{ spec.day }}) as last_trade_date
    from {{ ref(label_set) }}
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

contents as (

    {% for label_set, spec in daily_label_sets().items() %}
    select
        '{{ label_set }}' as label_set,
        -- a sum over rows, so that their order does not matter
        md5(count(*) || ':' || coalesce(sum(hash(rows_read)::hugeint), 0)) as data_hash
    from (select {{ spec.hashed }} from {{ ref(label_set) }}) as rows_read
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select
    summaries.label_set,
    summaries.main_target,
    summaries.row_count,
    summaries.known_count,
    summaries.base_rate,
    summaries.first_trade_date,
    summaries.last_trade_date,
    sha256('{{ settings | replace("'", "''") }}') as settings_hash,
    contents.data_hash,
    '{{ settings | replace("'", "''") }}'::json as settings_json
from summaries
inner join contents using (label_set)
order by summaries.label_set
