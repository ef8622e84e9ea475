{{ config(materialized='table') }}

with candidates as (

    select
        candidate_id,
        {% for axis in pm_axes() %}
        {{ axis }},
        {% endfor %}
        threshold_hash
    from {{ ref('pm_candidates') }}

),

searched as (

    {{ pm_grid_metrics(ref('pm_frame'), ref('pm_candidates')) }}  -- noqa: PRS

)

select
    candidates.*,
    searched.* exclude (candidate_id)
from candidates
inner join searched using (candidate_id)
order by candidate_id
