{{ config(materialized='table') }}

{%- set settings = overfitting_settings() %}
{%- set edges = ['actual_long_expected_net_edge_bps', 'actual_short_expected_net_edge_bps'] %}

with draws as (

    select unnest(range(1, {{ settings.pm_null_draws + 1 }})::integer[]) as draw

),

-- keys as numbers: every draw carries them along
frame as (

    select
        sample_id as sample_name,
        row_number() over (order by event_time, symbol, sample_id) as sample_id,
        dense_rank() over (order by symbol) as symbol,
        event_time,
        event_time::date as day,
        row_number() over (of_day order by event_time, sample_id) as place,
        count(*) over of_day as places,
        long_prob,
        short_prob,
        long_entry_prob,
        short_entry_prob,
        market_risk_prob,
        pred_long_expected_net_edge_bps,
        pred_short_expected_net_edge_bps,
        {% for edge in edges %}
        {{ edge }} {{- ',' if not loop.last }}
        {% endfor %}
    from {{ ref('pm_frame') }} as rows
    window of_day as (partition by rows.symbol, event_time::date)

),

-- every row gives its edges to the row at this place of its symbol's day
given_edges as (

    select
        draws.draw,
        frame.symbol,
        frame.day,
        {% if settings.pm_null_method == 'shuffle' %}
        row_number() over (
            partition by draws.draw, frame.symbol, frame.day
            order by
                md5_number(
                    '{{ settings.pm_null_seed }}:' || draws.draw || ':' || frame.sample_name
                ),
                frame.sample_name
        ) as place,
        {% else %}
        -- every symbol of a day by as many rows
        1 + (
            md5_number('{{ settings.pm_null_seed }}:' || draws.draw || ':' || frame.day)
            % greatest(frame.places - 1, 1)::uhugeint
        )::bigint as steps,
        1 + (frame.place - 1 + frame.places - steps) % frame.places as place,
        {% endif %}
        {% for edge in edges %}
        frame.{{ edge }} {{- ',' if not loop.last }}
        {% endfor %}
    from frame
    cross join draws

),

shuffled as materialized (

    select
        given_edges.draw,
        frame.* exclude (sample_name, day, place, places, {{ edges | join(', ') }}),
        {% for edge in edges %}
        given_edges.{{ edge }} {{- ',' if not loop.last }}
        {% endfor %}
    from frame
    inner join given_edges using (symbol, day, place)

),

-- which trades a candidate admits does not depend on edges: one candidate for each set of trades
trade_sets as (

    select min(candidate_id) as candidate_id
    from {{ ref('pm_grid_search') }}
    group by trade_set_id

),

candidates as (

    select candidates.*
    from {{ ref('pm_candidates') }} as candidates
    inner join trade_sets using (candidate_id)

),

searched as (

    {{ pm_grid_metrics('shuffled', 'candidates', ['draw'], 'pruned') }}  -- noqa: PRS

)

select
    draw,
    candidate_id,
    score as best_score,
    total_weighted_edge_bps,
    trade_count
from searched
where score_rank = 1
order by draw
