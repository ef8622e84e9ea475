{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days() }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set settings = daily_universe_settings() -%}
{%- set gates = daily_gate_names() -%}

with calendar as (

    select
        trade_date,
        trading_day
    from {{ ref('stg_trading_calendar') }}

),

bar_days as (

    select
        bars.ts_code,
        bars.trade_date,
        calendar.trading_day,
        bars.is_st
    from {{ ref('stg_daily_bars') }} as bars
    inner join calendar using (trade_date)

),

{% if is_incremental() %}
-- the last bar and the last known ST status before the first day to build
restarts as (

    select
        ts_code,
        least(
            max(trade_date), max(case when is_st is not null then trade_date end)
        ) as first_date
    from bar_days
    where trade_date <= {{ built_until() }}
    group by ts_code

),

{% endif %}
bars as (

    select
        bars.ts_code,
        calendar.trading_day,
        bars.is_st,
        bars.is_suspended,
        coalesce(bars.volume > 0, false) as has_volume,
        bars.open > 0 and bars.high > 0 and bars.low > 0 and bars.close > 0 as has_prices
    from {{ ref('stg_daily_bars') }} as bars
    inner join calendar using (trade_date)
    {% if is_incremental() %}
    left join restarts using (ts_code)
    where bars.trade_date >= coalesce(restarts.first_date, '-infinity'::date)
    {% endif %}

),

securities as (

    select
        ts_code,
        name,
        list_date,
        delist_date
    from {{ ref('stg_securities') }}

),

name_spans as (

    select
        ts_code,
        name,
        start_date,
        end_date,
        is_st_name,
        is_delisting_name
    from {{ ref('stg_security_names') }}

),

board_rules as (

    select
        board,
        code_pattern,
        is_main_board,
        coalesce(valid_from, '-infinity'::date) as valid_from,
        coalesce(valid_to, 'infinity'::date) as valid_to
    from {{ ref('board_rules') }}

),

covered_days as (

    select
        min(trading_day) as first_day,
        max(trading_day) as last_day
    from bar_days

),

calendar_span as (

    select
        min(trade_date) as first_date,
        max(trading_day) as last_day
    from calendar

),

first_bars as (

    select
        ts_code,
        min(trading_day) as first_bar_day
    from bar_days
    group by ts_code

),

-- which days before the calendar were trading days is not known: weekdays stand in for them
stocks as (

    select
        first_bars.ts_code,
        first_bars.first_bar_day,
        securities.delist_date,
        securities.name as latest_name,
        case
            when securities.list_date < calendar_span.first_date
                then
                    1 - (
                        {{ weekdays_before('calendar_span.first_date') }}
                        - {{ weekdays_before('securities.list_date') }}
                    )
            -- a listing after the calendar's end is no unknown one
            when securities.list_date is not null
                then coalesce(listing_days.trading_day, calendar_span.last_day + 1)
        end as list_trading_day
    from first_bars
    cross join calendar_span
    left join securities using (ts_code)
    asof left join calendar as listing_days on securities.list_date <= listing_days.trade_date

),

stock_boards as (

    select
        stocks.ts_code,
        board_rules.board,
        board_rules.is_main_board,
        board_rules.valid_from,
        board_rules.valid_to
    from stocks
    inner join board_rules on stocks.ts_code like board_rules.code_pattern

),

-- a later span ends an earlier one, so that no day has two names
dated_names as (

    select
        *,
        least(
            coalesce(end_date, 'infinity'::date),
            coalesce(lead(start_date) over per_stock, 'infinity'::date)
        ) as valid_to,
        lag(end_date) over per_stock = start_date and lag(is_delisting_name) over per_stock
            as goes_on_delisting
    from name_spans
    window per_stock as (partition by ts_code order by start_date, end_date nulls last, name)

),

-- the delisting period begins with the first of its names
names as (

    select
        *,
        max(
            case
                when is_delisting_name and not coalesce(goes_on_delisting, false) then start_date
            end
        ) over (
            partition by ts_code order by start_date
            rows between unbounded preceding and current row
        ) as delisting_start_date
    from dated_names
    where start_date < valid_to

),

named as (

    select
        names.ts_code,
        names.start_date as valid_from,
        names.valid_to,
        names.is_st_name,
        names.is_delisting_name,
        case
            when names.is_delisting_name and names.delisting_start_date >= calendar_span.first_date
                then delisting_days.trading_day
        end as delisting_start_day
    from names
    cross join calendar_span
    asof left join calendar as delisting_days
        on names.delisting_start_date <= delisting_days.trade_date

),

