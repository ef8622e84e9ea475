{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(stock_days=panel_days(), back=event_settings().event_amount_days - 1) }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set amount_days = event_settings().event_amount_days -%}
{%- set alpha = event_volatility_alpha() %}

with recursive panel as (

    select
        panel.ts_code,
        panel.trade_date,
        panel.close,
        panel.amount,
        panel.is_suspended,
        {{ event_traded_return('panel') }} as traded_return
    from {{ ref('daily_panel') }} as panel
    {% if is_incremental() %}
    {{ of_stocks_to_rebuild('panel', 'read_from') }}
    {% endif %}

),

members as (

    select
        ts_code,
        trade_date
    from {{ ref('universe_members') }}
    where universe = {{ event_setting('event_universe') }}

),

-- What a stock brings along to the first day that is built; nothing to its first of all.
states as (

    select
        stocks.ts_code,
        row_number() over (order by stocks.ts_code) as stock_id,
        {% if is_incremental() %}
        coalesce(built.first_row, 0) as first_row,
        coalesce(built.last_row, -1) as last_row,
        built.price,
        built.return_mean,
        built.return_variance
        {% else %}
        0 as first_row,
        -1 as last_row,
        null::double as price,
        null::double as return_mean,
        null::double as return_variance
        {% endif %}
    from (select distinct ts_code from panel) as stocks
    {% if is_incremental() %}
    left join (
        select
            this.ts_code,
            min(this.stock_row) as first_row,
            max(this.stock_row) as last_row,
            max_by(this.price, this.stock_row) as price,
            max_by(this.return_mean, this.stock_row) as return_mean,
            max_by(this.return_variance, this.stock_row) as return_variance
        from {{ this }} as this
        {{ of_stocks_to_rebuild('this', 'read_from') }}
        group by this.ts_code
    ) as built
        on stocks.ts_code = built.ts_code
    {% endif %}

),

numbered as (

    select
        panel.*,
        states.stock_id,
        states.last_row,
        members.ts_code is not null as is_in_universe,
        states.first_row + row_number() over per_stock - 1 as stock_row,
        -- a holder's mark: on a day without trading the last traded close stands
        coalesce(
            last_value(
                case when not panel.is_suspended and panel.close > 0 then panel.close end
                ignore nulls
            ) over (
                partition by states.stock_id order by panel.trade_date
                rows between unbounded preceding and current row
            ),
            states.price
        ) as price,
        case when panel.is_suspended then 0 else panel.amount end as amount_cny
    from panel
    inner join states on panel.ts_code = states.ts_code
    left join members
        on panel.ts_code = members.ts_code and panel.trade_date = members.trade_date
    window per_stock as (partition by states.stock_id order by panel.trade_date)

),

windowed as (

    select
        *,
        {{ event_panel_row('stock_id', 'stock_row') }} as panel_row,
        case
            when count(amount_cny) over amount_window = {{ amount_days }}
                -- in whole fen: a sum of doubles has other last bits when rows are added elsewhere
                then
                    sum((amount_cny * 100)::hugeint) over amount_window
                    / {{ amount_days * 100 }}::double
        end as mean_amount_cny
    from numbered
    window amount_window as (
        partition by stock_id order by stock_row
        rows between {{ amount_days - 1 }} preceding and current row
    )

),

new_days as materialized (

    select *
    from windowed
    where stock_row > last_row

),

-- The recursion of an exponentially weighted mean and variance, one step a day, all stocks at once.
returns_so_far as (

    select
        {{ event_panel_row('stock_id', 'last_row') }} as panel_row,
        return_mean,
        return_variance,
        null::double as volatility_before
    from states

    union all

    select
        today.panel_row,
        coalesce(
            before.return_mean + {{ alpha }} * (today.traded_return - before.return_mean),
            before.return_mean,
            today.traded_return
        ) as return_mean,
        coalesce(
            (1 - {{ alpha }}) * (
                before.return_variance
                + {{ alpha }}
                * (today.traded_return - before.return_mean)
                * (today.traded_return - before.return_mean)
            ),
            before.return_variance,
            case when today.traded_return is not null then 0 end
        ) as return_variance,
        sqrt(before.return_variance) as volatility_before
    from returns_so_far as before
    inner join new_days as today on before.panel_row + 1 = today.panel_row

),

benchmark as (

    select
        trade_date,
        product(1 + coalesce(mean_return, 0)) over (
            order by trade_date rows between unbounded preceding and current row
        ) as benchmark_level
    from {{ ref('event_benchmarks') }}

)

select
    new_days.ts_code,
    new_days.trade_date,
    new_days.stock_row::integer as stock_row,
    coalesce(not new_days.is_suspended and new_days.close > 0, false) as is_traded,
    new_days.is_in_universe,
    new_days.price,
    new_days.traded_return,
    new_days.mean_amount_cny,
    returns_so_far.return_mean,
    returns_so_far.return_variance,
    returns_so_far.volatility_before,
    benchmark.benchmark_level
from new_days
inner join returns_so_far on new_days.panel_row = returns_so_far.panel_row
inner join benchmark on new_days.trade_date = benchmark.trade_date
order by new_days.panel_row
