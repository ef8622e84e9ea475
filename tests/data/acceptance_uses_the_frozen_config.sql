-- Trades, positions and manifest bear the hashes of the one configuration that search found.
with used as (

    select
        'accounted_trades' as made_in,
        threshold_hash as used_hash
    from {{ ref('accounted_trades') }}
    union all
    select
        'backtest_manifest' as made_in,
        threshold_hash as used_hash
    from {{ ref('backtest_manifest') }}
    union all
    select
        'backtest_manifest' as made_in,
        pm_config_hash_sha256 as used_hash
    from {{ ref('backtest_manifest') }}

),

frozen as (

    select threshold_hash as frozen_hash from {{ ref('pm_config') }}
    union all
    select config_hash as frozen_hash from {{ ref('pm_config') }}

)

select
    used.made_in,
    used.used_hash
from used
left join frozen on used.used_hash = frozen.frozen_hash
where frozen.frozen_hash is null
