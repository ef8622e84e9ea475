{#- Metrics of learned heads, from one row per (output, sample): models/heads/head_metrics.yml defines
    each metric. A series is one (head, target, output, role).

    Sums are integers: a double is rounded to a multiple of 2^-40 of one, or of the largest magnitude
    in its series. Integers add up to the same sum in any order, so a metric does not depend on the
    order of rows or on the number of threads, and a constant has a variance of exactly zero. -#}

{#- Every setting of the metrics, checked and typed. -#}
{% macro head_metric_settings() %}
    {% do return({
        'min_period_rows': _count_var('head_metric_min_period_rows', 2, 1000000),
        'top_k': _count_var('head_metric_top_k', 1, 1000),
        'bins': _count_var('head_metric_bins', 1, 1000),
        'min_bin_rows': _count_var('head_metric_min_bin_rows', 1, 1000000),
        'curve_bins_per_bin': _count_var('head_metric_curve_bins_per_bin', 1, 100),
        'curve_bins_per_doubling': _count_var('head_metric_curve_bins_per_doubling', 1, 100),
        'tail_bins': _count_var('head_metric_tail_bins', 2, 1000),
        'log_loss_clip': _open_interval_var('head_metric_log_loss_clip', 0, 0.5),
        'confidence': _open_interval_var('head_metric_confidence', 0, 1),
        'bootstrap_draws': _count_var('head_metric_bootstrap_draws', 0, 100000),
        'bootstrap_seed': _count_var('head_metric_bootstrap_seed', 0, 2147483647),
        'block_periods': _count_var('head_metric_block_periods', 1, 100000),
        'min_blocks': _count_var('head_metric_min_blocks', 1, 100000),
    }) %}
{% endmacro %}


{% macro _open_interval_var(name, lower, upper) %}
    {% set value = _number_var(name) %}
    {% if value <= lower or value >= upper %}
        {% do _refuse_var(name, value, 'a number between ' ~ lower ~ ' and ' ~ upper) %}
    {% endif %}
    {% do return(value) %}
{% endmacro %}


{#- The metrics: {name: {'kinds': kinds of output that have it, 'basis': the rows it is made from}}.
    The bases ic, rank_ic, top_k and jaccard are means over the periods that have one. -#}
{% macro head_metric_catalog() %}
    {% set both = ['probability', 'value'] %}
    {% do return({
        'ic': {'kinds': both, 'basis': 'ic'},
        'rank_ic': {'kinds': both, 'basis': 'rank_ic'},
        'icir': {'kinds': both, 'basis': 'rank_ic'},
        'rank_ic_newey_west_t': {'kinds': both, 'basis': 'rank_ic'},
        'rank_ic_newey_west_lag': {'kinds': both, 'basis': 'rank_ic'},
        'pooled_rank_ic': {'kinds': both, 'basis': 'rows'},
        'hit_rate': {'kinds': both, 'basis': 'rows'},
        'top_k_jaccard': {'kinds': both, 'basis': 'jaccard'},
        'base_rate': {'kinds': ['probability'], 'basis': 'rows'},
        'pr_auc': {'kinds': ['probability'], 'basis': 'rows'},
        'pr_auc_lift': {'kinds': ['probability'], 'basis': 'rows'},
        'roc_auc': {'kinds': ['probability'], 'basis': 'rows'},
        'ece': {'kinds': ['probability'], 'basis': 'rows'},
        'ece_debiased': {'kinds': ['probability'], 'basis': 'rows'},
        'brier': {'kinds': ['probability'], 'basis': 'rows'},
        'brier_ratio': {'kinds': ['probability'], 'basis': 'rows'},
        'brier_reliability': {'kinds': ['probability'], 'basis': 'rows'},
        'brier_resolution': {'kinds': ['probability'], 'basis': 'rows'},
        'brier_uncertainty': {'kinds': ['probability'], 'basis': 'rows'},
        'log_loss': {'kinds': ['probability'], 'basis': 'rows'},
        'precision_at_k': {'kinds': ['probability'], 'basis': 'top_k'},
        'precision_at_k_lift': {'kinds': ['probability'], 'basis': 'top_k'},
        'mean_actual_top_k': {'kinds': ['value'], 'basis': 'top_k'},
        'top_minus_bottom': {'kinds': ['value'], 'basis': 'rows'},
        'rmse': {'kinds': ['value'], 'basis': 'rows'},
        'mae': {'kinds': ['value'], 'basis': 'rows'},
        'r_squared': {'kinds': ['value'], 'basis': 'rows'},
        'interval_coverage': {'kinds': ['value'], 'basis': 'interval'},
        'interval_width': {'kinds': ['value'], 'basis': 'interval'},
    }) %}
{% endmacro %}


{#- A double as a whole multiple of 2^-40. -#}
{% macro fixed_point(expression) -%}
    (({{ expression }}) * 1099511627776)::hugeint
{%- endmacro %}


{#- The double that a multiple of 2^-40 stands for. -#}
{% macro from_fixed_point(units) -%}
    (({{ units }})::double / 1099511627776)
{%- endmacro %}


{#- What to multiply predictions and actuals of a series with, to round them to whole units: a power
    of two, so that the multiplication itself is exact. -#}
{% macro units_per_one(kind, largest) -%}
    case
        when {{ kind }} = 'probability' then 1099511627776::double
        else pow(2::double, 40 - greatest(ceil(coalesce(log2(nullif({{ largest }}, 0)), 0)), -900))
    end
{%- endmacro %}


{#- Pearson correlation from integer sums, NULL when a side is constant; rounding may leave it an ulp
    beyond 1, so it is cut there. -#}
{% macro correlation_of_sums(count, x, y, xx, yy, xy) -%}
    {%- set x_variation = '(' ~ count ~ ' * ' ~ xx ~ ' - ' ~ x ~ ' * ' ~ x ~ ')' -%}
    {%- set y_variation = '(' ~ count ~ ' * ' ~ yy ~ ' - ' ~ y ~ ' * ' ~ y ~ ')' -%}
    case
        when {{ x_variation }} > 0 and {{ y_variation }} > 0
            then greatest(-1::double, least(1::double,
                ({{ count }} * {{ xy }} - {{ x }} * {{ y }})::double
                / (sqrt({{ x_variation }}::double) * sqrt({{ y_variation }}::double))
            ))
    end
{%- endmacro %}


{#- True for rows that metrics are made from; stops on rows that no metric is defined for. One case,
    since the operands of an AND may be looked at in any order. -#}
{% macro is_known_evaluation() -%}
    {%- set found = "'head metrics: output ' || output || ' has '" -%}
    case
        when not coalesce(isfinite(prediction) and isfinite(actual), false) then false
        when kind is null or kind not in ('probability', 'value')
            then error({{ found }} || 'the kind ' || coalesce(kind, 'NULL')
                || ', expected probability or value: correct the relation of evaluations')
        when evaluation_period is null
            then error({{ found }} || 'a row without evaluation_period, expected one for every row:'
                || ' correct the relation of evaluations')
        when kind = 'probability' and actual not in (0, 1)
            then error({{ found }} || 'the label ' || actual
                || ', expected 0 or 1 for a probability: correct its label or its kind')
        when kind = 'probability' and prediction not between 0 and 1
            then error({{ found }} || 'the prediction ' || prediction
                || ', expected 0 to 1 for a probability: calibrate it or correct its kind')
        else true
    end
{%- endmacro %}


{#- One row per series and evaluation period: a whole query. -#}
{% macro head_period_metrics(evaluations) -%}
{%- set settings = head_metric_settings() -%}
{%- set k = settings.top_k -%}
with known as not materialized (

    select
        head,
        target,
        output,
        kind,
        role,
        evaluation_period,
        event_time,
        sample_id,
        prediction,
        actual,
        seed_scores
    from {{ evaluations }} as evaluations
    where {{ is_known_evaluation() }}

),

known_periods as (

    select
        head,
        target,
        output,
        kind,
        role,
        evaluation_period,
        max(greatest(abs(prediction), abs(actual))) as largest,
        max(list_count(seed_scores)) as seed_count
    from known
    group by head, target, output, kind, role, evaluation_period

),

periods as (

    select
        * exclude (largest, seed_count),
        {{ units_per_one('kind', 'max(largest) over per_series') }} as units_per_one,
        max(seed_count) over per_series as seed_count,
        row_number() over (order by head, target, output, role, evaluation_period) as period_number
    from known_periods
    window per_series as (partition by head, target, output, role)

),

in_units as (

    select
        periods.period_number,
        known.event_time,
        known.sample_id,
        known.prediction,
        known.actual,
        (known.prediction * periods.units_per_one)::bigint as prediction_units,
        (known.actual * periods.units_per_one)::bigint as actual_units
    from known
    inner join periods using (head, target, output, role, evaluation_period)

),

ranked as (

    select
        period_number,
        event_time,
        prediction_units,
        actual_units,
        -- twice the rank that ties share: a whole number
        rank() over by_prediction + count(*) over by_prediction as prediction_rank,
        rank() over by_actual + count(*) over by_actual as actual_rank
    from in_units
    window
        by_prediction as (partition by period_number, event_time order by prediction),
        by_actual as (partition by period_number, event_time order by actual)

),

-- less the mean of the cross-section: rows of other times of the period must not be compared, for a
-- path that wanders looks as if it came back when its own mean is taken away
centred as (

    select
        period_number,
        prediction_units,
        actual_units,
        prediction_units - round(sum(prediction_units) over at_once / count(*) over at_once)::bigint
            as prediction_part,
        actual_units - round(sum(actual_units) over at_once / count(*) over at_once)::bigint
            as actual_part,
        prediction_rank - (count(*) over at_once + 1) as prediction_rank,
        actual_rank - (count(*) over at_once + 1) as actual_rank
    from ranked
    window at_once as (partition by period_number, event_time)

),

sums as (

    select
        period_number,
        count(*) as row_count,
        sum(prediction_units) as prediction_sum,
        sum(actual_units) as actual_sum,
        sum(prediction_part) as p,
        sum(actual_part) as a,
        sum(prediction_part::hugeint * prediction_part) as pp,
        sum(actual_part::hugeint * actual_part) as aa,
        sum(prediction_part::hugeint * actual_part) as pa,
        sum(prediction_rank) as r,
        sum(actual_rank) as s,
        sum(prediction_rank * prediction_rank) as rr,
        sum(actual_rank * actual_rank) as ss,
        sum(prediction_rank * actual_rank) as rs
    from centred
    group by period_number

),

cross_sections as (

    select
        period_number,
        count(*) as row_count,
        sum(actual_units) as actual_sum,
        list_sum(list_transform(
            min({'negative_score': -prediction, 'sample_id': sample_id, 'actual': actual_units}, {{ k }}),
            lambda sample: sample.actual
        )) as highest_sum
    from in_units
    group by period_number, event_time
    having count(*) >= {{ k }}

),

-- cross-sections weigh by their rows, so that picks at random have the mean of the rows
highest_predictions as (

    select
        period_number,
        sum(row_count * highest_sum)::double / {{ k }} / sum(row_count) as mean_units,
        sum(actual_sum)::double / sum(row_count) as base_units
    from cross_sections
    group by period_number

),

seed_scores as (

    select
        period_number,
        event_time,
        sample_id,
        generate_subscripts(seed_scores, 1) as seed,
        unnest(seed_scores) as score
    from known
    inner join periods using (head, target, output, role, evaluation_period)
    where seed_count > 1 and list_count(seed_scores) = seed_count and isfinite(list_sum(seed_scores))

),

highest_of_seeds as (

    select
        period_number,
        event_time,
        seed,
        list_transform(
            min({'negative_score': -score, 'sample_id': sample_id}, {{ k }}),
            lambda sample: sample.sample_id
        ) as sample_ids
    from seed_scores
    group by period_number, event_time, seed
    -- with k rows or fewer every seed takes them all
    having count(*) > {{ k }}

),

seed_pairs as (

    select
        one.period_number,
        len(list_intersect(one.sample_ids, other.sample_ids)) as shared_count
    from highest_of_seeds as one
    inner join highest_of_seeds as other
        on
            one.period_number = other.period_number
            and one.event_time = other.event_time
            and one.seed < other.seed

),

jaccards as (

    select
        period_number,
        {{ from_fixed_point('sum(' ~ fixed_point('shared_count / (' ~ 2 * k ~ ' - shared_count)') ~ ')') }}
            / count(*) as jaccard
    from seed_pairs
    group by period_number

)

select
    periods.head,
    periods.target,
    periods.output,
    periods.role,
    periods.evaluation_period,
    periods.kind,
    sums.row_count,
    sums.prediction_sum::double / periods.units_per_one / sums.row_count as mean_prediction,
    sums.actual_sum::double / periods.units_per_one / sums.row_count as mean_actual,
    case
        when sums.row_count >= {{ settings.min_period_rows }}
            then {{ correlation_of_sums('row_count', 'p', 'a', 'pp', 'aa', 'pa') }}
    end as ic,
    case
        when sums.row_count >= {{ settings.min_period_rows }}
            then {{ correlation_of_sums('row_count', 'r', 's', 'rr', 'ss', 'rs') }}
    end as rank_ic,
    highest_predictions.mean_units / periods.units_per_one as mean_actual_top_k,
    highest_predictions.base_units / periods.units_per_one as mean_actual_any_k,
    jaccards.jaccard as top_k_jaccard
from periods
inner join sums using (period_number)
left join highest_predictions using (period_number)
left join jaccards using (period_number)
order by periods.period_number
{%- endmacro %}


{#- The sums of a period that metrics and their intervals are made from: {name: aggregate}. -#}
{% macro _head_period_sums() %}
    {% set settings = head_metric_settings() %}
    {% set is_bottom = 'tail_bin = ' ~ (settings.tail_bins - 1) %}
    {% set log_loss %}
        -ln(case
            when actual = 1 then greatest(prediction, {{ settings.log_loss_clip }}::double)
            else greatest(1 - prediction, {{ settings.log_loss_clip }}::double)
        end)
    {% endset %}
    {% do return({
        'row_count': 'count(*)',
        'rank_sum': 'sum(prediction_rank)',
        'rank_square_sum': 'sum(prediction_rank * prediction_rank)',
        'actual_rank_sum': 'sum(actual_rank)',
        'actual_rank_square_sum': 'sum(actual_rank * actual_rank)',
        'rank_product_sum': 'sum(prediction_rank * actual_rank)',
        'hit_count': 'count(*) filter (where is_hit)',
        'actual_sum': 'sum(actual_units)',
        'actual_square_sum': 'sum(actual_units::hugeint * actual_units)',
        'square_error_sum': 'sum(error_units::hugeint * error_units)',
        'absolute_error_sum': 'sum(abs(error_units))',
        'positive_count': 'count(*) filter (where is_positive)',
        'positive_rank_sum': 'sum(prediction_rank) filter (where is_positive)',
        'precision_sum': 'sum(' ~ fixed_point('precision_here') ~ ') filter (where is_positive)',
        'log_loss_sum': 'sum(' ~ fixed_point(log_loss) ~ ") filter (where kind = 'probability')",
        'top_count': 'count(*) filter (where tail_bin = 0)',
        'top_sum': 'sum(actual_units) filter (where tail_bin = 0)',
        'bottom_count': 'count(*) filter (where ' ~ is_bottom ~ ')',
        'bottom_sum': 'sum(actual_units) filter (where ' ~ is_bottom ~ ')',
        'interval_count': 'count(*) filter (where has_interval)',
        'covered_count': 'count(*) filter (where has_interval and actual between lower and upper)',
        'unbounded_count': 'count(*) filter (where has_interval and width_units is null)',
        'width_sum': 'sum(width_units)',
    }) %}
{% endmacro %}


{#- The sums that come from the metrics of a period: {name: expression over head_period_metrics}. -#}
{% macro _head_period_metric_sums() %}
    {% do return({
        'ic_count': 'count(ic_units)',
        'ic_sum': 'sum(ic_units)',
        'rank_ic_count': 'count(rank_ic_units)',
        'rank_ic_sum': 'sum(rank_ic_units)',
        'rank_ic_square_sum': 'sum(rank_ic_units * rank_ic_units)',
        'jaccard_count': 'count(jaccard_units)',
        'jaccard_sum': 'sum(jaccard_units)',
        'top_k_count': 'count(top_k_units)',
        'top_k_sum': 'sum(top_k_units)',
        'top_k_base_sum': 'sum(any_k_units)',
    }) %}
{% endmacro %}


{#- The metrics that are functions of those sums: {name: expression}. -#}
{% macro _head_metrics_of_sums() %}
    {% set settings = head_metric_settings() %}
    {% set base_rate = '(positive_count / row_count)' %}
    {% set uncertainty = '(' ~ base_rate ~ ' * (1 - ' ~ base_rate ~ '))' %}
    {% set brier = '(square_error_sum::double / units_per_one / units_per_one / row_count)' %}
    {% do return({
        'ic': from_fixed_point('ic_sum') ~ ' / nullif(ic_count, 0)',
        'rank_ic': from_fixed_point('rank_ic_sum') ~ ' / nullif(rank_ic_count, 0)',
        'icir': 'rank_ic_sum::double / rank_ic_count / nullif(sqrt('
            ~ '(rank_ic_count * rank_ic_square_sum - rank_ic_sum * rank_ic_sum)::double'
            ~ ' / nullif(rank_ic_count::double * (rank_ic_count - 1), 0)), 0)',
        'pooled_rank_ic': correlation_of_sums(
            'row_count', 'rank_sum', 'actual_rank_sum', 'rank_square_sum', 'actual_rank_square_sum',
            'rank_product_sum'
        ),
        'hit_rate': 'hit_count / row_count',
        'top_k_jaccard': from_fixed_point('jaccard_sum') ~ ' / nullif(jaccard_count, 0)',
        'base_rate': base_rate,
        'brier': brier,
        'brier_uncertainty': uncertainty,
        'brier_ratio': brier ~ ' / nullif(' ~ uncertainty ~ ', 0)',
        'log_loss': from_fixed_point('log_loss_sum') ~ ' / row_count',
        'precision_at_k': 'top_k_sum::double / units_per_one / nullif(top_k_count, 0)',
        'precision_at_k_lift': 'top_k_sum::double / nullif(top_k_base_sum::double, 0)',
        'mean_actual_top_k': 'top_k_sum::double / units_per_one / nullif(top_k_count, 0)',
        'top_minus_bottom': '(top_sum::double / nullif(top_count, 0)'
            ~ ' - bottom_sum::double / nullif(bottom_count, 0)) / units_per_one',
        'rmse': 'sqrt(square_error_sum::double / row_count) / units_per_one',
        'mae': 'absolute_error_sum::double / row_count / units_per_one',
        'r_squared': "case when kind = 'value' then 1 - row_count * square_error_sum::double"
            ~ ' / nullif((row_count * actual_square_sum - actual_sum * actual_sum)::double, 0) end',
        'interval_coverage': 'covered_count / nullif(interval_count, 0)',
        'interval_width': "case when unbounded_count > 0 then 'infinity'::double"
            ~ ' else width_sum::double / units_per_one / nullif(interval_count, 0) end',
    }) %}
{% endmacro %}


{#- One row per series and metric: a whole query. -#}
{% macro head_metrics(evaluations, period_metrics) -%}
{%- set settings = head_metric_settings() -%}
{%- set row_sums = _head_period_sums() -%}
{%- set metric_sums = _head_period_metric_sums() -%}
{%- set sums = row_sums.keys() | list + metric_sums.keys() | list -%}
{%- set metrics_of_sums = _head_metrics_of_sums() -%}
{%- set metrics_of_curves = ['pr_auc', 'pr_auc_lift', 'roc_auc'] -%}
{%- set metrics_of_bins = ['ece', 'ece_debiased', 'brier_reliability', 'brier_resolution'] -%}
with known as not materialized (

    select
        head,
        target,
        output,
        kind,
        role,
        evaluation_period,
        prediction,
        actual,
        lower,
        upper
    from {{ evaluations }} as evaluations
    where {{ is_known_evaluation() }}

),

known_series as (

    select
        head,
        target,
        output,
        role,
        any_value(kind) as kind,
        count(*) as row_count,
        {{ units_per_one('any_value(kind)', 'max(greatest(abs(prediction), abs(actual)))') }}
            as units_per_one
    from known
    group by head, target, output, role

),

series_periods as (

    select
        head,
        target,
        output,
        role,
        count(*) as period_count
    from {{ period_metrics }} as period_metrics
    group by head, target, output, role

),

series as (

    select
        known_series.*,
        series_periods.period_count,
        row_number() over (order by head, target, output, role) as series_number,
        greatest(1, least({{ settings.bins }}, row_count // {{ settings.min_bin_rows }})) as bin_count,
        -- a short role has shorter blocks; one of fewer periods than blocks has no intervals
        nullif(least({{ settings.block_periods }}, period_count // {{ settings.min_blocks }}), 0)
            as block_period_count
    from known_series
    inner join series_periods using (head, target, output, role)

),

periods as (

    select
        series.series_number,
        period_metrics.head,
        period_metrics.target,
        period_metrics.output,
        period_metrics.role,
        period_metrics.evaluation_period,
        period_metrics.row_count,
        row_number() over (
            partition by series.series_number order by period_metrics.evaluation_period
        ) as period_number,
        {{ fixed_point('period_metrics.ic') }} as ic_units,
        {{ fixed_point('period_metrics.rank_ic') }} as rank_ic_units,
        {{ fixed_point('period_metrics.top_k_jaccard') }} as jaccard_units,
        (period_metrics.mean_actual_any_k * series.units_per_one)::hugeint as any_k_units,
        (period_metrics.mean_actual_top_k * series.units_per_one)::hugeint as top_k_units
    from {{ period_metrics }} as period_metrics
    inner join series using (head, target, output, role)

),

evaluated as (

    select
        series.series_number::smallint as series_number,
        periods.period_number::integer as period_number,
        known.prediction,
        known.actual,
        known.lower,
        known.upper,
        series.kind = 'probability' and known.actual = 1 as is_positive
    from known
    inner join series using (head, target, output, role)
    inner join periods using (series_number, evaluation_period)

),

pooled as (

    select
        *,
        -- twice the rank from the highest that ties share: a whole number
        rank() over by_prediction + count(*) over by_prediction as prediction_rank,
        rank() over by_actual + count(*) over by_actual as actual_rank,
        sum(is_positive::tinyint) over by_prediction / count(*) over by_prediction as precision_here
    from evaluated
    window
        by_prediction as (partition by series_number order by prediction desc),
        by_actual as (partition by series_number order by actual desc)

),

judged as materialized (

    select
        pooled.series_number,
        pooled.period_number,
        series.kind,
        series.units_per_one,
        pooled.prediction,
        pooled.actual,
        pooled.lower,
        pooled.upper,
        pooled.is_positive,
        pooled.prediction_rank,
        pooled.actual_rank,
        pooled.precision_here,
        -- rows that share a score share the bin of their middle rank
        (pooled.prediction_rank - 1) * series.bin_count // (2 * series.row_count) as bin,
        (pooled.prediction_rank - 1) * {{ settings.tail_bins }} // (2 * series.row_count) as tail_bin,
        -- a precision-recall curve bends at its start: bins of the curve grow with the rank
        (pooled.prediction_rank - 1) * series.bin_count * {{ settings.curve_bins_per_bin }}
            // (2 * series.row_count) * {{ 64 * settings.curve_bins_per_doubling }}
        + floor({{ settings.curve_bins_per_doubling }} * log2(pooled.prediction_rank / 2))::bigint
            as curve_bin,
        case
            when series.kind = 'value' then sign(pooled.prediction) = sign(pooled.actual)
            else (pooled.prediction >= 0.5) = pooled.is_positive
        end as is_hit
    from pooled
    inner join series using (series_number)

),

row_units as (

    select
        *,
        (prediction * units_per_one)::bigint as prediction_units,
        (actual * units_per_one)::bigint as actual_units,
        prediction_units - actual_units as error_units,
        not isnan(lower) and not isnan(upper) as has_interval,
        -- a case: the cast of an infinity or NaN would stop the query
        case when isfinite(upper - lower) then ((upper - lower) * units_per_one)::hugeint end
            as width_units
    from judged

),

row_sums as (

    select
        series_number,
        period_number,
        {% for name, aggregate in row_sums.items() %}
        coalesce({{ aggregate }}, 0)::hugeint as {{ name }}{{ ',' if not loop.last }}
        {% endfor %}
    from row_units
    group by series_number, period_number

),

metric_sums as (

    select
        series_number,
        period_number,
        {% for name, aggregate in metric_sums.items() %}
        coalesce({{ aggregate }}, 0)::hugeint as {{ name }}{{ ',' if not loop.last }}
        {% endfor %}
    from periods
    group by series_number, period_number

),

sums_so_far as (

    select
        series_number,
        period_number,
        {% for name in sums %}
        sum({{ name }}) over so_far as {{ name }}{{ ',' if not loop.last }}
        {% endfor %}
    from row_sums
    inner join metric_sums using (series_number, period_number)
    window so_far as (
        partition by series_number order by period_number
        rows between unbounded preceding and current row
    )

),

---------- moving blocks (Kuensch 1989): draw 0 is the role as it is

random_numbers as (

    select
        draw,
        block_number,
        -- 60 bits of a digest: the same in every version
        ('0x' || left(md5('{{ settings.bootstrap_seed }}:' || draw || ':' || block_number), 15))::bigint
            as random_number
    from (select unnest(range(1, {{ settings.bootstrap_draws + 1 }})) as draw)
    cross join (
        select unnest(range((select max(ceil(period_count / block_period_count)) from series)::bigint))
            as block_number
    )

),

drawn_blocks as (

    select
        series.series_number,
        random_numbers.draw,
        random_number % (period_count - block_period_count + 1) as before_first_period,
        -- the last block is cut so that a draw has as many periods as the role
        before_first_period + least(block_period_count, period_count - block_number * block_period_count)
            as last_period
    from series
    inner join random_numbers
        on random_numbers.block_number * series.block_period_count < series.period_count

),

block_ends as (

    select series_number, draw, last_period as period_number, 1 as weight from drawn_blocks
    union all
    select series_number, draw, before_first_period, -1 from drawn_blocks where before_first_period > 0
    union all
    select series_number, 0, period_count, 1 from series

),

weights as materialized (

    select
        series_number,
        draw,
        period_number,
        sum(weight)::bigint as weight
    from block_ends
    group by series_number, draw, period_number
    having sum(weight) <> 0

),

---------- metrics of sums

draw_sums as (

    select
        series_number,
        draw,
        {% for name in sums %}
        sum(weight * {{ name }}) as {{ name }}{{ ',' if not loop.last }}
        {% endfor %}
    from weights
    inner join sums_so_far using (series_number, period_number)
    group by series_number, draw

),

metrics_of_sums as (

    select
        draw_sums.series_number,
        draw_sums.draw,
        {% for name, expression in metrics_of_sums.items() %}
        {{ expression }} as {{ name }},
        {% endfor %}
        {{ from_fixed_point('precision_sum') }} / nullif(positive_count, 0) as exact_pr_auc,
        -- Mann-Whitney from the ranks of the positives
        (positive_count * (2 * draw_sums.row_count - positive_count + 1) - positive_rank_sum)::double / 2
            / nullif(positive_count::double * (draw_sums.row_count - positive_count), 0) as exact_roc_auc
    from draw_sums
    inner join (select series_number, kind, units_per_one from series) using (series_number)

),

---------- metrics of curves and bins, probabilities only

curve_bins as (

    select
        series_number,
        bin,
        curve_bin,
        min(prediction) = max(prediction) as is_one_score
    from judged
    where kind = 'probability'
    group by series_number, bin, curve_bin

),

cells as (

    select
        series_number,
        period_number,
        curve_bin,
        count(*) as row_count,
        count(*) filter (where is_positive) as positive_count,
        sum(prediction_units) as prediction_sum
    from row_units
    where kind = 'probability'
    group by series_number, period_number, curve_bin

),

cells_so_far as (

    select
        curve_bins.series_number,
        periods.period_number,
        curve_bins.bin,
        curve_bins.curve_bin,
        curve_bins.is_one_score,
        sum(coalesce(cells.row_count, 0)) over so_far as row_count,
        sum(coalesce(cells.positive_count, 0)) over so_far as positive_count,
        sum(coalesce(cells.prediction_sum, 0)) over so_far as prediction_sum
    from curve_bins
    inner join periods using (series_number)
    left join cells using (series_number, period_number, curve_bin)
    window so_far as (
        partition by curve_bins.series_number, curve_bins.curve_bin order by periods.period_number
        rows between unbounded preceding and current row
    )

),

curves_so_far as (

    select
        *,
        coalesce(sum(row_count) over higher, 0) as higher_rows,
        coalesce(sum(positive_count) over higher, 0) as higher_positives
    from cells_so_far
    window higher as (
        partition by series_number, period_number order by curve_bin
        rows between unbounded preceding and 1 preceding
    )

),

draw_cells as materialized (

    select
        series_number,
        draw,
        bin,
        curve_bin,
        is_one_score,
        sum(weight * row_count)::bigint as row_count,
        sum(weight * positive_count)::bigint as positive_count,
        sum(weight * prediction_sum) as prediction_sum,
        sum(weight * higher_rows)::double as higher_rows,
        sum(weight * higher_positives)::double as higher_positives
    from weights
    inner join curves_so_far using (series_number, period_number)
    group by series_number, draw, bin, curve_bin, is_one_score
    having sum(weight * row_count) > 0

),

curve_terms as (

    select
        series_number,
        draw,
        row_count,
        positive_count,
        (row_count - positive_count) * (2 * higher_positives + positive_count) as pairs_won_twice,
        -- precision at the positives of a bin: at its end when its rows share a score, else the mean
        -- over positives spread evenly among its rows, each counting itself
        positive_count * case
            when is_one_score then (higher_positives + positive_count) / (higher_rows + row_count)
            else
                positive_count / row_count
                + (higher_positives + 0.5 - positive_count * (higher_rows + 0.5) / row_count) / row_count
                * ln(1 + row_count / (higher_rows + 0.5))
        end as precision_sum
    from draw_cells

),

draw_curves as (

    select
        series_number,
        draw,
        sum(row_count)::double as row_count,
        sum(positive_count)::double as positive_count,
        {{ from_fixed_point('sum(' ~ fixed_point('precision_sum') ~ ')') }}
            / nullif(sum(positive_count), 0) as pr_auc,
        sum(pairs_won_twice::hugeint)::double / 2
            / nullif(sum(positive_count)::double * sum(row_count - positive_count)::double, 0) as roc_auc
    from curve_terms
    group by series_number, draw

),

metrics_of_curves as (

    select
        draws.series_number,
        draws.draw,
        -- what the bins miss of the exact value is taken to be the same in every draw
        exact.exact_pr_auc + (draws.pr_auc - undrawn.pr_auc) as pr_auc,
        (exact.exact_pr_auc + (draws.pr_auc - undrawn.pr_auc)) * draws.row_count / draws.positive_count
            as pr_auc_lift,
        exact.exact_roc_auc + (draws.roc_auc - undrawn.roc_auc) as roc_auc
    from draw_curves as draws
    inner join draw_curves as undrawn
        on draws.series_number = undrawn.series_number and undrawn.draw = 0
    inner join metrics_of_sums as exact
        on draws.series_number = exact.series_number and exact.draw = 0

),

bins as (

    select
        series_number,
        draw,
        bin,
        sum(row_count)::double as row_count,
        sum(positive_count)::double as positive_count,
        {{ from_fixed_point('sum(prediction_sum)') }} as prediction_sum
    from draw_cells
    group by series_number, draw, bin

),

bin_terms as (

    select
        *,
        abs(prediction_sum - positive_count) as absolute_gap,
        absolute_gap * absolute_gap / row_count as square_gap,
        -- variance of the mean label; a single row does not tell its own
        coalesce(
            positive_count * (row_count - positive_count) / nullif(row_count * (row_count - 1), 0), 0
        ) as label_noise,
        positive_count * positive_count / row_count as square_share
    from bins

),

bin_sums as (

    select
        series_number,
        draw,
        sum(row_count::hugeint)::double as row_count,
        sum(positive_count::hugeint)::double as positive_count,
        {% for name in ['absolute_gap', 'square_gap', 'label_noise', 'square_share'] %}
        {{ from_fixed_point('sum(' ~ fixed_point(name) ~ ')') }} as {{ name }}{{ ',' if not loop.last }}
        {% endfor %}
    from bin_terms
    group by series_number, draw

),

metrics_of_bins as (

    select
        series_number,
        draw,
        absolute_gap / row_count as ece,
        sqrt(greatest(0, square_gap - label_noise) / row_count) as ece_debiased,
        square_gap / row_count as brier_reliability,
        greatest(0, square_share - positive_count * positive_count / row_count) / row_count
            as brier_resolution
    from bin_sums

),

---------- means over periods: Newey-West (1987), lag by Newey and West (1994)

period_values as (

    select
        series_number,
        period_number,
        row_count,
        unnest(['ic', 'rank_ic', 'top_k', 'jaccard']) as basis,
        unnest([ic_units, rank_ic_units, top_k_units, jaccard_units]) as units
    from periods

),

value_lists as (

    select
        series_number,
        basis,
        sum(row_count)::bigint as row_count,
        count(*) as period_count,
        sum(units) as units_sum,
        list(units order by period_number) as units
    from period_values
    where units is not null
    group by series_number, basis

),

deviations as (

    select
        * exclude (units),
        -- exactly zero for a constant
        list_transform(units, lambda u: (u * period_count - units_sum)::double / period_count) as deviation,
        least(period_count - 1, floor(4 * pow(period_count / 100, 2 / 9::double))::bigint) as lag_count
    from value_lists

),

variances as (

    select
        * exclude (deviation),
        list_dot_product(deviation, deviation) / period_count as variance,
        variance + 2 * coalesce(
            list_sum(list_transform(
                range(1, lag_count + 1),
                lambda j: (1 - j / (lag_count + 1)) / period_count * list_dot_product(
                    deviation[:period_count - j], deviation[j + 1:]
                )
            )), 0
        ) as long_run_variance
    from deviations

),

newey_west as (

    select
        series_number,
        units_sum::double / period_count / sqrt(nullif(greatest(long_run_variance, 0), 0) / period_count)
            as rank_ic_newey_west_t,
        lag_count as rank_ic_newey_west_lag
    from variances
    where basis = 'rank_ic' and period_count > 1

),

bases as (

    select
        series_number,
        basis,
        row_count,
        period_count,
        least(
            period_count,
            coalesce(period_count * variance / nullif(greatest(long_run_variance, 0), 0), period_count)
        ) as effective_count
    from variances
    union all
    select series_number, 'rows', row_count, period_count, period_count
    from series
    union all
    select
        series_number,
        'interval',
        sum(interval_count)::bigint,
        count(*),
        count(*)
    from row_sums
    where interval_count > 0
    group by series_number

),

---------- one row per series and metric

draw_values as (

    select
        series_number,
        draw,
        unnest(['{{ metrics_of_sums.keys() | join("', '") }}']) as metric,
        unnest([{{ metrics_of_sums.keys() | join(', ') }}]) as value
    from metrics_of_sums
    union all
    select
        series_number,
        draw,
        unnest(['{{ metrics_of_curves | join("', '") }}']),
        unnest([{{ metrics_of_curves | join(', ') }}])
    from metrics_of_curves
    union all
    select
        series_number,
        draw,
        unnest(['{{ metrics_of_bins | join("', '") }}']),
        unnest([{{ metrics_of_bins | join(', ') }}])
    from metrics_of_bins
    union all
    select
        series_number,
        0,
        unnest(['rank_ic_newey_west_t', 'rank_ic_newey_west_lag']),
        unnest([rank_ic_newey_west_t, rank_ic_newey_west_lag])
    from newey_west

),

estimates as (

    select
        series_number,
        metric,
        max(value) filter (where draw = 0) as value,
        quantile_cont(value, {{ (1 - settings.confidence) / 2 }}::double) filter (where draw > 0)
            as ci_lower,
        quantile_cont(value, {{ (1 + settings.confidence) / 2 }}::double) filter (where draw > 0)
            as ci_upper
    from draw_values
    group by series_number, metric

),

catalog (metric, kind, basis) as (

    values
    {% for name, entry in head_metric_catalog().items() %}
    {% set last_metric = loop.last %}
    {% for kind in entry.kinds %}
    ('{{ name }}', '{{ kind }}', '{{ entry.basis }}'){{ ',' if not (last_metric and loop.last) }}
    {% endfor %}
    {% endfor %}

)

select
    series.head,
    series.target,
    series.output,
    series.role,
    catalog.metric,
    series.kind,
    estimates.value,
    case when estimates.value is not null then estimates.ci_lower end as ci_lower,
    case when estimates.value is not null then estimates.ci_upper end as ci_upper,
    coalesce(bases.row_count, 0) as row_count,
    coalesce(bases.period_count, 0) as period_count,
    bases.effective_count,
    case when estimates.value is not null and estimates.ci_lower is not null then block_period_count end
        as block_period_count
from series
inner join catalog using (kind)
left join estimates
    on series.series_number = estimates.series_number and catalog.metric = estimates.metric
left join bases
    on series.series_number = bases.series_number and catalog.basis = bases.basis
order by series.head, series.target, series.output, series.role, catalog.metric
{%- endmacro %}
