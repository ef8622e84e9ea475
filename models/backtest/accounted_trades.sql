{{ config(materialized='table') }}

with trades as (

    select
        'label_edge' as accounting,
        split_id as eval_split,
        trade_index,
        sample_id,
        symbol,
        side,
        event_time as signal_time,
        event_time,
        direction_prob,
        entry_prob,
        market_risk_prob,
        predicted_edge_bps,
        actual_edge_bps,
        planned_ratio,
        weighted_edge_bps,
        threshold_hash
    from {{ ref('backtest_trades') }}
    union all
    select
        'executed' as accounting,
        eval_split,
        trade_index,
        position_id as sample_id,
        symbol,
        side,
        signal_time,
        closed_at as event_time,
        direction_prob,
        entry_prob,
        market_risk_prob,
        predicted_edge_bps,
        actual_edge_bps,
        planned_ratio,
        weighted_edge_bps,
        threshold_hash
    from {{ ref('executed_positions') }}

),

features as (

    select
        sample_id,
        realized_vol_60m_bps,
        spread_bps
    from {{ ref('minute_features') }}

),

regimes as (

    select
        volatility_regime,
        above_bps,
        up_to_bps
    from {{ ref('volatility_regimes') }}

),

sessions as (

    select
        hour_utc,
        session
    from {{ ref('trading_sessions') }}

)

select
    ---------- keys and order
    trades.accounting,
    trades.accounting = 'executed' as is_path_honest,
    trades.eval_split,
    trades.trade_index,
    row_number() over (
        partition by trades.accounting
        order by
            {{ split_order('trades.eval_split') }},
            trades.trade_index
    ) as run_index,
    trades.sample_id,
    trades.symbol,
    trades.side,
    trades.signal_time,
    trades.event_time,

    ---------- predictions
    trades.direction_prob,
    trades.entry_prob,
    trades.market_risk_prob,
    trades.predicted_edge_bps,

    ---------- result
    trades.actual_edge_bps,
    trades.planned_ratio,
    trades.weighted_edge_bps,
    trades.threshold_hash,

    ---------- market at the signal
    features.realized_vol_60m_bps,
    features.spread_bps,
    regimes.volatility_regime,
    sessions.session
from trades
left join features using (sample_id)
left join regimes
    on
        coalesce(features.realized_vol_60m_bps > regimes.above_bps, regimes.above_bps is null)
        and coalesce(features.realized_vol_60m_bps <= regimes.up_to_bps, regimes.up_to_bps is null)
        and features.realized_vol_60m_bps is not null
left join sessions on hour(trades.signal_time) = sessions.hour_utc
order by trades.accounting, run_index
