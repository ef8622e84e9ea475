{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days() }}",
        post_hook="{{ record_built_days() }}"
    )
}}

with gates as (

    select
        ts_code,
        trade_date,
        trading_day,
        board,
        days_since_listing,
        is_st,
        is_delisting_period,
        delisting_period_day,
        not_suspended
    from {{ ref('daily_gates') }}

),

bars as (

    select
        ts_code,
        trade_date,
        open,
        high,
        low,
        close,
        case when pre_close > 0 then pre_close end as pre_close,
        price_basis = 'forward_adjusted' as is_adjusted,
        case when volume > 0 and amount > 0 then amount / volume end as traded_price
    from {{ ref('stg_daily_bars') }}
    {% if is_incremental() %}
    where trade_date > {{ built_until() }}
    {% endif %}

),

calendar as (

    select trade_date
    from {{ ref('stg_trading_calendar') }}

),

securities as (

    select
        ts_code,
        list_date
    from {{ ref('stg_securities') }}

),

exceptions as (

    select
        ts_code,
        coalesce(valid_from, '-infinity'::date) as valid_from,
        coalesce(valid_to, 'infinity'::date) as valid_to,
        limit_up_pct,
        limit_down_pct
    from {{ ref('price_limit_exceptions') }}

),

rules as (

    select
        limit_rule_id,
        board,
        trading_phase,
        first_day,
        last_day,
        coalesce(listed_from, '-infinity'::date) as listed_from,
        coalesce(listed_to, 'infinity'::date) as listed_to,
        coalesce(valid_from, '-infinity'::date) as valid_from,
        coalesce(valid_to, 'infinity'::date) as valid_to,
        round(limit_up_pct * 10000)::bigint as limit_up_basis_points,
        round(limit_down_pct * 10000)::bigint as limit_down_basis_points,
        round(tick_price * 10000)::bigint as units_per_tick
    from {{ ref('price_limit_rules') }}

),

-- a row per rule and day makes the joins below equalities
rule_days as (

    select
        rules.*,
        calendar.trade_date
    from rules
    inner join calendar
        on rules.valid_from <= calendar.trade_date and rules.valid_to > calendar.trade_date
    where rules.first_day is null

),

-- rules for the first days of a listing or of a delisting period
first_days as (

    select
        rules.*,
        unnest(range(rules.first_day, rules.last_day + 1))::integer as phase_day
    from rules
    where rules.first_day is not null

),

ticks as (

    select
        board,
        max(units_per_tick) as units_per_tick
    from rules
    group by board

),

data_start as (

    select min(trading_day) as first_day
    from gates

),

longest_listing_phase as (

    select max(last_day) as last_day
    from rules
    where trading_phase = 'listing'

),

first_rows as (

    select
        ts_code,
        min(trading_day) as first_day
    from gates
    group by ts_code

),

-- without a listing date, the days after a first bar may be the free ones of a listing
maybe_listing as (

    select
        first_rows.ts_code,
        first_rows.first_day + longest_listing_phase.last_day as last_unknown_day
    from first_rows
    cross join longest_listing_phase
    cross join data_start
    left join securities using (ts_code)
    where securities.list_date is null and first_rows.first_day > data_start.first_day

),

phases as (

    select
        gates.*,
        securities.list_date,
        case
            when gates.is_delisting_period then 'delisting'
            when gates.is_st then 'risk_warning'
            else 'normal'
        end as trading_phase,
        case
            when gates.is_delisting_period then 'delisting'
            else 'listing'
        end as first_days_phase,
        case
            when gates.is_delisting_period then gates.delisting_period_day
            else gates.days_since_listing
        end as phase_day,
        coalesce(gates.trading_day <= maybe_listing.last_unknown_day, false) as is_unknown
    from gates
    left join securities using (ts_code)
    left join maybe_listing using (ts_code)
    {% if is_incremental() %}
    where gates.trade_date > {{ built_until() }}
    {% endif %}

),

