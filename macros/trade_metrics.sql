{#- Metrics of ordered trades. A trade of unknown edge counts as a trade and as no win; sums and averages skip it,
    and it ends a run of losses. -#}

{#- The nine metrics in their order. -#}
{% macro trade_metric_names() %}
    {% do return([
        'trade_count', 'win_rate', 'avg_actual_edge_bps', 'avg_weighted_edge_bps', 'total_weighted_edge_bps',
        'max_drawdown_bps', 'avg_planned_ratio', 'profit_factor', 'max_consecutive_losses',
    ]) %}
{% endmacro %}


{#- Trades with their running sum and what it lies below its maximum so far, per key. The maximum starts at the
    first trade's own sum, with pm_drawdown_from_zero at 0. -#}
{% macro trades_with_equity(trades, keys, order_by='trade_index') %}
    {%- set highest = 'max(equity_bps) over so_far' -%}
    select
        *,
        {{ 'greatest(' ~ highest ~ ', 0::double)' if pm_settings().pm_drawdown_from_zero else highest }}
            - equity_bps as drawdown_bps
    from (
        select
            *,
            sum(weighted_edge_bps) over so_far as equity_bps
        from {{ trades }}
        window so_far as (
            partition by {{ keys | join(', ') }} order by {{ order_by }}
            rows between unbounded preceding and current row
        )
    )
    window so_far as (
        partition by {{ keys | join(', ') }} order by {{ order_by }}
        rows between unbounded preceding and current row
    )
{% endmacro %}


{#- One row per key that has trades: the nine metrics of `trades`, which has weighted_edge_bps, actual_edge_bps,
    planned_ratio, the keys and a total order per key. -#}
{% macro trade_metrics(trades, keys, order_by='trade_index') %}
    {%- set key_list = keys | join(', ') -%}
    with curve as (

        {{ trades_with_equity(trades, keys, order_by) }}

    ),

    runs as (

        select
            *,
            -- losses between two trades that are none share this count
            -- (a filtered window count costs thirty times as much)
            count(case when coalesce(weighted_edge_bps >= 0, true) then 1 end) over (
                partition by {{ key_list }} order by {{ order_by }}
                rows between unbounded preceding and current row
            ) as run_number
        from curve

    ),

    run_lengths as (

        select
            *,
            count(case when weighted_edge_bps < 0 then 1 end) over (
                partition by {{ key_list }}, run_number
            ) as run_losses
        from runs

    )

    select
        {{ key_list }},
        count(*) as trade_count,
        count(*) filter (where actual_edge_bps > 0) / count(*)::double as win_rate,
        {# ordered sums: the same to the last bit on any number of threads #}
        sum(actual_edge_bps order by {{ order_by }}) / count(actual_edge_bps) as avg_actual_edge_bps,
        sum(weighted_edge_bps order by {{ order_by }}) / count(weighted_edge_bps) as avg_weighted_edge_bps,
        coalesce(sum(weighted_edge_bps order by {{ order_by }}), 0) as total_weighted_edge_bps,
        coalesce(max(drawdown_bps), 0) as max_drawdown_bps,
        sum(planned_ratio order by {{ order_by }}) / count(planned_ratio) as avg_planned_ratio,
        case
            when count(*) filter (where weighted_edge_bps < 0) = 0 then 'inf'::double
            else coalesce(sum(weighted_edge_bps order by {{ order_by }}) filter (where weighted_edge_bps > 0), 0)
                / -sum(weighted_edge_bps order by {{ order_by }}) filter (where weighted_edge_bps < 0)
        end as profit_factor,
        max(run_losses) as max_consecutive_losses
    from run_lengths
    group by {{ key_list }}
{% endmacro %}


{#- The nine metrics of alias `metrics`, 0 where a left join found no trades. -#}
{% macro no_trades_are_zero(metrics='metrics') -%}
    {%- for name in trade_metric_names() %}
    case when {{ metrics }}.trade_count is null then 0 else {{ metrics }}.{{ name }} end as {{ name }}
    {{- ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{#- A number as JSON: as Python's json writes it, null where it is unknown or not finite. -#}
{% macro json_number(expression) -%}
    case when isfinite(({{ expression }})::double) then ({{ expression }})::varchar else 'null' end
{%- endmacro %}
