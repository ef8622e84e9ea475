{#- Fails for an event that starts on or before the peak of the stock's event before it. -#}
{% test no_overlapping_events(model) %}

select *
from {{ model }}
qualify event_date <= lag(peak_date) over (partition by ts_code order by event_date)

{% endtest %}
