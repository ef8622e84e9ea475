{{ config(materialized='table') }}

with worst as (

    select
        *,
        row_number() over (
            partition by accounting
            order by weighted_edge_bps nulls last, event_time, symbol, sample_id
        ) as failure_rank
    from {{ ref('accounted_trades') }}
    qualify failure_rank <= {{ acceptance_settings().backtest_failure_cases }}

),

labels as (

    select
        sample_id,
        side,
        mfe_bps,
        mae_bps,
        future_return_bps
    from {{ ref('entry_labels') }}

),

paths as (

    select
        sample_id,
        side,
        entry_time,
        entry_price,
        exit_time,
        exit_price,
        exit_reason,
        holding_minutes,
        net_edge_bps
    from {{ ref('executed_paths') }}

),

positions as (

    select
        position_id as sample_id,
        'executed' as accounting,
        opened_at,
        average_entry_price,
        closed_at,
        exit_price,
        exit_reason,
        holding_minutes,
        add_count,
        reduce_count
    from {{ ref('executed_positions') }}

)

select
    ---------- keys
    worst.accounting,
    worst.is_path_honest,
    worst.failure_rank,
    worst.eval_split,
    worst.trade_index,
    worst.sample_id,
    worst.symbol,
    worst.side,
    worst.signal_time,
    worst.event_time,

    ---------- what was expected
    worst.direction_prob,
    worst.entry_prob,
    worst.market_risk_prob,
    worst.predicted_edge_bps,

    ---------- what came
    worst.actual_edge_bps,
    worst.planned_ratio,
    worst.weighted_edge_bps,
    labels.mfe_bps,
    labels.mae_bps,
    labels.future_return_bps,
    paths.net_edge_bps as executed_net_bps,

    ---------- prices
    coalesce(positions.opened_at, paths.entry_time) as opened_at,
    coalesce(positions.average_entry_price, paths.entry_price) as entry_price,
    coalesce(positions.closed_at, paths.exit_time) as closed_at,
    coalesce(positions.exit_price, paths.exit_price) as exit_price,
    coalesce(positions.exit_reason, paths.exit_reason) as exit_reason,
    coalesce(positions.holding_minutes, paths.holding_minutes) as holding_minutes,
    positions.add_count,
    positions.reduce_count,

    ---------- market at the signal
    worst.realized_vol_60m_bps,
    worst.spread_bps,
    worst.volatility_regime,
    worst.session
from worst
left join labels using (sample_id, side)
left join paths using (sample_id, side)
left join positions using (sample_id, accounting)
order by worst.is_path_honest, worst.failure_rank