ruled as (

    select
        phases.ts_code,
        phases.trade_date,
        phases.board,
        phases.not_suspended,
        ticks.units_per_tick,
        case
            when exceptions.ts_code is not null then 'exception'
            when phases.is_unknown then null
            else coalesce(first_days.limit_rule_id, rule_days.limit_rule_id)
        end as limit_rule_id,
        case
            when exceptions.ts_code is not null then round(exceptions.limit_up_pct * 10000)::bigint
            when phases.is_unknown then null
            when first_days.limit_rule_id is not null then first_days.limit_up_basis_points
            else rule_days.limit_up_basis_points
        end as limit_up_basis_points,
        case
            when exceptions.ts_code is not null
                then round(exceptions.limit_down_pct * 10000)::bigint
            when phases.is_unknown then null
            when first_days.limit_rule_id is not null then first_days.limit_down_basis_points
            else rule_days.limit_down_basis_points
        end as limit_down_basis_points
    from phases
    left join ticks using (board)
    left join rule_days
        on
            phases.board = rule_days.board
            and phases.trading_phase = rule_days.trading_phase
            and phases.trade_date = rule_days.trade_date
    left join first_days
        on
            phases.board = first_days.board
            and phases.first_days_phase = first_days.trading_phase
            and phases.phase_day = first_days.phase_day
            and phases.trade_date >= first_days.valid_from
            and phases.trade_date < first_days.valid_to
            and coalesce(phases.list_date, '-infinity'::date) >= first_days.listed_from
            and coalesce(phases.list_date, '-infinity'::date) < first_days.listed_to
    left join exceptions
        on
            phases.ts_code = exceptions.ts_code
            and phases.trade_date >= exceptions.valid_from
            and phases.trade_date < exceptions.valid_to

),

priced as (

    select
        ruled.*,
        bars.open,
        bars.high,
        bars.low,
        bars.close,
        bars.pre_close,
        bars.is_adjusted,
        {{ price_in_ticks('bars.pre_close', 'ruled.units_per_tick') }} as reference_ticks,
        -- a tick in adjusted prices: the traded price tells how far adjustment moved them
        case
            when bars.traded_price is not null
                then
                    ruled.units_per_tick / 10000.0::double
                    * ((bars.high + bars.low) / 2) / bars.traded_price
        end as adjusted_tick
    from ruled
    left join bars using (ts_code, trade_date)

),

in_ticks as (

    select
        *,
        {{ limit_in_ticks('+', 'reference_ticks', 'limit_up_basis_points') }} as limit_up_ticks,
        {{ limit_in_ticks('-', 'reference_ticks', 'limit_down_basis_points') }} as limit_down_ticks
    from priced

),

limited as (

    select
        *,
        case
            when limit_up_basis_points is null then null
            when is_adjusted
                then
                    pre_close + greatest(
                        pre_close * (limit_up_basis_points / 10000.0::double),
                        coalesce(adjusted_tick, 0)
                    )
            else (limit_up_ticks * units_per_tick) / 10000.0::double
        end as limit_up_price,
        case
            when limit_down_basis_points is null then null
            when is_adjusted
                then
                    pre_close - greatest(
                        pre_close * (limit_down_basis_points / 10000.0::double),
                        coalesce(adjusted_tick, 0)
                    )
            else (limit_down_ticks * units_per_tick) / 10000.0::double
        end as limit_down_price,
        {{ limit_slack('+') }} as slack_up,
        {{ limit_slack('-') }} as slack_down,
        {{ limit_slack('beyond') }} as slack_beyond
    from in_ticks

),

traded as (

    select
        *,
        not_suspended and limit_rule_id is null as is_undecided,
        not_suspended and coalesce(high = low, false) as is_one_price
    from limited

),

{% set touches = [
    ('is_limit_up_close', 'close >= limit_up_price - slack_up'),
    ('is_limit_down_close', 'close <= limit_down_price + slack_down'),
    ('touched_limit_up', 'high >= limit_up_price - slack_up'),
    ('touched_limit_down', 'low <= limit_down_price + slack_down'),
    ('opened_at_limit_up', 'open >= limit_up_price - slack_up'),
    ('opened_at_limit_down', 'open <= limit_down_price + slack_down'),
    ('traded_above_limit_up', 'high > limit_up_price + slack_beyond'),
    ('traded_below_limit_down', 'low < limit_down_price - slack_beyond'),
] -%}
touched as (

    select
        *,
        {% for name, condition in touches %}
        case
            when is_undecided then null
            else not_suspended and coalesce({{ condition }}, false)
        end as {{ name }} {{- ',' if not loop.last }}
        {% endfor %}
    from traded

)

select
    ---------- ids
    ts_code,
    trade_date,
    board,

    ---------- the day's limits
    limit_rule_id,
    limit_up_basis_points / 10000.0::double as limit_up_pct,
    limit_down_basis_points / 10000.0::double as limit_down_pct,
    limit_up_price,
    limit_down_price,

    ---------- what the day did with them
    is_limit_up_close,
    is_limit_down_close,
    touched_limit_up,
    touched_limit_down,
    opened_at_limit_up,
    opened_at_limit_down,
    traded_above_limit_up,
    traded_below_limit_down,
    is_one_price,
    is_one_price and touched_limit_up as is_one_price_limit_up,
    is_one_price and touched_limit_down as is_one_price_limit_down
from touched
order by ts_code, trade_date
