{#- Settings of the daily universe, checked. Result: {var: value}. -#}
{% macro daily_universe_settings() %}
    {% do return({
        'daily_min_listed_days': _count_var('daily_min_listed_days', 0, 10000),
        'daily_absent_days_kept': _count_var('daily_absent_days_kept', 0, 10000),
        'daily_gate_method': _choice_var('daily_gate_method', ['point_in_time', 'latest_snapshot']),
        'daily_unknown_st_passes': _boolean_var('daily_unknown_st_passes'),
        'daily_adjusted_limit_tolerance': _number_var('daily_adjusted_limit_tolerance'),
    }) %}
{% endmacro %}


{#- Names of the gates, in the order in which failed_gates lists them. -#}
{% macro daily_gate_names() %}
    {% do return(['data_ok', 'main_board', 'listed', 'not_delisted', 'not_st', 'not_suspended']) %}
{% endmacro %}


{#- Weekdays before a date, counted from a fixed Monday: a difference counts the weekdays between two dates. -#}
{% macro weekdays_before(day) -%}
    (5 * (({{ day }} - date '1900-01-01') // 7) + least(({{ day }} - date '1900-01-01') % 7, 5))
{%- endmacro %}


{#- The price as a whole number of ticks, half up. Prices carry at most four decimals, so the whole number of ten-thousandths is exact and
    no float noise reaches the rounding. -#}
{% macro price_in_ticks(price, units_per_tick) -%}
    ((round({{ price }} * 10000)::bigint + {{ units_per_tick }} // 2) // {{ units_per_tick }})
{%- endmacro %}


{#- The limit price in ticks: reference price x (1 + or - pct) rounded half up, at least one tick away from the reference price, never
    below one tick. NULL where there is no limit.
    sign: '+' or '-'; reference_ticks: the reference price in ticks; limit_basis_points: pct x 10000 as a whole number. -#}
{% macro limit_in_ticks(sign, reference_ticks, limit_basis_points) -%}
    {%- set rounded -%}
        ({{ reference_ticks }} * (10000 {{ sign }} {{ limit_basis_points }}) + 5000) // 10000
    {%- endset -%}
    case
        when {{ reference_ticks }} is null or {{ limit_basis_points }} is null then null
        {%- if sign == '+' %}
        else greatest({{ rounded }}, {{ reference_ticks }} + 1)
        {%- else %}
        else greatest(least({{ rounded }}, {{ reference_ticks }} - 1), 1)
        {%- endif %}
    end
{%- endmacro %}


{#- How far a price may lie from the computed limit and still be at it. Unadjusted prices lie on the tick: half a tick tells neighbours
    apart. Limits in adjusted prices are not rounded: the exchange's lies from less than half a tick below to half a tick above, so an upper limit
    is at most 0.48 tick under the computed price (0.45 but on listing days) and the next lower price at least 0.5; below it is the other way
    round. A price is beyond both by 0.6 tick, since the size of the tick is itself estimated.
    side: '+' for the upper limit, '-' for the lower one, 'beyond' for a price that cannot be. -#}
{% macro limit_slack(side) -%}
    {%- set ticks = {'+': '0.485', '-': '0.515', 'beyond': '0.6'}[side] -%}
    case
        when not is_adjusted then units_per_tick / 20000.0::double
        else
            coalesce(
                adjusted_tick * {{ ticks }}::double,
                pre_close * {{ daily_universe_settings().daily_adjusted_limit_tolerance }}::double
            )
    end
{%- endmacro %}


{#- Spans (ts_code, valid_from, valid_to) in which a stock meets one line of a universe seed, for one kind of line. `lines` holds universe,
    kind, value, valid_from, valid_to; `stocks` holds ts_code. Open ends are infinite dates. -#}
{% macro universe_line_spans(kind) -%}
    {%- set members = {
        'all': "select ts_code, '*' as value, '-infinity'::date as in_date, 'infinity'::date as out_date from stocks",
        'ts_code': "select ts_code, ts_code as value, '-infinity'::date as in_date, 'infinity'::date as out_date from stocks",
        'board': 'select ts_code, board as value, first_date as in_date, last_date + 1 as out_date from stock_boards',
        'index': 'select ts_code, index_code as value, in_date, out_date from index_members',
    } -%}
    {%- for level in ['l1', 'l2', 'l3'] -%}
        {%- do members.update({'industry_' ~ level:
            'select ts_code, ' ~ level ~ '_code as value, in_date, out_date from industry_members union all '
            ~ 'select ts_code, ' ~ level ~ '_name as value, in_date, out_date from industry_members'}) -%}
    {%- endfor -%}
    select
        lines.universe,
        members.ts_code,
        greatest(lines.valid_from, members.in_date) as valid_from,
        least(lines.valid_to, members.out_date) as valid_to
    from lines
    inner join ({{ members[kind] }}) as members using (value)
    where
        lines.kind = '{{ kind }}'
        and greatest(lines.valid_from, members.in_date) < least(lines.valid_to, members.out_date)
{%- endmacro %}


{#- Kinds of lines that a universe seed may hold. -#}
{% macro universe_kinds() %}
    {% do return(['all', 'ts_code', 'board', 'index', 'industry_l1', 'industry_l2', 'industry_l3']) %}
{% endmacro %}
