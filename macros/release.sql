{#- From held positions to the decision to deploy: walk-forward folds of the sealed splits, gating, rules, drift.
    A comparison with an unknown value is false, so what is unknown passes nothing. -#}

{#- Every setting of release, checked and typed. -#}
{% macro release_settings() %}
    {% set days_per_year = _number_var('release_days_per_year') %}
    {% if days_per_year <= 0 %}
        {% do _refuse_var('release_days_per_year', days_per_year, 'a number above 0') %}
    {% endif %}
    {% do return({
        'folds': _count_var('walk_forward_release_folds', 2, 1000),
        'return_period_minutes': _count_var('release_return_period_minutes', 1, 525600),
        'consistency_period_minutes': _count_var('release_consistency_period_minutes', 1, 525600),
        'days_per_year': days_per_year,
        'drift_bins': _count_var('drift_bins', 2, 100),
        'drift_share_floor': _open_interval_var('drift_share_floor', 0, 0.5),
        'drift_top_k': _count_var('drift_top_k', 1, 1000),
    }) %}
{% endmacro %}


{% macro _periods_per_year() -%}
    {%- set settings = release_settings() -%}
    ({{ settings.days_per_year }}::double * 1440 / {{ settings.return_period_minutes }})
{%- endmacro %}


{#- The evaluation splits that search never read, in time order. -#}
{% macro sealed_splits() %}
    {% do return(evaluation_splits()[1:]) %}
{% endmacro %}


{#- True where `value` is known and compares with `threshold` as the text `comparison` says. -#}
{% macro meets(value, comparison, threshold) -%}
    coalesce(
        not isnan({{ value }}) and case {{ comparison }}
            when '>=' then {{ value }} >= {{ threshold }}
            when '>' then {{ value }} > {{ threshold }}
            when '<=' then {{ value }} <= {{ threshold }}
            when '<' then {{ value }} < {{ threshold }}
        end,
        false
    )
{%- endmacro %}


{#- CTEs that cut the sealed period of each subject into folds: subject_rows, folds, fold_positions and
    fold_returns. Times are epoch ms, the end of a fold is the start of the next. -#}
{% macro _fold_ctes(positions, frame) %}
{%- set settings = release_settings() -%}
{%- set sealed = "('" ~ sealed_splits() | join("', '") ~ "')" -%}
sealed_rows as (

    select
        case
            when symbol = 'ALL' then error('a symbol is named ALL, as release names all symbols together: rename it')
            else symbol
        end as symbol,
        epoch_ms(event_time) as time_ms
    from {{ frame }}
    where split_id in {{ sealed }}

),

subject_rows as (

    select
        symbol as subject,
        time_ms
    from sealed_rows
    union all
    select
        'ALL',
        time_ms
    from sealed_rows

),

spans as (

    select
        subject,
        min(time_ms) as starts_at_ms,
        max(time_ms) - min(time_ms) + 60000 as length_ms
    from subject_rows
    group by subject

),

folds as (

    select
        spans.subject,
        numbers.fold,
        {% for name, parts in [('starts_at_ms', 'numbers.fold - 1'), ('ends_at_ms', 'numbers.fold')] %}
        -- rounded up: the first ms of the part
        spans.starts_at_ms + (({{ parts }}) * spans.length_ms + {{ settings.folds - 1 }}) // {{ settings.folds }}
            as {{ name }} {{- ',' if not loop.last }}
        {% endfor %}
    from spans
    cross join (select unnest(range(1, {{ settings.folds + 1 }})) as fold) as numbers

),

sealed_positions as (

    select
        symbol,
        position_id,
        epoch_ms(signal_time) as time_ms,
        closed_at,
        weighted_edge_bps
    from {{ positions }}
    where eval_split in {{ sealed }}

),

subject_positions as (

    select
        symbol as subject,
        *
    from sealed_positions
    union all
    select
        'ALL',
        *
    from sealed_positions

),

fold_positions as (

    select
        subject_positions.*,
        (subject_positions.time_ms - spans.starts_at_ms) * {{ settings.folds }} // spans.length_ms + 1 as fold
    from subject_positions
    inner join spans using (subject)

),

fold_periods as (

    select
        subject,
        fold,
        starts_at_ms,
        unnest(range(
            0, (ends_at_ms - starts_at_ms + {{ settings.return_period_minutes * 60000 - 1 }})
            // {{ settings.return_period_minutes * 60000 }}
        )) as period
    from folds

),

positions_of_periods as (

    select
        fold_positions.subject,
        fold_positions.fold,
        (fold_positions.time_ms - folds.starts_at_ms) // {{ settings.return_period_minutes * 60000 }} as period,
        {{ _total_bps() }} as return_bps
    from fold_positions
    inner join folds using (subject, fold)
    group by fold_positions.subject, fold_positions.fold, period

),

-- periods without a position are returns of zero, those with an unknown result are unknown
fold_returns as (

    select
        fold_periods.subject,
        fold_periods.fold,
        fold_periods.period,
        case when positions_of_periods.period is null then 0 else positions_of_periods.return_bps end as return_bps
    from fold_periods
    left join positions_of_periods using (subject, fold, period)

)
{%- endmacro %}


{#- Sum of weighted_edge_bps, unknown as soon as one is; ordered, so the same to the last bit on any number of
    threads. -#}
{% macro _total_bps() -%}
    case
        when count(*) = count(weighted_edge_bps)
            then sum(weighted_edge_bps order by closed_at, symbol, position_id)
    end
{%- endmacro %}


{#- One row per key that has positions: count, total, profit factor and drawdown of the equity at closing. -#}
{% macro _position_metrics(positions, keys) %}
    {%- set key_list = keys | join(', ') -%}
    select
        {{ key_list }},
        count(*) as position_count,
        {{ _total_bps() }} as return_bps,
        case
            when count(*) > count(weighted_edge_bps) then null
            when count(*) filter (where weighted_edge_bps < 0) = 0 then 'inf'::double
            else coalesce(
                sum(weighted_edge_bps order by closed_at, symbol, position_id) filter (where weighted_edge_bps > 0), 0
            ) / -sum(weighted_edge_bps order by closed_at, symbol, position_id) filter (where weighted_edge_bps < 0)
        end as profit_factor,
        case when count(*) = count(weighted_edge_bps) then max(peak_bps - equity_bps) end as max_drawdown_bps
    from (
        select
            *,
            -- nothing is held at the start: the highest equity so far is at least 0
            greatest(max(equity_bps) over so_far, 0) as peak_bps
        from (
            select
                *,
                sum(weighted_edge_bps) over so_far as equity_bps
            from {{ positions }}
            window so_far as (
                partition by {{ key_list }} order by closed_at, symbol, position_id
                rows between unbounded preceding and current row
            )
        )
        window so_far as (
            partition by {{ key_list }} order by closed_at, symbol, position_id
            rows between unbounded preceding and current row
        )
    )
    group by {{ key_list }}
{% endmacro %}


{#- One row per key: number of returns, their Sharpe ratio per period, skewness and kurtosis (3 for a normal);
    NULL where a return is unknown or they do not vary. -#}
{% macro _return_moments(returns, keys) %}
    {%- set key_list = keys | join(', ') -%}
    select
        {{ key_list }},
        period_count,
        mean / deviation as sharpe,
        avg(pow(return_bps - mean, 3) order by fold, period) / pow(square, 1.5::double) as skewness,
        avg(pow(return_bps - mean, 4) order by fold, period) / pow(square, 2) as kurtosis
    from {{ returns }}
    inner join (
        select
            {{ key_list }},
            count(*) as period_count,
            case when count(*) = count(return_bps) then avg(return_bps order by fold, period) end as mean,
            -- exactly zero for a constant
            nullif(stddev_samp(return_bps order by fold, period), 0) as deviation,
            deviation * deviation * (period_count - 1) / period_count as square
        from {{ returns }}
        group by {{ key_list }}
    ) using ({{ key_list }})
    group by {{ key_list }}, period_count, mean, deviation, square
{% endmacro %}


{#- One row per subject and fold: a whole query. -#}
{% macro release_folds(positions, frame) %}
with {{ _fold_ctes(positions, frame) }},

position_metrics as (

    {{ _position_metrics('fold_positions', ['subject', 'fold']) }}

),

return_moments as (

    {{ _return_moments('fold_returns', ['subject', 'fold']) }}

),

measured as (

    select
        folds.subject,
        folds.fold,
        make_timestamp(folds.starts_at_ms * 1000) as starts_at,
        make_timestamp(folds.ends_at_ms * 1000) as ends_at,
        coalesce(return_moments.period_count, 0) as period_count,
        coalesce(position_metrics.position_count, 0) as position_count,
        {% for name in ['return_bps', 'profit_factor', 'max_drawdown_bps'] %}
        case when position_metrics.position_count is null then 0 else position_metrics.{{ name }} end as {{ name }},
        {% endfor %}
        return_moments.sharpe * sqrt({{ _periods_per_year() }}) as sharpe
    from folds
    left join position_metrics using (subject, fold)
    left join return_moments using (subject, fold)

)

select
    subject,
    fold,
    starts_at,
    ends_at,
    period_count,
    position_count,
    return_bps,
    sharpe,
    profit_factor,
    max_drawdown_bps,
    coalesce(return_bps > 0, false) as is_positive
from measured
order by subject, fold
{% endmacro %}


{#- One row per subject and checkpoint: what gating looks at, of everything up to the end of a fold. -#}
{% macro release_history(positions, frame) %}
{%- set settings = release_settings() -%}
{%- set day_ms = settings.consistency_period_minutes * 60000 -%}
with {{ _fold_ctes(positions, frame) }},

checkpoints as (

    select
        subject,
        fold as checkpoint,
        ends_at_ms
    from folds

),

positions_so_far as (

    select
        checkpoints.checkpoint,
        fold_positions.*
    from fold_positions
    inner join checkpoints
        on fold_positions.subject = checkpoints.subject and fold_positions.fold <= checkpoints.checkpoint

),

position_metrics as (

    {{ _position_metrics('positions_so_far', ['subject', 'checkpoint']) }}

),

returns_so_far as (

    select
        checkpoints.checkpoint,
        fold_returns.*
    from fold_returns
    inner join checkpoints
        on fold_returns.subject = checkpoints.subject and fold_returns.fold <= checkpoints.checkpoint

),

return_moments as (

    {{ _return_moments('returns_so_far', ['subject', 'checkpoint']) }}

),

-- days on which the subject could be traded
days as (

    select
        subject,
        time_ms // {{ day_ms }} as day,
        min(time_ms) as first_time_ms
    from subject_rows
    group by subject, day

),

days_of_positions as (

    select
        subject,
        checkpoint,
        time_ms // {{ day_ms }} as day,
        {{ _total_bps() }} as return_bps
    from positions_so_far
    group by subject, checkpoint, day

),

day_counts as (

    select
        checkpoints.subject,
        checkpoints.checkpoint,
        count(*) as day_count,
        count(*) filter (where days_of_positions.return_bps > 0) as positive_days
    from checkpoints
    inner join days
        on checkpoints.subject = days.subject and checkpoints.ends_at_ms > days.first_time_ms
    left join days_of_positions
        on
            checkpoints.subject = days_of_positions.subject
            and checkpoints.checkpoint = days_of_positions.checkpoint
            and days.day = days_of_positions.day
    group by checkpoints.subject, checkpoints.checkpoint

),

measured as (

    select
        checkpoints.subject,
        checkpoints.checkpoint,
        checkpoints.ends_at_ms,
        coalesce(return_moments.period_count, 0) as period_count,
        return_moments.sharpe,
        return_moments.skewness,
        return_moments.kurtosis,
        {{ probabilistic_sharpe_z(
            'return_moments.sharpe', '0', 'return_moments.skewness', 'return_moments.kurtosis',
            'return_moments.period_count'
        ) }} as sharpe_z,
        coalesce(position_metrics.position_count, 0) as position_count,
        case when position_metrics.position_count is null then 0 else position_metrics.profit_factor end
            as profit_factor,
        case when position_metrics.position_count is null then 0 else position_metrics.max_drawdown_bps end
            as max_drawdown_bps,
        coalesce(day_counts.day_count, 0) as day_count,
        coalesce(day_counts.positive_days, 0) as positive_days
    from checkpoints
    left join position_metrics using (subject, checkpoint)
    left join return_moments using (subject, checkpoint)
    left join day_counts using (subject, checkpoint)

)

select
    subject,
    checkpoint,
    make_timestamp(ends_at_ms * 1000) as ends_at,
    position_count,
    period_count,
    day_count,
    positive_days,
    sharpe as period_sharpe,
    skewness,
    kurtosis,
    {{ normal_cdf('sharpe_z') }} as fitness,
    profit_factor,
    100 * positive_days / nullif(day_count, 0)::double as consistency_pct,
    max_drawdown_bps / 100 as max_drawdown_pct
from measured
order by subject, checkpoint
{% endmacro %}


{#- The four criteria of gating, columns of a history. -#}
{% macro gating_criteria() %}
    {% do return(['fitness', 'profit_factor', 'consistency_pct', 'max_drawdown_pct']) %}
{% endmacro %}


{#- One row per subject of `history`: its class. `judged` is the checkpoint whose values are compared, `used`
    (the best where it beats the last) or `final`. -#}
{% macro gate(history, thresholds, judged='used') %}
{%- if judged not in ['used', 'final'] -%}
    {%- do exceptions.raise_compiler_error("gate: judged is '" ~ judged ~ "', expected used or final") -%}
{%- endif -%}
with checkpoints as (

    select
        subject,
        checkpoint,
        {% for criterion in gating_criteria() %}
        nullif({{ criterion }}, 'nan'::double) as {{ criterion }} {{- ',' if not loop.last }}
        {% endfor %}
    from {{ history }}

),

inequalities as (

    select
        classification,
        rank,
        criterion,
        comparison,
        threshold
    from {{ thresholds }}

),

finals as (

    select
        subject,
        max(checkpoint) as final_checkpoint,
        count(*) as checkpoint_count
    from checkpoints
    group by subject

),

bests as (

    select
        subject,
        checkpoint as best_checkpoint,
        fitness as best_fitness
    from checkpoints
    where fitness is not null
    qualify row_number() over (partition by subject order by fitness desc, checkpoint) = 1

),

chosen as (

    select
        finals.subject,
        finals.checkpoint_count,
        finals.final_checkpoint,
        last.fitness as final_fitness,
        bests.best_fitness,
        -- an unknown final fitness is beaten by nothing and passes nothing
        coalesce(bests.best_fitness > last.fitness, false) as use_checkpoint,
        case when use_checkpoint then bests.best_checkpoint end as checkpoint_index,
        {{ 'coalesce(checkpoint_index, finals.final_checkpoint)' if judged == 'used' else 'finals.final_checkpoint' }}
            as judged_checkpoint
    from finals
    inner join checkpoints as last
        on finals.subject = last.subject and finals.final_checkpoint = last.checkpoint
    left join bests on finals.subject = bests.subject

),

judged as (

    select
        chosen.*,
        {% for criterion in gating_criteria() %}
        checkpoints.{{ criterion }} {{- ',' if not loop.last }}
        {% endfor %}
    from chosen
    inner join checkpoints
        on chosen.subject = checkpoints.subject and chosen.judged_checkpoint = checkpoints.checkpoint

),

checks as (

    select
        judged.subject,
        inequalities.classification,
        inequalities.rank,
        inequalities.criterion,
        case inequalities.criterion
            {% for criterion in gating_criteria() %}
            when '{{ criterion }}' then judged.{{ criterion }}
            {% endfor %}
        end as value,
        {{ meets('value', 'inequalities.comparison', 'inequalities.threshold') }} as is_met
    from judged
    cross join inequalities

),

classes as (

    select
        subject,
        classification,
        rank
    from checks
    group by subject, classification, rank
    having bool_and(is_met)

),

flags as (

    select
        subject,
        list(classification || '.' || criterion order by rank, list_position({{ gating_criteria() }}, criterion))
            filter (where not is_met) as flags
    from checks
    group by subject

)

select
    judged.subject,
    coalesce(classes.classification, 'DROP') as classification,
    coalesce(flags.flags, []::varchar[]) as flags,
    judged.use_checkpoint,
    judged.checkpoint_index,
    judged.judged_checkpoint,
    judged.checkpoint_count,
    judged.final_fitness,
    judged.best_fitness,
    {% for criterion in gating_criteria() %}
    judged.{{ criterion }} {{- ',' if not loop.last }}
    {% endfor %}
from judged
left join flags on judged.subject = flags.subject
left join classes on judged.subject = classes.subject
qualify row_number() over (partition by judged.subject order by classes.rank) = 1
order by judged.subject
{% endmacro %}


{#- One row per subject of `folds`: how much its folds agree, and the ratings that `thresholds` give. -#}
{% macro release_summary(folds, thresholds) %}
{%- set criteria = ['positive_folds', 'sharpe_spread', 'fold_returns'] -%}
with measured as (

    select
        subject,
        min(starts_at) as starts_at,
        max(ends_at) as ends_at,
        count(*) as fold_count,
        sum(position_count)::bigint as position_count,
        count(*) filter (where is_positive) as positive_folds,
        count(*) filter (where return_bps < 0) as negative_folds,
        positive_folds / count(*)::double as positive_share,
        negative_folds / count(*)::double as negative_share,
        case when count(*) = count(return_bps) then sum(return_bps order by fold) end as return_bps,
        min(return_bps) as min_return_bps,
        max(return_bps) as max_return_bps,
        count(sharpe) as sharpe_folds,
        avg(sharpe order by fold) as sharpe_mean,
        stddev_samp(sharpe order by fold) as sharpe_stddev,
        -- equally good folds differ by chance: standard error of a small Sharpe ratio, Lo (2002)
        sqrt(avg({{ _periods_per_year() }} / period_count order by fold)) as sharpe_noise,
        sharpe_stddev / sharpe_noise as sharpe_stddev_ratio,
        min(sharpe) as min_sharpe,
        max(sharpe) as max_sharpe
    from {{ folds }}
    group by subject

),

measures as (

    select
        measured.subject,
        thresholds.criterion,
        thresholds.rating,
        thresholds.rank,
        case thresholds.measure
            when 'positive_share' then measured.positive_share
            when 'negative_share' then measured.negative_share
            when 'sharpe_stddev' then measured.sharpe_stddev
            when 'sharpe_stddev_ratio' then measured.sharpe_stddev_ratio
        end as value,
        {{ meets('value', 'thresholds.comparison', 'thresholds.threshold') }} as is_met
    from measured
    cross join {{ thresholds }} as thresholds

),

ratings as (

    select
        subject,
        criterion,
        case
            when count(*) = count(value) then coalesce(arg_min(rating, rank) filter (where is_met), 'poor')
        end as rating
    from measures
    group by subject, criterion

),

rated as (

    select
        subject,
        {% for criterion in criteria %}
        max(rating) filter (where criterion = '{{ criterion }}') as {{ criterion }}_rating {{- ',' if not loop.last }}
        {% endfor %}
    from ratings
    group by subject

)

select
    measured.*,
    {% for criterion in criteria %}
    rated.{{ criterion }}_rating {{- ',' if not loop.last }}
    {% endfor %}
from measured
left join rated using (subject)
order by subject
{% endmacro %}


{#- One row per subject of `summary`: the first rule of `rules` whose conditions hold, and what was looked at. -#}
{% macro decide_deployment(summary, gating, manifest, rules) %}
{%- set conditions = [
    'has_positions', 'has_positive_fold', 'positive_folds_rating', 'sharpe_spread_rating', 'classification',
    'executed_status',
] -%}
with evidence as (

    select
        summary.subject,

        ---------- the conditions of the rules
        summary.position_count > 0 as has_positions,
        summary.positive_folds > 0 as has_positive_fold,
        summary.positive_folds_rating,
        summary.sharpe_spread_rating,
        gating.classification,
        manifest.executed_status,

        ---------- what they come from
        summary.fold_returns_rating,
        summary.fold_count,
        summary.positive_folds,
        summary.positive_share,
        summary.sharpe_mean,
        summary.sharpe_stddev,
        summary.position_count,
        summary.return_bps,
        gating.flags,
        gating.use_checkpoint,
        gating.fitness,
        gating.profit_factor,
        gating.consistency_pct,
        gating.max_drawdown_pct,
        manifest.executed_status_reasons,
        manifest.status as label_edge_status,
        manifest.backtest_manifest_id
    from {{ summary }} as summary
    left join {{ gating }} as gating using (subject)
    left join {{ manifest }} as manifest on true

),

matches as (

    select
        evidence.*,
        rules.position,
        rules.rule,
        rules.decision,
        rules.action
    from evidence
    left join {{ rules }} as rules
        on
            {% for name in conditions %}
            (
                rules.{{ name }} = 'any'
                or coalesce(
                    list_contains(string_split(rules.{{ name }}, '|'), evidence.{{ name }}::varchar), false
                )
            )
            {{ 'and' if not loop.last }}
            {% endfor %}

)

select
    subject,
    decision,
    rule,
    action,
    * exclude (subject, decision, rule, action, position)
from matches
qualify row_number() over (partition by subject order by position) = 1
order by subject
{% endmacro %}


{#- Number of ascending cuts, columns cut_1, cut_2, ..., that lie below `value` (comparison '<=') or at or below
    it ('<'); a search by halves, since every value of every feature passes here. -#}
{% macro _cuts_passed(value, comparison, first, last) -%}
    {%- if first == last -%} {{ first }}
    {%- else -%}
        {%- set middle = (first + last) // 2 -%}
        case
            when {{ value }} {{ comparison }} cut_{{ middle + 1 }}
                then {{ _cuts_passed(value, comparison, first, middle) }}
            else {{ _cuts_passed(value, comparison, middle + 1, last) }}
        end
    {%- endif -%}
{%- endmacro %}


{#- PSI and median shift per subject of `samples` (subject, is_current, value): a whole query. -#}
{% macro population_drift(samples) %}
{%- set settings = release_settings() -%}
{%- set bins = settings.drift_bins -%}
{%- set cuts = bins - 1 -%}
with known_samples as not materialized (

    select
        subject,
        is_current,
        case when isfinite(value) then value end as value
    from {{ samples }}

),

cuts as (

    select
        subject,
        -- the smallest values with k of the bins' shares at or below, then both quartiles and the median
        quantile_disc(value, [
            {%- for cut in range(1, bins) %}{{ cut }} / {{ bins }}::double, {% endfor -%}
            0.25::double, 0.5::double, 0.75::double
        ]) filter (where not is_current) as points,
        quantile_disc(value, 0.5::double) filter (where is_current) as current_median
    from known_samples
    group by subject

),

limits as (

    select
        subject,
        {% for cut in range(1, bins) %}
        points[{{ cut }}] as cut_{{ cut }} {{- ',' if not loop.last }}
        {% endfor %}
    from cuts

),

counted as (

    select
        subject,
        is_current,
        value is null as is_unknown,
        {{ _cuts_passed('value', '<=', 0, cuts) }} as cuts_below,
        {{ _cuts_passed('value', '<', 0, cuts) }} as cuts_up_to,
        count(*) as row_count
    from known_samples
    inner join limits using (subject)
    group by subject, is_current, is_unknown, cuts_below, cuts_up_to

),

bins as (

    select
        subject,
        case
            when is_unknown then -1
            -- a value that several cuts share has a bin of its own
            when cuts_up_to - cuts_below > 1 then cuts_below + cuts_up_to
            else 2 * cuts_below
        end as bin,
        coalesce(sum(row_count) filter (where not is_current), 0)::bigint as baseline_rows,
        coalesce(sum(row_count) filter (where is_current), 0)::bigint as current_rows
    from counted
    group by subject, bin

),

shares as (

    select
        *,
        sum(baseline_rows) over per_subject as baseline_total,
        sum(current_rows) over per_subject as current_total,
        greatest(baseline_rows / nullif(baseline_total, 0)::double, {{ settings.drift_share_floor }}::double)
            as baseline_share,
        greatest(current_rows / nullif(current_total, 0)::double, {{ settings.drift_share_floor }}::double)
            as current_share
    from bins
    window per_subject as (partition by subject)

),

indices as (

    select
        subject,
        max(baseline_total)::bigint as baseline_rows,
        max(current_total)::bigint as current_rows,
        case
            when min(baseline_total) > 0 and min(current_total) > 0
                then sum((current_share - baseline_share) * ln(current_share / baseline_share) order by bin)
        end as psi
    from shares
    group by subject

)

select
    indices.subject,
    indices.baseline_rows,
    indices.current_rows,
    indices.psi,
    case
        when cuts.current_median = cuts.points[{{ cuts + 2 }}] then 0
        else (cuts.current_median - cuts.points[{{ cuts + 2 }}])
            / (cuts.points[{{ cuts + 3 }}] - cuts.points[{{ cuts + 1 }}])
    end as median_shift
from indices
inner join cuts using (subject)
{% endmacro %}


{#- Precision among the highest k of a time and ECE per output of `evaluations`, on the rows of both roles: a
    whole query. Definitions are those of heads.head_metrics. -#}
{% macro quality_drift(evaluations, baseline_role, current_role) %}
{%- set metrics = head_metric_settings() -%}
{%- set k = release_settings().drift_top_k -%}
with known as materialized (

    select
        output,
        role = '{{ current_role }}' as is_current,
        sample_id,
        event_time,
        evaluation_period,
        prediction,
        actual
    from {{ evaluations }}
    where
        kind = 'probability'
        and role in ('{{ baseline_role }}', '{{ current_role }}')
        and isfinite(prediction)
        and isfinite(actual)

),

cross_sections as (

    select
        output,
        is_current,
        evaluation_period,
        count(*) as row_count,
        list_sum(list_transform(
            min({'negative_score': -prediction, 'sample_id': sample_id, 'actual': actual}, {{ k }}),
            lambda sample: sample.actual
        ))::bigint as highest_positives
    from known
    group by output, is_current, evaluation_period, event_time
    having count(*) >= {{ k }}

),

periods as (

    select
        output,
        is_current,
        evaluation_period,
        -- times weigh by their rows, so that picks at random have the mean of the rows
        sum(row_count * highest_positives)::double / {{ k }} / sum(row_count) as precision_at_k
    from cross_sections
    group by output, is_current, evaluation_period

),

precisions as (

    select
        output,
        is_current,
        avg(precision_at_k order by evaluation_period) as precision_at_k
    from periods
    group by output, is_current

),

scores as (

    select
        output,
        is_current,
        prediction,
        count(*) as row_count,
        sum(actual)::bigint as positive_count
    from known
    group by output, is_current, prediction

),

ranked as (

    select
        *,
        sum(row_count) over per_output as total,
        -- twice the rank that ties share, less one
        2 * sum(row_count) over (partition by output, is_current order by prediction desc) - row_count as middle
    from scores
    window per_output as (partition by output, is_current)

),

bins as (

    select
        output,
        is_current,
        (middle * greatest(1, least({{ metrics.bins }}, total // {{ metrics.min_bin_rows }})) // (2 * total)) as bin,
        sum(row_count) as row_count,
        -- whole numbers add up to the same sum in any order
        abs({{ from_fixed_point('sum(row_count * ' ~ fixed_point('prediction') ~ ')') }} - sum(positive_count)) as gap
    from ranked
    group by output, is_current, bin

),

calibration as (

    select
        output,
        is_current,
        sum(row_count)::bigint as row_count,
        sum(gap order by bin) / sum(row_count)::double as ece
    from bins
    group by output, is_current

)

select
    calibration.output,
    max(calibration.row_count) filter (where not calibration.is_current) as baseline_rows,
    max(calibration.row_count) filter (where calibration.is_current) as current_rows,
    {% for metric in ['precision_at_k', 'ece'] %}
    max({{ metric }}) filter (where not calibration.is_current) as baseline_{{ metric }},
    max({{ metric }}) filter (where calibration.is_current) as current_{{ metric }} {{- ',' if not loop.last }}
    {% endfor %}
from calibration
left join precisions using (output, is_current)
group by calibration.output
{% endmacro %}


{#- OK, WARN or ALARM; NULL while the drift is unknown. -#}
{% macro drift_status(drift, warn_at, alarm_at) -%}
    case
        when {{ drift }} is null or isnan({{ drift }}) then null
        when {{ drift }} >= {{ alarm_at }} then 'ALARM'
        when {{ drift }} >= {{ warn_at }} then 'WARN'
        else 'OK'
    end
{%- endmacro %}
