{%- set seeds = [
    'board_rules', 'price_limit_rules', 'price_limit_exceptions', 'universes', 'user_universes',
] -%}

with bars as (

    select *
    from {{ ref('stg_daily_bars') }}

),

-- no relation has rows behind the last bar
calendar as (

    select *
    from {{ ref('stg_trading_calendar') }}
    where trade_date <= (select max(bars.trade_date) from bars)

),

first_bars as (

    select
        ts_code,
        min(trade_date) as first_date
    from bars
    group by ts_code

),

facts as (

    select
        'stg_trading_calendar' as source,
        trade_date as effective_date,
        hash(trade_date, trading_day, previous_trade_date, next_trade_date) as fact_hash
    from calendar
    union all
    select
        'stg_daily_bars' as source,
        trade_date as effective_date,
        hash(
            ts_code, trade_date, open, high, low, close, pre_close, volume, amount, turnover,
            adj_factor, is_suspended, is_st, price_basis
        ) as fact_hash
    from bars
    union all
    select
        'stg_daily_basic' as source,
        trade_date as effective_date,
        hash(ts_code, trade_date, market_cap_cny, float_market_cap_cny) as fact_hash
    from {{ ref('stg_daily_basic') }}
    union all
    select
        'stg_index_daily' as source,
        trade_date as effective_date,
        hash(ts_code, trade_date, open, close) as fact_hash
    from {{ ref('stg_index_daily') }}
    union all
    -- a listing date says something of every row of its stock, also of those before it
    select
        'stg_securities' as source,
        least(securities.list_date, first_bars.first_date) as effective_date,
        hash('list', securities.ts_code, securities.list_date) as fact_hash
    from {{ ref('stg_securities') }} as securities
    left join first_bars on securities.ts_code = first_bars.ts_code
    union all
    select
        'stg_securities' as source,
        {% if daily_universe_settings().daily_gate_method == 'latest_snapshot' %}
        '-infinity'::date as effective_date,
        hash('now', ts_code, name, delist_date) as fact_hash
        {% else %}
        delist_date as effective_date,
        hash('delist', ts_code, delist_date) as fact_hash
        {% endif %}
    from {{ ref('stg_securities') }}
    union all
    {{ span_facts('stg_security_names', ['ts_code'], ['name', 'is_st_name', 'is_delisting_name'],
        'start_date', 'end_date') }}
    union all
    {{ span_facts('stg_index_members', ['index_code', 'ts_code'], [], 'in_date', 'out_date') }}
    union all
    {{ span_facts('stg_industry_members', ['ts_code'],
        ['industry_code', 'l1_code', 'l1_name', 'l2_code', 'l2_name', 'l3_code', 'l3_name'],
        'in_date', 'out_date') }}
    {% for seed in seeds %}
    union all
    select
        '{{ seed }}' as source,
        '-infinity'::date as effective_date,
        hash(seed) as fact_hash
    from {{ ref(seed) }} as seed
    {% endfor %}

),

-- whole numbers add up to the same in any order
sums as (

    select
        source,
        effective_date,
        sum(fact_hash::hugeint) as hash_sum
    from facts
    where effective_date is not null
    group by source, effective_date

)

select
    sums.source,
    calendar.trade_date,
    hash(sum(sums.hash_sum)) as day_hash
from sums
asof inner join calendar on sums.effective_date <= calendar.trade_date
group by sums.source, calendar.trade_date
order by sums.source, calendar.trade_date
