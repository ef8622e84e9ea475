{#- Named windows last_5m, last_15m, ... over the bars of a symbol, the present one included. -#}
{% macro windows_of_minutes(minutes) -%}
    {%- for count in minutes -%}
    last_{{ count }}m as (
        partition by symbol order by open_time_ms
        rows between {{ count - 1 }} preceding and current row
    ){{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{#- `expression` over `window`, when the last `minutes` bars up to this one exist without a gap, else
    NULL: no feature jumps a gap, none is computed before its window is full. -#}
{% macro over_full_window(expression, window, minutes) -%}
    case when contiguous_minutes >= {{ minutes }} then {{ expression }} over {{ window }} end
{%- endmacro %}


{#- As over_full_window, and NULL as soon as one `value` in the window is unknown. -#}
{% macro over_known_window(expression, value, window, minutes) -%}
    case
        when contiguous_minutes >= {{ minutes }} and count({{ value }}) over {{ window }} = {{ minutes }}
            then {{ expression }} over {{ window }}
    end
{%- endmacro %}


{#- Relative change of `price` over the last `minutes`, bps; NULL when a minute between is missing. -#}
{% macro change_bps(price, minutes) -%}
    case
        when contiguous_minutes > {{ minutes }}
            then ({{ price }} / lag({{ price }}, {{ minutes }}) over per_symbol - 1) * 1e4
    end
{%- endmacro %}


{#- Rank of `value` among the symbols of the same minute, 0 (lowest) to 1 (highest); equal values
    share the lowest rank; NULL without a value or without a second symbol to compare with. -#}
{% macro rank_across_symbols(value) -%}
    case
        when {{ value }} is not null
            then (rank() over (partition by open_time_ms order by {{ value }} nulls last) - 1)
                / nullif(count({{ value }}) over (partition by open_time_ms) - 1, 0)::double
    end
{%- endmacro %}


{#- (value - mean) / sample standard deviation over a named window of full length, at least half of it
    known; NULL when the values do not vary. -#}
{% macro zscore(value, window, minutes) -%}
    case
        when contiguous_minutes >= {{ minutes }} and count({{ value }}) over {{ window }} * 2 >= {{ minutes }}
            then ({{ value }} - avg({{ value }}) over {{ window }})
                / nullif(stddev_samp({{ value }}) over {{ window }}, 0)
    end
{%- endmacro %}
