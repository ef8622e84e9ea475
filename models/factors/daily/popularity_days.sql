with delivered_places as (

    select
        ts_code,
        trade_date,
        list_name,
        case when hot_rank >= 1 then hot_rank end as hot_rank,
        hot_score,
        -- a date with a time, or a time of the day
        coalesce(
            try_cast(rank_time as timestamp),
            trade_date + try_cast(rank_time as time)
        ) as taken_at
    from {{ ref('stg_ths_hot') }}

),

-- what was taken after midnight is not known at the end of the day
places as (

    select *
    from delivered_places
    where coalesce(taken_at < trade_date + interval 1 day, true)

),

list_days as (

    select
        list_name,
        trade_date,
        max(hot_rank) as last_rank
    from places
    group by list_name, trade_date

),

-- where a stock stood last on the day, list by list
latest_places as (

    select *
    from places
    qualify row_number() over (
        partition by ts_code, trade_date, list_name
        order by taken_at desc nulls last, hot_rank asc nulls last, hot_score desc nulls last
    ) = 1

),

popularity as (

    select
        latest_places.ts_code,
        latest_places.trade_date,
        1 - (latest_places.hot_rank - 1) / list_days.last_rank as hot_pct,
        latest_places.hot_score
    from latest_places
    inner join list_days
        on
            latest_places.list_name is not distinct from list_days.list_name
            and latest_places.trade_date = list_days.trade_date
    qualify row_number() over (
        partition by latest_places.ts_code, latest_places.trade_date
        order by hot_pct desc nulls last, latest_places.list_name asc nulls last
    ) = 1

),

sealed as (

    select
        ts_code,
        trade_date,
        sealed_amount_cny / nullif(float_market_cap_cny, 0) as sealed_ratio
    from {{ ref('stg_limit_list') }}
    where limit_type = 'U'

)

select
    ts_code,
    trade_date,
    popularity.hot_pct,
    popularity.hot_score,
    sealed.sealed_ratio
from popularity
full join sealed using (ts_code, trade_date)
order by ts_code, trade_date
