{{ config(materialized='view') }}

{% for label_set in event_label_sets() %}
select *
from {{ ref(label_set ~ '_events') }}
{{ 'union all' if not loop.last }}
{% endfor %}
