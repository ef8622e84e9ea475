{%- set horizon = label_horizons().risk_labels -%}
{%- set settings = label_settings() -%}
{%- set stop = setting('entry_stop_bps') -%}
{%- set drawdown = setting('risk_market_drawdown_bps') -%}

with samples as (

    {{ label_samples(['spread_bps', 'spread_rank_24h_pct', 'realized_vol_15m_bps']) }}

),

long_paths as (

    {{ side_paths('LONG', horizon, [
        'mfe_bps', 'mae_bps', 'future_spread_p80', 'future_realized_vol_bps',
    ]) }}

),

short_paths as (

    {{ side_paths('SHORT', horizon, ['mfe_bps', 'mae_bps']) }}

),

paths as (

    select
        samples.*,
        long_paths.long_mfe_bps,
        long_paths.long_mae_bps,
        long_paths.long_future_spread_p80 as future_spread_p80,
        short_paths.short_mfe_bps,
        short_paths.short_mae_bps,
        {{ unless_unknown('greatest', ['long_mae_bps', 'short_mae_bps']) }} as path_risk_bps,
        {{ unless_unknown('greatest', [
            'long_mfe_bps', 'short_mfe_bps', 'long_mae_bps', 'short_mae_bps',
        ]) }} as max_path_move_bps,
        greatest(coalesce(samples.realized_vol_15m_bps, 0), 1) as current_vol_bps,
        coalesce(long_paths.long_future_realized_vol_bps, 0) as future_vol_bps
    from samples
    inner join long_paths using (symbol, open_time_ms)
    inner join short_paths using (symbol, open_time_ms)

),

market_risk as (

    select
        *,
        {{ 'long_mae_bps' if settings.market_risk_mode == 'directional' else 'path_risk_bps' }}
            as market_path_risk_bps
    from paths

)

select
    sample_id,
    symbol,
    event_time,
    {{ flag('market_path_risk_bps >= ' ~ drawdown) }} as market_risk_target,
    market_path_risk_bps,
    long_mae_bps as long_position_path_risk_bps,
    short_mae_bps as short_position_path_risk_bps,
    {{ flag('long_mae_bps >= ' ~ stop) }} as long_position_risk_target,
    {{ flag('short_mae_bps >= ' ~ stop) }} as short_position_risk_target,
    {{ flag('market_path_risk_bps >= ' ~ drawdown) }} as market_drawdown_prob_label,
    {{ flag('future_vol_bps >= current_vol_bps * ' ~ setting('risk_vol_expansion_ratio')) }}
        as volatility_expansion_prob_label,
    {{ flag('max_path_move_bps >= ' ~ setting('risk_spike_bps')) }} as spike_prob_label,
    {% if settings.liquidity_deterioration_basis == 'future_spread' %}
    {{ flag('future_spread_p80 >= spread_bps * ' ~ setting('liquidity_deterioration_ratio')) }}
    {% else %}
    {{ flag('spread_rank_24h_pct >= ' ~ setting('liquidity_spread_rank_threshold_pct')) }}
    {% endif %}
        as liquidity_deterioration_prob_label,
    {{ flag('path_risk_bps >= ' ~ stop) }} as position_drawdown_prob_label,
    split_id,
    walk_forward_fold,
    {{ setting('label_version') }} as label_version
from market_risk
