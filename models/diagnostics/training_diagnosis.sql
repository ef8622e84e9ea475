{#- Search reads tune_inner alone, and so does the conclusion. -#}
{%- set split_id = evaluation_splits()[0] -%}

with edge_gates as (

    select
        coalesce(sum(rows_passing_gate) filter (where side = 'LONG'), 0)::bigint
            as long_rows_passing_edge,
        coalesce(sum(rows_passing_gate) filter (where side = 'SHORT'), 0)::bigint
            as short_rows_passing_edge
    from {{ ref('gate_funnel') }}
    where split_id = '{{ split_id }}' and gate = 'edge'

),

variants as (

    select
        position,
        variant,
        avg_actual_edge_bps,
        avg_executed_edge_bps
    from {{ ref('relaxed_variants') }}
    where split_id = '{{ split_id }}' and row_count > 0

),

relaxed as (

    select
        first(variant order by avg_actual_edge_bps desc, position asc)
            filter (where avg_actual_edge_bps is not null) as best_relaxed_variant,
        max(avg_actual_edge_bps) as best_relaxed_avg_actual_edge_bps,
        max(avg_executed_edge_bps) as best_relaxed_avg_executed_edge_bps
    from variants

),

facts as (

    select
        *,
        long_rows_passing_edge + short_rows_passing_edge > 0 as passes_edge_gate,
        coalesce(best_relaxed_avg_actual_edge_bps > 0, false) as earns_relaxed,
        coalesce(best_relaxed_avg_executed_edge_bps > 0, false) as earns_relaxed_executed
    from edge_gates
    cross join relaxed

),

decided as (

    select
        *,
        {% for name, earns in {
            'status': 'earns_relaxed', 'executed_status': 'earns_relaxed_executed'
        }.items() %}
        case
            when passes_edge_gate then 'NEEDS_MANUAL_REVIEW'
            when {{ earns }} then 'ENTRY_EDGE_GATE_BLOCKED'
            else 'MODEL_SIGNAL_NOT_TRADABLE'
        end as {{ name }} {{- ',' if not loop.last }}
        {% endfor %}
    from facts

)

select
    decided.status,
    decided.long_rows_passing_edge,
    decided.short_rows_passing_edge,
    decided.best_relaxed_variant,
    decided.best_relaxed_avg_actual_edge_bps,
    decided.best_relaxed_avg_executed_edge_bps,
    decided.executed_status,
    conclusions.reason_en,
    conclusions.next_action_en,
    conclusions.reason_zh,
    conclusions.next_action_zh
from decided
left join {{ ref('diagnostic_conclusions') }} as conclusions using (status)
