{#- Calibration maps and conformal intervals applied by ASOF joins: the row of a score is the last
    one whose score_from (prediction_from) is not above it. The operations and their order are those
    of wavehouse.heads.calibration, so both give the same bits. Models are matched by the 64-bit hash
    of their long names, at half the CPU time of an ASOF join that sorts by the names. -#}

{#- Join of the calibration map of `output` as <output>_map: at most one row of it for each row. -#}
{% macro calibration_join(maps, output, model_id, score) -%}
    asof left join (
        select *
        from {{ maps }}
        where output = '{{ output }}'
    ) as {{ output }}_map
        on
            hash({{ model_id }}) = hash({{ output }}_map.model_id)
            and {{ score }} >= {{ output }}_map.score_from
{%- endmacro %}


{#- Calibrated probability from the row joined by calibration_join; for a multiclass target before
    class_probability. NULL without a score or a map. -#}
{% macro calibrated(output, score) -%}
    case
        when isnan({{ score }}) then null
        when {{ output }}_map.method = 'none' then {{ score }}
        when {{ output }}_map.logit_slope is not null
            then 1 / (
                1 + exp(-(
                    {{ output }}_map.logit_slope * ln({{ score }} / (1 - {{ score }}))
                    + {{ output }}_map.logit_intercept
                ))
            )
        when {{ output }}_map.slope > 0
            then {{ output }}_map.probability_from
                + {{ output }}_map.slope * ({{ score }} - {{ output }}_map.score_from)
        else {{ output }}_map.probability_from
    end
{%- endmacro %}


{#- A class's calibrated probability over the sum of all classes', the base rate where that is 0. -#}
{% macro class_probability(output, outputs) -%}
    case
        when {{ outputs | join(' + ') }} = 0 then {{ output }}_base_rate
        else {{ output }} / ({{ outputs | join(' + ') }})
    end
{%- endmacro %}


{#- Every column of `samples`, and for each output a column of its name with the calibrated
    probability of its score: the classes of one target with sum_to_one, else each by itself. -#}
{% macro with_probabilities(samples, scores, maps, model_id='model_id', sum_to_one=false) -%}
    {%- if sum_to_one %}
    select
        * exclude (
            {%- for output in scores %}{{ output }}_base_rate{{ ', ' if not loop.last }}{% endfor -%}
        ) replace (
            {%- for output in scores %}
            {{ class_probability(output, scores.keys() | list) }} as {{ output }}{{ ',' if not loop.last }}
            {%- endfor %}
        )
    from (
    {%- endif %}
    select
        {{ samples }}.*,
        {%- for output, score in scores.items() %}
        {%- if sum_to_one %}
        {{ output }}_map.base_rate as {{ output }}_base_rate,
        {%- endif %}
        {{ calibrated(output, samples ~ '.' ~ score) }} as {{ output }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ samples }}
    {%- for output, score in scores.items() %}
    {{ calibration_join(maps, output, _model_of(output, samples, model_id), samples ~ '.' ~ score) }}
    {%- endfor %}
    {%- if sum_to_one %}
    )
    {%- endif %}
{%- endmacro %}


{#- Join of the conformal intervals of `output` as <output>_interval: at most one row for each row. -#}
{% macro interval_join(intervals, output, model_id, prediction) -%}
    asof left join (
        select *
        from {{ intervals }}
        where output = '{{ output }}'
    ) as {{ output }}_interval
        on
            hash({{ model_id }}) = hash({{ output }}_interval.model_id)
            and {{ prediction }} >= {{ output }}_interval.prediction_from
{%- endmacro %}


{#- Lower or upper end of the interval joined by interval_join; NULL without a prediction, without
    intervals, or where too few rows were there for the level. -#}
{% macro interval_end(output, side, prediction) -%}
    case
        when not isnan({{ prediction }}) then {{ prediction }} + {{ output }}_interval.{{ side }}_offset
    end
{%- endmacro %}


{#- Every column of `samples`, and for each output lower_<output> and upper_<output>. -#}
{% macro with_intervals(samples, predictions, intervals, model_id='model_id') -%}
    select
        {{ samples }}.*,
        {%- for output, prediction in predictions.items() %}
        {{ interval_end(output, 'lower', samples ~ '.' ~ prediction) }} as lower_{{ output }},
        {{ interval_end(output, 'upper', samples ~ '.' ~ prediction) }} as upper_{{ output }}{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ samples }}
    {%- for output, prediction in predictions.items() %}
    {{ interval_join(intervals, output, _model_of(output, samples, model_id), samples ~ '.' ~ prediction) }}
    {%- endfor %}
{%- endmacro %}


{#- Column with the model of an output: one for all, or one each by a dictionary. -#}
{% macro _model_of(output, samples, model_id) -%}
    {{ samples }}.{{ model_id[output] if model_id is mapping else model_id }}
{%- endmacro %}
