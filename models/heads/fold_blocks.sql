{{ config(materialized='table') }}

{%- set settings = fold_settings() -%}

with samples as (

    select
        starts_at_ms,
        label_ends_at_ms,
        count(*) as row_count
    from {{ ref('sample_keys') }}
    group by starts_at_ms, label_ends_at_ms

),

boundaries as (

    select
        boundary_kind,
        boundary_name,
        boundary_order,
        starts_at_ms,
        embargo_minutes * 60000 as embargo_ms
    from {{ ref('split_boundaries') }}
    window in_order as (partition by boundary_kind order by boundary_order)
    qualify
        case
            when starts_at_ms < lag(starts_at_ms) over in_order
                then error(
                    boundary_name || ' starts at ' || make_timestamp(starts_at_ms * 1000)
                    || ', before the split before it: expected split_tune_start, '
                    || 'split_validation_start and split_stress_start in order of time'
                )
            else true
        end

),

-- the bars of all symbols together, numbered from 0
calendar as (

    select
        starts_at_ms,
        row_number() over (order by starts_at_ms) - 1 as bar
    from samples
    group by starts_at_ms

),

calendar_ends as (

    select
        count(*) as bar_count,
        min(starts_at_ms) as first_ms,
        max(starts_at_ms) + 1 as end_ms
    from calendar

),

-- what comes before the first boundary of either kind
first_spans as (

    select
        boundaries.boundary_kind,
        if(boundaries.boundary_kind = 'split', 'fit', 'fold_0') as boundary_name,
        0 as boundary_order,
        calendar_ends.first_ms as starts_at_ms,
        0 as embargo_ms
    from boundaries
    cross join calendar_ends
    where boundaries.boundary_order = 1

),

span_starts as (

    select * from boundaries
    union all
    select * from first_spans

),

numbered_starts as (

    select
        span_starts.*,
        calendar_ends.bar_count,
        calendar_ends.end_ms,
        coalesce(calendar.bar, calendar_ends.bar_count) as first_bar
    from span_starts
    asof left join calendar on span_starts.starts_at_ms <= calendar.starts_at_ms
    cross join calendar_ends

),

sealed as (

    select
        starts_at_ms as sealed_ms,
        first_bar as sealed_bar
    from numbered_starts
    where boundary_name = 'validation_locked'

),

-- splits, and walk-forward blocks up to validation_locked
spans as (

    select
        numbered_starts.boundary_kind,
        numbered_starts.boundary_name,
        numbered_starts.boundary_order as span_number,
        numbered_starts.starts_at_ms,
        numbered_starts.first_bar,
        numbered_starts.starts_at_ms + numbered_starts.embargo_ms as first_tested_ms,
        coalesce(
            lead(numbered_starts.starts_at_ms) over in_time,
            if(
                numbered_starts.boundary_kind = 'split',
                greatest(numbered_starts.end_ms, numbered_starts.starts_at_ms),
                sealed.sealed_ms
            )
        ) as ends_at_ms,
        coalesce(
            lead(numbered_starts.first_bar) over in_time,
            if(
                numbered_starts.boundary_kind = 'split',
                numbered_starts.bar_count,
                sealed.sealed_bar
            )
        ) as end_bar
    from numbered_starts
    cross join sealed
    window in_time as (
        partition by numbered_starts.boundary_kind order by numbered_starts.boundary_order
    )

),

runs (fold_scheme, fold, is_test, follows_test, boundary_kind, first_span, last_span) as (

    values
    ('anchor', 'anchor', false, false, 'split', 0, 0),
    ('anchor', 'anchor', true, false, 'split', 1, 1),
    ('anchor', 'anchor', true, false, 'split', 2, 2),
    ('anchor', 'anchor', true, false, 'split', 3, 3)
    {%- for run in fold_runs() %},
    (
        '{{ run.fold_scheme }}',
        '{{ run.fold }}',
        {{ run.is_test | lower }},
        {{ run.follows_test | lower }},
        'walk_forward_fold',
        {{ run.first_block }},
        {{ run.last_block }}
    )
    {%- endfor %}

),

tested_blocks as (

    select
        runs.fold_scheme,
        runs.fold,
        case spans.boundary_name
            when 'validation_locked' then 'locked'
            when 'latest_stress' then 'stress'
            else 'test'
        end as role,
        spans.boundary_name as tested_block,
        spans.first_tested_ms as starts_at_ms,
        spans.ends_at_ms,
        if(spans.boundary_name <> 'latest_stress', spans.ends_at_ms, null) as label_limit_ms
    from runs
    inner join spans
        on
            runs.boundary_kind = spans.boundary_kind
            and runs.first_span = spans.span_number
    where runs.is_test

),

