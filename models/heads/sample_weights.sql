{{ config(materialized='table') }}

{%- set settings = fold_settings() -%}

with samples as (

    select
        sample_id,
        symbol,
        starts_at_ms,
        label_ends_at_ms,
        evaluation_period
    from {{ ref('sample_keys') }}

),

-- two events a sample: its label begins, at a bar of its symbol, and its label has ended; of events
-- at the same time, beginnings come first
events as (

    select
        symbol,
        starts_at_ms,
        false as is_end,
        starts_at_ms * 2 as event_order
    from samples
    union all
    select
        symbol,
        starts_at_ms,
        true as is_end,
        label_ends_at_ms * 2 + 1 as event_order
    from samples

),

concurrency as (

    select
        *,
        sum(case when is_end then -1 else 1 end) over in_time as labels_alive,
        sum((not is_end)::integer) over in_time as bars_so_far
    from events
    window in_time as (partition by symbol order by event_order)

),

-- whole numbers of 1e-15: their sums are exact, and the same whatever follows
shares as (

    select
        symbol,
        starts_at_ms,
        is_end,
        event_order,
        bars_so_far,
        case when not is_end then (1e15 / labels_alive)::bigint else 0 end as share_units
    from concurrency

),

share_sums as (

    select
        symbol,
        starts_at_ms,
        is_end,
        bars_so_far,
        share_units,
        sum(share_units) over in_time as share_units_so_far
    from shares
    window in_time as (partition by symbol order by event_order)

),

lives as (

    select
        symbol,
        starts_at_ms,
        max(share_units_so_far) - min(share_units_so_far) + max(share_units) as share_units,
        (max(bars_so_far) - min(bars_so_far) + 1)::integer as bar_count
    from share_sums
    group by symbol, starts_at_ms

),

cross_sections as (

    select
        starts_at_ms,
        count(*) as cross_section_size,
        row_number() over (order by starts_at_ms) - 1 as bars_before
    from samples
    group by starts_at_ms

),

uniqueness as (

    select
        samples.sample_id,
        samples.symbol,
        samples.starts_at_ms,
        samples.evaluation_period,
        lives.bar_count as label_bar_count,
        lives.share_units / 1e15 / lives.bar_count as average_uniqueness,
        cross_sections.cross_section_size,
        {% if settings.decay_half_life_bars %}
        case
            when cross_sections.bars_before > 1000 * {{ settings.decay_half_life_bars }}::double
                then error(
                    'var heads_decay_half_life_bars is {{ settings.decay_half_life_bars }}, too short for '
                    || 'the history: expected the number of bars / 1000 or more. Bar '
                    || cross_sections.bars_before || ' would weigh more than a DOUBLE can hold.'
                )
            else 2 ** (cross_sections.bars_before / {{ settings.decay_half_life_bars }}::double)
        end
        {% else %}
        1::double
        {% endif %}
            as time_decay
    from samples
    inner join lives using (symbol, starts_at_ms)
    inner join cross_sections using (starts_at_ms)

)

select
    sample_id,
    symbol,
    starts_at_ms,
    evaluation_period,
    label_bar_count,
    average_uniqueness,
    cross_section_size,
    time_decay,
    {% if settings.weighting == 'uniqueness' %}
    average_uniqueness / cross_section_size * time_decay as weight
    {% else %}
    time_decay as weight
    {% endif %}
from uniqueness
