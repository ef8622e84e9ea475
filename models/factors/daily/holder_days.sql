{#- Rows are those of factor_inputs: what was announced since the row before counts once. -#}
with panel as (

    select
        ts_code,
        trade_date,
        -- a stock's first row tells of its own day only
        coalesce(
            lag(trade_date) over (partition by ts_code order by trade_date), trade_date - 1
        ) as previous_date
    from {{ ref('daily_panel') }}
    where
        not is_suspended
        and open is not null
        and high is not null
        and low is not null
        and close is not null
        and volume is not null
        and amount is not null

),

-- nobody can announce a count before the day it is of
announced as (

    select
        ts_code,
        trade_date as announcement_date,
        greatest(trade_date, report_date) as known_date,
        report_date,
        holder_count,
        major_net_change_shares
    from {{ ref('stg_holders') }}

),

-- of several counts announced on a day that of the latest date; an older date changes nothing
counts as (

    select
        ts_code,
        known_date,
        holder_count
    from announced
    where holder_count is not null
    qualify
        row_number() over (
            partition by ts_code, known_date
            order by report_date desc, announcement_date desc
        ) = 1
        and report_date >= max(report_date) over (partition by ts_code order by known_date)

),

-- the same trades announced again are no new trades: only what the correction adds
changes as (

    select
        ts_code,
        known_date as trade_date,
        major_net_change_shares - coalesce(
            lag(major_net_change_shares)
                over (partition by ts_code, report_date order by announcement_date),
            0
        ) as net_change_shares
    from announced
    where major_net_change_shares is not null

),

trading_days as (

    select distinct trade_date
    from panel

),

days_with_changes_known as (

    {{ days_a_feed_covers('trading_days', 'changes') }}

),

-- what was announced on a day without trade is known on the next row
change_days as (

    select
        panel.ts_code,
        panel.trade_date,
        -- a share is the smallest unit: whole numbers add up to the same in any order
        sum(changes.net_change_shares::bigint)::double as net_change_shares
    from changes
    asof inner join panel
        on changes.ts_code = panel.ts_code and changes.trade_date <= panel.trade_date
    where changes.trade_date > panel.previous_date
    group by panel.ts_code, panel.trade_date

),

with_counts as (

    select
        panel.ts_code,
        panel.trade_date,
        counts.holder_count,
        panel.trade_date - counts.known_date as count_age_days,
        coalesce(counts.known_date > panel.previous_date, false) as is_new_count
    from panel
    asof left join counts
        on panel.ts_code = counts.ts_code and panel.trade_date >= counts.known_date

),

final as (

    select
        with_counts.*,
        coalesce(
            change_days.net_change_shares,
            case when days_with_changes_known.trade_date is not null then 0 end
        ) as major_net_change_shares
    from with_counts
    left join days_with_changes_known
        on with_counts.trade_date = days_with_changes_known.trade_date
    left join change_days
        on
            with_counts.ts_code = change_days.ts_code
            and with_counts.trade_date = change_days.trade_date

)

select *
from final
where holder_count is not null or major_net_change_shares is not null
order by ts_code, trade_date
