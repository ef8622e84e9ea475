{#- The optional sources of the daily track beside daily_bars, each judged in the same way: typed,
    refused with a reason where a key is missing or a value is none, exact repeats collapsed, several
    different rows of one key all refused. A source without a file is an empty relation. -#}

{#- Every source as {'keys': {column: kind}, 'values': {column: kind}} and, where they apply,
    'span': [first column, end column] of a half-open span that may not overlap another of the same
    other keys, 'is_list': true where rows that differ in a value are different rows and not a conflict,
    'rules': [[reason, condition], ...]. Kinds: code (a stock), text, date, double. Units are in the
    names: _cny, _shares, _ratio (a decimal); changes, turnover and yields are decimals too. -#}
{% macro daily_sources() %}
    {% set per_stock_day = {'ts_code': 'code', 'trade_date': 'date'} %}
    {% set flows = doubles('net_amount_cny net_main_amount_cny net_main_ratio net_volume_shares') %}
    {% for size in ['small', 'medium', 'large', 'extra_large'] %}
        {% for form in [
            'net_{}_amount_cny', 'net_{}_ratio', 'buy_{}_amount_cny', 'sell_{}_amount_cny',
            'buy_{}_volume_shares', 'sell_{}_volume_shares',
        ] %}
            {% do flows.update({form.format(size): 'double'}) %}
        {% endfor %}
    {% endfor %}
    {% do return({
        'trading_calendar': {'keys': {'trade_date': 'date'}, 'values': {}},
        'securities': {
            'keys': {'ts_code': 'code'},
            'values': {'name': 'text', 'exchange': 'text', 'list_date': 'date', 'delist_date': 'date'},
            'rules': [['span_not_positive', 'delist_date <= list_date']],
        },
        'security_code_changes': {
            'keys': {'old_ts_code': 'code'},
            'values': {'new_ts_code': 'code', 'name': 'text', 'first_seen_date': 'date'},
            'rules': [
                ['null_or_unparsable_key', 'new_ts_code is null'],
                ['malformed_ts_code', 'not ' ~ is_stock_code('new_ts_code')],
            ],
        },
        'security_names': {
            'keys': {'ts_code': 'code', 'start_date': 'date'},
            'values': {'name': 'text', 'end_date': 'date'},
            'span': ['start_date', 'end_date'],
        },
        'index_members': {
            'keys': {'index_code': 'text', 'ts_code': 'code', 'in_date': 'date'},
            'values': {'out_date': 'date'},
            'span': ['in_date', 'out_date'],
        },
        'industry_members': {
            'keys': {'ts_code': 'code', 'in_date': 'date'},
            'values': {
                'industry_code': 'text', 'l1_code': 'text', 'l1_name': 'text', 'l2_code': 'text',
                'l2_name': 'text', 'l3_code': 'text', 'l3_name': 'text', 'out_date': 'date',
            },
            'span': ['in_date', 'out_date'],
        },
        'index_daily': {
            'keys': {'ts_code': 'text', 'trade_date': 'date'},
            'values': {
                'open': 'double', 'high': 'double', 'low': 'double', 'close': 'double',
                'volume': 'double', 'amount': 'double', 'pct_chg': 'double',
            },
            'rules': [
                ['null_or_unparsable_price', 'close is null'],
                ['non_positive_price', 'least(open, high, low, close) <= 0'],
                ['high_below_low', 'high < low'],
                ['negative_volume', 'volume < 0'],
                ['negative_amount', 'amount < 0'],
                ['pct_chg_in_percent', 'abs(pct_chg) > 0.5'],
            ],
        },
        'moneyflow': {'keys': per_stock_day, 'values': flows},
        'top_list': {
            'keys': {'ts_code': 'code', 'trade_date': 'date', 'reason': 'text'},
            'values': dict({'name': 'text'}, **doubles(
                'close pct_chg turnover amount_cny listed_buy_amount_cny listed_sell_amount_cny
                listed_amount_cny net_amount_cny net_amount_ratio listed_amount_ratio float_market_cap_cny'
            )),
        },
        'top_inst': {
            'keys': {'ts_code': 'code', 'trade_date': 'date', 'seat_name': 'text'},
            'values': dict({'side': 'text', 'reason': 'text'}, **doubles(
                'buy_amount_cny buy_ratio sell_amount_cny sell_ratio net_amount_cny'
            )),
            'is_list': true,
        },
        'hk_hold': {'keys': per_stock_day, 'values': doubles('holding_shares holding_ratio')},
        'margin': {
            'keys': per_stock_day,
            'values': doubles(
                'financing_balance_cny financing_buy_cny financing_repayment_cny short_balance_cny
                short_balance_shares short_sell_shares short_cover_shares margin_balance_cny'
            ),
        },
        'market_margin': {
            'keys': {'trade_date': 'date', 'exchange': 'text'},
            'values': doubles(
                'financing_balance_cny financing_buy_cny financing_repayment_cny short_balance_cny
                short_balance_shares short_sell_shares margin_balance_cny'
            ),
        },
        'market_moneyflow': {
            'keys': {'trade_date': 'date'},
            'values': doubles(
                'close_shanghai pct_chg_shanghai close_shenzhen pct_chg_shenzhen
                net_main_amount_cny net_small_amount_cny net_medium_amount_cny
                net_large_amount_cny net_extra_large_amount_cny
                net_main_ratio net_small_ratio net_medium_ratio net_large_ratio net_extra_large_ratio'
            ),
            'rules': [
                ['non_positive_price', 'least(close_shanghai, close_shenzhen) <= 0'],
                ['pct_chg_in_percent', 'greatest(abs(pct_chg_shanghai), abs(pct_chg_shenzhen)) > 0.5'],
            ],
        },
        'cyq_perf': {
            'keys': per_stock_day,
            'values': doubles(
                'historical_low_price historical_high_price cost_5pct_price cost_15pct_price
                cost_50pct_price cost_85pct_price cost_95pct_price weighted_average_price winner_ratio'
            ),
            'rules': [['value_out_of_range', 'winner_ratio < 0 or winner_ratio > 1']],
        },
        'daily_basic': {
            'keys': per_stock_day,
            'values': doubles(
                'close turnover turnover_free_float volume_ratio pe pe_ttm pb ps ps_ttm dividend_yield
                dividend_yield_ttm total_shares float_shares free_float_shares market_cap_cny
                float_market_cap_cny'
            ),
            'rules': [['value_out_of_range',
                'least(turnover, total_shares, float_shares, market_cap_cny, float_market_cap_cny) < 0']],
        },
        'limit_list': {
            'keys': {'ts_code': 'code', 'trade_date': 'date', 'limit_type': 'text'},
            'values': dict(
                {'name': 'text', 'first_limit_time': 'text', 'last_limit_time': 'text',
                'limit_statistics': 'text'},
                **doubles('close pct_chg amount_cny board_amount_cny sealed_amount_cny
                float_market_cap_cny market_cap_cny turnover board_open_count consecutive_limit_days')
            ),
        },
        'holders': {
            'keys': {'ts_code': 'code', 'trade_date': 'date', 'report_date': 'date'},
            'values': doubles('holder_count major_net_change_shares'),
            'rules': [['value_out_of_range', 'holder_count < 0']],
        },
        'ths_hot': {
            'keys': per_stock_day,
            'values': dict(
                {'list_name': 'text', 'rank_time': 'text', 'name': 'text', 'concept': 'text',
                'rank_reason': 'text'},
                **doubles('hot_rank hot_score pct_chg close')
            ),
            'is_list': true,
        },
        'northbound': {
            'keys': {'trade_date': 'date'},
            'values': doubles(
                'northbound_amount_cny northbound_shanghai_amount_cny northbound_shenzhen_amount_cny
                southbound_amount_cny southbound_shanghai_amount_cny southbound_shenzhen_amount_cny'
            ),
        },
    }) %}
{% endmacro %}


{#- {column: 'double'} for names divided by white space. -#}
{% macro doubles(names) %}
    {% set columns = {} %}
    {% for name in names.split() %} {% do columns.update({name: 'double'}) %} {% endfor %}
    {% do return(columns) %}
{% endmacro %}


{#- CTEs that read and judge one source of daily_sources, to be followed by a select from `verdicts`:
    its columns typed, source_file, is_repeat, reject_reason, row_key, row_json (of refused rows). -#}
{% macro daily_source_verdicts(name) %}
{%- set spec = daily_sources()[name] -%}
{%- set kinds = dict(spec['keys'], **spec['values']) -%}
{%- set keys = spec['keys'] | list -%}
{%- set columns = kinds | list -%}
{%- set identity = columns if spec.is_list else keys -%}
{%- set dates = [] -%}
{%- for key, kind in spec['keys'].items() if kind == 'date' -%} {%- do dates.append(key) -%} {%- endfor -%}
{%- set rows = market_rows(
    source('daily_market', name), required=keys, optional=spec['values'] | list, dates=dates
) -%}
read_rows as not materialized (

    {% for select in rows.selects %}
    {{ select }}
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

typed as not materialized (

    select
        {% for column, kind in kinds.items() %}
        {{ daily_value(column, kind, is_parsed=column in dates) }} as {{ column }},
        {% endfor %}
        {% for column, kind in kinds.items() if column not in dates and kind not in ['code', 'text'] %}
        {{ is_no_value(column, kind) }} or
        {% endfor %}
        false as has_unparsable_value,
        source_file,
        has_too_many_fields,
        raw_row
    from read_rows

),

judged as not materialized (

    select
        *,
        case
            when has_too_many_fields then 'malformed_line'
            when {{ keys | join(' is null or ') }} is null then 'null_or_unparsable_key'
            {% for code, kind in spec['keys'].items() if kind == 'code' %}
            when not {{ is_stock_code(code) }} then 'malformed_ts_code'
            {% endfor %}
            {% for date in dates %}
            when {{ date }} not between {{ first_trade_date() }} and {{ last_trade_date() }}
                then 'date_out_of_range'
            {% endfor %}
            when has_unparsable_value then 'unparsable_value'
            {% if spec.span %}
            when {{ spec.span[1] }} <= {{ spec.span[0] }} then 'span_not_positive'
            {% endif %}
            {% for reason, condition in spec.rules or [] %}
            when {{ condition }} then '{{ reason }}'
            {% endfor %}
        end as own_reject_reason
    from typed

),

-- rows that several sound rows share the key with, and whether these rows are the same
repeated_keys as materialized (

    select
        {{ identity | join(', ') }},
        min(hash({{ columns | join(', ') }})) <> max(hash({{ columns | join(', ') }})) as is_conflict
    from judged
    where own_reject_reason is null
    group by {{ identity | join(', ') }}
    having count(*) > 1

),

single_rows as (

    select
        judged.* exclude (raw_row),
        false as is_repeat,
        {{ row_as_json(rows.raw_columns) if spec.span else 'null' }} as row_json
    from judged
    anti join repeated_keys on {{ same_keys('judged', 'repeated_keys', identity) }}
    where judged.own_reject_reason is null

),

other_rows as (

    select
        judged.* exclude (own_reject_reason, raw_row),
        coalesce(
            judged.own_reject_reason,
            case when repeated_keys.is_conflict then 'conflicting_duplicate_key' end
        ) as own_reject_reason,
        judged.own_reject_reason is null and not repeated_keys.is_conflict and row_number() over (
            partition by judged.own_reject_reason, judged.{{ identity | join(', judged.') }}
            order by judged.source_file
        ) > 1 as is_repeat,
        {{ row_as_json(rows.raw_columns) }} as row_json
    from judged
    left join repeated_keys on {{ same_keys('judged', 'repeated_keys', identity) }}
    where judged.own_reject_reason is not null or repeated_keys.is_conflict is not null

),

sound_and_other_rows as (

    select * from single_rows
    union all by name
    select * from other_rows

),

verdicts as (

    select
        {{ columns | join(', ') }},
        source_file,
        is_repeat,
        {% if spec.span %}
        {% set others = keys | reject('equalto', spec.span[0]) | list %}
        {# of two spans that overlap the later is refused #}
        case
            when own_reject_reason is not null then own_reject_reason
            when max(coalesce({{ spec.span[1] }}, 'infinity'::date)) over (
                partition by {{ others | join(', ') }}, own_reject_reason is null and not is_repeat
                order by {{ spec.span[0] }}
                rows between unbounded preceding and 1 preceding
            ) > {{ spec.span[0] }} and not is_repeat then 'overlapping_span'
        end as reject_reason,
        {% else %}
        own_reject_reason as reject_reason,
        {% endif %}
        {{ row_key(keys) }} as row_key,
        row_json
    from sound_and_other_rows

)
{% endmacro %}


{#- One source of daily_sources as staged: its sound rows once, ordered by key. -#}
{% macro staged_daily_source(name) %}
{%- set spec = daily_sources()[name] -%}
with {{ daily_source_verdicts(name) }}

select
    {{ (spec['keys'] | list + spec['values'] | list) | join(',\n    ') }},
    source_file
from verdicts
where reject_reason is null and not is_repeat
order by {{ (spec['keys'] | list + (spec['values'] | list if spec.is_list else [])) | join(', ') }}
{% endmacro %}


{#- A column as read, typed: NULL where it is missing or no value of its kind. A NaN is a missing value. -#}
{% macro daily_value(column, kind, is_parsed=false) -%}
    {%- if is_parsed -%} {{ column }}
    {%- elif kind in ['code', 'text'] -%} case when trim({{ column }}::varchar) <> '' then {{ column }}::varchar end
    {%- elif kind == 'date' -%} {{ parsed_date(column) }}
    {%- elif kind == 'double' -%} case when isfinite(try_cast({{ column }} as double)) then try_cast({{ column }} as double) end
    {%- elif kind == 'flag' -%} coalesce(try_cast({{ column }} as boolean), try_cast(try_cast({{ column }}::varchar as double) as boolean))
    {%- else -%} {{ exceptions.raise_compiler_error('unknown kind ' ~ kind) }}
    {%- endif -%}
{%- endmacro %}


{#- Whether a column as read holds something that is no value of its kind. -#}
{% macro is_no_value(column, kind) -%}
    case
        when {{ column }} is not null and ({{ daily_value(column, kind) }}) is null
            then lower(trim({{ column }}::varchar)) not in ('', 'nan')
        else false
    end
{%- endmacro %}


{#- Code of a stock as the exchanges and Tushare write it: six digits and the exchange. -#}
{% macro is_stock_code(column) -%}
    regexp_full_match({{ column }}, '[0-9]{6}\.(SH|SZ|BJ)')
{%- endmacro %}


{#- Days a row may have. An earlier or later one is a date in another form. -#}
{% macro first_trade_date() -%} date '1980-01-01' {%- endmacro %}
{% macro last_trade_date() -%} date '2099-12-31' {%- endmacro %}


{% macro same_keys(left, right, columns) -%}
    {%- for column in columns -%}
    {{ left }}.{{ column }} is not distinct from {{ right }}.{{ column }}{{ ' and ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{#- Whether a change given as a decimal is 100 times what it should be, well above its rounding. -#}
{% macro is_in_percent(given, computed) -%}
    (abs({{ given }} - ({{ computed }})) > 0.001 and {{ given }} / nullif({{ computed }}, 0) between 50 and 200)
{%- endmacro %}


{% macro unit_remedy(what) -%}
    Multiply {{ what }}, or bring the file in with `wavehouse ingest` (see --help).
{%- endmacro %}


{#- All that tells two deliveries of a bar apart. -#}
{% macro daily_bar_hash() -%}
    hash(
        open, high, low, close, pre_close, pct_chg, volume, amount, turnover, adj_factor, is_suspended, is_st,
        price_basis
    )
{%- endmacro %}


{#- Half the smallest step of prices: nearer prices are the same. B shares of Shanghai are quoted in mils. -#}
{% macro half_tick(ts_code) -%}
    case when starts_with({{ ts_code }}, '900') then 0.0005::double else 0.005::double end
{%- endmacro %}


{#- Model that holds the sound rows of a source of daily_sources. -#}
{% macro daily_relation(name) %}
    {% do return(ref('base_trading_calendar') if name == 'trading_calendar' else ref('stg_' ~ name)) %}
{% endmacro %}


{#- Rows in the files of each source of daily_sources. Result: SELECT of source_name, source_file, rows_read. -#}
{% macro daily_files_read() %}
    {% for name in daily_sources() %}
    {% set files = market_files(source('daily_market', name) | string | replace("'", '')) %}
    {% for kind in ['parquet', 'csv'] if files[kind] %}
    select '{{ name }}' as source_name, filename as source_file, count(*) as rows_read
    from {{ market_scan(files[kind], kind) }}
    group by filename
    union all
    {% endfor %}
    {% endfor %}
    select null::varchar as source_name, null::varchar as source_file, 0::bigint as rows_read where false
{% endmacro %}


{#- Rows in the relation of each source of daily_sources by the file they are from. Result: SELECT of
    source_name, source_file, rows_staged, symbols, first_event_time, last_event_time. -#}
{% macro daily_rows_staged() %}
    {% for name, spec in daily_sources().items() %}
    {% set dates = [] %}
    {% for key, kind in spec['keys'].items() if kind == 'date' %} {% do dates.append(key) %} {% endfor %}
    select
        '{{ name }}' as source_name,
        source_file,
        count(*) as rows_staged,
        {{ 'count(distinct ts_code)' if 'ts_code' in spec['keys'] else '0::bigint' }} as symbols,
        {{ 'min(' ~ dates[0] ~ ')::timestamp' if dates else 'null::timestamp' }} as first_event_time,
        {{ 'max(' ~ dates[0] ~ ')::timestamp' if dates else 'null::timestamp' }} as last_event_time
    from {{ daily_relation(name) }}
    group by source_file
    {{ 'union all' if not loop.last }}
    {% endfor %}
{% endmacro %}
