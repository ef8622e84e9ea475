{#- As the exchanges word them: an institution's seats all have one name, and so has Stock Connect;
    some lists end with what classes of investors traded, which are no seats. -#}
{%- set seat_kinds = [
    ['institution', '机构专用'],
    ['stock_connect', '股通专用'],
    ['investor_class', '(投资者|自然人)$'],
] -%}
{%- set reasons_of_several_days = '连续|累计' -%}
{%- set top_places = 3 -%}

with panel as (

    select
        ts_code,
        trade_date
    from {{ ref('daily_panel') }}
    where not is_suspended

),

listed_stocks as (

    select distinct
        ts_code,
        trade_date
    from {{ ref('stg_top_list') }}

),

published_rows as (

    select
        ts_code,
        trade_date,
        seat_name,
        reason,
        buy_amount_cny,
        sell_amount_cny,
        -- a fen is the smallest unit: whole numbers add up to the same in any order
        (100 * coalesce(buy_amount_cny - sell_amount_cny, net_amount_cny))::bigint as net_fen,
        case
            {% for kind, words in seat_kinds %}
            when regexp_matches(seat_name, '{{ words }}') then '{{ kind }}'
            {% endfor %}
            else 'broker'
        end as seat_kind,
        coalesce(regexp_matches(reason, '{{ reasons_of_several_days }}'), false)
            as is_of_several_days
    from {{ ref('stg_top_inst') }}

),

trading_days as (

    select distinct trade_date
    from panel

),

covered_days as (

    {{ days_a_feed_covers('trading_days', 'published_rows') }}

),

-- a seat among both buyers and sellers, or published for two reasons, traded once
trades as (

    select
        ts_code,
        trade_date,
        seat_kind,
        seat_name,
        net_fen
    from published_rows
    where not is_of_several_days
    group by ts_code, trade_date, seat_kind, seat_name, buy_amount_cny, sell_amount_cny, net_fen

),

broker_seats as (

    select
        ts_code,
        trade_date,
        case when count(*) = count(net_fen) then sum(net_fen) end as net_fen,
        row_number() over (
            partition by ts_code, trade_date
            order by abs(sum(net_fen)) desc nulls last, seat_name asc
        ) as place
    from trades
    where seat_kind = 'broker'
    group by ts_code, trade_date, seat_name

),

broker_days as (

    select
        ts_code,
        trade_date,
        count(*) = count(net_fen) as is_known,
        sum(net_fen) / 100 as net_cny,
        sum(abs(net_fen)) / 100 as moved_cny,
        sum(abs(net_fen)) filter (place <= {{ top_places }}) / 100 as top_cny
    from broker_seats
    group by ts_code, trade_date

),

institution_days as (

    select
        ts_code,
        trade_date,
        count(*) = count(net_fen) as is_known,
        sum(net_fen) / 100 as net_cny
    from trades
    where seat_kind = 'institution'
    group by ts_code, trade_date

),

-- seats of one name cannot be told apart across reasons: at least as many as one reason has
institution_lists as (

    select
        ts_code,
        trade_date,
        count(distinct row(buy_amount_cny, sell_amount_cny, net_fen)) as seat_count
    from published_rows
    where seat_kind = 'institution'
    group by ts_code, trade_date, reason

),

institution_counts as (

    select
        ts_code,
        trade_date,
        max(seat_count) as seat_count
    from institution_lists
    group by ts_code, trade_date

),

published_stocks as (

    select
        ts_code,
        trade_date,
        count(distinct seat_name) filter (seat_kind = 'broker') as broker_count
    from published_rows
    group by ts_code, trade_date

),

-- without stocks that the list names and tells no seat of: what seats did there is not known
told as (

    select
        panel.ts_code,
        panel.trade_date,
        published_stocks.broker_count
    from panel
    inner join covered_days
        on panel.trade_date = covered_days.trade_date
    left join listed_stocks
        on panel.ts_code = listed_stocks.ts_code and panel.trade_date = listed_stocks.trade_date
    left join published_stocks
        on
            panel.ts_code = published_stocks.ts_code
            and panel.trade_date = published_stocks.trade_date
    where listed_stocks.ts_code is null or published_stocks.ts_code is not null

),

-- no seat of a stock that is not on the list was published: 0 seats, 0 CNY
final as (

    select
        told.ts_code,
        told.trade_date,

        ---------- brokers' seats
        case when coalesce(broker_days.is_known, true) then coalesce(broker_days.net_cny, 0) end
            as hot_money_net_cny,
        coalesce(told.broker_count, 0) as hot_money_seats,
        case when coalesce(broker_days.is_known, true) then coalesce(broker_days.moved_cny, 0) end
            as hot_money_moved_cny,
        case when coalesce(broker_days.is_known, true) then coalesce(broker_days.top_cny, 0) end
            as hot_money_top3_cny,

        ---------- institutions' seats
        case
            when coalesce(institution_days.is_known, true)
                then coalesce(institution_days.net_cny, 0)
        end as institution_net_cny,
        coalesce(institution_counts.seat_count, 0) as institution_seats
    from told
    left join broker_days
        on told.ts_code = broker_days.ts_code and told.trade_date = broker_days.trade_date
    left join institution_days
        on told.ts_code = institution_days.ts_code and told.trade_date = institution_days.trade_date
    left join institution_counts
        on
            told.ts_code = institution_counts.ts_code
            and told.trade_date = institution_counts.trade_date

)

select *
from final
order by ts_code, trade_date
