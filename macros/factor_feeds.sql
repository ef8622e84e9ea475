{#- What feeds of rare rows say on days without a row. -#}

{% macro factor_feed_settings() %}
    {% do return({'factor_feed_silence_days': _count_var('factor_feed_silence_days', 0, 250)}) %}
{% endmacro %}


{#- Select of the trading days on which a feed speaks for every stock: it had a row of any stock on the
    day or at most var factor_feed_silence_days trading days before. Later rows do not count, so that
    the answer stays when days are added. -#}
{% macro days_a_feed_covers(days, feed) -%}
select trade_date
from (
    select
        days.trade_date,
        -- one of no trading day, a Sunday's say, counts on the next
        count(rows_of_feed.fed_date) over (
            order by days.trade_date
            rows between {{ factor_feed_settings().factor_feed_silence_days }} preceding and current row
        ) as days_fed
    from {{ days }} as days
    left join (
        select distinct next_day.trade_date as fed_date
        from {{ feed }} as fed
        asof inner join {{ days }} as next_day
            on fed.trade_date <= next_day.trade_date
    ) as rows_of_feed
        on days.trade_date = rows_of_feed.fed_date
)
where days_fed > 0
{%- endmacro %}
