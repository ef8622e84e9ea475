{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='sync_all_columns',
        pre_hook="{{ drop_outdated_days(ahead=daily_label_settings().forward_return_days | max + 1, stock_days=traded_panel_days()) }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set settings = daily_label_settings() -%}
{%- set at_next_trade = settings.forward_return_suspended_exit == 'next_traded_day' -%}

with days as (

    select
        ts_code,
        trade_date,
        trading_day,
        passes_all,
        open,
        close,
        {% if at_next_trade %}
        {{ next_known('close') }} as exit_close,
        {{ next_known('case when close is not null then trade_date end') }} as exit_date
        {% else %}
        last_close as exit_close,
        trade_date as exit_date
        {% endif %}
    from {{ ref('daily_panel') }} as daily_panel
    {% if is_incremental() %}
    {{ of_stocks_to_rebuild('daily_panel', 'build_from') }}
    {% endif %}

),

eligibility as (

    select
        ts_code,
        trade_date,
        may_buy_next_open,
        may_buy_next_close
    from {{ ref('entry_eligibility') }}

),

exits as (

    select
        ts_code,
        trade_date,
        trading_day,
        passes_all,
        lead(trade_date) over per_stock as entry_date,
        lead(open) over per_stock as entry_open,
        lead(close) over per_stock as entry_close,
        {% if settings.forward_return_same_close_entry %}
        close as same_close,
        {% for h in settings.forward_return_days %}
        lead(exit_date, {{ h }}) over per_stock
            as same_close_exit_date_{{ h }}d,
        lead(exit_close, {{ h }}) over per_stock
            as same_close_exit_close_{{ h }}d,
        {% endfor %}
        {% endif %}
        {% for h in settings.forward_return_days %}
        lead(exit_date, {{ h + 1 }}) over per_stock as exit_date_{{ h }}d,
        lead(exit_close, {{ h + 1 }}) over per_stock
            as exit_close_{{ h }}d{{ ',' if not loop.last }}
        {% endfor %}
    from days
    window per_stock as (partition by ts_code order by trade_date)

)

select
    exits.ts_code,
    exits.trade_date,
    exits.trading_day,
    exits.passes_all,
    eligibility.may_buy_next_open,
    eligibility.may_buy_next_close,
    exits.* exclude (ts_code, trade_date, trading_day, passes_all)
from exits
left join eligibility
    on exits.ts_code = eligibility.ts_code and exits.trade_date = eligibility.trade_date
order by exits.ts_code, exits.trade_date
