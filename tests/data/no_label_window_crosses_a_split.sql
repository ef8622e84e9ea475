-- a label reads bars up to its horizon after the sample: none may lie in another split or fold
with horizons as (

    select max(horizon_minutes) as longest_minutes
    from {{ ref('label_manifest') }}

),

windows as (

    select
        samples.sample_id,
        samples.split_id,
        samples.walk_forward_fold,
        samples.open_time_ms,
        samples.open_time_ms + horizons.longest_minutes * 60000 as last_read_ms
    from {{ ref('minute_features') }} as samples
    cross join horizons

)

select
    windows.*,
    boundaries.boundary_kind,
    boundaries.boundary_name
from windows
inner join {{ ref('split_boundaries') }} as boundaries
    on
        windows.open_time_ms < boundaries.starts_at_ms
        and windows.last_read_ms >= boundaries.starts_at_ms
where
    (boundaries.boundary_kind = 'split' and windows.split_id <> 'purged')
    or (boundaries.boundary_kind = 'walk_forward_fold' and windows.walk_forward_fold is not null)
    or (boundaries.boundary_name = 'validation_locked' and windows.walk_forward_fold is not null)
