{%- set rate = event_setting('event_positive_rate') -%}
{%- set max_rate = event_setting('event_max_positive_rate') %}

with dates as (

    select
        trade_date,
        member_count,
        row_number() over (order by trade_date) as trading_day
    from {{ ref('event_benchmarks') }}

),

fit_window as (

    {{ daily_fit_window('dates') }}

),

label_sets (label_set, settling_days) as (

    values
    {% for label_set in event_label_sets() %}
    ('{{ label_set }}', {{ event_settling_days(label_set) }}){{ ',' if not loop.last }}
    {% endfor %}

),

fit_days as (

    select
        fit_window.fit_start_date,
        fit_window.fit_end_date,
        max(dates.trading_day) as last_trading_day
    from fit_window
    inner join dates on fit_window.fit_end_date >= dates.trade_date
    group by fit_window.fit_start_date, fit_window.fit_end_date

),

-- Only days on which the fit window itself settles whether an event starts: nothing later is read.
windows as (

    select
        label_sets.label_set,
        fit_days.fit_start_date,
        fit_days.fit_end_date,
        dates.trade_date as last_event_date
    from label_sets
    cross join fit_days
    left join dates
        on fit_days.last_trading_day - label_sets.settling_days = dates.trading_day

),

cells as (

    select
        windows.label_set,
        coalesce(sum(dates.member_count), 0)::bigint as cell_count
    from windows
    left join dates
        on dates.trade_date between windows.fit_start_date and windows.last_event_date
    group by windows.label_set

),

events as (

    select
        label_events.label_set,
        label_events.quality,
        count(*) as event_count
    from {{ ref('label_events') }} as label_events
    inner join windows
        on
            label_events.label_set = windows.label_set
            and label_events.event_date between windows.fit_start_date and windows.last_event_date
            and label_events.settled_date <= windows.fit_end_date
    group by label_events.label_set, label_events.quality

),

qualities as (

    select
        events.label_set,
        events.quality,
        sum(events.event_count) over (
            partition by events.label_set order by events.quality desc
            rows between unbounded preceding and current row
        ) as positive_count,
        sum(events.event_count) over (partition by events.label_set) as event_count,
        cells.cell_count,
        -- the rank whose quality is the threshold
        greatest(round({{ rate }} * cells.cell_count), 1) as wanted_count
    from events
    inner join cells on events.label_set = cells.label_set

),

wanted as (

    select
        *,
        coalesce(
            max(quality) filter (where positive_count >= wanted_count) over per_label_set,
            min(quality) over per_label_set
        ) as wanted_quality
    from qualities
    window per_label_set as (partition by label_set)

),

found as (

    select
        label_set,
        event_count,
        coalesce(
            min(quality) filter (
                where quality >= wanted_quality and positive_count <= {{ max_rate }} * cell_count
            ),
            max(quality)
        ) as quality_threshold
    from wanted
    group by label_set, event_count

)

select
    windows.label_set,
    windows.fit_start_date,
    windows.fit_end_date,
    windows.last_event_date,
    label_sets.settling_days::smallint as settling_days,
    cells.cell_count,
    coalesce(found.event_count, 0)::bigint as event_count,
    coalesce(qualities.positive_count, 0)::bigint as positive_count,
    qualities.positive_count / nullif(cells.cell_count, 0)::double as positive_rate,
    found.quality_threshold
from windows
inner join label_sets on windows.label_set = label_sets.label_set
inner join cells on windows.label_set = cells.label_set
left join found on windows.label_set = found.label_set
left join qualities
    on
        found.label_set = qualities.label_set
        and found.quality_threshold = qualities.quality
order by windows.label_set
