{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(ahead=daily_label_settings().main_wave_hold_days, stock_days=traded_panel_days(), back=main_wave_look_back()) }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set settings = daily_label_settings() -%}
{%- set hold = settings.main_wave_hold_days -%}
{%- set last = hold - 1 -%}
{%- set partial = settings.main_wave_partial_windows -%}
{%- set cut = settings.main_wave_cut_windows_are_valid -%}
{%- set entry_price = 'open' if settings.main_wave_entry_price == 'next_open' else 'close' -%}
{%- set may_buy = 'may_buy_' ~ settings.main_wave_entry_price -%}

{%- set adverse_share = 'abs(max_adverse_excursion) / ' ~ daily_setting('main_wave_max_adverse') -%}
{%- set past_volatility = exact_population_stddev(
    'return_units', 'return_units * return_units', 'volatility'
) -%}

with days as (

    {{ daily_label_days(only_rebuilt=is_incremental()) }}

),

eligibility as (

    select
        ts_code,
        trade_date,
        {{ may_buy }} as may_enter
    from {{ ref('entry_eligibility') }}

),

units as (

    select
        days.ts_code,
        days.trade_date,
        days.passes_all,
        eligibility.may_enter,
        days.{{ entry_price }} as entry_price,
        days.held_close,
        days.close,
        days.stock_row,
        (days.held_close * 1e8)::bigint as close_units,
        (days.amount * 100)::bigint as amount_units,
        (days.returns * 1e12)::hugeint as return_units
    from days
    left join eligibility
        on days.ts_code = eligibility.ts_code and days.trade_date = eligibility.trade_date

),

averages as (

    select
        *,
        {% if not partial %}
        case when stock_row >= {{ settings.main_wave_slow_days }} then
        {% endif %}
            {{ is_average_below('close_units', 'fast', 'slow') }}
        {% if not partial %}
        end
        {% endif %}
            as is_fast_average_below,
        {% if not partial %}
        case when stock_row >= {{ settings.main_wave_amount_days }} then
        {% endif %}
            {{ mean_amount_cny('amount_units', 'amounts') }}
        {% if not partial %}
        end
        {% endif %}
            as mean_amount_cny,
        {% if partial %}
        coalesce({{ past_volatility }}, 0)
        {% else %}
        case
            when stock_row >= {{ settings.main_wave_volatility_days }}
                then {{ past_volatility }}
        end
        {% endif %}
            as past_volatility,
        {{ next_known('close') }} as exit_price,
        {{ next_known('case when close is not null then trade_date end') }} as exit_date
    from units
    window
        {% for name, length in {
            'fast': settings.main_wave_fast_days,
            'slow': settings.main_wave_slow_days,
            'amounts': settings.main_wave_amount_days,
            'volatility': settings.main_wave_volatility_days,
        }.items() %}
        {{ name }} as (
            partition by ts_code order by trade_date
            rows between {{ length - 1 }} preceding and current row
        ){{ ',' if not loop.last }}
        {% endfor %}

),

crosses as (

    select
        *,
        coalesce(
            is_fast_average_below and not lag(is_fast_average_below) over per_stock, false
        ) as is_death_cross
    from averages
    window per_stock as (partition by ts_code order by trade_date)

),

ahead as (

    select
        ts_code,
        trade_date,
        passes_all,
        may_enter,
        is_fast_average_below,
        is_death_cross,
        mean_amount_cny,
        past_volatility,
        greatest(
            {{ daily_setting('main_wave_sigmas') }} * past_volatility * sqrt({{ hold }}),
            {{ daily_setting('main_wave_minimum_threshold') }}
        ) as threshold_if_known,
        lead(trade_date) over per_stock as entry_date,
        lead(entry_price) over per_stock as entry_price,
        {% if cut %}
        least(
            lead(trade_date, {{ hold }}) over per_stock, last_value(trade_date) over whole_stock
        ) as window_end_date,
        {% else %}
        lead(trade_date, {{ hold }}) over per_stock as window_end_date,
        {% endif %}
        -- day 0 is the entry day
        {% for day in range(hold) %}
        lead(held_close, {{ day + 1 }}) over per_stock as held_close_{{ day }},
        lead(is_death_cross, {{ day + 1 }}) over per_stock as is_death_cross_{{ day }},
        lead(exit_price, {{ day + 1 }}) over per_stock as exit_price_{{ day }},
        lead(exit_date, {{ day + 1 }}) over per_stock
            as exit_date_{{ day }}{{ ',' if not loop.last }}
        {% endfor %}
    from crosses
    window
        per_stock as (partition by ts_code order by trade_date){{ ',' if cut }}
        {% if cut %}
        whole_stock as (
            partition by ts_code order by trade_date
            rows between current row and unbounded following
        )
        {% endif %}

),

exits as (

    select
        *,
        case when past_volatility is not null then threshold_if_known end as threshold,
        {{ first_of('is_death_cross', '', 0, last) }} as cross_day,
        {% if cut %}
        -- the last day of the path that the data have
        (
            0
            {% for day in range(1, hold) %}
            + (held_close_{{ day }} is not null)::smallint
            {% endfor %}
        )::smallint
        {% else %}
        {{ last }}::smallint
        {% endif %}
            as last_day,
        {% for day in range(hold) %}
        {{ price_return('held_close_' ~ day, 'entry_price') }}
            as gain_{{ day }}{{ ',' if not loop.last }}
        {% endfor %}
    from ahead

),

