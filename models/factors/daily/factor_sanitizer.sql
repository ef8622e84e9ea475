{{ config(materialized='view') }}

-- written beside the panel: {{ ref('factor_panel') }}
select
    factor_id,
    trade_date,
    nonfinite_count,
    clipped_count
from {{ factor_panel_part('sanitized', ref('factor_panel')) }}
