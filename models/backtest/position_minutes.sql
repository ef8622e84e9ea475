{{ config(materialized='table') }}

with trades as (

    select
        sample_id,
        symbol,
        event_time,
        split_id,
        side,
        planned_ratio
    from {{ ref('backtest_trades') }}

),

bars as (

    select
        bar_id,
        symbol,
        event_time,
        open_time_ms,
        open,
        high,
        low,
        close
    from {{ ref('stg_minute_bars') }}
    where event_time >= (select min(trades.event_time) from trades)

),

minutes as materialized (

    select
        bars.*,
        directions.long_prob,
        directions.short_prob,
        entries.long_entry_prob,
        entries.short_entry_prob,
        entries.long_expected_net_edge_bps,
        entries.short_expected_net_edge_bps,
        risks.market_risk_prob,
        risks.long_position_risk_prob,
        risks.short_position_risk_prob,
        continues.long_continue_prob,
        continues.short_continue_prob,
        continues.long_expected_continue_edge_bps,
        continues.short_expected_continue_edge_bps,
        exits.long_exit_prob,
        exits.short_exit_prob,
        exits.long_expected_exit_edge_bps,
        exits.short_expected_exit_edge_bps
    from bars
    left join {{ ref('direction_predictions') }} as directions using (symbol, event_time)
    left join {{ ref('entry_predictions') }} as entries using (symbol, event_time)
    left join {{ ref('risk_predictions') }} as risks using (symbol, event_time)
    left join {{ ref('continue_predictions') }} as continues using (symbol, event_time)
    left join {{ ref('exit_predictions') }} as exits using (symbol, event_time)

),

signals as (

    select
        sample_id as position_id,
        symbol,
        event_time,
        split_id as eval_split,
        side,
        planned_ratio
    from trades

),

limits as (

    {{ execution_limits(ref('pm_config_settings')) }}

),

rules as materialized (

    {{ minute_rules('minutes', 'limits') }}

),

closings as (

    {{ held_minutes('signals', 'minutes', 'rules', 'limits', last_only=true) }}  -- noqa: PRS

),

episodes as (

    select
        signals.position_id,
        signals.symbol,
        signals.eval_split,
        epoch_ms(signals.event_time) // 60000 as signal_minute,
        closings.minute as closed_minute
    from signals
    inner join closings using (position_id)

),

taken as (

    {{ taken_episodes('episodes') }}

),

taken_signals as (

    select signals.*
    from signals
    inner join taken using (position_id)

),

held as (

    {{ held_minutes('taken_signals', 'minutes', 'rules', 'limits') }}

)

select
    ---------- keys and time
    held.position_id,
    held.minute_index,
    taken_signals.symbol,
    held.side,
    taken_signals.eval_split,
    make_timestamp(held.minute * 60000000) as event_time,

    ---------- order filled at the open
    held.order_kind,
    held.order_reason,
    make_timestamp(held.decided_minute * 60000000) as decided_at,
    held.order_price,

    ---------- position
    held.ratio_before,
    held.ratio,
    held.average_price,
    held.add_count,
    held.unrealized_bps,

    ---------- exit
    held.exit_reason,
    held.exit_price
from held
inner join taken_signals using (position_id)
order by taken_signals.symbol, event_time, held.position_id, held.minute_index
