{#- Reads the source once and judges every row once: stg_daily_bars, rejected_rows and load_audit
    rest on it. As in base_minute_bars the stages are not materialized. -#}
{% set rows = market_rows(
    source('daily_market', 'daily_bars'),
    required=[
        'ts_code', 'trade_date', 'open', 'high', 'low', 'close', 'pre_close', 'volume', 'amount'
    ],
    optional=['pct_chg', 'adj_factor', 'turnover', 'is_suspended', 'is_st', 'price_basis'],
    dates=['trade_date']
) %}
{% set prices = ['open', 'high', 'low', 'close'] %}

{#- a folder without any daily file is a minute-only one and is left in peace -#}
{% if execute and not has_market_files(source('daily_market', 'daily_bars')) %}
    {% set others = [] %}
    {% for name in daily_sources() if has_market_files(source('daily_market', name)) %}
        {% do others.append(name) %}
    {% endfor %}
    {% if others %}
        {% do exceptions.warn(
            'There is ' ~ others | join(', ') ~ ' but no daily_bars: the daily relations are empty.'
        ) %}
    {% endif %}
{% endif %}

with open_days as (

    select trade_date
    from {{ ref('base_trading_calendar') }}

),

read_rows as not materialized (

    {% for select in rows.selects %}
    {{ select }}
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

typed as not materialized (

    select
        ---------- keys
        {{ daily_value('ts_code', 'code') }} as ts_code,
        trade_date,

        ---------- prices as read
        {% for price in prices + ['pre_close'] %}
        try_cast({{ price }} as double) as read_{{ price }},
        {% endfor %}

        ---------- volume and amount
        try_cast(volume as double) as volume,
        try_cast(amount as double) as amount,
        volume is not null and try_cast(volume as double) is null as is_volume_unparsable,
        amount is not null and try_cast(amount as double) is null as is_amount_unparsable,

        ---------- optional values
        {{ daily_value('pct_chg', 'double') }} as pct_chg,
        {{ daily_value('adj_factor', 'double') }} as adj_factor,
        {{ daily_value('turnover', 'double') }} as turnover,
        {{ is_no_value('pct_chg', 'double') }}
        or {{ is_no_value('adj_factor', 'double') }}
        or {{ is_no_value('turnover', 'double') }} as has_unparsable_value,

        ---------- states
        {{ daily_value('is_suspended', 'flag') }} as is_marked_suspended,
        {{ daily_value('is_st', 'flag') }} as is_st,
        {{ is_no_value('is_suspended', 'flag') }}
        or {{ is_no_value('is_st', 'flag') }} as has_unparsable_flag,
        coalesce({{ daily_value('price_basis', 'text') }}, 'unadjusted') as price_basis,

        ---------- provenance
        source_file,
        has_too_many_fields,
        raw_row
    from read_rows

),

-- no price is worth keeping on a suspended day where it is not one; elsewhere it is a fault
with_states as not materialized (

    select
        *,
        coalesce(is_marked_suspended, false) or coalesce(volume, 0) = 0 as is_suspended,
        {% for price in prices + ['pre_close'] %}
        case
            when isfinite(read_{{ price }}) and read_{{ price }} > 0 then read_{{ price }}
        end as {{ price }},
        {% endfor %}
        read_open is null or read_high is null or read_low is null or read_close is null
            as lacks_price
    from typed

),

judged as not materialized (

    select
        *,
        case
            when has_too_many_fields then 'malformed_line'
            when ts_code is null or trade_date is null then 'null_or_unparsable_key'
            when not {{ is_stock_code('ts_code') }} then 'malformed_ts_code'
            when trade_date not between {{ first_trade_date() }} and {{ last_trade_date() }}
                then 'date_out_of_range'
            when trade_date not in (select open_days.trade_date from open_days)
                and trade_date between (select min(open_days.trade_date) from open_days)
                and (select max(open_days.trade_date) from open_days)
                then 'not_a_trading_day'
            when price_basis not in ('unadjusted', 'forward_adjusted') then 'unknown_price_basis'
            when has_unparsable_flag then 'unparsable_flag'
            when is_volume_unparsable then 'unparsable_volume'
            when not isfinite(volume) then 'non_finite_volume'
            when volume < 0 then 'negative_volume'
            when is_amount_unparsable then 'unparsable_amount'
            when not isfinite(amount) then 'non_finite_amount'
            when amount < 0 then 'negative_amount'
            when not is_suspended and lacks_price then 'null_or_unparsable_price'
            when not is_suspended and not (
                isfinite(read_open) and isfinite(read_high)
                and isfinite(read_low) and isfinite(read_close)
            ) then 'non_finite_price'
            when not is_suspended and least(read_open, read_high, read_low, read_close) <= 0
                then 'non_positive_price'
            when high < low then 'high_below_low'
            when greatest(open, close) > high or least(open, close) < low
                then 'open_or_close_outside_range'
            when has_unparsable_value then 'unparsable_value'
            when adj_factor <= 0 then 'non_positive_adj_factor'
            when pct_chg <= -1 or turnover < 0 then 'value_out_of_range'
            when {{ is_in_percent('pct_chg', 'close / pre_close - 1') }} then 'pct_chg_in_percent'
        end as own_reject_reason
    from with_states

),

-- A unit is wrong in a whole file or not at all, so the build stops instead of repairing it. What
-- the amount pays for a share, over its close, tells the unit where prices are the exchange's.
units_of_files as materialized (

    select
        source_file,
        count(*) filter (where is_priced) as priced_rows,
        count(*) filter (where is_priced and paid_over_close between 50 and 200) as rows_in_lots,
        count(*) filter (where is_priced and paid_over_close between 0.05 and 0.2)
            as rows_in_lots_and_thousands,
        count(*) filter (where is_priced and paid_over_close between 0.0005 and 0.002)
            as rows_in_thousands,
        count(*) filter (where is_moved) as moved_rows,
        count(*) filter (where is_moved and {{ is_in_percent('pct_chg', 'close / pre_close - 1') }})
            as rows_in_percent
    from (
        select
            source_file,
            pct_chg,
            close,
            pre_close,
            amount / nullif(volume * close, 0) as paid_over_close,
            price_basis = 'unadjusted' and not is_suspended and amount > 0 as is_priced,
            abs(close / pre_close - 1) >= 0.001 and pct_chg is not null as is_moved
        from with_states
    ) as with_units
    group by source_file

),

checked_units as (

    select count(*) as faulty_files
    from units_of_files
    where
        case
            when rows_in_lots * 2 > priced_rows
                then error(
                    source_file || ': amount / (volume x close) is about 100 in '
                    || rows_in_lots || ' of ' || priced_rows
                    || ' traded rows and should be about 1. Volume is in lots of 100 shares? '
                    || '{{ unit_remedy("volume by 100") }}'
                )
            when rows_in_lots_and_thousands * 2 > priced_rows
                then error(
                    source_file || ': amount / (volume x close) is about 0.1 in '
                    || rows_in_lots_and_thousands || ' of ' || priced_rows
                    || ' traded rows and should be about 1. Volume is in lots of 100 shares '
                    || 'and amount in thousand CNY? '
                    || '{{ unit_remedy("volume by 100 and amount by 1000") }}'
                )
            when rows_in_thousands * 2 > priced_rows
                then error(
                    source_file || ': amount / (volume x close) is about 0.001 in '
                    || rows_in_thousands || ' of ' || priced_rows
                    || ' traded rows and should be about 1. Amount is in thousand CNY? '
                    || '{{ unit_remedy("amount by 1000") }}'
                )
            when rows_in_percent * 2 > moved_rows
                then error(
                    source_file || ': pct_chg is 100 times close / pre_close - 1 in '
                    || rows_in_percent || ' of ' || moved_rows || ' rows that moved. '
                    || 'It is in percent? {{ unit_remedy("pct_chg by 0.01") }}'
                )
        end is not null

),

{{ repeat_verdicts(
    keys=['ts_code', 'trade_date'], row_hash=daily_bar_hash(), raw_columns=rows.raw_columns
) }}

select
    ts_code,
    trade_date,
    open,
    high,
    low,
    close,
    pre_close,
    pct_chg,
    volume,
    amount,
    turnover,
    adj_factor,
    is_suspended,
    is_st,
    price_basis,
    duplicate_count,
    is_repeat,
    source_file,
    reject_reason,
    row_json
from verdicts
where (select checked_units.faulty_files from checked_units) = 0
