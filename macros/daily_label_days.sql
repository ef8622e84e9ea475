{#- The stock days that daily labels are made from, and small pieces that several of them share. Rows
    ahead are days ahead: factors.daily_panel has a row for every trading day that a stock is listed
    (tests/data/daily_panel_has_every_trading_day.sql). -#}

{#- One row per row of factors.daily_panel.
    close: price that a trade of the day could have had, NULL on a suspended day.
    held_close: value of a position at the end of the day, the last close on a suspended day.
    stock_row: 1, 2, ... per stock.
    Prices are adjusted, amount is the traded amount (0 on a suspended day), unless a var asks for the
    reference's unadjusted close or for close x volume.
    only_rebuilt: of the stocks that an incremental build reads, from the first day that it reads. -#}
{% macro daily_label_days(only_rebuilt=false) %}
    {%- set settings = daily_label_settings() -%}
    {%- set raw = settings.main_wave_unadjusted_close -%}
    select
        ts_code,
        trade_date,
        trading_day,
        passes_all,
        {{ 'open_raw' if raw else 'open' }} as open,
        {{ 'close_raw' if raw else 'close' }} as close,
        {{ 'last_value(close_raw ignore nulls) over (
            partition by ts_code order by trade_date rows unbounded preceding
        )' if raw else 'last_close' }} as held_close,
        returns,
        coalesce({{ 'close_raw * volume' if settings.main_wave_amount_from_close else 'amount' }}, 0)
            as amount,
        row_number() over (partition by ts_code order by trade_date) as stock_row
    from {{ ref('daily_panel') }} as daily_panel
    {% if only_rebuilt -%}
    {{ of_stocks_to_rebuild('daily_panel', 'read_from') }}
    {%- endif %}
{% endmacro %}


{#- price / base - 1, rounded so that a return compared with a threshold does not turn on the last bit:
    21.2 / 20 - 1 is 0.06. -#}
{% macro price_return(price, base) -%}
    round({{ price }} / {{ base }} - 1, 12)
{%- endmacro %}


{#- First known value of `expression` on the row's day or after it. -#}
{% macro next_known(expression) -%}
    first_value({{ expression }} ignore nulls) over (
        partition by ts_code order by trade_date rows between current row and unbounded following
    )
{%- endmacro %}


{#- Average amount over a named window from an exact sum of whole fen. -#}
{% macro mean_amount_cny(amount_units, window) -%}
    sum({{ amount_units }}) over {{ window }}::double / count({{ amount_units }}) over {{ window }} / 100
{%- endmacro %}


{#- `expression` of the stock `days` trading days later, NULL when the stock has no row on that day: one that comes back
    after a long absence has none for a while. -#}
{% macro on_day_ahead(expression, days) -%}
    case
        when lead(trading_day, {{ days }}) over per_stock = trading_day + {{ days }}
            then lead({{ expression }}, {{ days }}) over per_stock
    end
{%- endmacro %}
