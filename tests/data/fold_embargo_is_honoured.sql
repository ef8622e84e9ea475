-- heads_embargo_bars bars or more lie between the labels of rows a head learns from and the first
-- row of another role, and between the labels of tested rows and the next row it learns from
with runs as (

    {{ fold_role_runs() }}

),

gaps as (

    select
        fold,
        role,
        label_ends_at_ms,
        lead(role) over in_time as next_role,
        lead(starts_at_ms) over in_time as next_starts_at_ms
    from runs
    window in_time as (partition by fold order by run_number)

),

bars as (

    select starts_at_ms
    from {{ ref('sample_keys') }}
    group by starts_at_ms

),

bars_between as (

    select
        gaps.fold,
        gaps.role,
        gaps.label_ends_at_ms,
        gaps.next_role,
        gaps.next_starts_at_ms,
        count(bars.starts_at_ms) as bar_count
    from gaps
    left join bars
        on
            gaps.label_ends_at_ms < bars.starts_at_ms
            and gaps.next_starts_at_ms > bars.starts_at_ms
    where
        gaps.next_role is not null
        and (
            gaps.role in ('fit', 'tune', 'calibrate')
            or gaps.next_role in ('fit', 'tune', 'calibrate')
        )
    group by all

)

select *
from bars_between
where bar_count < {{ fold_settings().embargo_bars }}
