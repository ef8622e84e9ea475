{{ config(materialized='view') }}

{%- set settings = daily_label_settings() -%}
{%- set days = settings.forward_return_days -%}
{%- set same_close = settings.forward_return_same_close_entry -%}
{%- set close_entry_date = 'trade_date' if same_close else 'entry_date' -%}
{%- set close_entry = 'same_close' if same_close else 'entry_close' -%}
{%- set open_exit = 'open_exit' if same_close else 'close_exit' -%}
{%- set at_close = 'same_close_' if same_close else '' -%}

with exits as (

    select *
    from {{ ref('forward_return_exits') }}

),

universe as (

    select *
    from {{ ref('forward_return_benchmarks') }}

),

benchmark as (

    select
        trade_date,
        open,
        close
    from {{ ref('stg_index_daily') }}
    where ts_code = '{{ daily_panel_settings().daily_benchmark }}'

)

select
    ---------- keys
    exits.ts_code,
    exits.trade_date,
    exits.trading_day,

    ---------- entry
    exits.passes_all,
    exits.{{ close_entry_date }} as entry_date,
    exits.{{ close_entry }} as entry_close,
    exits.may_buy_next_close,
    exits.entry_date as open_entry_date,
    exits.entry_open,
    exits.may_buy_next_open,

    ---------- entry at the close
    {% for h in days %}
    exits.{{ at_close }}exit_close_{{ h }}d / exits.{{ close_entry }} - 1
        as forward_return_{{ h }}d,
    ln(exits.{{ at_close }}exit_close_{{ h }}d / exits.{{ close_entry }})
        as forward_log_return_{{ h }}d,
    exits.{{ at_close }}exit_close_{{ h }}d / exits.{{ close_entry }} - 1
        - universe.universe_return_{{ h }}d as excess_return_universe_{{ h }}d,
    exits.{{ at_close }}exit_close_{{ h }}d / exits.{{ close_entry }}
        - close_exit_{{ h }}d.close / close_entry.close as excess_return_index_{{ h }}d,
    exits.{{ at_close }}exit_date_{{ h }}d as exit_date_{{ h }}d,
    {% endfor %}

    ---------- entry at the next open
    {% for h in days %}
    exits.exit_close_{{ h }}d / exits.entry_open - 1 as forward_return_next_open_{{ h }}d,
    ln(exits.exit_close_{{ h }}d / exits.entry_open)
        as forward_log_return_next_open_{{ h }}d,
    exits.exit_close_{{ h }}d / exits.entry_open - 1
        - universe.universe_return_next_open_{{ h }}d as excess_return_universe_next_open_{{ h }}d,
    exits.exit_close_{{ h }}d / exits.entry_open
        - {{ open_exit }}_{{ h }}d.close / open_entry.open
        as excess_return_index_next_open_{{ h }}d,
    exits.exit_date_{{ h }}d as open_exit_date_{{ h }}d,
    {% endfor %}

    ---------- how far the row looks
    exits.exit_date_{{ days | max }}d as label_end_date
from exits
left join universe
    on exits.trade_date = universe.trade_date
left join benchmark as close_entry
    on exits.{{ close_entry_date }} = close_entry.trade_date
left join benchmark as open_entry
    on exits.entry_date = open_entry.trade_date
{% for h in days %}
left join benchmark as close_exit_{{ h }}d
    on exits.{{ at_close }}exit_date_{{ h }}d = close_exit_{{ h }}d.trade_date
{% if same_close %}
left join benchmark as open_exit_{{ h }}d
    on exits.exit_date_{{ h }}d = open_exit_{{ h }}d.trade_date
{% endif %}
{% endfor %}
