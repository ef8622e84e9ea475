{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(stock_days=traded_gate_days(), back=adv_days() | max) }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set settings = daily_panel_settings() -%}
{%- set is_amount = settings.daily_adv_basis == 'amount' -%}

with gates as (

    select
        ts_code,
        trade_date,
        trading_day,
        passes_all
    from {{ ref('daily_gates') }} as daily_gates
    {% if is_incremental() %}
    {{ of_stocks_to_rebuild('daily_gates', 'read_from') }}
    {% endif %}

),

bars as (

    select
        ts_code,
        trade_date,
        open,
        high,
        low,
        close,
        volume,
        amount,
        turnover,
        adj_factor,
        price_basis
    from {{ ref('stg_daily_bars') }}
    -- what a vendor writes into the row of a suspended day is not a trade
    where not is_suspended and volume > 0 and close > 0

),

capital as (

    select
        ts_code,
        trade_date,
        market_cap_cny,
        float_market_cap_cny
    from {{ ref('stg_daily_basic') }}

),

industries as (

    select
        ts_code,
        l1_code,
        l2_code,
        l3_code,
        in_date,
        -- spans may overlap in the file: the later classification wins
        least(out_date, lead(in_date) over (partition by ts_code order by in_date)) as out_date
    from {{ ref('stg_industry_members') }}
    qualify row_number() over (partition by ts_code, in_date order by industry_code, out_date) = 1

),

benchmark as (

    select
        trade_date,
        open,
        close,
        close / lag(close) over (order by trade_date) - 1 as daily_return
    from {{ ref('stg_index_daily') }}
    where ts_code = '{{ settings.daily_benchmark }}'

),

spine as (

    select
        gates.*,
        bars.* exclude (ts_code, trade_date),
        capital.market_cap_cny as market_cap,
        capital.float_market_cap_cny as float_market_cap,
        industries.l1_code as industry_l1,
        industries.l2_code as industry_l2,
        industries.l3_code as industry_l3,
        benchmark.open as benchmark_open,
        benchmark.close as benchmark_close,
        benchmark.daily_return as benchmark_return
    from gates
    left join bars
        on gates.ts_code = bars.ts_code and gates.trade_date = bars.trade_date
    left join capital
        on gates.ts_code = capital.ts_code and gates.trade_date = capital.trade_date
    left join industries
        on
            gates.ts_code = industries.ts_code
            and gates.trade_date >= industries.in_date
            and gates.trade_date < coalesce(industries.out_date, 'infinity'::date)
    left join benchmark
        on gates.trade_date = benchmark.trade_date

),

adjusted as (

    select
        *,
        close * adj_factor as adjusted_close,
        -- whole numbers add up exactly; a fen or a share is the smallest unit of either
        ({{ 'amount * 100' if is_amount else 'volume' }})::bigint as adv_units
    from spine

),

running as (

    select
        *,
        row_number() over per_stock as stock_row,
        last_value(adjusted_close ignore nulls) over before_today as previous_close,
        last_value(adj_factor ignore nulls) over before_today as previous_adj_factor,
        sum(adv_units) over per_stock as adv_total,
        count(adv_units) over per_stock as adv_known
    from adjusted
    window
        per_stock as (partition by ts_code order by trade_date rows unbounded preceding),
        before_today as (
            partition by ts_code order by trade_date
            rows between unbounded preceding and 1 preceding
        )

),

panel as (

    select
        ---------- keys
        ts_code,
        trade_date,
        trading_day,

        ---------- state
        close is null as is_suspended,
        passes_all,
        coalesce(adj_factor, previous_adj_factor) as adj_factor,

        ---------- prices as traded
        open as open_raw,
        high as high_raw,
        low as low_raw,
        close as close_raw,

        ---------- adjusted prices
        open * adj_factor as open,
        high * adj_factor as high,
        low * adj_factor as low,
        adjusted_close as close,
        -- outside the day's range it was made of something else than these trades
        case
            when
                price_basis = 'unadjusted'
                and amount / volume between low - 0.01::double and high + 0.01::double
                then amount / volume * adj_factor
        end as vwap,
        coalesce(adjusted_close, previous_close) as last_close,
        adjusted_close / previous_close - 1 as returns,
        ln(adjusted_close / previous_close) as log_returns,

        ---------- turnover and size
        volume,
        amount,
        turnover,
        market_cap,
        float_market_cap,
        {% for days in adv_days() %}
        {{ trailing_average('adv_total', 'adv_known', days, 100 if is_amount else 1) }}
            as adv{{ days }},
        {% endfor %}

        ---------- industry and benchmark
        industry_l1,
        industry_l2,
        industry_l3,
        '{{ settings.daily_benchmark }}' as benchmark_code,
        benchmark_open,
        benchmark_close,
        benchmark_return
    from running
    window per_stock as (partition by ts_code order by trade_date)

)

select *
from panel
{% if is_incremental() %}
{{ of_stocks_to_rebuild('panel', 'build_from') }}
{% endif %}
order by ts_code, trade_date
