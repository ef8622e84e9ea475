{%- set amount_days = event_settings().event_amount_days -%}
{%- set alpha = event_volatility_alpha() %}

with recursive panel as (

    select
        ts_code,
        trade_date,
        close,
        returns,
        amount,
        is_suspended
    from {{ ref('daily_panel') }}

),

members as (

    select
        ts_code,
        trade_date
    from {{ ref('universe_members') }}
    where universe = {{ event_setting('event_universe') }}

),

stocks as (

    select
        ts_code,
        row_number() over (order by ts_code) as stock_id,
        sum(row_count) over (order by ts_code) - row_count as rows_before,
        row_count
    from (
        select
            ts_code,
            count(*) as row_count
        from panel
        group by ts_code
    ) as row_counts

),

numbered as (

    select
        panel.*,
        stocks.stock_id,
        stocks.rows_before,
        stocks.row_count,
        members.ts_code is not null as is_in_universe,
        row_number() over per_stock - 1 as stock_row,
        -- a holder's mark: on a day without trading the last traded close stands
        last_value(
            case when not panel.is_suspended and panel.close > 0 then panel.close end ignore nulls
        ) over (
            partition by stocks.stock_id order by panel.trade_date
            rows between unbounded preceding and current row
        ) as price,
        case when panel.is_suspended then 0 else panel.amount end as amount_cny,
        case when not panel.is_suspended then panel.returns end as traded_return
    from panel
    inner join stocks on panel.ts_code = stocks.ts_code
    left join members
        on panel.ts_code = members.ts_code and panel.trade_date = members.trade_date
    window per_stock as (partition by stocks.stock_id order by panel.trade_date)

),

rows_of_stocks as materialized (

    select
        (rows_before + stock_row)::integer as panel_row,
        stock_id::integer as stock_id,
        stock_row::integer as stock_row,
        (row_count - stock_row - 1)::integer as rows_left,
        ts_code,
        trade_date,
        coalesce(not is_suspended and close > 0, false) as is_traded,
        is_in_universe,
        price,
        traded_return,
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

-- The recursion of an exponentially weighted variance, one step a day, all stocks at once.
volatilities as (

    select
        panel_row,
        rows_left,
        traded_return as mean_return,
        case when traded_return is not null then 0::double end as variance,
        null::double as volatility_before
    from rows_of_stocks
    where stock_row = 0

    union all

    select
        today.panel_row,
        today.rows_left,
        coalesce(
            volatilities.mean_return
            + {{ alpha }} * (today.traded_return - volatilities.mean_return),
            volatilities.mean_return,
            today.traded_return
        ) as mean_return,
        coalesce(
            (1 - {{ alpha }}) * (
                volatilities.variance
                + {{ alpha }}
                * (today.traded_return - volatilities.mean_return)
                * (today.traded_return - volatilities.mean_return)
            ),
            volatilities.variance,
            case when today.traded_return is not null then 0 end
        ) as variance,
        sqrt(volatilities.variance) as volatility_before
    from volatilities
    inner join rows_of_stocks as today on volatilities.panel_row + 1 = today.panel_row
    where volatilities.rows_left > 0

),

day_members as (

    select
        trade_date,
        -- a sum of integers, so that the order of the stocks does not matter
        sum((traded_return * 1e15)::hugeint)::double
        / nullif(count(traded_return), 0) / 1e15 as mean_return
    from rows_of_stocks
    where is_in_universe
    group by trade_date

),

benchmark as (

    select
        dates.trade_date,
        product(1 + coalesce(day_members.mean_return, 0)) over (
            order by dates.trade_date rows between unbounded preceding and current row
        ) as benchmark_level
    from (select distinct trade_date from rows_of_stocks) as dates
    left join day_members on dates.trade_date = day_members.trade_date

)

select
    rows_of_stocks.panel_row,
    rows_of_stocks.stock_id,
    rows_of_stocks.stock_row,
    rows_of_stocks.rows_left,
    rows_of_stocks.ts_code,
    rows_of_stocks.trade_date,
    rows_of_stocks.is_traded,
    rows_of_stocks.is_in_universe,
    rows_of_stocks.price,
    rows_of_stocks.traded_return,
    rows_of_stocks.mean_amount_cny,
    volatilities.volatility_before,
    benchmark.benchmark_level
from rows_of_stocks
inner join volatilities on rows_of_stocks.panel_row = volatilities.panel_row
inner join benchmark on rows_of_stocks.trade_date = benchmark.trade_date
order by rows_of_stocks.panel_row
