{#- Stacked stages, each adding columns that later ones read. DuckDB computes only the stages and
    columns that a query asks for, so the width costs a reader nothing. -#}
{%- set folds = var('walk_forward_folds') -%}

with bars as (

    select
        bar_id,
        symbol,
        open_time_ms,
        event_time,
        open,
        high,
        low,
        close,
        volume,
        spread_bps,
        contiguous_minutes,
        data_quality_flag
    from {{ ref('stg_minute_bars') }}

),

boundaries as (

    select
        {% for split_id in split_starts() %}
        max(starts_at_ms) filter (where boundary_name = '{{ split_id }}') as {{ split_id }}_ms,
        {% endfor %}
        {% for fold in range(1, folds + 1) %}
        max(starts_at_ms) filter (where boundary_name = 'fold_{{ fold }}') as fold_{{ fold }}_ms
        {{- ',' if not loop.last }}
        {% endfor %}
    from {{ ref('split_boundaries') }}

),

one_minute as (

    select
        *,
        case when contiguous_minutes > 1 then ln(close / lag(close) over per_symbol) end
            as log_return,
        ln(high / low) as log_range,
        (high + low + close) / 3 as typical_price,
        close * volume as traded_value
    from bars
    window per_symbol as (partition by symbol order by open_time_ms)

),

products as (

    select
        *,
        typical_price * volume as typical_value,
        log_range * log_range as log_range_squared,
        abs(log_return) as abs_log_return,
        case when log_return > 0 then log_return else 0 end as gain,
        case when log_return < 0 then log_return * log_return else 0 end as squared_loss,
        log_return * log_return as squared_return,
        case when contiguous_minutes > 2 then lag(log_return) over per_symbol end
            as previous_log_return,
        case when log_return > 0 then 1.0::double else 0 end as is_up,
        case when volume = 0 then 1.0::double when volume is not null then 0 end as is_zero_volume
    from one_minute
    window per_symbol as (partition by symbol order by open_time_ms)

),

returns as (

    select
        *,
        {% for minutes in [1, 5, 15, 30, 60, 240] %}
        {{ change_bps('close', minutes) }} as ret_{{ minutes }}m_bps,
        {% endfor %}
        sqrt(log_range_squared / (4 * ln(2))) * 1e4 as realized_vol_1m_bps,
        {% for minutes in [5, 15, 30, 60, 240] %}
        {% set window_name = 'last_' ~ minutes ~ 'm' %}
        {{ over_full_window('stddev_samp(log_return)', window_name, minutes + 1) }} * 1e4
            as realized_vol_{{ minutes }}m_bps,
        {% endfor %}
        {{ over_full_window('sum(gain)', 'last_15m', 16) }} as gain_15m,
        {{ over_full_window('sum(abs_log_return)', 'last_15m', 16) }} as path_length_15m,
        {{ over_full_window('sum(abs_log_return)', 'last_60m', 61) }} as path_length_60m,
        {{ over_full_window('avg(is_up)', 'last_30m', 31) }} as up_minute_share_30m_pct,
        {{ over_full_window('sum(squared_loss)', 'last_60m', 61) }}
            / nullif({{ over_full_window('sum(squared_return)', 'last_60m', 61) }}, 0)
            as downside_variance_share_60m_pct,
        {{ over_full_window('corr(log_return, previous_log_return)', 'last_60m', 62) }}
            as return_autocorrelation_60m_raw
    from products
    window
        per_symbol as (partition by symbol order by open_time_ms),
        {{ windows_of_minutes([5, 15, 30, 60, 240]) }}

),

prices as (

    select
        *,
        {% for minutes in [15, 60, 240] %}
        {% set window_name = 'last_' ~ minutes ~ 'm' %}
        {{ over_full_window('max(high)', window_name, minutes) }} as highest_{{ minutes }}m,
        {{ over_full_window('min(low)', window_name, minutes) }} as lowest_{{ minutes }}m,
        {{ over_full_window('sum(typical_value)', window_name, minutes) }}
            / nullif({{ over_full_window('sum(volume)', window_name, minutes) }}, 0)
            as vwap_{{ minutes }}m,
        {% endfor %}
        {% for minutes in [30, 60] %}
        {% set window_name = 'last_' ~ minutes ~ 'm' %}
        {{ zscore('close', window_name, minutes) }} as close_zscore_{{ minutes }}m,
        {% endfor %}
        {{ over_full_window('regr_slope(ln(close), bar_id)', 'last_30m', 30) }} * 1e4
            as trend_slope_30m_bps,
        {{ over_full_window('avg(log_range_squared)', 'last_15m', 15) }}
            as mean_log_range_squared_15m,
        {{ over_full_window('avg(log_range_squared)', 'last_60m', 60) }}
            as mean_log_range_squared_60m
    from returns
    window
        {{ windows_of_minutes([15, 30, 60, 240]) }}

),

volumes as (

    select
        *,
        {% for minutes in [15, 60, 240] %}
        {% set window_name = 'last_' ~ minutes ~ 'm' %}
        {{ zscore('volume', window_name, minutes) }} as volume_zscore_{{ minutes }}m,
        {% endfor %}
        {{ over_full_window('avg(volume)', 'last_5m', 5) }} as mean_volume_5m,
        {{ over_full_window('avg(volume)', 'last_60m', 60) }} as mean_volume_60m,
        {{ over_known_window('sum(traded_value)', 'traded_value', 'last_60m', 60) }}
            as traded_value_60m,
        {{ over_full_window('avg(is_zero_volume)', 'last_60m', 60) }} as zero_volume_share_60m_pct,
        {{ zscore('spread_bps', 'last_60m', 60) }} as spread_zscore_60m,
        case
            when spread_bps is not null
                then (rank(order by spread_bps nulls last) over last_24h - 1)
                    / nullif(count(spread_bps) over last_24h - 1, 0)::double
        end as spread_rank_24h_pct
    from prices
    window
        {{ windows_of_minutes([5, 15, 60, 240]) }},
        last_24h as (
            partition by symbol order by open_time_ms
            range between 86340000 preceding and current row
        )

),

across_symbols as (

    select
        *,
        {% for feature in [
            'ret_5m_bps', 'ret_15m_bps', 'ret_60m_bps', 'realized_vol_15m_bps', 'volume_zscore_60m',
        ] %}
        {{ rank_across_symbols(feature) }} as {{ feature | replace('_bps', '') }}_cross_rank_pct,
        {% endfor %}
        avg(ret_15m_bps) over same_minute as market_ret_15m_bps,
        avg(ret_60m_bps) over same_minute as market_ret_60m_bps,
        avg(case when ret_15m_bps > 0 then 1.0::double when ret_15m_bps is not null then 0 end)
            over same_minute as market_breadth_15m_pct
    from volumes
    -- ordered, so that a sum of floats does not depend on the number of threads
    window same_minute as (
        partition by open_time_ms order by symbol
        rows between unbounded preceding and unbounded following
    )

),

final as (

    select
        ---------- keys and time
        symbol || '@' || open_time_ms as sample_id,
        symbol,
        event_time,
        open_time_ms,
        event_time + interval 1 minute as known_at,

        ---------- splits
        case
            {% for split_id in split_starts() %}
            when {{ touches_boundary('open_time_ms', split_id ~ '_ms') }} then 'purged'
            {% endfor %}
            when open_time_ms >= latest_stress_ms then 'latest_stress'
            when open_time_ms >= validation_locked_ms then 'validation_locked'
            when open_time_ms >= tune_inner_ms then 'tune_inner'
            else 'fit'
        end as split_id,
        case
            when open_time_ms >= validation_locked_ms then null
            when {{ touches_boundary('open_time_ms', 'validation_locked_ms') }} then null
            {% for fold in range(1, folds + 1) %}
            when {{ touches_boundary('open_time_ms', 'fold_' ~ fold ~ '_ms') }} then null
            {% endfor %}
            else
                {% for fold in range(1, folds + 1) %}
                (open_time_ms >= fold_{{ fold }}_ms)::integer {{ '+' if not loop.last }}
                {% endfor %}
        end as walk_forward_fold,

        ---------- quality
        data_quality_flag,
        contiguous_minutes,

        ---------- spread
        spread_bps,
        spread_rank_24h_pct,
        spread_zscore_60m,
        spread_bps / nullif(realized_vol_15m_bps, 0) as spread_to_vol_15m,

        ---------- returns and realized volatility
        {% for minutes in [1, 5, 15, 30, 60, 240] %}
        ret_{{ minutes }}m_bps,
        {% endfor %}
        {% for minutes in [1, 5, 15, 30, 60, 240] %}
        realized_vol_{{ minutes }}m_bps,
        {% endfor %}
        realized_vol_5m_bps / nullif(realized_vol_60m_bps, 0) as realized_vol_ratio_5m_60m,
        realized_vol_15m_bps / nullif(realized_vol_240m_bps, 0) as realized_vol_ratio_15m_240m,
        sqrt(mean_log_range_squared_15m / (4 * ln(2))) * 1e4 as parkinson_vol_15m_bps,
        sqrt(mean_log_range_squared_60m / (4 * ln(2))) * 1e4 as parkinson_vol_60m_bps,
        downside_variance_share_60m_pct,

        ---------- range and candle
        (high / low - 1) * 1e4 as range_1m_bps,
        (highest_15m / lowest_15m - 1) * 1e4 as range_15m_bps,
        (highest_60m / lowest_60m - 1) * 1e4 as range_60m_bps,
        (close / open - 1) * 1e4 as body_1m_bps,
        (high / greatest(open, close) - 1) * 1e4 as upper_shadow_1m_bps,
        (least(open, close) / low - 1) * 1e4 as lower_shadow_1m_bps,
        (close - low) / nullif(high - low, 0) as close_location_1m_pct,
        (close - lowest_15m) / nullif(highest_15m - lowest_15m, 0) as close_location_15m_pct,
        (close - lowest_60m) / nullif(highest_60m - lowest_60m, 0) as close_location_60m_pct,
        (close / highest_240m - 1) * 1e4 as distance_to_high_240m_bps,
        (close / lowest_240m - 1) * 1e4 as distance_to_low_240m_bps,

        ---------- volume
        volume_zscore_15m,
        volume_zscore_60m,
        volume_zscore_240m,
        mean_volume_5m / nullif(mean_volume_60m, 0) as volume_ratio_5m_60m,
        traded_value_60m,
        zero_volume_share_60m_pct,
        path_length_60m * 1e4 / nullif(traded_value_60m / 1e6, 0) as amihud_illiquidity_60m_bps,

        ---------- distance to VWAP
        (close / vwap_15m - 1) * 1e4 as vwap_distance_15m_bps,
        (close / vwap_60m - 1) * 1e4 as vwap_distance_60m_bps,
        (close / vwap_240m - 1) * 1e4 as vwap_distance_240m_bps,

        ---------- momentum
        ret_15m_bps / nullif(realized_vol_15m_bps * sqrt(15), 0) as momentum_15m_zscore,
        ret_60m_bps / nullif(realized_vol_60m_bps * sqrt(60), 0) as momentum_60m_zscore,
        trend_slope_30m_bps,
        up_minute_share_30m_pct,
        abs(ln(1 + ret_60m_bps / 1e4)) / nullif(path_length_60m, 0) as efficiency_ratio_60m,

        ---------- mean reversion
        close_zscore_30m,
        close_zscore_60m,
        gain_15m / nullif(path_length_15m, 0) * 100 as rsi_15m,
        case when isfinite(return_autocorrelation_60m_raw) then return_autocorrelation_60m_raw end
            as return_autocorrelation_60m,

        ---------- time
        (open_time_ms // 60000 % 1440)::smallint as minute_of_day,
        isodow(event_time)::tinyint as day_of_week,
        sin(2 * pi() * (open_time_ms // 60000 % 1440) / 1440) as minute_of_day_sin,
        cos(2 * pi() * (open_time_ms // 60000 % 1440) / 1440) as minute_of_day_cos,
        ((isodow(event_time) - 1) * 1440 + open_time_ms // 60000 % 1440)::smallint
            as minute_of_week,

        ---------- across symbols
        ret_5m_cross_rank_pct,
        ret_15m_cross_rank_pct,
        ret_60m_cross_rank_pct,
        realized_vol_15m_cross_rank_pct,
        volume_zscore_60m_cross_rank_pct,
        market_ret_15m_bps,
        market_breadth_15m_pct,
        ret_15m_bps - market_ret_15m_bps as ret_15m_less_market_bps,
        ret_60m_bps - market_ret_60m_bps as ret_60m_less_market_bps
    from across_symbols
    cross join boundaries

)

select * from final
