{%- set horizon = label_horizons().continue_labels -%}

with samples as (

    {{ label_samples(['spread_bps']) }}

),

long_paths as (

    {{ side_paths('LONG', horizon, ['future_return_bps', 'mae_bps']) }}

),

short_paths as (

    {{ side_paths('SHORT', horizon, ['future_return_bps', 'mae_bps']) }}

),

edges as (

    select
        samples.* exclude (spread_bps),
        long_paths.long_mae_bps,
        short_paths.short_mae_bps,
        long_paths.long_future_return_bps - {{ cost_bps('samples') }}
            as long_expected_continue_edge_bps,
        short_paths.short_future_return_bps - {{ cost_bps('samples') }}
            as short_expected_continue_edge_bps
    from samples
    inner join long_paths using (symbol, open_time_ms)
    inner join short_paths using (symbol, open_time_ms)

)

select
    sample_id,
    symbol,
    event_time,
    {% for side in ['long', 'short'] %}
    {{ flag(
        side ~ '_expected_continue_edge_bps >= ' ~ setting('continue_min_expected_edge_bps')
        ~ ' and ' ~ side ~ '_mae_bps < ' ~ setting('entry_stop_bps')
    ) }} as {{ side }}_continue_target,
    {% endfor %}
    long_expected_continue_edge_bps,
    short_expected_continue_edge_bps,
    split_id,
    walk_forward_fold,
    {{ setting('label_version') }} as label_version
from edges
