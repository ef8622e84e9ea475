{%- set horizon = label_horizons().exit_labels -%}
{%- set adverse = setting('exit_adverse_move_bps') -%}

with samples as (

    {{ label_samples(['ret_15m_bps']) }}

),

long_paths as (

    {{ side_paths('LONG', horizon, ['stop_hit', 'future_return_bps', 'mae_bps']) }}

),

short_paths as (

    {{ side_paths('SHORT', horizon, ['stop_hit', 'mae_bps']) }}

),

paths as (

    select
        samples.*,
        long_paths.long_stop_hit,
        short_paths.short_stop_hit,
        long_paths.long_future_return_bps,
        long_paths.long_mae_bps,
        short_paths.short_mae_bps,
        {{ unless_unknown('greatest', ['long_mae_bps', 'short_mae_bps']) }} as path_risk_bps
    from samples
    inner join long_paths using (symbol, open_time_ms)
    inner join short_paths using (symbol, open_time_ms)

)

select
    sample_id,
    symbol,
    event_time,
    {% for side in ['long', 'short'] %}
    {{ flag(side ~ '_stop_hit = 1 or ' ~ side ~ '_mae_bps >= ' ~ adverse) }}
        as {{ side }}_exit_target,
    {% endfor %}
    long_mae_bps as long_adverse_move_bps,
    short_mae_bps as short_adverse_move_bps,
    {{ flag('path_risk_bps >= ' ~ adverse) }} as adverse_move_prob_label,
    -- an unknown past return counts as a reversal, as in the reference, unless history is required
    coalesce(
        sign(long_future_return_bps) <> sign(ret_15m_bps),
        {{ 'false' if label_settings().reversal_requires_history else 'true' }}
    )::tinyint as reversal_prob_label,
    (long_stop_hit = 1 or short_stop_hit = 1)::tinyint as stop_hit_prob_label,
    {{ flag('abs(long_future_return_bps) <= ' ~ setting('exit_stagnation_abs_return_bps')) }}
        as stagnation_prob_label,
    split_id,
    walk_forward_fold,
    {{ setting('label_version') }} as label_version
from paths
