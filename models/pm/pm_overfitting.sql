{{ config(materialized='table') }}

{%- set settings = overfitting_settings() %}
{#- columns of the number of trials and the variance of their Sharpe ratios, ending of results #}
{%- set trial_counts = [
    ('effective_trials', 'trial_sharpe_variance', ''),
    ('distinct_trade_sets', 'trial_sharpe_variance', '_distinct'),
    ('candidates', 'candidate_sharpe_variance', '_raw'),
    ('effective_trials', 'sampling_variance', '_sampling'),
] %}
{%- set warned = [
    'deflated_sharpe', 'pbo', 'null_p_value', 'neighbours_positive_share', 'axes_on_edge',
    'loosest_candidate_rank',
] %}

with grid as (

    select *
    from {{ ref('pm_grid_search') }}

),

best as (

    select *
    from grid
    where score_rank = 1

),

---------- trials: distinct sets of trades

trials as (

    select
        *,
        -- of the population, as in correlations
        stddev_bps * sqrt((period_count - 1) / period_count) as population_stddev_bps
    from {{ ref('pm_trials') }}

),

search as (

    select
        count(*) as candidates,
        count(*) filter (where trade_count > 0) as candidates_with_trades
    from grid

),

trial_means as (

    select
        count(*) as distinct_trade_sets,
        any_value(period_count) as periods,
        count(sharpe_per_period) as varying_trials,
        max(sharpe_per_period) as highest_trial_sharpe,
        sum(sharpe_per_period order by candidate_id) / count(sharpe_per_period) as trial_mean,
        sum(candidate_count) filter (where sharpe_per_period is not null) as varying_candidates,
        sum(candidate_count * sharpe_per_period order by candidate_id) / varying_candidates
            as candidate_mean,
        sum(mean_bps / population_stddev_bps order by candidate_id) as mean_over_stddev
    from trials

),

trial_variances as (

    select
        sum(pow(sharpe_per_period - trial_mean, 2) order by candidate_id)
            / nullif(any_value(varying_trials) - 1, 0) as trial_sharpe_variance,
        sum(candidate_count * pow(sharpe_per_period - candidate_mean, 2) order by candidate_id)
            / nullif(any_value(varying_candidates) - 1, 0) as candidate_sharpe_variance
    from trials
    cross join trial_means

),

-- the sum of all correlations is the mean square over periods of the sum of standardised returns; a
-- period without a trade adds minus the mean over the standard deviation
standardised_sums as (

    select
        returns.period_start,
        sum(weighted_edge_bps / population_stddev_bps order by candidate_id) as edge_over_stddev
    from {{ ref('pm_period_returns') }} as returns
    inner join trials using (candidate_id)
    where trials.population_stddev_bps is not null
    group by returns.period_start

),

correlations as (

    select
        (
            sum(pow(edge_over_stddev - mean_over_stddev, 2) order by period_start)
            + (any_value(periods) - count(*)) * pow(any_value(mean_over_stddev), 2)
        ) / any_value(periods) as correlation_sum
    from standardised_sums
    cross join trial_means

),

trial_counts as (

    select
        search.*,
        trial_means.* exclude (trial_mean, candidate_mean, mean_over_stddev, varying_candidates),
        trial_variances.*,
        -- of the Sharpe ratio of returns that are worth nothing
        1 / nullif(periods - 1, 0) as sampling_variance,
        (correlation_sum - varying_trials) / nullif(varying_trials * (varying_trials - 1), 0)
            as mean_trial_correlation,
        case
            when distinct_trade_sets = 1 then 1::double
            when mean_trial_correlation is not null
                then distinct_trade_sets
                    - greatest(mean_trial_correlation, 0) * (distinct_trade_sets - 1)
        end as effective_trials
    from search
    cross join trial_means
    cross join trial_variances
    cross join correlations

),

---------- Sharpe ratio of the best beside what the best of so many trials reaches by luck

expected_maxima as (

    select
        trial_counts.*,
        best_trial.sharpe_per_period,
        best_trial.skewness,
        best_trial.kurtosis,
        {% for trials, variance, ending in trial_counts %}
        case
            when distinct_trade_sets = 0 then null
            when {{ trials }} = 1 then 0::double
            else sqrt({{ variance }}) * {{ expected_normal_maximum(trials) }}
        end as expected_max_sharpe{{ ending }}
        {{- ',' if not loop.last }}
        {% endfor %}
    from trial_counts
    cross join best
    left join trials as best_trial using (trade_set_id)

),

sharpe_distances as (

    select
        *,
        {{ probabilistic_sharpe_z('sharpe_per_period', '0', 'skewness', 'kurtosis', 'periods') }}
            as probabilistic_z,
        {% for trials, variance, ending in trial_counts %}
        {{ probabilistic_sharpe_z(
            'sharpe_per_period', 'expected_max_sharpe' ~ ending, 'skewness', 'kurtosis', 'periods'
        ) }} as deflated_z{{ ending }} {{- ',' if not loop.last }}
        {% endfor %}
    from expected_maxima

),

sharpes as (

    select
        *,
        {{ normal_cdf('probabilistic_z') }} as probabilistic_sharpe,
        {% for trials, variance, ending in trial_counts %}
        {{ normal_cdf('deflated_z' ~ ending) }}
            as deflated_sharpe{{ ending }} {{- ',' if not loop.last }}
        {% endfor %}
    from sharpe_distances

),

---------- probability of backtest overfitting

overfitting as (

    {% for measure, prefix in [('mean', 'pbo'), ('sharpe', 'pbo_sharpe')] %}
    {% set of_measure = "filter (where performance = '" ~ measure ~ "')" %}
    {% set outside, inside = 'out_of_sample_performance', 'in_sample_performance' %}
    {{ 'select' if loop.first }}
        avg((relative_rank <= 0.5::double)::integer) {{ of_measure }} as {{ prefix }},
        avg(({{ outside }} < 0)::integer) {{ of_measure }} as {{ prefix }}_loss_probability,
        -- no slope where performance in sample differs by rounding alone
        case
            when stddev_pop({{ inside }} order by split_number) {{ of_measure }}
                > 1e-12::double * max(abs({{ inside }})) {{ of_measure }}
                then regr_slope({{ outside }}, {{ inside }} order by split_number) {{ of_measure }}
        end as {{ prefix }}_slope,
    {% endfor %}
        count(*) filter (where performance = 'mean') as pbo_splits
    from {{ ref('pm_overfitting_splits') }}

),

---------- scores around the best: NULL where the search left one open (pm_ordered_metrics: pruned)

neighbourhood as (

    select
        count(*) as neighbours,
        case when count(score) = count(*) then avg((score > 0)::integer) end
            as neighbours_positive_share,
        avg((total_weighted_edge_bps > 0)::integer) as neighbours_positive_total_share,
        case when count(score) = count(*) then min(score) end as neighbour_worst_score,
        case when count(score) = count(*) then median(score) end as neighbour_median_score
    from {{ ref('pm_neighbourhood') }}

),

axes as (

    select
        axis,
        value::double as value,
        row_number() over (partition by axis order by value::double) as place,
        count(*) over (partition by axis) as places
    from {{ ref('pm_grid_axes') }}

),

best_places as (

    {% for axis in pm_axes() %}
    select
        '{{ axis }}' as axis,
        {{ loop.index }} as axis_number,
        {{ axis }} as value
    from best
    {{- ' union all' if not loop.last }}
    {% endfor %}

),

edges as (

    select
        coalesce(
            list(axis order by axis_number) filter (where places > 1 and place in (1, places)),
            []::varchar[]
        ) as axes_on_edge
    from best_places
    inner join axes using (axis, value)

),

box_values as (

    select
        axes.axis,
        axes.value
    from best_places
    inner join axes as here using (axis, value)
    inner join axes
        on here.axis = axes.axis and abs(axes.place - here.place) <= 1

),

box_scores as (

    select grid.score
    from grid
    cross join best
    {% for axis in pm_axes() %}
    inner join box_values as {{ axis }}s
        on {{ axis }}s.axis = '{{ axis }}' and grid.{{ axis }} = {{ axis }}s.value
    {% endfor %}
    where grid.candidate_id <> best.candidate_id

),

box as (

    select
        count(*) as box_candidates,
        case when count(score) = count(*) then avg((score > 0)::integer) end as box_positive_share,
        case when count(score) = count(*) then min(score) end as box_worst_score,
        case when count(score) = count(*) then median(score) end as box_median_score
    from box_scores

),

loosest as (

    select arg_min(score_rank, [
        {% for axis in pm_axes() %}
        {{ '-' if axis.startswith('max_') }}{{ axis }} {{- ',' if not loop.last }}
        {% endfor %}
    ]) as loosest_candidate_rank
    from grid

),

---------- luck: the same search where edges have no relation to predictions

luck as (

    select
        count(*) as null_draws,
        avg(draws.best_score order by draw) as null_best_score_mean,
        max(draws.best_score) as null_best_score_max,
        avg(draws.total_weighted_edge_bps order by draw) as null_total_weighted_edge_bps_mean,
        (1 + count(*) filter (where round(draws.best_score, 9) >= round(best.score, 9)))
            / nullif(1 + count(*), 1) as null_p_value
    from {{ ref('pm_null_search') }} as draws
    cross join best

),

---------- all together

statistics as materialized (

    select
        ---------- the best candidate
        best.candidate_id,
        '{{ pm_settings().pm_edge_basis }}' as edge_basis,
        case when best.trade_count > 0 then best.score end as best_score,
        best.total_weighted_edge_bps as best_total_weighted_edge_bps,
        best.trade_count as best_trade_count,

        ---------- trials
        sharpes.candidates,
        sharpes.candidates_with_trades,
        sharpes.distinct_trade_sets,
        sharpes.mean_trial_correlation,
        sharpes.effective_trials,

        ---------- Sharpe ratio
        sharpes.periods,
        {{ settings.pm_period_minutes }} as period_minutes,
        sharpes.sharpe_per_period,
        sharpes.skewness,
        sharpes.kurtosis,
        sharpes.highest_trial_sharpe,
        sharpes.probabilistic_sharpe,
        sharpes.trial_sharpe_variance,
        sharpes.candidate_sharpe_variance,
        {% for trials, variance, ending in trial_counts %}
        sharpes.expected_max_sharpe{{ ending }},
        sharpes.deflated_sharpe{{ ending }},
        {% endfor %}

        ---------- probability of backtest overfitting
        {{ settings.pm_pbo_blocks }} as pbo_blocks,
        overfitting.*,

        ---------- neighbourhood
        neighbourhood.*,
        box.*,
        edges.axes_on_edge,
        loosest.loosest_candidate_rank,

        ---------- luck
        '{{ settings.pm_null_method }}' as null_method,
        luck.null_draws,
        {% for name in [
            'null_best_score_mean', 'null_best_score_max', 'null_total_weighted_edge_bps_mean',
            'null_p_value',
        ] %}
        case when best.trade_count > 0 then luck.{{ name }} end as {{ name }}
        {{- ',' if not loop.last }}
        {% endfor %}
    from best
    cross join sharpes
    cross join overfitting
    cross join neighbourhood
    cross join box
    cross join edges
    cross join loosest
    cross join luck

),

observed as (

    select
        {# numbers as they are, a list by its length #}
        unnest([
            {% for name in warned %}
            '{{ name }}' {{- ',' if not loop.last }}
            {% endfor %}
        ]) as statistic,
        unnest([
            {% for name in warned %}
            {{ 'len(' ~ name ~ ')' if name == 'axes_on_edge' else name }} {{- ',' if not loop.last }}
            {% endfor %}
        ]::double[]) as value
    from statistics

),

warnings as (

    select
        coalesce(
            list(
                case when value is null then statistic || '_unknown' else warning end
                order by rules.position
            ),
            []::varchar[]
        ) as warnings
    from {{ ref('pm_overfitting_rules') }} as rules
    inner join observed using (statistic)
    where
        value is null
        or (comparison = 'above' and value > threshold)
        or (comparison = 'below' and value < threshold)

)

select
    statistics.*,
    warnings.warnings
from statistics
cross join warnings
