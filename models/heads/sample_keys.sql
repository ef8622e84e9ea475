select
    sample_id,
    symbol,
    event_time,
    open_time_ms as starts_at_ms,
    open_time_ms + {{ longest_label_horizon_minutes() }} * 60000 as label_ends_at_ms,
    date_trunc('hour', event_time) as evaluation_period,
    split_id
from {{ ref('minute_features') }}
