{{ config(materialized='table') }}

{#- Search has counted the trades of tune_inner. In the sealed splits they are counted here, and
    nothing is chosen by them. -#}
{%- set splits = evaluation_splits() -%}

with candidates as (

    select *
    from {{ ref('pm_candidates') }}

),

frame as (

    select *
    from {{ ref('backtest_frame') }}

),

sealed_frame as (

    select *
    from frame
    where split_id <> '{{ splits[0] }}'

),

sealed_counts as (

    {{ pm_grid_additive('sealed_frame', 'candidates', ['split_id']) }}

),

counts as (

    select
        '{{ splits[0] }}' as split_id,
        candidate_id,
        trade_count
    from {{ ref('pm_grid_search') }}
    union all
    select
        split_id,
        candidate_id,
        trade_count
    from sealed_counts

),

split_candidates as (

    select
        splits.split_id,
        candidates.candidate_id,
        coalesce(counts.trade_count, 0) as trade_count
    from ({{ split_rows(splits) }}) as splits
    cross join candidates
    left join counts
        on
            splits.split_id = counts.split_id
            and candidates.candidate_id = counts.candidate_id

),

busiest as (

    select
        split_id,
        count(*) as candidate_count,
        count(*) filter (where trade_count > 0) as candidates_with_trade,
        first(candidate_id order by trade_count desc, candidate_id asc) as candidate_id
    from split_candidates
    group by split_id

),

{% for split_id in splits %}
{{ split_id }}_thresholds as (

    select candidates.*
    from candidates
    inner join busiest using (candidate_id)
    where busiest.split_id = '{{ split_id }}'

),

{{ split_id }}_frame as (

    select *
    from frame
    where split_id = '{{ split_id }}'

),

{{ split_id }}_trades as (

    {{ pm_trades(split_id ~ '_frame', split_id ~ '_thresholds') }}

),

{% endfor %}
trades as (

    {% for split_id in splits %}
    select *
    from {{ split_id }}_trades
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

metrics as (

    {{ trade_metrics('trades', ['split_id']) }}

),

executed as (

    select
        split_id,
        {{ exact_mean('executed_net_bps') }} as avg_executed_edge_bps
    from trades
    group by split_id

)

select
    busiest.split_id,
    busiest.candidate_count,
    busiest.candidates_with_trade,
    busiest.candidate_id,
    {% for axis in pm_axes() %}
    candidates.{{ axis }},
    {% endfor %}
    candidates.threshold_hash,
    {{ no_trades_are_zero() }},
    case when metrics.trade_count > 0 then executed.avg_executed_edge_bps else 0 end
        as avg_executed_edge_bps
from busiest
inner join candidates using (candidate_id)
left join metrics using (split_id)
left join executed using (split_id)
order by {{ split_order('busiest.split_id') }}
