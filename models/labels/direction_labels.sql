{%- set horizon = setting('direction_horizon_minutes') -%}

with samples as (

    {{ label_samples() }}

),

bars as (

    select
        symbol,
        open_time_ms,
        close,
        contiguous_minutes
    from {{ ref('stg_minute_bars') }}

),

-- by time, not by count of bars: the return spans a gap inside the horizon
future_returns as (

    select
        now_bars.symbol,
        now_bars.open_time_ms,
        (future_bars.close / now_bars.close - 1) * 1e4 as future_return_bps
    from bars as now_bars
    inner join bars as future_bars
        on
            now_bars.symbol = future_bars.symbol
            and now_bars.open_time_ms + {{ horizon }} * 60000 = future_bars.open_time_ms
    {% if label_settings().direction_requires_contiguity %}
    where future_bars.contiguous_minutes > {{ horizon }}
    {% endif %}

),

labelled as (

    select
        samples.sample_id,
        samples.symbol,
        samples.event_time,
        future_returns.future_return_bps,
        case
            when future_returns.future_return_bps >= {{ setting('direction_long_threshold_bps') }}
                then 'LONG'
            when future_returns.future_return_bps <= {{ setting('direction_short_threshold_bps') }}
                then 'SHORT'
            else 'NEUTRAL'
        end as direction_label,
        samples.split_id,
        samples.walk_forward_fold
    from samples
    inner join future_returns using (symbol, open_time_ms)

)

select
    sample_id,
    symbol,
    event_time,
    {{ horizon }}::smallint as horizon_minutes,
    future_return_bps,
    direction_label,
    (direction_label = 'LONG')::tinyint as long_target,
    (direction_label = 'SHORT')::tinyint as short_target,
    (direction_label = 'NEUTRAL')::tinyint as neutral_target,
    split_id,
    walk_forward_fold,
    {{ setting('label_version') }} as label_version
from labelled
