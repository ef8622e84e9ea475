{{ config(materialized='table') }}

with regimes as (

    select
        accounting,
        is_path_honest,
        eval_split,
        trade_index,
        actual_edge_bps,
        planned_ratio,
        weighted_edge_bps,
        unnest(['side', 'symbol', 'volatility', 'session', 'weekday', 'month']) as regime_kind,
        unnest([
            side,
            symbol,
            coalesce(volatility_regime, 'unknown'),
            coalesce(session, 'unknown'),
            dayname(signal_time),
            strftime(signal_time, '%Y-%m')
        ]) as regime
    from {{ ref('accounted_trades') }}

),

keys as (

    select
        accounting,
        is_path_honest,
        eval_split,
        regime_kind,
        regime,
        row_number() over (order by accounting, eval_split, regime_kind, regime) as regime_number
    from regimes
    group by accounting, is_path_honest, eval_split, regime_kind, regime

),

-- one number is sorted faster than five names
numbered as (

    select
        keys.regime_number,
        regimes.trade_index,
        regimes.actual_edge_bps,
        regimes.planned_ratio,
        regimes.weighted_edge_bps
    from regimes
    inner join keys using (accounting, eval_split, regime_kind, regime)

),

numbered_metrics as (

    {{ trade_metrics('numbered', ['regime_number']) }}

),

metrics as (

    select *
    from keys
    inner join numbered_metrics using (regime_number)

),

positions as (

    select
        'volatility' as regime_kind,
        volatility_regime as regime,
        position
    from {{ ref('volatility_regimes') }}
    union all
    select
        'session' as regime_kind,
        session as regime,
        min(hour_utc) as position
    from {{ ref('trading_sessions') }}
    group by session
    union all
    select
        'weekday' as regime_kind,
        dayname(date '2024-01-01' + day::integer) as regime,  -- from a Monday on
        day as position
    from range(7) as days (day)

)

select
    metrics.accounting,
    metrics.is_path_honest,
    metrics.eval_split,
    metrics.regime_kind,
    metrics.regime,
    dense_rank() over (
        partition by metrics.regime_kind order by positions.position nulls last, metrics.regime
    ) as regime_position,
    {% for name in trade_metric_names() %}
    metrics.{{ name }} {{- ',' if not loop.last }}
    {% endfor %}
from metrics
left join positions using (regime_kind, regime)
order by metrics.accounting, metrics.regime_kind, regime_position, metrics.eval_split
