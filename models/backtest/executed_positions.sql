{{ config(materialized='table') }}

with trades as (

    select
        sample_id as position_id,
        symbol,
        side,
        split_id as eval_split,
        event_time as signal_time,
        direction_prob,
        entry_prob,
        market_risk_prob,
        predicted_edge_bps,
        threshold_hash
    from {{ ref('backtest_trades') }}

),

events as (

    select
        position_id,
        event_index,
        event_kind,
        reason,
        executed_at,
        price,
        ratio_change,
        ratio_after,
        pnl_bps,
        cost_bps
    from {{ ref('position_events') }}

),

held as (

    select
        position_id,
        count(*) filter (where ratio > 0) as holding_minutes,
        arg_max(average_price, minute_index) as average_entry_price
    from {{ ref('position_minutes') }}
    group by position_id

),

positions as (

    select
        position_id,
        max(executed_at) filter (where event_kind = 'open') as opened_at,
        max(executed_at) filter (where event_kind = 'close') as closed_at,
        max(price) filter (where event_kind = 'open') as entry_price,
        max(price) filter (where event_kind = 'close') as exit_price,
        max(reason) filter (where event_kind = 'close') as exit_reason,
        count(*) filter (where event_kind = 'add') as add_count,
        count(*) filter (where event_kind = 'reduce') as reduce_count,
        max(ratio_change) filter (where event_kind = 'open') as initial_ratio,
        max(ratio_after) as peak_ratio,
        -- ordered sums: the same to the last bit on any number of threads
        sum(ratio_change order by event_index) filter (where ratio_change > 0) as traded_ratio,
        sum(pnl_bps order by event_index) as gross_pnl_bps,
        sum(cost_bps order by event_index) as cost_bps
    from events
    group by position_id

),

earned as (

    select
        *,
        gross_pnl_bps - cost_bps as weighted_edge_bps
    from positions

)

select
    ---------- keys and time
    trades.position_id,
    trades.symbol,
    trades.side,
    trades.eval_split,
    trades.signal_time,
    earned.opened_at,
    earned.closed_at,

    ---------- the way
    earned.entry_price,
    held.average_entry_price,
    earned.exit_price,
    earned.exit_reason,
    held.holding_minutes,
    earned.add_count,
    earned.reduce_count,

    ---------- size
    earned.initial_ratio,
    earned.peak_ratio,
    earned.traded_ratio,

    ---------- money
    earned.gross_pnl_bps,
    earned.cost_bps,
    earned.weighted_edge_bps,

    ---------- as a trade of the metrics
    earned.weighted_edge_bps / earned.traded_ratio as actual_edge_bps,
    earned.traded_ratio as planned_ratio,
    row_number() over (
        partition by trades.eval_split order by earned.closed_at, trades.symbol, trades.position_id
    ) as trade_index,
    trades.direction_prob,
    trades.entry_prob,
    trades.market_risk_prob,
    trades.predicted_edge_bps,
    trades.threshold_hash
from earned
inner join held using (position_id)
inner join trades using (position_id)
order by trades.eval_split, trade_index
