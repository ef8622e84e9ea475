{%- set settings = head_settings() -%}

{% for name in settings | sort %}
select
    '{{ name }}' as setting,
    '{{ tojson(settings[name], sort_keys=true) | replace("'", "''") }}' as value_json
{{ 'union all' if not loop.last }}
{%- endfor %}
order by setting
