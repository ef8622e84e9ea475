{%- set points = diagnostic_points().score_quantiles -%}
{%- set columns = [
    'long_prob', 'short_prob', 'long_entry_prob', 'short_entry_prob', 'market_risk_prob',
    'pred_long_expected_net_edge_bps', 'pred_short_expected_net_edge_bps',
    'actual_long_expected_net_edge_bps', 'actual_short_expected_net_edge_bps',
] -%}

with frame as (

    select
        split_id,
        {% for column in columns %}
        {{ column }}::double as {{ column }} {{- ',' if not loop.last }}
        {% endfor %}
    from {{ ref('backtest_frame') }}

),

splits as (

    select
        split_id,
        {% for column in columns %}
        {
            'row_count': count(*) filter (where isfinite({{ column }})),
            'quantiles': quantile_cont({{ column }}, {{ points }}::double[])
                filter (where isfinite({{ column }}))
        } as {{ column }} {{- ',' if not loop.last }}
        {% endfor %}
    from frame
    group by split_id

),

distributions as (

    unpivot splits
    on columns(* exclude (split_id))
    into name column_name value distribution

),

unnested as (

    select
        split_id,
        column_name,
        distribution.row_count as finite_rows,
        unnest({{ points }}::double[]) as quantile,
        unnest(distribution.quantiles) as value
    from distributions

)

select
    split_id,
    column_name,
    quantile,
    {{ six_decimals('value') }} as value,
    finite_rows
from unnested
order by
    {{ split_order() }},
    list_position(
        [
            {% for column in columns %}
            '{{ column }}' {{- ',' if not loop.last }}
            {% endfor %}
        ],
        column_name
    ),
    quantile
