{{ config(materialized='table') }}

with borders as (

    select
        quantile_disc(realized_vol_60m_bps, 1 / 3::double) as lower_bps,
        quantile_disc(realized_vol_60m_bps, 2 / 3::double) as upper_bps
    from {{ ref('minute_features') }}
    where split_id = 'fit'
    having count(realized_vol_60m_bps) > 0

)

select
    1 as position,
    'low' as volatility_regime,
    null::double as above_bps,
    lower_bps as up_to_bps
from borders
union all
select
    2 as position,
    'middle' as volatility_regime,
    lower_bps as above_bps,
    upper_bps as up_to_bps
from borders
union all
select
    3 as position,
    'high' as volatility_regime,
    upper_bps as above_bps,
    null::double as up_to_bps
from borders
