{{ config(materialized='table') }}

with trades as (

    select
        accounting,
        is_path_honest,
        eval_split,
        trade_index,
        run_index,
        sample_id,
        event_time,
        weighted_edge_bps
    from {{ ref('accounted_trades') }}

),

split_curves as (

    select
        * exclude (equity_bps, drawdown_bps),
        equity_bps as split_equity_bps,
        drawdown_bps as split_drawdown_bps
    from (
        {{ trades_with_equity('trades', ['accounting', 'eval_split']) }}
    )

),

run_curves as (

    {{ trades_with_equity('split_curves', ['accounting'], 'run_index') }}

)

select
    accounting,
    is_path_honest,
    eval_split,
    trade_index,
    run_index,
    sample_id,
    event_time,
    weighted_edge_bps,
    equity_bps,
    drawdown_bps,
    split_equity_bps,
    split_drawdown_bps
from run_curves
order by accounting, run_index
