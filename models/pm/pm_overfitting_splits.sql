{{ config(materialized='table') }}

{%- set block_count = overfitting_settings().pm_pbo_blocks %}
{%- set blocks = range(1, block_count + 1) | list %}

with starts as (

    select distinct {{ pm_period_start('event_time') }} as period_start
    from {{ ref('pm_frame') }}

),

-- blocks of consecutive periods, as equal as they can be, of two periods or more
periods as (

    select
        period_start,
        (row_number() over (order by period_start) - 1) * {{ block_count }}
        // count(*) over () + 1 as block
    from starts
    qualify count(*) over () >= {{ 2 * block_count }}

),

block_sizes as (

    select
        {% for block in blocks %}
        count(*) filter (where block = {{ block }}) as size_{{ block }} {{- ',' if not loop.last }}
        {% endfor %}
    from periods

),

block_sums as (

    select
        returns.candidate_id,
        periods.block,
        sum(weighted_edge_bps order by period_start) as edge_sum,
        sum(weighted_edge_bps * weighted_edge_bps order by period_start) as square_sum
    from {{ ref('pm_period_returns') }} as returns
    inner join periods using (period_start)
    group by returns.candidate_id, periods.block

),

trials as (

    select
        candidate_id,
        {% for block in blocks %}
        coalesce(max(edge_sum) filter (where block = {{ block }}), 0) as edge_{{ block }},
        coalesce(max(square_sum) filter (where block = {{ block }}), 0) as square_{{ block }}
        {{- ',' if not loop.last }}
        {% endfor %}
    from block_sums
    group by candidate_id

),

-- bit k - 1 of a mask is 1 where block k is in sample
splits as (

    select
        row_number() over (order by mask desc) as split_number,
        {% for block in blocks %}
        (mask >> {{ loop.index0 }}) & 1 as in_{{ block }},
        1 - in_{{ block }} as out_{{ block }},
        {% endfor %}
        list_filter(
            range(1, {{ block_count + 1 }}), lambda block: (mask >> (block - 1)) & 1 = 1
        ) as in_sample_blocks
    from (select unnest(range({{ 2 ** block_count }})) as mask)
    where bit_count(mask) = {{ block_count // 2 }}

),

halves as (

    select
        splits.split_number,
        trials.candidate_id,
        {% for half in ['in', 'out'] %}
        {% set last_half = loop.last %}
        {% for sum in ['size', 'edge', 'square'] %}
        {% for block in blocks %}
        {{ half }}_{{ block }} * {{ sum }}_{{ block }} {{- ' +' if not loop.last }}
        {% endfor %}
            as {{ half }}_{{ sum }} {{- ',' if not (last_half and loop.last) }}
        {% endfor %}
        {% endfor %}
    from splits
    cross join block_sizes
    cross join trials

),

moments as (

    select
        split_number,
        candidate_id,
        {% for half in ['in', 'out'] %}
        {{ half }}_edge / {{ half }}_size as {{ half }}_mean,
        {{ half }}_square - {{ half }}_edge * {{ half }}_edge / {{ half }}_size
            as {{ half }}_squares,
        {{ half }}_squares / ({{ half }}_size - 1) as {{ half }}_variance
        {{- ',' if not loop.last }}
        {% endfor %}
    from halves

),

-- rounded, so that what is equal but for rounding ties
performances as materialized (

    select
        split_number,
        candidate_id,
        {% for half in ['in', 'out'] %}
        round({{ half }}_mean, 9) as {{ half }}_mean,
        -- 0 where the half does not vary
        case
            when {{ half }}_variance > 1e-12::double * {{ half }}_mean * {{ half }}_mean
                then round({{ half }}_mean / sqrt({{ half }}_variance), 9)
            else 0
        end as {{ half }}_sharpe {{- ',' if not loop.last }}
        {% endfor %}
    from moments

),

best as (

    select
        split_number,
        count(*) as trial_count,
        max(in_mean) as best_mean,
        max(in_sharpe) as best_sharpe
    from performances
    group by split_number
    having count(*) > 1

),

winners as (

    select
        best.split_number,
        best.trial_count,
        min(candidate_id) filter (where in_mean = best_mean) as mean_winner,
        min(candidate_id) filter (where in_sharpe = best_sharpe) as sharpe_winner
    from best
    inner join performances using (split_number)
    group by best.split_number, best.trial_count

),

{% for measure in ['mean', 'sharpe'] %}
{{ measure }}_ranks as (

    select
        '{{ measure }}' as performance,
        winners.split_number,
        winners.trial_count,
        winner.candidate_id,
        winner.in_{{ measure }} as in_sample_performance,
        winner.out_{{ measure }} as out_of_sample_performance,
        count(*) filter (where others.out_{{ measure }} < winner.out_{{ measure }}) as worse_count,
        count(*) filter (where others.out_{{ measure }} = winner.out_{{ measure }}) as equal_count
    from winners
    inner join performances as winner
        on
            winners.split_number = winner.split_number
            and winners.{{ measure }}_winner = winner.candidate_id
    inner join performances as others on winners.split_number = others.split_number
    group by all

),

{% endfor %}
ranks as (

    from mean_ranks
    union all
    from sharpe_ranks

)

select
    ranks.performance,
    ranks.split_number,
    splits.in_sample_blocks,
    ranks.candidate_id,
    ranks.trial_count,
    ranks.in_sample_performance,
    ranks.out_of_sample_performance,
    -- trials that do as well as the winner share their mean rank
    (worse_count + (equal_count + 1) / 2) / (trial_count + 1) as relative_rank,
    ln(relative_rank / (1 - relative_rank)) as logit
from ranks
inner join splits using (split_number)
order by ranks.performance, ranks.split_number
