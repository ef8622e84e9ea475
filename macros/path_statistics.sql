{#- Building blocks of labels.path_stats. The bars are read once as an ordered stream, in which `lead(x,
    k) over ()` is the bar k minutes ahead wherever the run of minutes is unbroken; the model checks the
    order as it reads. Measured in
    benchmarks/path_stats.py against partitioned windows, doubling maxima, lists and joins. -#}

{#- `column` at each of the next `minutes` bars: column_1, column_2, ... -#}
{% macro values_ahead(column, minutes) -%}
    {%- for k in range(1, minutes + 1) %}
        lead({{ column }}, {{ k }}) over () as {{ column }}_{{ k }}{{ ',' if not loop.last }}
    {%- endfor %}
{%- endmacro %}


{#- Bars until `column` first satisfies `condition` (such as '>= target_price') among the next
    `minutes` bars, inclusive; NULL when it never does. A NULL price never touches. -#}
{% macro first_touch(column, condition, minutes) -%}
    (case
        {%- for k in range(1, minutes + 1) %}
        when {{ column }}_{{ k }} {{ condition }} then {{ k }}
        {%- endfor %}
    end)::smallint
{%- endmacro %}


{#- greatest or least of `column` over the next `minutes` bars, NULLs ignored. -#}
{% macro extreme_ahead(function, column, minutes) -%}
    {{ function }}({% for k in range(1, minutes + 1) %}{{ column }}_{{ k }}{{ ', ' if not loop.last }}{% endfor %})
{%- endmacro %}


{#- The column of the row's own horizon: name_45 where horizon_minutes = 45. -#}
{% macro of_horizon(name, horizons) -%}
    case horizon_minutes {% for h in horizons %}when {{ h }} then {{ name }}_{{ h }} {% endfor %}end
{%- endmacro %}


{#- Named windows over the path of each horizon h: next_h are its bars i + 1 .. i + h, returns_h the
    returns between them, of which the first leads into bar i + 2. -#}
{% macro windows_ahead(horizons) -%}
    {%- for h in horizons -%}
    next_{{ h }} as (
        partition by symbol order by open_time_ms rows between 1 following and {{ h }} following
    ),
    returns_{{ h }} as (
        partition by symbol order by open_time_ms
        rows between 2 following and {{ [h, 2] | max }} following
    ){{ ', ' if not loop.last }}
    {%- endfor -%}
{%- endmacro %}


{#- Sample standard deviation over a named window from exact integer sums of x in units of 1e-14,
    so that it is the same to the last bit wherever the computation of the window started. A sum
    of doubles is not, and an incremental build would differ from a full one. -#}
{% macro exact_stddev(units, units_squared, window) -%}
    case
        when count({{ units }}) over {{ window }} > 1
            then sqrt(
                (
                    count({{ units }}) over {{ window }} * sum({{ units_squared }}) over {{ window }}
                    - sum({{ units }}) over {{ window }} * sum({{ units }}) over {{ window }}
                )::double
                / (count({{ units }}) over {{ window }} * (count({{ units }}) over {{ window }} - 1))
            ) / 1e14
    end
{%- endmacro %}


{#- 0.8 quantile (linear between order statistics, NULLs ignored) of `column` over a named window of
    `minutes` rows. It lies among the largest fifth of the values, so up to an hour a window of the n
    largest costs 0.6 of quantile_cont; beyond, quantile_cont is cheaper (benchmarks/path_stats.py). -#}
{% macro quantile_80(column, window, minutes) -%}
    {%- if minutes > 60 -%}
        quantile_cont({{ column }}, 0.8) over {{ window }}
    {%- else -%}
        {%- set largest -%} max({{ column }}, {{ (minutes - 1) // 5 + 2 }}) over {{ window }} {%- endset -%}
        {%- set above -%} (count({{ column }}) over {{ window }} - 1) {%- endset -%}
        ({{ largest }})[{{ above }} // 5 + 1]
        - case when {{ above }} % 5 > 0
            then (({{ largest }})[{{ above }} // 5 + 1] - ({{ largest }})[{{ above }} // 5 + 2]) * ({{ above }} % 5 / 5)
            else 0
        end
    {%- endif -%}
{%- endmacro %}


{#- One row per symbol and UTC day with a hash of everything its path statistics are made from: the
    bars of the day, those of the longest horizon after it, and the settings. -#}
{% macro path_stats_inputs() %}
    {%- set horizons = path_stats_horizons() -%}
    {%- set settings = label_settings() -%}
    {%- set identity = [
        horizons, settings.entry_target_bps, settings.entry_stop_bps, settings.entry_price,
        settings.label_version,
    ] -%}
    select
        symbol,
        day_number,
        hash(bit_xor(bar_hash), count(*), '{{ tojson(identity) | replace("'", "''") }}') as input_hash
    from (
        select
            symbol,
            open_time_ms // 86400000 as day_number,
            hash(open_time_ms, open, high, low, close, spread_bps) as bar_hash
        from {{ ref('stg_minute_bars') }}
        union all
        select
            symbol,
            open_time_ms // 86400000 - 1 as day_number,
            hash(open_time_ms, open, high, low, close, spread_bps) as bar_hash
        from {{ ref('stg_minute_bars') }}
        where open_time_ms % 86400000 < {{ horizons | max }} * 60000
    )
    group by symbol, day_number
{% endmacro %}


{#- Pre-hook of labels.path_stats: drop every day whose inputs are not what its rows were made from
    (new, corrected, withdrawn bars; other settings). The model then builds the days that are missing. -#}
{% macro drop_outdated_path_stats() %}
    {% if is_incremental() %}
        delete from {{ this }} as built
        where not exists (
            select 1
            from ({{ path_stats_inputs() }}) as inputs
            where
                inputs.symbol = built.symbol
                and inputs.day_number = built.open_time_ms // 86400000
                and inputs.input_hash = built.input_hash
        )
    {% else %}
        select 'nothing to drop: the table is built anew'
    {% endif %}
{% endmacro %}


{#- Feature rows that may get labels, with what the labels carry along. -#}
{% macro label_samples(columns=[]) %}
    select
        sample_id,
        symbol,
        event_time,
        open_time_ms,
        {% for column in columns %}
        {{ column }},
        {% endfor %}
        split_id,
        walk_forward_fold
    from {{ ref('minute_features') }}
    {% if label_settings().label_quality_filter %}
    where data_quality_flag = 'OK'
    {% endif %}
{% endmacro %}


{#- Path statistics of one horizon and side, the columns named long_* or short_*. -#}
{% macro side_paths(side, horizon_minutes, columns) %}
    select
        symbol,
        open_time_ms,
        {% for column in columns %}
        {{ column }} as {{ side | lower }}_{{ column }}{{ ',' if not loop.last }}
        {% endfor %}
    from {{ ref('path_stats') }}
    where side = '{{ side }}' and horizon_minutes = {{ horizon_minutes }}
{% endmacro %}


{#- 1 where the condition holds, 0 where it does not or is unknown. -#}
{% macro flag(condition) -%}
    coalesce({{ condition }}, false)::tinyint
{%- endmacro %}


{#- greatest or least that is NULL as soon as one operand is: DuckDB's own skip NULL. -#}
{% macro unless_unknown(function, operands) -%}
    case
        when {{ operands | join(' is not null and ') }} is not null
            then {{ function }}({{ operands | join(', ') }})
    end
{%- endmacro %}
