{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days() }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{%- set narrowing_kinds = universe_kinds() -%}

with gates as (

    select
        ts_code,
        trade_date,
        board
    from {{ ref('daily_gates') }}
    -- every gate but main_board, which is a matter of the universe
    where
        data_ok and listed and not_delisted and not_st and not_suspended
        {% if is_incremental() %}
        and trade_date > {{ built_until() }}
        {% endif %}

),

lines as (

    select
        universe,
        kind,
        value,
        coalesce(valid_from, '-infinity'::date) as valid_from,
        coalesce(valid_to, 'infinity'::date) as valid_to
    from {{ ref('universes') }}
    union all
    select
        universe,
        kind,
        value,
        coalesce(valid_from, '-infinity'::date) as valid_from,
        coalesce(valid_to, 'infinity'::date) as valid_to
    from {{ ref('user_universes') }}

),

index_members as (

    select
        index_code,
        ts_code,
        in_date,
        coalesce(out_date, 'infinity'::date) as out_date
    from {{ ref('stg_index_members') }}

),

industry_members as (

    select
        ts_code,
        l1_code,
        l1_name,
        l2_code,
        l2_name,
        l3_code,
        l3_name,
        in_date,
        coalesce(out_date, 'infinity'::date) as out_date
    from {{ ref('stg_industry_members') }}

),

stock_boards as (

    select
        ts_code,
        board,
        min(trade_date) as first_date,
        max(trade_date) as last_date
    from gates
    group by ts_code, board

),

stocks as (

    select ts_code
    from stock_boards
    group by ts_code

),

{% for kind in narrowing_kinds %}
spans_of_{{ kind }} as (

    {{ universe_line_spans(kind) }}

),

{% endfor %}
universes as (

    select
        universe,
        {% for kind in narrowing_kinds %}
        bool_or(kind = '{{ kind }}') as has_{{ kind }} {{- ',' if not loop.last }}
        {% endfor %}
    from lines
    group by universe

),

-- lines of one kind are alternatives, kinds narrow one another
narrowed_by_none as (

    select
        universes.*,
        stocks.ts_code,
        '-infinity'::date as valid_from,
        'infinity'::date as valid_to
    from universes
    cross join stocks

),

{% for kind in narrowing_kinds %}
{%- set before = 'narrowed_by_' ~ ('none' if loop.first else narrowing_kinds[loop.index0 - 1]) %}
narrowed_by_{{ kind }} as (

    select
        earlier.* replace (
            greatest(earlier.valid_from, spans.valid_from) as valid_from,
            least(earlier.valid_to, spans.valid_to) as valid_to
        )
    from {{ before }} as earlier
    inner join spans_of_{{ kind }} as spans
        on earlier.universe = spans.universe and earlier.ts_code = spans.ts_code
    where
        earlier.has_{{ kind }}
        and greatest(earlier.valid_from, spans.valid_from)
        < least(earlier.valid_to, spans.valid_to)
    union all
    select earlier.*
    from {{ before }} as earlier
    where not earlier.has_{{ kind }}

),

{% endfor %}
-- spans that touch or overlap are one, so that a day is listed once
with_reach as (

    select
        universe,
        ts_code,
        valid_from,
        valid_to,
        max(valid_to) over (
            partition by universe, ts_code order by valid_from, valid_to
            rows between unbounded preceding and 1 preceding
        ) as reached
    from narrowed_by_{{ narrowing_kinds | last }}

),

numbered as (

    select
        *,
        count(*) filter (where reached is null or valid_from > reached) over (
            partition by universe, ts_code order by valid_from, valid_to
            rows between unbounded preceding and current row
        ) as span_number
    from with_reach

),

spans as (

    select
        universe,
        ts_code,
        min(valid_from) as valid_from,
        max(valid_to) as valid_to,
        dense_rank() over (order by universe, ts_code) as stock_place
    from numbered
    group by universe, ts_code, span_number

)

select
    spans.universe,
    gates.ts_code,
    gates.trade_date
from gates
inner join spans
    on
        gates.ts_code = spans.ts_code
        and gates.trade_date >= spans.valid_from
        and gates.trade_date < spans.valid_to
-- universe, stock and day in one whole number: sorting by the three takes five times as long
order by (spans.stock_place << 20) + (gates.trade_date - date '1900-01-01')
