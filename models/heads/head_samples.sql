with entry_labels as (

    select
        symbol,
        event_time,
        side,
        entry_target,
        expected_net_edge_bps
    from {{ ref('entry_labels') }}

)

select
    ---------- keys and time
    samples.*,

    ---------- direction
    directions.direction_label,

    ---------- entry
    {% for side in ['long', 'short'] %}
    {{ side }}_entries.entry_target as {{ side }}_entry_target,
    {{ side }}_entries.expected_net_edge_bps as actual_{{ side }}_expected_net_edge_bps,
    {% endfor %}

    ---------- risk
    risks.market_risk_target,
    risks.long_position_risk_target,
    risks.short_position_risk_target,

    ---------- continue
    {% for side in ['long', 'short'] %}
    continues.{{ side }}_continue_target,
    continues.{{ side }}_expected_continue_edge_bps
        as actual_{{ side }}_expected_continue_edge_bps,
    {% endfor %}

    ---------- exit: what closing now saves is the move against the position
    {% for side in ['long', 'short'] %}
    exits.{{ side }}_exit_target,
    exits.{{ side }}_adverse_move_bps as actual_{{ side }}_expected_exit_edge_bps
    {{- ',' if not loop.last }}
    {% endfor %}
from {{ ref('sample_keys') }} as samples
left join {{ ref('direction_labels') }} as directions using (symbol, event_time)
{% for side in ['long', 'short'] %}
left join entry_labels as {{ side }}_entries
    on
        samples.symbol = {{ side }}_entries.symbol
        and samples.event_time = {{ side }}_entries.event_time
        and {{ side }}_entries.side = '{{ side | upper }}'
{% endfor %}
left join {{ ref('risk_labels') }} as risks using (symbol, event_time)
left join {{ ref('continue_labels') }} as continues using (symbol, event_time)
left join {{ ref('exit_labels') }} as exits using (symbol, event_time)