-- the labels of a tested block end before it does: the embargo after them counts from its end
training_runs as (

    select
        runs.fold_scheme,
        runs.fold,
        runs.first_span,
        last_spans.ends_at_ms,
        last_spans.end_bar,
        least(
            first_spans.first_bar + if(runs.follows_test, {{ settings.embargo_bars }}, 0),
            last_spans.end_bar
        ) as first_bar
    from runs
    inner join spans as first_spans
        on
            runs.boundary_kind = first_spans.boundary_kind
            and runs.first_span = first_spans.span_number
    inner join spans as last_spans
        on
            runs.boundary_kind = last_spans.boundary_kind
            and runs.last_span = last_spans.span_number
    where not runs.is_test

),

-- bars of the fold's runs, counted on from run to run
counted_runs as (

    select
        *,
        sum(end_bar - first_bar) over (partition by fold)::bigint as training_bars,
        (
            sum(end_bar - first_bar) over (partition by fold order by first_span)
            - (end_bar - first_bar)
        )::bigint as bars_before
    from training_runs

),

cuts as (

    select
        *,
        floor(training_bars * {{ settings.tune_share }}::double)::bigint as tune_bars,
        floor(training_bars * {{ settings.calibrate_share }}::double)::bigint as calibrate_bars
    from counted_runs

),

role_cuts as (

    select
        cuts.*,
        roles.role,
        case roles.role
            when 'fit' then 0
            when 'tune' then cuts.training_bars - cuts.calibrate_bars - cuts.tune_bars
            when 'calibrate' then cuts.training_bars - cuts.calibrate_bars
        end as role_from,
        case roles.role
            when 'fit' then cuts.training_bars - cuts.calibrate_bars - cuts.tune_bars
            when 'tune' then cuts.training_bars - cuts.calibrate_bars
            when 'calibrate' then cuts.training_bars
        end as role_until
    from cuts
    cross join (
        select unnest(['fit', 'tune', 'calibrate']) as role
    ) as roles

),

-- the part of a run that a role has
parts as (

    select
        fold_scheme,
        fold,
        role,
        first_bar + greatest(role_from - bars_before, 0) as first_bar,
        least(first_bar + role_until - bars_before, end_bar) as end_bar,
        if(first_bar + role_until - bars_before >= end_bar, ends_at_ms, null) as run_ends_at_ms
    from role_cuts

),

training_blocks as (

    select
        parts.fold_scheme,
        parts.fold,
        parts.role,
        null as tested_block,
        first_bars.starts_at_ms,
        coalesce(parts.run_ends_at_ms, end_bars.starts_at_ms) as ends_at_ms,
        least(parts.run_ends_at_ms, limit_bars.starts_at_ms) as label_limit_ms
    from parts
    inner join calendar as first_bars on parts.first_bar = first_bars.bar
    left join calendar as end_bars on parts.end_bar = end_bars.bar
    left join calendar as limit_bars
        on greatest(parts.end_bar - {{ settings.embargo_bars }}, 0) = limit_bars.bar
    where parts.first_bar < parts.end_bar

),

all_blocks as (

    select * from training_blocks
    union all
    select * from tested_blocks

),

blocks as (

    select
        *,
        row_number() over (
            partition by fold order by starts_at_ms, ends_at_ms, tested_block
        )::integer as block_number
    from all_blocks

),

row_counts as (

    select
        blocks.fold,
        blocks.block_number,
        sum(samples.row_count)::bigint as row_count
    from blocks
    inner join samples
        on
            blocks.starts_at_ms <= samples.starts_at_ms
            and blocks.ends_at_ms > samples.starts_at_ms
    where blocks.label_limit_ms is null or blocks.label_limit_ms > samples.label_ends_at_ms
    group by blocks.fold, blocks.block_number

),

counted_blocks as (

    select
        blocks.*,
        coalesce(row_counts.row_count, 0) as row_count
    from blocks
    left join row_counts using (fold, block_number)

),

role_counts as (

    select
        fold,
        {% for role in ['fit', 'tune', 'calibrate', 'test'] %}
        coalesce(sum(row_count) filter (where role = '{{ role }}'), 0) as {{ role }}_rows
        {{- ',' if not loop.last }}
        {% endfor %}
    from counted_blocks
    group by fold

),

-- a fold without rows to learn from is of no use, nor a walk-forward fold without rows to test
unusable_folds as (

    select
        fold,
        nullif(
            concat_ws(
                ', ',
                if(fit_rows = 0, 'fit', null),
                if(tune_rows = 0, 'tune', null),
                if(calibrate_rows = 0, 'calibrate', null),
                if(test_rows = 0 and fold <> 'anchor', 'test', null)
            ), ''
        ) as roles_without_rows
    from role_counts

)

select
    counted_blocks.fold,
    counted_blocks.fold_scheme,
    counted_blocks.block_number,
    counted_blocks.role,
    counted_blocks.tested_block,
    counted_blocks.starts_at_ms,
    counted_blocks.ends_at_ms,
    counted_blocks.label_limit_ms,
    make_timestamp(counted_blocks.starts_at_ms * 1000) as starts_at,
    make_timestamp(counted_blocks.ends_at_ms * 1000) as ends_at,
    counted_blocks.row_count,
    unusable_folds.roles_without_rows
from counted_blocks
inner join unusable_folds using (fold)
order by counted_blocks.fold, counted_blocks.block_number
