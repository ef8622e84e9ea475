{{ config(materialized='table') }}

{#- What the frozen config would have traded with the previous direction model, beside what it
    traded. All but the direction probabilities is the same: entry, risk and edge predictions,
    thresholds, actual edges. -#}
{%- set judged = 'validation_locked' -%}
{%- set compared = [
    'trade_count', 'avg_actual_edge_bps', 'avg_weighted_edge_bps', 'total_weighted_edge_bps',
] -%}

with eval_splits as (

    {% for split_id in evaluation_splits() %}
    select
        {{ loop.index }} as split_number,
        '{{ split_id }}' as eval_split
    union all
    {% endfor %}
    select
        {{ evaluation_splits() | length + 1 }} as split_number,
        'combined' as eval_split

),

baseline_models as (

    select
        model_id,
        valid_from_ms,
        refusal
    from {{ ref('previous_direction_model') }}

),

predicted_rows as (

    select
        frame.* exclude (long_prob, short_prob, neutral_prob),
        baseline.long_prob,
        baseline.short_prob,
        baseline.neutral_prob,
        baseline.is_out_of_sample
    from {{ ref('backtest_frame') }} as frame
    left join {{ ref('previous_direction_predictions') }} as baseline
        on frame.sample_id = baseline.sample_id

),

split_rows as (

    select
        coalesce(split_id, 'combined') as eval_split,
        count(*) as row_count,
        count(long_prob) as baseline_row_count,
        count(long_prob) filter (where not is_out_of_sample) as baseline_in_sample_row_count
    from predicted_rows
    group by rollup(split_id)

),

baseline_trades as (

    {{ pm_trades('predicted_rows', ref('pm_config')) }}

),

numbered_trades as (

    select
        baseline_trades.*,
        eval_splits.split_number
    from baseline_trades
    inner join eval_splits on baseline_trades.split_id = eval_splits.eval_split

),

trades_of_splits as (

    select
        * exclude (split_id),
        split_id as eval_split
    from numbered_trades
    union all by name
    select
        * exclude (split_id),
        'combined' as eval_split
    from numbered_trades

),

baseline_metrics as (

    {{ trade_metrics('trades_of_splits', ['eval_split'], 'split_number, trade_index') }}

),

shared_trades as (

    select
        coalesce(trades.split_id, 'combined') as eval_split,
        count(*) as shared_trade_count
    from {{ ref('backtest_trades') }} as trades
    inner join baseline_trades using (sample_id, side)
    group by rollup(trades.split_id)

),

baselines as (

    select
        eval_splits.split_number,
        eval_splits.eval_split,
        coalesce(split_rows.row_count, 0) as row_count,
        coalesce(split_rows.baseline_row_count, 0) as baseline_row_count,
        coalesce(split_rows.baseline_in_sample_row_count, 0) as baseline_in_sample_row_count,
        coalesce(shared_trades.shared_trade_count, 0) as shared_trade_count,
        {{ no_trades_are_zero('metrics') }}
    from eval_splits
    left join split_rows using (eval_split)
    left join shared_trades using (eval_split)
    left join baseline_metrics as metrics using (eval_split)

),

judged_split as (

    select
        baseline_models.model_id,
        baseline_models.valid_from_ms,
        baselines.baseline_in_sample_row_count > 0 as baseline_is_flattered,
        coalesce(
            baseline_models.refusal,
            case
                when baselines.baseline_row_count = 0
                    then
                        'The previous model of direction predicts no row of {{ judged }}: in each '
                        || 'a feature is unknown that never was when it learned.'
            end
        ) as refusal,
        -- beyond nine decimals a difference of sums is rounding
        round(present.total_weighted_edge_bps - baselines.total_weighted_edge_bps, 9)
            as gain_bps
    from baselines
    inner join {{ ref('backtest_metrics') }} as present using (eval_split)
    cross join baseline_models
    where eval_split = '{{ judged }}' and present.accounting = 'label_edge'

),

statuses as (

    select
        model_id,
        valid_from_ms,
        refusal is null as has_baseline,
        case
            when refusal is not null then 'NO_BASELINE'
            when gain_bps > 0 then 'BETTER'
            when gain_bps < 0 then 'WORSE'
            else 'EQUAL'
        end as status,
        coalesce(
            refusal,
            case
                when gain_bps > 0 then 'The present model earns more'
                when gain_bps < 0 then 'The previous model earns more'
                else 'Both models earn the same'
            end
            || ' in total on {{ judged }}.'
            || case
                when baseline_is_flattered
                    then ' The previous model learned from rows of that time, which flatters it.'
                else ''
            end
        ) as reason
    from judged_split

)

select
    ---------- verdict
    baselines.eval_split,
    statuses.status,
    statuses.reason,
    statuses.model_id as baseline_model_id,
    make_timestamp(statuses.valid_from_ms * 1000) as baseline_valid_from,

    ---------- rows
    baselines.row_count,
    {% for name in ['baseline_row_count', 'baseline_in_sample_row_count', 'shared_trade_count'] %}
    case when statuses.has_baseline then baselines.{{ name }} end as {{ name }},
    {% endfor %}

    ---------- present model
    {% for name in trade_metric_names() %}
    present.{{ name }},
    {% endfor %}

    ---------- previous model
    {% for name in trade_metric_names() %}
    case when statuses.has_baseline then baselines.{{ name }} end as baseline_{{ name }},
    {% endfor %}

    ---------- present less previous
    {% for name in compared %}
    case when statuses.has_baseline then present.{{ name }} - baselines.{{ name }} end
        as {{ name }}_difference {{- ',' if not loop.last }}
    {% endfor %}
from baselines
inner join {{ ref('backtest_metrics') }} as present using (eval_split)
cross join statuses
where present.accounting = 'label_edge'
order by baselines.split_number
