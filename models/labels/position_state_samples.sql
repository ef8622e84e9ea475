{{
    config(
        pre_hook="{{ require_rows(ref('entry_labels'), 'position state samples need them') }}"
    )
}}

select
    * replace (
        greatest(coalesce(mfe_bps, 0), 0) as mfe_bps,
        greatest(coalesce(mae_bps, 0), 0) as mae_bps
    ),
    0 as position_age_minutes,
    0.0::double as unrealized_pnl_bps
from {{ ref('entry_labels') }}
where entry_target = 1
