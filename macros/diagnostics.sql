{#- Diagnostics: why a run trades or does not. -#}

{#- Quantiles and fractions that the tables show, ascending. -#}
{% macro diagnostic_points() %}
    {% do return({
        'return_quantiles': [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99],
        'edge_quantiles': [0.05, 0.5, 0.95],
        'score_quantiles': [0.0, 0.05, 0.5, 0.95, 1.0],
        'top_fractions': [0.01, 0.02, 0.05, 0.1],
    }) %}
{% endmacro %}


{#- The splits whose labels are summarised, in time order: the one that heads learn from and those
    that a run is judged on. -#}
{% macro diagnostic_splits() %}
    {% do return(['fit'] + evaluation_splits()) %}
{% endmacro %}


{#- Sort key that puts splits in time order. -#}
{% macro split_order(split_id='split_id') -%}
    list_position(
        ['{{ diagnostic_splits() | join("', '") }}'],
        {{ split_id }}
    )
{%- endmacro %}


{#- One row per split of `splits`, for a left join that keeps a split without rows. -#}
{% macro split_rows(splits) %}
    select unnest(
        ['{{ splits | join("', '") }}']
    ) as split_id
{%- endmacro %}


{#- The gates of `side` ('long' or 'short') one by one in the order of the funnel, each with its
    threshold: what side_gate asks all at once. -#}
{% macro funnel_gates(side, row='frame', limits='thresholds') %}
    {% set other = 'short' if side == 'long' else 'long' %}
    {% do return({
        'prob': {
            'threshold': side ~ '_open_prob',
            'condition': row ~ '.' ~ side ~ '_prob >= ' ~ limits ~ '.' ~ side ~ '_open_prob',
        },
        'margin': {
            'threshold': 'min_direction_margin',
            'condition': row ~ '.' ~ side ~ '_prob - ' ~ row ~ '.' ~ other ~ '_prob >= '
                ~ limits ~ '.min_direction_margin',
        },
        'entry': {
            'threshold': 'min_entry_prob',
            'condition': row ~ '.' ~ side ~ '_entry_prob >= ' ~ limits ~ '.min_entry_prob',
        },
        'risk': {
            'threshold': 'max_market_risk_prob',
            'condition': row ~ '.market_risk_prob <= ' ~ limits ~ '.max_market_risk_prob',
        },
        'edge': {
            'threshold': 'min_expected_edge_bps',
            'condition': row ~ '.pred_' ~ side ~ '_expected_net_edge_bps >= ' ~ limits
                ~ '.min_expected_edge_bps',
        },
    }) %}
{% endmacro %}


{#- Six decimals, halves to the even neighbour. -#}
{% macro six_decimals(expression) -%}
    round_even(({{ expression }}) * 1e6::double, 0) / 1e6::double
{%- endmacro %}


{#- Mean of the known values, in units of 2^-40: the same in any order of rows. -#}
{% macro exact_mean(column) -%}
    {{ from_fixed_point('sum(' ~ fixed_point(column) ~ ')') }} / count({{ column }})
{%- endmacro %}
