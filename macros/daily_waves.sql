{#- Pieces of labels.main_wave_labels and labels.main_wave_episodes. A path is the value of a position on
    successive days, in columns value_<first>, value_<first + 1>, ... of one row; NULL where the data end. -#}

{#- `expression` on each of the days `first` to `last` ahead: name_<k>. -#}
{% macro days_ahead(expression, name, first, last) -%}
    {%- for k in range(first, last + 1) %}
        lead({{ expression }}, {{ k }}) over per_stock as {{ name }}_{{ k }}{{ ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{#- greatest or least of name_<first> to name_<last>, NULLs ignored. -#}
{% macro extreme_of(function, name, first, last) -%}
    {{ function }}({% for k in range(first, last + 1) %}{{ name }}_{{ k }}{{ ', ' if not loop.last }}{% endfor %})
{%- endmacro %}


{#- k of the first of name_<first> to name_<last> that satisfies `condition`, such as '= highest'; NULL when
    none does. -#}
{% macro first_of(name, condition, first, last) -%}
    (case
        {%- for k in range(first, last + 1) %}
        when {{ name }}_{{ k }} {{ condition }} then {{ k }}
        {%- endfor %}
    end)::smallint
{%- endmacro %}


{#- name_<k> where k is the value of `position`, first to last. -#}
{% macro at_position(name, position, first, last) -%}
    (case {{ position }} {% for k in range(first, last + 1) %}when {{ k }} then {{ name }}_{{ k }} {% endfor %}end)
{%- endmacro %}


{#- Average of the window as an exact comparison: is the average of `fast` below that of `slow`? Cross
    multiplied whole numbers, so that equal averages are equal. -#}
{% macro is_average_below(value_units, fast, slow) -%}
    sum({{ value_units }}) over {{ fast }} * count({{ value_units }}) over {{ slow }}
        < sum({{ value_units }}) over {{ slow }} * count({{ value_units }}) over {{ fast }}
{%- endmacro %}


{#- Population standard deviation over a named window from exact sums of x in units of 1e-12; NULL below
    two known values. -#}
{% macro exact_population_stddev(units, units_squared, window) -%}
    case
        when count({{ units }}) over {{ window }} > 1
            then sqrt(
                (
                    count({{ units }}) over {{ window }} * sum({{ units_squared }}) over {{ window }}
                    - sum({{ units }}) over {{ window }} * sum({{ units }}) over {{ window }}
                )::double
            ) / count({{ units }}) over {{ window }} / 1e12
    end
{%- endmacro %}


{#- x kept inside [lowest, highest]; NULL stays NULL. -#}
{% macro clipped(x, lowest, highest) -%}
    case when {{ x }} is not null then least(greatest({{ x }}, {{ lowest }}::double), {{ highest }}::double) end
{%- endmacro %}


{#- Trading days before a row of labels.main_wave_labels on which it depends: its longest average, and the one of the
    day before. -#}
{% macro main_wave_look_back() %}
    {% set settings = daily_label_settings() %}
    {% do return([
        settings.main_wave_slow_days, settings.main_wave_amount_days, settings.main_wave_volatility_days,
    ] | max) %}
{% endmacro %}


{#- The same for a row of labels.main_wave_episodes. -#}
{% macro wave_episode_look_back() %}
    {% set settings = daily_label_settings() %}
    {% do return([settings.wave_episode_prior_days, settings.main_wave_amount_days] | max) %}
{% endmacro %}
