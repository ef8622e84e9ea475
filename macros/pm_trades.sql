{#- Rules of the position manager: gates, choice of side, size. `row` is the alias of a frame's rows, `limits`
    of the thresholds. A comparison with an unknown value fails. -#}

{#- True where every gate of `side` ('long' or 'short') holds. -#}
{% macro side_gate(side, row='frame', limits='thresholds') -%}
    {%- set other = 'short' if side == 'long' else 'long' -%}
    coalesce(
        {{ row }}.{{ side }}_prob >= {{ limits }}.{{ side }}_open_prob
        and {{ row }}.{{ side }}_prob - {{ row }}.{{ other }}_prob >= {{ limits }}.min_direction_margin
        and {{ row }}.{{ side }}_entry_prob >= {{ limits }}.min_entry_prob
        and {{ row }}.market_risk_prob <= {{ limits }}.max_market_risk_prob
        and {{ row }}.pred_{{ side }}_expected_net_edge_bps >= {{ limits }}.min_expected_edge_bps,
        false
    )
{%- endmacro %}


{#- True where LONG is preferred when both gates hold: its score is at least SHORT's. -#}
{% macro prefers_long(row='frame') -%}
    {%- set weight -%} {{ pm_settings().pm_direction_weight_bps }}::double {%- endset -%}
    coalesce(
        {{ row }}.pred_long_expected_net_edge_bps + ({{ row }}.long_prob - {{ row }}.short_prob) * {{ weight }}
        >= {{ row }}.pred_short_expected_net_edge_bps + ({{ row }}.short_prob - {{ row }}.long_prob) * {{ weight }},
        false
    )
{%- endmacro %}


{#- Share of full notional: edge strength x risk discount, between the least and the greatest ratio. -#}
{% macro planned_ratio(predicted_edge_bps, market_risk_prob, min_expected_edge_bps) -%}
    {%- set settings = pm_settings() -%}
    least(
        greatest(
            least(
                greatest(
                    ({{ predicted_edge_bps }} - {{ min_expected_edge_bps }}) / {{ settings.pm_edge_scale_bps }}::double,
                    0::double
                ),
                {{ settings.pm_edge_strength_cap }}::double
            ) * least(greatest(1 - {{ market_risk_prob }}, 0::double), 1::double),
            {{ settings.pm_min_planned_ratio }}::double
        ),
        {{ settings.pm_max_planned_ratio }}::double
    )
{%- endmacro %}


{#- Trades that thresholds (a relation of one row) admit in a frame, one row per trade. -#}
{% macro pm_trades(frame, thresholds) %}
with admitted as (

    select
        frame.*,
        thresholds.min_expected_edge_bps,
        thresholds.threshold_hash,
        {{ side_gate('long') }} as is_long_open,
        {{ side_gate('short') }} as is_short_open,
        {{ prefers_long() }} as prefers_long
    from {{ frame }} as frame
    cross join {{ thresholds }} as thresholds

),

sided as (

    select
        *,
        case
            when is_long_open and (not is_short_open or prefers_long) then 'LONG'
            when is_short_open then 'SHORT'
        end as side
    from admitted

),

trades as (

    select
        sample_id,
        symbol,
        event_time,
        split_id,
        side,
        {% for column, long, short in [
            ('direction_prob', 'long_prob', 'short_prob'),
            ('entry_prob', 'long_entry_prob', 'short_entry_prob'),
            ('predicted_edge_bps', 'pred_long_expected_net_edge_bps', 'pred_short_expected_net_edge_bps'),
            ('actual_edge_bps', 'actual_long_expected_net_edge_bps', 'actual_short_expected_net_edge_bps'),
            ('entry_target', 'long_entry_target', 'short_entry_target'),
        ] %}
        case when side = 'LONG' then {{ long }} else {{ short }} end as {{ column }},
        {% endfor %}
        {% for basis in pm_edge_bases() %}
        case when side = 'LONG' then long_{{ basis }}_net_bps else short_{{ basis }}_net_bps end
            as {{ basis }}_net_bps,
        {% endfor %}
        market_risk_prob,
        min_expected_edge_bps,
        threshold_hash
    from sided
    where side is not null

),

sized as (

    select
        *,
        {{ planned_ratio('predicted_edge_bps', 'market_risk_prob', 'min_expected_edge_bps') }}
            as planned_ratio
    from trades

)

select
    sample_id,
    symbol,
    event_time,
    split_id,
    side,
    direction_prob,
    entry_prob,
    market_risk_prob,
    predicted_edge_bps,
    actual_edge_bps,
    entry_target,
    planned_ratio,
    actual_edge_bps * planned_ratio as weighted_edge_bps,
    threshold_hash,
    row_number() over (partition by split_id order by event_time, symbol, sample_id) as trade_index,
    {% for basis in pm_edge_bases() %}
    {{ basis }}_net_bps {{- ',' if not loop.last }}
    {% endfor %}
from sized
order by split_id, trade_index
{% endmacro %}
