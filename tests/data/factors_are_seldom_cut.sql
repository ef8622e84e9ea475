-- What the panel cuts is one number for many stocks: a factor of amounts in CNY or shares lacks its
-- panel_unit in seeds/factor_catalog.csv (docs/factors.md), or its formula has no bound.
{{ config(severity='warn', tags=['daily']) }}

with panel as (

    select count(*) as row_count
    from {{ ref('factor_panel') }}

)

select
    factor_id,
    sum(clipped_count) as clipped_count,
    any_value(panel.row_count) as row_count
from {{ ref('factor_sanitizer') }}
cross join panel
group by factor_id
having sum(clipped_count) > 0.2::double * any_value(panel.row_count)
