{#- How factors.factor_health_days is made. All factors at once would not fit into memory and a column each is
    a statement too long to plan, so the rows of a few factors at a time are stacked, ranked and measured;
    a temporary table collects the days. -#}

{% macro factor_health_settings() %}
    {% set top_share = _number_var('factor_health_top_share') %}
    {% if not 0 < top_share < 1 %}
        {% do _refuse_var('factor_health_top_share', top_share, 'a share between 0 and 1') %}
    {% endif %}
    {% do return({
        'factor_health_horizon_days': _count_var('factor_health_horizon_days', 1, 250),
        'factor_health_min_names': _count_var('factor_health_min_names', 3, 100000),
        'factor_health_top_share': top_share,
        'entry_days': 0 if daily_label_settings().forward_return_same_close_entry else 1,
    }) %}
{% endmacro %}


{#- Trading days after its own that a row of factors.factor_health_days depends on. -#}
{% macro factor_health_days_ahead() %}
    {% set settings = factor_health_settings() %}
    {% do return(settings.factor_health_horizon_days + settings.entry_days) %}
{% endmacro %}


{#- Statements that fill the temporary table measured_factor_days. The last day built is read again: it is the day
    before the first new one. -#}
{% macro measure_factor_days(factor_ids, only_new=false, batch_size=4) %}
{%- set settings = factor_health_settings() -%}
{%- set entry_days = settings.entry_days -%}
{%- set exit_days = factor_health_days_ahead() -%}
create or replace temp table factor_forward_returns as
with days as (

    select
        ts_code,
        trade_date,
        trading_day,
        close,
        last_close
    from {{ ref('daily_panel') }}
    {% if only_new %}
    where trade_date >= {{ built_until() }}
    {% endif %}

)

select
    ts_code,
    trade_date,
    trading_day::integer as trading_day,
    dense_rank() over (order by ts_code)::integer as stock,
    -- valued at the scheduled exit, so that no suspension keeps a day open
    {{ on_day_ahead('last_close', exit_days) }}
        / {{ on_day_ahead('close', entry_days) }} - 1 as forward_return
from days
window per_stock as (partition by ts_code order by trade_date);
{% for ids in factor_ids | batch(batch_size) %}
{{ 'create or replace temp table measured_factor_days as' if loop.first
    else 'insert into measured_factor_days' }}
{{ _measured_factor_days(ids, settings, only_new) }};
{% endfor %}
{% endmacro %}


{#- Select of the days of some factors. factor_day and factor_stock are a factor's number and a day's or a stock's in
    one integer: keys that sort quickly. -#}
{% macro _measured_factor_days(ids, settings, only_new) -%}
{%- set names = "['" ~ ids | join("', '") ~ "']" -%}
{%- set enough = settings.factor_health_min_names -%}
with panel as (

    select
        returns.stock,
        returns.trade_date,
        returns.trading_day,
        returns.forward_return,
        [{{ ids | join(', ') }}] as factor_values
    from {{ ref('factor_panel') }} as factor_panel
    inner join factor_forward_returns as returns
        on
            factor_panel.ts_code = returns.ts_code
            and factor_panel.trade_date = returns.trade_date
    where factor_panel.in_universe

),

days as (

    select
        trade_date,
        trading_day,
        count(*) as row_count
    from panel
    group by all

),

factor_days as (

    select
        names.factor_id,
        names.factor_number * 100000 + days.trading_day as factor_day,
        days.trade_date,
        days.row_count
    from days
    cross join (
        select
            unnest({{ names }}) as factor_id,
            unnest(range({{ ids | length }}))::integer as factor_number
    ) as names

),

stacked as (

    select
        factor_number * 100000 + trading_day as factor_day,
        factor_number * 100000 + stock as factor_stock,
        forward_return,
        factor_value
    from (
        select
            stock,
            trading_day,
            forward_return,
            unnest(factor_values) as factor_value,
            unnest(range({{ ids | length }}))::integer as factor_number
        from panel
    )
    where factor_value is not null

),

placed as (

    select
        *,
        rank() over of_day as first_place,
        cume_dist() over of_day as share_up_to,
        dense_rank() over of_day as distinct_place
    from stacked
    window of_day as (partition by factor_day order by factor_value)

),

known as (

    select
        factor_day,
        count(*) as known_count,
        max(distinct_place) as distinct_count
    from placed
    group by factor_day

),

-- equal values share the mean of their places
ranked as (

    select
        placed.factor_day,
        placed.factor_stock,
        (placed.first_place + round(placed.share_up_to * known.known_count)) / 2 as place,
        place > (1 - {{ settings.factor_health_top_share }}::double) * known.known_count as is_top
    from placed
    inner join known on placed.factor_day = known.factor_day

),

followed as (

    select
        *,
        lag(factor_day) over of_stock = factor_day - 1 as has_day_before,
        case when has_day_before then lag(place) over of_stock end as place_before,
        coalesce(has_day_before and lag(is_top) over of_stock, false) as was_top
    from ranked
    window of_stock as (partition by factor_stock order by factor_day)

),

tops as (

    select
        factor_day,
        count(*) as top_count,
        count(*) filter (not was_top) as new_in_top
    from followed
    where is_top
    group by factor_day

),

persistence as (

    select
        factor_day,
        {{ _section_correlation('place', 'place_before', enough) }} as autocorrelation
    from followed
    where place_before is not null
    group by factor_day

),

-- both ranked anew among the rows that know both
pairs as (

    select
        factor_day,
        factor_value,
        forward_return,
        rank() over by_value + round(cume_dist() over by_value * count(*) over of_day)
            as value_place,
        rank() over by_return + round(cume_dist() over by_return * count(*) over of_day)
            as return_place
    from stacked
    where forward_return is not null
    window
        of_day as (partition by factor_day),
        by_value as (partition by factor_day order by factor_value),
        by_return as (partition by factor_day order by forward_return)

),

foresight as (

    select
        factor_day,
        count(*) as pair_count,
        {{ _section_correlation('factor_value', 'forward_return', enough) }} as ic,
        case
            when ic is not null
                then {{ _section_correlation('value_place', 'return_place', enough) }}
        end as rank_ic
    from pairs
    group by factor_day

)

select
    factor_days.factor_id,
    factor_days.trade_date,
    factor_days.row_count,
    coalesce(known.known_count, 0) as known_count,
    coalesce(known.distinct_count, 0) as distinct_count,
    coalesce(foresight.pair_count, 0) as pair_count,
    foresight.ic,
    foresight.rank_ic,
    persistence.autocorrelation,
    case
        when least(known.known_count, known_before.known_count) >= {{ enough }}
            and tops_before.top_count > 0
            then tops.new_in_top / tops.top_count
    end as turnover
from factor_days
left join known on factor_days.factor_day = known.factor_day
left join foresight on factor_days.factor_day = foresight.factor_day
left join persistence on factor_days.factor_day = persistence.factor_day
left join tops on factor_days.factor_day = tops.factor_day
left join known as known_before on factor_days.factor_day - 1 = known_before.factor_day
left join tops as tops_before on factor_days.factor_day - 1 = tops_before.factor_day
{% if only_new %}
where factor_days.trade_date > {{ built_until() }}
{% endif %}
{%- endmacro %}


{#- Correlation of two columns over a group; NULL of too few rows or of a constant column, also of one whose
    values differ by their last bit alone (NaN). What is left of a correlation of 0 is no noise: rounded. -#}
{% macro _section_correlation(x, y, enough) -%}
    case
        when count(*) >= {{ enough }} and {{ factor_spreads(x) }} and {{ factor_spreads(y) }}
            then nullif(round(corr({{ x }}, {{ y }}), 12), 'nan'::double)
    end
{%- endmacro %}
