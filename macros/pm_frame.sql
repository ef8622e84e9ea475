{#- Predictions beside what happened, one row per sample of `splits` that has all of them. Each basis
    is net of cost; the actual edge is the basis of var pm_edge_basis. -#}
{% macro pm_frame(splits) %}
{%- set basis = pm_settings().pm_edge_basis -%}
with entries as (

    select
        sample_id,
        side,
        entry_target,
        max_achievable_net_edge_bps as max_future_edge_net_bps,
        path_exit_net_edge_bps as gross_edge_net_bps,
        future_return_bps - cost_bps as future_return_net_bps
    from {{ ref('entry_labels') }}
    where split_id in ('{{ splits | join("', '") }}')

),

executed as (

    select
        sample_id,
        side,
        net_edge_bps as executed_net_bps
    from {{ ref('executed_paths') }}
    where split_id in ('{{ splits | join("', '") }}')

),

actual as (

    select
        entries.*,
        executed.executed_net_bps
    from entries
    left join executed using (sample_id, side)

)

select
    ---------- keys and time
    directions.sample_id,
    directions.symbol,
    directions.event_time,
    directions.split_id,

    ---------- predictions
    directions.long_prob,
    directions.short_prob,
    directions.neutral_prob,
    entry_predictions.long_entry_prob,
    entry_predictions.short_entry_prob,
    entry_predictions.long_expected_net_edge_bps as pred_long_expected_net_edge_bps,
    entry_predictions.short_expected_net_edge_bps as pred_short_expected_net_edge_bps,
    risks.market_risk_prob,
    risks.long_position_risk_prob,
    risks.short_position_risk_prob,

    ---------- what happened
    longs.{{ basis }}_net_bps as actual_long_expected_net_edge_bps,
    shorts.{{ basis }}_net_bps as actual_short_expected_net_edge_bps,
    longs.entry_target as long_entry_target,
    shorts.entry_target as short_entry_target,
    {% for side in ['long', 'short'] %}
    {% set last_side = loop.last %}
    {% for each in pm_edge_bases() %}
    {{ side }}s.{{ each }}_net_bps as {{ side }}_{{ each }}_net_bps
    {{- ',' if not (last_side and loop.last) }}
    {% endfor %}
    {% endfor %}
from {{ ref('direction_predictions') }} as directions
inner join {{ ref('entry_predictions') }} as entry_predictions using (sample_id)
inner join {{ ref('risk_predictions') }} as risks using (sample_id)
inner join actual as longs
    on directions.sample_id = longs.sample_id and longs.side = 'LONG'
inner join actual as shorts
    on directions.sample_id = shorts.sample_id and shorts.side = 'SHORT'
where directions.split_id in ('{{ splits | join("', '") }}')
order by directions.event_time, directions.symbol, directions.sample_id
{% endmacro %}


{#- Post-hook of a frame: stop when a split has no rows, and name it. -#}
{% macro require_splits(relation, splits) %}
    {% if execute and flags.WHICH in ['build', 'run'] %}
        {% set found = run_query('select distinct split_id from ' ~ relation).columns[0].values() %}
        {% for split_id in splits if split_id not in found %}
            {% do exceptions.raise_compiler_error(
                relation.schema ~ '.' ~ relation.identifier ~ " has no rows of split '" ~ split_id
                ~ "': no sample of it has direction, entry and risk predictions and entry labels. "
                ~ 'Look at factors.split_boundaries and labels.label_distribution; more days of bars or other '
                ~ 'split_*_start vars help.'
            ) %}
        {% endfor %}
    {% endif %}
{% endmacro %}
