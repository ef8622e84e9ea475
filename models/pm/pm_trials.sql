{{ config(materialized='table') }}

with periods as (

    select count(distinct {{ pm_period_start('event_time') }}) as period_count
    from {{ ref('pm_frame') }}

),

trade_sets as (

    select
        trade_set_id,
        min(candidate_id) as candidate_id,
        count(*) as candidate_count,
        any_value(trade_count) as trade_count
    from {{ ref('pm_grid_search') }}
    where trade_count > 0
    group by trade_set_id

),

returns as (

    select
        candidate_id,
        period_start,
        weighted_edge_bps
    from {{ ref('pm_period_returns') }}

),

means as (

    select
        candidate_id,
        period_count,
        count(*) as traded_period_count,
        sum(weighted_edge_bps order by period_start) / period_count as mean_bps
    from returns
    cross join periods
    group by candidate_id, period_count

),

central_sums as (

    select
        candidate_id,
        period_count,
        traded_period_count,
        mean_bps,
        -- a period without trades lies the mean itself below the mean
        {% for power in [2, 3, 4] %}
        sum(pow(weighted_edge_bps - mean_bps, {{ power }}) order by period_start)
        + (period_count - traded_period_count) * pow(-mean_bps, {{ power }}) as sum_{{ power }}
        {{- ',' if not loop.last }}
        {% endfor %}
    from means
    inner join returns using (candidate_id)
    group by candidate_id, period_count, traded_period_count, mean_bps

),

variances as (

    select
        *,
        -- what rounding leaves of a constant's variance is none
        case
            when sum_2 / period_count > 1e-24::double * mean_bps * mean_bps
                then sum_2 / period_count
        end as variance
    from central_sums

),

moments as (

    select
        *,
        sqrt(variance * period_count / (period_count - 1)) as stddev_bps
    from variances

)

select
    trade_sets.trade_set_id,
    trade_sets.candidate_id,
    trade_sets.candidate_count,
    trade_sets.trade_count,
    moments.period_count,
    moments.traded_period_count,
    moments.mean_bps,
    moments.stddev_bps,
    moments.mean_bps / moments.stddev_bps as sharpe_per_period,
    moments.sum_3 / moments.period_count / pow(moments.variance, 1.5::double) as skewness,
    moments.sum_4 / moments.period_count / pow(moments.variance, 2) as kurtosis
from trade_sets
inner join moments using (candidate_id)
order by trade_sets.candidate_id
