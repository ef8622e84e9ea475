{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_path_stats() }}"
    )
}}

{%- set horizons = path_stats_horizons() -%}
{%- set longest = horizons | max -%}
{%- set target = setting('entry_target_bps') -%}
{%- set stop = setting('entry_stop_bps') %}

with days_to_build as (

    select
        inputs.symbol,
        inputs.day_number,
        inputs.input_hash
    from ({{ path_stats_inputs() }}) as inputs
    {% if is_incremental() %}
    anti join (
        select distinct
            symbol,
            open_time_ms // 86400000 as day_number
        from {{ this }}
    ) as built
        on inputs.symbol = built.symbol and inputs.day_number = built.day_number
    {% endif %}

),

bars as (

    select
        bar_id,
        symbol,
        open_time_ms,
        open,
        high,
        low,
        close,
        spread_bps,
        contiguous_minutes
    from {{ ref('stg_minute_bars') }}
    {% if is_incremental() %}
    where (symbol, open_time_ms // 86400000) in (
        select (symbol, day_number) from days_to_build
        union
        select (symbol, day_number + 1) from days_to_build
    )
    {% endif %}
    order by bar_id

),

entries as (

    select
        *,
        {{ 'lead(open) over ()' if label_settings().entry_price == 'next_open' else 'close' }}
            as entry_price
    from bars

),

bars_ahead as (

    select
        bar_id,
        symbol,
        open_time_ms,
        entry_price,
        entry_price * (1 + {{ target }} / 1e4) as long_target_price,
        entry_price * (1 - {{ stop }} / 1e4) as long_stop_price,
        entry_price * (1 - {{ target }} / 1e4) as short_target_price,
        entry_price * (1 + {{ stop }} / 1e4) as short_stop_price,
        spread_bps,
        {% for h in horizons %}
        lead(bar_id, {{ h }}) over () as bar_id_{{ h }},
        lead(close, {{ h }}) over () as exit_price_{{ h }},
        lead(contiguous_minutes, {{ h }}) over () as contiguous_minutes_{{ h }},
        {% endfor %}
        lead(bar_id) over () as next_bar_id,
        (ln(close / lag(close) over ()) * 1e14)::hugeint as log_return_units,
        {{ values_ahead('high', longest) }},
        {{ values_ahead('low', longest) }}
    from entries

),

touches as (

    select
        bar_id,
        symbol,
        open_time_ms,
        entry_price,
        spread_bps,
        log_return_units,
        log_return_units * log_return_units as log_return_units_squared,
        {% for h in horizons %}
        exit_price_{{ h }},
        -- a row exists where the next h bars follow minute by minute
        bar_id_{{ h }} = bar_id + {{ h }} and contiguous_minutes_{{ h }} > {{ h }}
            as is_valid_{{ h }},
        {{ extreme_ahead('greatest', 'high', h) }} as highest_{{ h }},
        {{ extreme_ahead('least', 'low', h) }} as lowest_{{ h }},
        {% endfor %}
        {{ first_touch('high', '>= long_target_price', longest) }} as long_target_bars,
        {{ first_touch('low', '<= long_stop_price', longest) }} as long_stop_bars,
        {{ first_touch('low', '<= short_target_price', longest) }} as short_target_bars,
        {{ first_touch('high', '>= short_stop_price', longest) }} as short_stop_bars
    from bars_ahead
    where
        case
            when next_bar_id <= bar_id
                then error('path_stats read the bars out of order: please report this')
            else true
        end

),

windows as (

    select
        *,
        {% for h in horizons %}
        {{ quantile_80('spread_bps', 'next_' ~ h, h) }} as spread_p80_{{ h }},
        {{ exact_stddev('log_return_units', 'log_return_units_squared', 'returns_' ~ h) }} * 1e4
            as realized_vol_bps_{{ h }}{{ ',' if not loop.last }}
        {% endfor %}
    from touches
    window {{ windows_ahead(horizons) }}

),

sides_and_horizons (side, horizon_minutes) as (

    values
    {% for h in horizons %}
    ('LONG', {{ h }}::smallint),
    ('SHORT', {{ h }}::smallint){{ ',' if not loop.last }}
    {% endfor %}

),

stacked as (

    select
        windows.symbol,
        windows.open_time_ms,
        sides_and_horizons.side,
        sides_and_horizons.horizon_minutes,
        windows.entry_price,
        {{ of_horizon('exit_price', horizons) }} as exit_price,
        {{ of_horizon('highest', horizons) }} as highest,
        {{ of_horizon('lowest', horizons) }} as lowest,
        {{ of_horizon('spread_p80', horizons) }} as future_spread_p80,
        {{ of_horizon('realized_vol_bps', horizons) }} as future_realized_vol_bps,
        case when side = 'LONG' then long_target_bars else short_target_bars end
            as first_target_bars,
        case when side = 'LONG' then long_stop_bars else short_stop_bars end as first_stop_bars
    from windows
    cross join sides_and_horizons
    where {{ of_horizon('is_valid', horizons) }}

),

within_horizon as (

    select
        * exclude (first_target_bars, first_stop_bars),
        case when first_target_bars <= horizon_minutes then first_target_bars end as target_bars,
        case when first_stop_bars <= horizon_minutes then first_stop_bars end as stop_bars
    from stacked

),

outcomes as (

    select
        *,
        coalesce(target_bars < stop_bars, target_bars is not null) as is_target,
        -- a bar that touches both counts as a stop
        coalesce(stop_bars <= target_bars, stop_bars is not null) as is_stop,
        coalesce(target_bars = stop_bars, false) as is_ambiguous,
        case
            when side = 'LONG' then (exit_price / entry_price - 1) * 1e4
            else (entry_price / exit_price - 1) * 1e4
        end as future_return_bps,
        (highest / entry_price - 1) * 1e4 as rise_bps,
        (entry_price / lowest - 1) * 1e4 as fall_bps
    from within_horizon

)

select
    outcomes.symbol,
    outcomes.open_time_ms,
    outcomes.side,
    outcomes.horizon_minutes,

    ---------- first touch
    outcomes.is_target::tinyint as target_hit,
    outcomes.is_stop::tinyint as stop_hit,
    (not (outcomes.is_target or outcomes.is_stop))::tinyint as timeout_hit,
    outcomes.is_ambiguous::tinyint as ambiguous_hit,
    case when outcomes.is_target then outcomes.target_bars * 60000::bigint else -1 end
        as time_to_target_ms,
    case when outcomes.is_stop then outcomes.stop_bars * 60000::bigint else -1 end
        as time_to_stop_ms,

    ---------- edges and excursions
    case
        when outcomes.is_target then {{ target }}
        when outcomes.is_stop then -{{ stop }}
        else outcomes.future_return_bps
    end as gross_edge_bps,
    outcomes.future_return_bps,
    case when outcomes.side = 'LONG' then outcomes.rise_bps else outcomes.fall_bps end as mfe_bps,
    case when outcomes.side = 'LONG' then outcomes.fall_bps else outcomes.rise_bps end as mae_bps,

    ---------- spread and volatility on the way
    outcomes.future_spread_p80,
    outcomes.future_realized_vol_bps,

    ---------- provenance
    days_to_build.input_hash
from outcomes
inner join days_to_build
    on
        outcomes.symbol = days_to_build.symbol
        and outcomes.open_time_ms // 86400000 = days_to_build.day_number