scheduled as (

    select
        *,
        case
            when cross_day is not null
                then least(
                    greatest(
                        cross_day + {{ settings.main_wave_exit_delay_days }},
                        {{ 1 if settings.main_wave_entry_day_cross == 'hold' else 0 }}
                    ),
                    last_day
                )
            else last_day
        end as exit_day
    from exits

),

paths as (

    select
        * exclude (
            {% for day in range(hold) %}
            gain_{{ day }}{{ ',' if not loop.last }}
            {% endfor %}
        ),
        {{ at_position('exit_price', 'exit_day', 0, last) }} as exit_price,
        {{ at_position('exit_date', 'exit_day', 0, last) }} as exit_date,
        {% for day in range(hold) %}
        {% if settings.main_wave_path == 'to_exit' %}
        case when exit_day >= {{ day }} then gain_{{ day }} end
            as gain_{{ day }}{{ ',' if not loop.last }}
        {% else %}
        gain_{{ day }}{{ ',' if not loop.last }}
        {% endif %}
        {% endfor %}
    from scheduled

),

outcomes as (

    select
        *,
        {{ price_return('exit_price', 'entry_price') }} as return_if_known,
        {{ extreme_of('greatest', 'gain', 0, last) }} as highest_gain,
        {{ extreme_of('least', 'gain', 0, last) }} as lowest_gain,
        entry_price is not null
        {% if not cut %}
        and window_end_date is not null
        and exit_price is not null
        {% endif %}
            as is_path_known
    from paths

),

measured as (

    select
        *,
        case when is_path_known then return_if_known end as hold_return,
        case when is_path_known then greatest(highest_gain, 0) end as max_gain,
        case
            when is_path_known then {{ first_of('gain', '= highest_gain', 0, last) }}
        end as peak_day,
        case when is_path_known then least(lowest_gain, 0) end as max_adverse_excursion,
        case
            when is_path_known
                then round(least(
                    0::double, gain_0
                    {%- for day in range(1, hold) -%}
                    , gain_{{ day }} - greatest(0, {{ extreme_of('greatest', 'gain', 0, day - 1) }})
                    {%- endfor -%}
                ), 12)
        end as max_drawdown,
        coalesce(
            passes_all
            and mean_amount_cny > {{ daily_setting('main_wave_minimum_amount_cny') }}
            and not is_fast_average_below
            {{ 'and entry_date is not null' if cut }},
            false
        ) as is_eligible,
        case
            when entry_date is not null
                then entry_price is not null
                    {% if settings.main_wave_entry_must_be_possible %}
                    and coalesce(may_enter, false)
                    {% endif %}
        end as is_entry_possible,
        -- a stock that does not trade on the entry day has a known outcome: no position
        {% if cut %}
        entry_date is not null as is_label_known
        {% else %}
        window_end_date is not null and (exit_price is not null or entry_price is null)
            as is_label_known
        {% endif %}
    from outcomes

),

judged as (

    select
        *,
        coalesce(
            is_eligible
            and is_entry_possible
            and is_label_known
            and threshold is not null
            {{ 'and exit_day > 0' if settings.main_wave_entry_day_cross == 'drop' }}
            and hold_return >= {{ daily_setting('main_wave_minimum_hold_return') }},
            false
        ) as is_label_valid,
        {{ clipped('max_gain / threshold', 0, 2) }} * 0.5::double as score_height,
        {{ clipped('peak_day / ' ~ hold ~ '::double', 0, 1) }} as score_duration,
        1 - {{ clipped('abs(max_drawdown) / greatest(max_gain, 1e-6)', 0, 1) }}
            as score_smoothness,
        (hold_return > 0)::double as score_win,
        {{ clipped(adverse_share, 0, 1) }} as score_penalty
    from measured

),

scored as (

    select
        *,
        0.5::double * score_duration + 0.5::double * (1 - score_penalty) as score_timing
    from judged

)

select
    ---------- keys
    ts_code,
    trade_date,

    ---------- known on the day
    is_eligible,
    is_fast_average_below,
    is_death_cross,
    mean_amount_cny,
    past_volatility,
    threshold,

    ---------- position
    entry_date,
    entry_price,
    is_entry_possible,
    case when is_path_known then exit_day end as exit_day,
    case when is_path_known then exit_date end as exit_date,
    case
        when is_path_known
            then case when cross_day <= exit_day then 'death_cross' else 'time' end
    end as exit_reason,
    hold_return,

    ---------- path
    max_gain,
    peak_day,
    max_drawdown,
    max_adverse_excursion,

    ---------- label
    is_label_known,
    is_label_valid,
    case
        when is_label_known and (threshold is not null or not is_eligible)
            then coalesce(
                is_label_valid
                and max_gain >= threshold
                and hold_return > 0
                and max_adverse_excursion > -{{ daily_setting('main_wave_max_adverse') }},
                false
            )
    end as is_main_wave,
    score_height,
    score_duration,
    score_smoothness,
    score_win,
    score_timing,
    score_penalty,
    100 * (
        0.35::double * score_height
        + 0.20::double * score_duration
        + 0.20::double * score_smoothness
        + 0.15::double * score_win
        + 0.10::double * score_timing
        - 0.20::double * score_penalty
    ) as score,

    ---------- how far the row looks
    case
        when is_label_known
            then greatest(window_end_date, case when is_path_known then exit_date end)
    end as label_end_date
from scored
{% if is_incremental() %}
{{ of_stocks_to_rebuild('scored', 'build_from') }}
{% endif %}
order by ts_code, trade_date
