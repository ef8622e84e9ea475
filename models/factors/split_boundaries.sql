{%- set starts = split_starts() -%}
{%- set folds = var('walk_forward_folds') -%}

with bars as (

    select open_time_ms
    from {{ ref('stg_minute_bars') }}

),

split_starts as (

    {% for split_id, start in starts.items() %}
    select
        'split' as boundary_kind,
        '{{ split_id }}' as boundary_name,
        {{ loop.index }} as boundary_order,
        {{ split_start_ms(start, 'open_time_ms') }} as starts_at_ms
    from bars
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

development_bars as (

    select bars.open_time_ms
    from bars
    where
        bars.open_time_ms < (
            select split_starts.starts_at_ms
            from split_starts
            where split_starts.boundary_name = 'validation_locked'
        )

),

fold_starts as (

    {% for fold in range(1, folds + 1) %}
    select
        'walk_forward_fold' as boundary_kind,
        'fold_{{ fold }}' as boundary_name,
        {{ fold }} as boundary_order,
        quantile_disc(open_time_ms, {{ fold }}::double / {{ folds + 1 }}) as starts_at_ms
    from development_bars
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

boundaries as (

    select * from split_starts
    union all
    select * from fold_starts

)

select
    boundary_kind,
    boundary_name,
    boundary_order,
    starts_at_ms,
    make_timestamp(starts_at_ms * 1000) as starts_at,
    {{ longest_label_horizon_minutes() }} as purge_minutes,
    {{ var('split_embargo_minutes') }} as embargo_minutes
from boundaries
order by boundary_kind, boundary_order
