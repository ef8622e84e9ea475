{% set sizes = ['small', 'medium', 'large', 'extra_large'] %}

with delivered as (

    {{ staged_daily_source('moneyflow') }}

),

with_nets as (

    select
        * replace (
            {% for size in sizes %}
            coalesce(
                net_{{ size }}_amount_cny,
                buy_{{ size }}_amount_cny - sell_{{ size }}_amount_cny
            ) as net_{{ size }}_amount_cny {{- ',' if not loop.last }}
            {% endfor %}
        )
    from delivered

)

select * replace (
    coalesce(net_main_amount_cny, net_large_amount_cny + net_extra_large_amount_cny)
        as net_main_amount_cny
)
from with_nets
order by ts_code, trade_date
