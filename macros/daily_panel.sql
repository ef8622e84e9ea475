{#- Settings and averages of factors.daily_panel. -#}

{#- Days over which average daily turnover is known: the columns adv5, adv10, ... that the factor
    libraries ask for. -#}
{% macro adv_days() %}
    {% do return([5, 10, 15, 20, 30, 40, 50, 60, 81, 120, 150, 180]) %}
{% endmacro %}


{% macro daily_panel_settings() %}
    {% if var('daily_benchmark') is not string or not var('daily_benchmark') %}
        {% do _refuse_var('daily_benchmark', var('daily_benchmark'), 'the ts_code of an index, such as 000300.SH') %}
    {% endif %}
    {% do return({
        'daily_benchmark': var('daily_benchmark'),
        'daily_adv_basis': _choice_var('daily_adv_basis', ['amount', 'volume']),
    }) %}
{% endmacro %}


{#- Average over the traded ones of the last `days` rows from a running total and a running count, both
    exact whole numbers, so that a day's average is the same to the last bit whatever follows it;
    NULL before the stock has so many rows and where none of them was traded. -#}
{% macro trailing_average(total, known, days, unit) -%}
    case
        when stock_row >= {{ days }}
            then ({{ total }} - coalesce(lag({{ total }}, {{ days }}) over per_stock, 0))::double
                / nullif({{ known }} - coalesce(lag({{ known }}, {{ days }}) over per_stock, 0), 0)
                / {{ unit }}
    end
{%- endmacro %}
