{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(ahead=daily_label_settings().wave_episode_days, stock_days=traded_panel_days(), back=wave_episode_look_back(), date_column='start_date') }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set settings = daily_label_settings() -%}
{%- set partial = settings.main_wave_partial_windows -%}
{%- set days = settings.wave_episode_days -%}
{%- set first_peak = settings.wave_episode_first_peak_day -%}

with recursive days as (

    {{ daily_label_days(only_rebuilt=is_incremental()) }}

),

ahead as (

    select
        ts_code,
        trade_date as start_date,
        trading_day as start_trading_day,
        passes_all,
        held_close as value_0,
        lag(held_close) over per_stock as previous_close,
        {% if partial %}
        coalesce(
            lag(held_close, {{ settings.wave_episode_prior_days }}) over per_stock,
            first_value(held_close) over per_stock
        ) as prior_close,
        {% else %}
        lag(held_close, {{ settings.wave_episode_prior_days }}) over per_stock as prior_close,
        {% endif %}
        {% if not partial %}
        case when stock_row >= {{ settings.main_wave_amount_days }} then
        {% endif %}
            {{ mean_amount_cny('(amount * 100)::bigint', 'amounts') }}
        {% if not partial %}
        end
        {% endif %}
            as mean_amount_cny,
        lead(trade_date, {{ days }}) over per_stock as label_end_date,
        {{ days_ahead('held_close', 'value', 1, days) }}
    from days
    window
        per_stock as (partition by ts_code order by trade_date),
        amounts as (
            partition by ts_code order by trade_date
            rows between {{ settings.main_wave_amount_days - 1 }} preceding and current row
        )

),

starts as (

    select
        * exclude (previous_close, prior_close),
        {{ price_return('value_0', 'previous_close') }} as start_gain,
        {{ price_return('previous_close', 'prior_close') }} as prior_gain,
        {{ extreme_of('greatest', 'value', first_peak, days) }} as highest_value
    from ahead
    {% if is_incremental() %}
    {{ of_stocks_to_rebuild('ahead', 'build_from', 'start_date') }}
    {% endif %}
    where
        passes_all
        and mean_amount_cny > {{ daily_setting('main_wave_minimum_amount_cny') }}
        and {{ price_return('value_0', 'previous_close') }}
            >= {{ daily_setting('wave_episode_start_gain') }}
        and {{ price_return('previous_close', 'prior_close') }}
            <= {{ daily_setting('wave_episode_max_prior_gain') }}
        and {{ price_return(extreme_of('greatest', 'value', first_peak, days), 'value_0') }}
            >= {{ daily_setting('wave_episode_minimum_gain') }}
        and label_end_date is not null

),

peaks as (

    select
        *,
        {{ first_of('value', '= highest_value', first_peak, days) }} as peak_day,
        {{ price_return('highest_value', 'value_0') }} as peak_gain
    from starts

),

paths as (

    select
        ts_code,
        start_date,
        start_trading_day,
        start_trading_day + peak_day as peak_trading_day,
        peak_day,
        start_gain,
        prior_gain,
        peak_gain,
        mean_amount_cny,
        label_end_date,
        -- the deepest fall from the highest gain so far
        round(greatest(
            {%- for k in range(1, days + 1) %}
            {% if settings.wave_episode_drawdown_over == 'to_peak' -%}
            case
                when peak_day >= {{ k }}
                    then {{ extreme_of('greatest', 'value', 0, k) }} - value_{{ k }}
            end
            {%- else -%}
            {{ extreme_of('greatest', 'value', 0, k) }} - value_{{ k }}
            {%- endif -%}
            {{ ',' if not loop.last }}
            {%- endfor %}
        ) / value_0, 12) as max_drawdown
    from peaks

),

{% if is_incremental() %}
-- where the scan of each stock stands
earlier as (

    select
        ts_code,
        max(start_trading_day + peak_day) as last_peak_day,
        count(*) as episode_count
    from {{ this }}
    group by ts_code

),

{% endif %}
candidates as materialized (

    select
        *,
        row_number() over (order by ts_code, start_trading_day) as candidate_id
    from paths
    {% if is_incremental() %}
    left join earlier using (ts_code)
    {% endif %}
    where
        max_drawdown <= round(
            {{ daily_setting('wave_episode_drawdown_base') }}
            + {{ daily_setting('wave_episode_drawdown_share') }} * peak_gain, 12
        )
        {% if is_incremental() %}
        and start_trading_day > coalesce(last_peak_day, 0)
        {% endif %}
        and round(peak_gain / peak_day, 12)
            >= {{ daily_setting('wave_episode_minimum_daily_gain') }}

),

successors as materialized (

    select
        candidates.candidate_id,
        later.candidate_id as next_id
    from candidates
    asof inner join candidates as later
        on
            candidates.ts_code = later.ts_code
            and candidates.peak_trading_day < later.start_trading_day

),

-- the scan takes the first candidate of a stock and goes on behind its peak
taken as (

    select min(candidate_id) as candidate_id
    from candidates
    group by ts_code

    union all

    select successors.next_id
    from taken
    inner join successors
        on taken.candidate_id = successors.candidate_id

),

calendar as (

    select
        trading_day,
        trade_date
    from {{ ref('stg_trading_calendar') }}

)

select
    ---------- keys
    candidates.ts_code,
    candidates.start_date,
    row_number() over (
        partition by candidates.ts_code order by candidates.start_date
    ) {{ '+ coalesce(candidates.episode_count, 0)' if is_incremental() }} as episode_number,

    ---------- start
    candidates.start_trading_day,
    candidates.start_gain,
    candidates.prior_gain,
    candidates.mean_amount_cny,

    ---------- wave
    calendar.trade_date as peak_date,
    candidates.peak_day,
    candidates.peak_gain,
    candidates.max_drawdown,
    candidates.peak_gain
    * {{ clipped('candidates.peak_day / ' ~ daily_setting('wave_quality_reference_days'),
        settings.wave_quality_lowest_duration_weight, settings.wave_quality_highest_duration_weight) }}
    * (1 - {{ clipped('candidates.max_drawdown / candidates.peak_gain', 0, 1) }}) as target_quality,

    ---------- how far the row looks
    candidates.label_end_date
from candidates
inner join taken
    on candidates.candidate_id = taken.candidate_id
inner join calendar
    on candidates.peak_trading_day = calendar.trading_day
order by candidates.ts_code, candidates.start_date