bars_ahead as (

    select
        *,
        lead(trading_day) over per_stock as next_bar_day,
        last_value(is_st ignore nulls) over so_far as last_known_is_st
    from bars
    window
        per_stock as (partition by ts_code order by trading_day),
        so_far as (
            partition by ts_code order by trading_day
            rows between unbounded preceding and current row
        )

),

gaps as (

    select
        bars_ahead.ts_code,
        bars_ahead.last_known_is_st,
        unnest(
            range(
                bars_ahead.trading_day + 1,
                least(
                    coalesce(bars_ahead.next_bar_day, covered_days.last_day + 1),
                    bars_ahead.trading_day + 1 + {{ settings.daily_absent_days_kept }}
                )
            )
        ) as trading_day
    from bars_ahead
    cross join covered_days
    where
        coalesce(bars_ahead.next_bar_day, covered_days.last_day + 1) > bars_ahead.trading_day + 1

),

days as (

    select
        ts_code,
        trading_day,
        true as has_bar,
        is_st,
        last_known_is_st,
        is_suspended,
        has_volume,
        has_prices
    from bars_ahead
    union all
    select
        ts_code,
        trading_day,
        false as has_bar,
        null as is_st,
        last_known_is_st,
        null as is_suspended,
        false as has_volume,
        false as has_prices
    from gaps

),

joined as (

    select
        days.ts_code,
        calendar.trade_date,
        days.trading_day,
        coalesce(stock_boards.board, 'OTHER') as board,
        case
            when days.trading_day >= stocks.list_trading_day
                then days.trading_day - stocks.list_trading_day
        end as days_since_listing,
        coalesce(days.is_st, named.is_st_name, days.last_known_is_st) as is_st,
        coalesce(named.is_delisting_name, false) as is_delisting_period,
        days.trading_day - named.delisting_start_day as delisting_period_day,
        days.has_bar and coalesce(
            case
                when days.is_suspended or not days.has_volume then days.is_suspended is not null
                else days.has_prices
            end,
            false
        ) as data_ok,
        coalesce(stock_boards.is_main_board, false) as main_board,
        -- without a listing date: older than the data, or counted from the first bar
        case
            when stocks.list_trading_day is null
                then
                    stocks.first_bar_day = covered_days.first_day
                    or days.trading_day - stocks.first_bar_day
                    >= {{ settings.daily_min_listed_days }}
            else
                days.trading_day - stocks.list_trading_day >= {{ settings.daily_min_listed_days }}
        end as listed,
        {% if settings.daily_gate_method == 'point_in_time' -%}
        coalesce(calendar.trade_date < stocks.delist_date, true) as not_delisted,
        not coalesce(
            coalesce(days.is_st, named.is_st_name, days.last_known_is_st),
            {{ 'false' if settings.daily_unknown_st_passes else 'true' }}
        ) and not coalesce(named.is_delisting_name, false) as not_st,
        {%- else -%}
        stocks.delist_date is null as not_delisted,
        not coalesce(days.is_st, false)
        and not coalesce(regexp_matches(stocks.latest_name, 'ST|退'), false) as not_st,
        {%- endif %}
        days.has_bar and not days.is_suspended and days.has_volume as not_suspended
    from days
    cross join covered_days
    inner join calendar using (trading_day)
    inner join stocks using (ts_code)
    left join stock_boards
        on
            days.ts_code = stock_boards.ts_code
            and calendar.trade_date >= stock_boards.valid_from
            and calendar.trade_date < stock_boards.valid_to
    left join named
        on
            days.ts_code = named.ts_code
            and calendar.trade_date >= named.valid_from
            and calendar.trade_date < named.valid_to
    where
        (days.has_bar or coalesce(calendar.trade_date < stocks.delist_date, true))
        {% if is_incremental() %}
        and calendar.trade_date > {{ built_until() }}
        {% endif %}

)

select
    ---------- ids
    ts_code,
    trade_date,
    trading_day,

    ---------- status
    board,
    days_since_listing::integer as days_since_listing,
    is_st,
    is_st is not null as is_st_known,
    is_delisting_period,
    delisting_period_day::integer as delisting_period_day,

    ---------- gates
    {% for gate in gates %}
    {{ gate }},
    {% endfor %}
    {{ gates | join(' and ') }} as passes_all,
    concat_ws(
        ', ',
        {% for gate in gates %}
        case when not {{ gate }} then '{{ gate }}' end {{- ',' if not loop.last }}
        {% endfor %}
    ) as failed_gates
from joined
order by ts_code, trade_date
