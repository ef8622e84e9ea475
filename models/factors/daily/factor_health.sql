{{ config(materialized='view') }}

with days as (

    select
        *,
        date_trunc('month', trade_date)::date as month
    from {{ ref('factor_health_days') }}

),

sanitized as (

    select
        factor_id,
        date_trunc('month', trade_date)::date as month,
        sum(nonfinite_count)::bigint as nonfinite_count,
        sum(clipped_count)::bigint as clipped_count
    from {{ ref('factor_sanitizer') }}
    group by all

),

months as (

    select
        factor_id,
        month,
        count(*) as day_count,
        sum(row_count)::bigint as row_count,
        1 - sum(known_count) / sum(row_count) as null_share,
        avg(distinct_count / nullif(known_count, 0)) as distinct_share,
        avg(ic) as ic,
        stddev_samp(ic) as ic_std,
        count(ic) as ic_days,
        avg(rank_ic) as rank_ic,
        stddev_samp(rank_ic) as rank_ic_std,
        avg(autocorrelation) as autocorrelation,
        avg(turnover) as turnover
    from days
    group by all

)

select
    ---------- keys
    months.factor_id,
    months.month,

    ---------- what is there
    months.day_count,
    months.row_count,
    months.null_share,
    months.distinct_share,
    coalesce(sanitized.nonfinite_count, 0) as nonfinite_count,
    coalesce(sanitized.clipped_count, 0) as clipped_count,

    ---------- what it says about the days ahead
    months.ic_days,
    months.ic,
    months.ic_std,
    months.ic / nullif(months.ic_std, 0) as ic_ir,
    months.rank_ic,
    months.rank_ic_std,
    months.rank_ic / nullif(months.rank_ic_std, 0) as rank_ic_ir,

    ---------- how fast it changes
    months.autocorrelation,
    months.turnover
from months
left join sanitized
    on months.factor_id = sanitized.factor_id and months.month = sanitized.month
