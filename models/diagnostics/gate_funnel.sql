{%- set gates = funnel_gates('long').keys() | list -%}

with frame as (

    select
        split_id,
        long_prob,
        short_prob,
        long_entry_prob,
        short_entry_prob,
        market_risk_prob,
        pred_long_expected_net_edge_bps,
        pred_short_expected_net_edge_bps,
        actual_long_expected_net_edge_bps,
        actual_short_expected_net_edge_bps,
        long_executed_net_bps,
        short_executed_net_bps
    from {{ ref('backtest_frame') }}

),

thresholds as (

    select *
    from {{ ref('diagnostic_gates') }}

),

gated as (

    {% for side in ['long', 'short'] %}
    select
        frame.split_id,
        '{{ side | upper }}' as side,
        frame.actual_{{ side }}_expected_net_edge_bps as actual_edge_bps,
        frame.{{ side }}_executed_net_bps as executed_edge_bps,
        {% for gate, rule in funnel_gates(side).items() %}
        thresholds.{{ rule.threshold }} as {{ gate }}_threshold,
        coalesce({{ rule.condition }}, false) as passes_{{ gate }} {{- ',' if not loop.last }}
        {% endfor %}
    from frame
    cross join thresholds
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

-- gates that a row passes before the first that stops it
depths as (

    select
        *,
        case
            {% for gate in gates %}
            when not passes_{{ gate }} then {{ loop.index0 }}
            {% endfor %}
            else {{ gates | length }}
        end as depth
    from gated

),

by_depth as (

    select
        split_id,
        side,
        depth,
        count(*) as row_count,
        {% for gate in gates %}
        any_value({{ gate }}_threshold) as {{ gate }}_threshold,
        count(*) filter (where passes_{{ gate }}) as {{ gate }}_rows,
        {% endfor %}
        count(actual_edge_bps) as actual_rows,
        count(executed_edge_bps) as executed_rows,
        sum({{ fixed_point('actual_edge_bps') }}) as actual_units,
        sum({{ fixed_point('executed_edge_bps') }}) as executed_units
    from depths
    group by split_id, side, depth

),

funnel as (

    {% for gate in gates %}
    {% set reached = 'filter (where depth >= ' ~ loop.index ~ ')' %}
    select
        split_id,
        side,
        {{ loop.index }} as position,
        '{{ gate }}' as gate,
        any_value({{ gate }}_threshold) as threshold,
        sum(row_count)::bigint as row_count,
        sum({{ gate }}_rows)::bigint as rows_passing_gate,
        coalesce(sum(row_count) {{ reached }}, 0)::bigint as rows_after_gate,
        {% for edge in ['actual', 'executed'] %}
        {{ from_fixed_point('sum(' ~ edge ~ '_units) ' ~ reached) }}
            / sum({{ edge }}_rows) {{ reached }}
            as avg_{{ edge }}_edge_bps {{- ',' if not loop.last }}
        {% endfor %}
    from by_depth
    group by split_id, side
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select
    split_id,
    side,
    position,
    gate,
    threshold,
    row_count,
    rows_passing_gate,
    rows_passing_gate / row_count::double as passing_share,
    rows_after_gate,
    rows_after_gate / row_count::double as remaining_share,
    avg_actual_edge_bps,
    avg_executed_edge_bps
from funnel
order by {{ split_order() }}, side, position
