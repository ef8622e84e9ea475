with samples as (

    {{ label_samples(['spread_bps']) }}

),

paths as (

    select
        symbol,
        open_time_ms,
        side,
        target_hit,
        stop_hit,
        timeout_hit,
        ambiguous_hit,
        time_to_target_ms,
        time_to_stop_ms,
        gross_edge_bps,
        future_return_bps,
        mfe_bps,
        mae_bps
    from {{ ref('path_stats') }}
    where horizon_minutes = {{ setting('entry_max_hold_minutes') }}

),

price_plan as (

    select
        price_plan_id,
        price_plan_hash
    from {{ ref('price_plan') }}

),

edges as (

    select
        samples.* exclude (spread_bps),
        paths.* exclude (symbol, open_time_ms),
        {{ cost_bps('samples') }} as cost_bps,
        paths.mfe_bps - {{ cost_bps('samples') }} as max_achievable_net_edge_bps,
        paths.gross_edge_bps - {{ cost_bps('samples') }} as path_exit_net_edge_bps
    from samples
    inner join paths using (symbol, open_time_ms)

),

expected as (

    select
        *,
        {{ 'path_exit_net_edge_bps' if label_settings().entry_label_method == 'path_exit_v1'
            else 'max_achievable_net_edge_bps' }} as expected_net_edge_bps
    from edges

)

select
    ---------- keys
    expected.sample_id,
    expected.symbol,
    expected.event_time,
    expected.side,
    price_plan.price_plan_id,
    price_plan.price_plan_hash,

    ---------- path
    expected.target_hit,
    expected.stop_hit,
    expected.timeout_hit,
    expected.ambiguous_hit,
    expected.time_to_target_ms,
    expected.time_to_stop_ms,
    expected.gross_edge_bps,
    expected.future_return_bps,
    expected.mfe_bps,
    expected.mae_bps,

    ---------- edges
    expected.mfe_bps as max_achievable_gross_edge_bps,
    expected.max_achievable_net_edge_bps,
    expected.path_exit_net_edge_bps,
    expected.cost_bps,
    expected.expected_net_edge_bps,
    {{ flag('expected_net_edge_bps >= ' ~ setting('entry_min_expected_net_edge_bps')) }}
        as entry_target,

    ---------- provenance
    {{ setting('entry_label_method') }} as label_method,
    expected.split_id,
    expected.walk_forward_fold,
    {{ setting('label_version') }} as label_version
from expected
cross join price_plan
