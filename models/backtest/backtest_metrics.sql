{{ config(materialized='table') }}

with accountings (accounting, is_path_honest) as (

    values
    {% for accounting, is_path_honest in accountings().items() %}
    ('{{ accounting }}', {{ is_path_honest | lower }}) {{- ',' if not loop.last }}
    {% endfor %}

),

scopes (position, eval_split, is_sealed, member_split) as (

    values
    {% for scope, splits in acceptance_scopes().items() %}
    {% set position = loop.index %}
    {% set is_sealed = evaluation_splits()[0] not in splits %}
    {% set last_scope = loop.last %}
    {% for split_id in splits %}
    ({{ position }}, '{{ scope }}', {{ is_sealed | lower }}, '{{ split_id }}')
    {{- ',' if not (last_scope and loop.last) }}
    {% endfor %}
    {% endfor %}

),

trades as (

    select
        trades.accounting,
        scopes.eval_split,
        trades.run_index,
        trades.actual_edge_bps,
        trades.planned_ratio,
        trades.weighted_edge_bps
    from {{ ref('accounted_trades') }} as trades
    inner join scopes on trades.eval_split = scopes.member_split

),

metrics as (

    {{ trade_metrics('trades', ['accounting', 'eval_split'], 'run_index') }}

),

judged as (

    select distinct
        accountings.accounting,
        accountings.is_path_honest,
        scopes.eval_split,
        scopes.is_sealed,
        scopes.position
    from accountings
    cross join scopes

)

select
    judged.accounting,
    judged.is_path_honest,
    judged.eval_split,
    judged.is_sealed,
    {{ no_trades_are_zero('metrics') }}
from judged
left join metrics using (accounting, eval_split)
order by
    judged.is_path_honest,
    judged.position
