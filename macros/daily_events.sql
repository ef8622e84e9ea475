{#- What the daily event label sets share: settings, look-ahead, the choice among overlapping candidates,
    horizon targets. A day is a row of the stock's panel, which holds every trading day of the market
    from listing on, suspended ones included: t + 5 is five market days later. -#}

{#- Every setting of the event labels as one typed dictionary. -#}
{% macro event_settings() %}
    {% set settings = {} %}
    {% for name in [
        'event_min_amount_cny', 'event_positive_rate', 'event_max_positive_rate',
        'event_min_volatility', 'event_volatility_half_life_days',
        'excess_adaptive_min_gain', 'excess_adaptive_max_prior_gain', 'excess_adaptive_min_excess',
        'excess_adaptive_volatility_multiple', 'excess_adaptive_drawdown_base',
        'excess_adaptive_drawdown_share', 'excess_adaptive_min_excess_per_day',
        'triple_barrier_volatility_multiple', 'directional_change_quality_unit',
    ] %}
        {% do settings.update({name: _number_var(name)}) %}
    {% endfor %}
    {% for name in [
        'event_amount_days', 'excess_adaptive_prior_days', 'excess_adaptive_window_days',
        'excess_adaptive_min_peak_days', 'triple_barrier_days',
        'directional_change_min_days', 'directional_change_max_days',
    ] %}
        {% do settings.update({name: _count_var(name, 1, 250)}) %}
    {% endfor %}
    {% for name, allowed in {
        'event_unsettled_rows': ['unknown', 'reference'],
        'directional_change_magnitude': ['later_high', 'confirmation'],
        'anchor_label_set': event_label_sets(),
    }.items() %}
        {% do settings.update({name: _choice_var(name, allowed)}) %}
    {% endfor %}
    {% for name, least in {'trend_scanning_windows': 3, 'directional_change_thresholds': 0}.items() %}
        {% set values = var(name) %}
        {% if values is string or values is not sequence or values | length == 0
            or values | reject('number') | list or values | min < least or values != values | sort %}
            {% do _refuse_var(name, values, 'an ascending list of numbers from ' ~ least ~ ' up') %}
        {% endif %}
        {% do settings.update({name: values}) %}
    {% endfor %}
    {% do settings.update({'event_universe': var('event_universe') | string}) %}
    {% do return(settings) %}
{% endmacro %}


{#- An event setting as a literal: doubles as DOUBLE, since a bare decimal would compare otherwise in
    the last bit. -#}
{% macro event_setting(name) -%}
    {%- set value = event_settings()[name] -%}
    {%- if value is string -%} '{{ value | replace("'", "''") }}'
    {%- elif value is integer -%} {{ value }}
    {%- else -%} {{ value }}::double
    {%- endif -%}
{%- endmacro %}


{% macro event_label_sets() %}
    {% do return(['excess_adaptive', 'trend_scanning', 'triple_barrier', 'directional_change']) %}
{% endmacro %}


{#- Days ahead in which an event must start: {target: days}. -#}
{% macro event_horizons() %}
    {% do return({'t1': 1, 't3': 3, 't5': 5, 'e20': 20}) %}
{% endmacro %}


{#- Days ahead of an event at which an anchor row stands. -#}
{% macro anchor_days() %}
    {% do return([1, 3, 5]) %}
{% endmacro %}


{#- Days after a candidate's start until its own outcome is known. -#}
{% macro event_window_days(label_set) %}
    {% set settings = event_settings() %}
    {% do return({
        'excess_adaptive': settings.excess_adaptive_window_days,
        'trend_scanning': settings.trend_scanning_windows | max,
        'triple_barrier': settings.triple_barrier_days,
        'directional_change': settings.directional_change_max_days,
    }[label_set]) %}
{% endmacro %}


{#- Days after a day until it is settled whether an event starts on it. A better candidate that starts by
    the peak may still replace one of the sets that are deduplicated by quality, and that candidate
    needs a window of its own. -#}
{% macro event_settling_days(label_set) %}
    {% set replaced = label_set in ['triple_barrier', 'directional_change'] %}
    {% do return(event_window_days(label_set) * (2 if replaced else 1)) %}
{% endmacro %}


{#- Days after a row on which its labels depend: an event that starts on the longest horizon's last day has to settle. -#}
{% macro event_label_days(label_set) %}
    {% do return((event_horizons().values() | list + anchor_days()) | max + event_settling_days(label_set)) %}
{% endmacro %}


{#- The CTEs `searches` and `inputs`, from which an event model finds its candidates.
    searches: a row per stock that may have an event not yet listed, with the first of its days (stock_row) on which one
    may start. What is listed stands: the search goes on behind the peak of the last event. With `keep` 'first' every
    candidate between that peak and the last day built before would be an event already, had its window ended.
    inputs: the days of daily_event_inputs from `back` days before that one on, as a stream in which
    `lead(x, k) over ()` is the day k later wherever rows_left >= k. panel_row grows by one a day within a stock.
    Columns: panel_row, stock_id, stock_row, rows_left, ts_code, trade_date, may_start and `columns`. -#}
{% macro event_scan(label_set, columns, keep, only_new, back=0) %}
{%- if only_new %}
last_peaks as (

    select
        ts_code,
        max(peak_date) as peak_date
    from {{ this }}
    group by ts_code

),

{% endif %}
last_days as (

    select
        days.ts_code,
        max(days.stock_row) as last_row,
        {% if only_new and keep == 'first' %}
        max(days.stock_row) filter (days.trade_date <= {{ built_until() }}) as last_built_row,
        {% endif %}
        min(days.stock_row) filter (
            {{ _event_may_start('days') }}
            {% if only_new %}
            and days.trade_date > coalesce(last_peaks.peak_date, '-infinity'::date)
            {% endif %}
        ) as first_free_row
    from {{ ref('daily_event_inputs') }} as days
    {% if only_new %}
    left join last_peaks on days.ts_code = last_peaks.ts_code
    {% endif %}
    group by days.ts_code

),

searches as (

    select
        ts_code,
        row_number() over (order by ts_code) as stock_id,
        last_row,
        {% if only_new and keep == 'first' %}
        greatest(first_free_row, last_built_row - {{ event_window_days(label_set) - 1 }})
            as first_row
        {% else %}
        first_free_row as first_row
        {% endif %}
    from last_days
    where first_free_row is not null

),

inputs as (

    select
        {{ event_panel_row('searches.stock_id', 'days.stock_row') }} as panel_row,
        searches.stock_id,
        days.stock_row,
        searches.last_row - days.stock_row as rows_left,
        days.ts_code,
        days.trade_date,
        days.stock_row >= searches.first_row and {{ _event_may_start('days') }} as may_start,
        {% for column in columns %}
        days.{{ column }}{{ ',' if not loop.last }}
        {% endfor %}
    from {{ ref('daily_event_inputs') }} as days
    inner join searches
        on days.ts_code = searches.ts_code and days.stock_row >= searches.first_row - {{ back }}
    order by panel_row

)
{%- endmacro %}


{#- A number that grows by one a day within a stock, and skips what no stock has from one to the next. -#}
{% macro event_panel_row(stock_id, stock_row) -%}
    ({{ stock_id }} * 1000000 + {{ stock_row }})
{%- endmacro %}


{#- Return of a traded day; `panel` is factors.daily_panel. -#}
{% macro event_traded_return(panel) -%}
    case when not {{ panel }}.is_suspended then {{ panel }}.returns end
{%- endmacro %}


{#- Where a candidate may start: the day is traded, in the universe and liquid. -#}
{% macro _event_may_start(days) -%}
    {{ days }}.is_traded
        and {{ days }}.is_in_universe
        and {{ days }}.mean_amount_cny >= {{ event_setting('event_min_amount_cny') }}
{%- endmacro %}


{#- Rows of `candidates` that remain when none may start by the peak of the one kept before it. With
    `keep` 'first' a kept candidate stays; with 'best' one of higher quality that starts by the peak
    takes its place, and with equal quality the earlier stays. `candidates` is a CTE with stock_id,
    candidate_number (1, 2, ... in order of start within the stock), start_row, peak_row, quality. Result:
    stock_id, candidate_number. To be used as a recursive CTE body's own statement. -#}
{% macro without_overlaps(candidates, keep) %}
    {%- set is_free = 'candidates.start_row > scanned.kept_peak_row' -%}
    {%- set takes_over = is_free if keep == 'first'
        else '(' ~ is_free ~ ' or candidates.quality > scanned.kept_quality)' -%}
    with recursive scanned as (

        select
            stock_id,
            candidate_number,
            peak_row as kept_peak_row,
            quality as kept_quality,
            true as is_kept,
            true as is_first_of_chain
        from {{ candidates }}
        where candidate_number = 1

        union all

        select
            candidates.stock_id,
            candidates.candidate_number,
            case when {{ takes_over }} then candidates.peak_row else scanned.kept_peak_row end
                as kept_peak_row,
            case when {{ takes_over }} then candidates.quality else scanned.kept_quality end
                as kept_quality,
            {{ takes_over }} as is_kept,
            {{ is_free }} as is_first_of_chain
        from scanned
        inner join {{ candidates }} as candidates
            on
                scanned.stock_id = candidates.stock_id
                and scanned.candidate_number + 1 = candidates.candidate_number

    )

    select
        stock_id,
        candidate_number
    from scanned
    where is_kept
    -- the last one kept before the next chain begins has outlived the others of its chain
    qualify coalesce(
        lead(is_first_of_chain) over (partition by stock_id order by candidate_number), true
    )
{% endmacro %}


{#- The end of every event model. Reads the CTEs `inputs` (of event_scan) and `candidates` (as
    without_overlaps wants them, with confirmation_row, magnitude, scale and theta), and adds the day on
    which an event is settled; events that the data do not settle are left out. -#}
{% macro settled_events(label_set, keep) %}
    {%- set from_peak = keep == 'best' %}
kept as (
    {{ without_overlaps('candidates', keep) }}
),

chosen as (

    select
        candidates.*,
        candidates.{{ 'peak_row' if from_peak else 'start_row' }}
        + {{ event_window_days(label_set) }} as settled_row
    from candidates
    inner join kept using (stock_id, candidate_number)

)

select
    '{{ label_set }}' as label_set,
    starts.ts_code,
    starts.trade_date as event_date,
    peaks.trade_date as peak_date,
    confirmations.trade_date as confirmation_date,
    settlements.trade_date as settled_date,
    (chosen.peak_row - chosen.start_row)::smallint as duration_days,
    chosen.theta,
    chosen.magnitude,
    chosen.scale,
    chosen.quality
from chosen
inner join inputs as starts on chosen.start_row = starts.panel_row
inner join inputs as peaks on chosen.peak_row = peaks.panel_row
inner join inputs as confirmations on chosen.confirmation_row = confirmations.panel_row
inner join inputs as settlements on chosen.settled_row = settlements.panel_row
order by starts.ts_code, starts.trade_date
{% endmacro %}


{#- True, or an error when the stream is not in order: a window without ORDER BY promises none. -#}
{% macro stream_is_ordered() -%}
    case
        when next_panel_row <= panel_row
            then error('event labels read the panel out of order: please report this')
        else true
    end
{%- endmacro %}


{#- Select of a hash of the threshold that a relation of labels is made with: another one changes them all. -#}
{% macro event_threshold_hash(relation) %}
    {%- set label_set = event_settings().anchor_label_set if relation == 'anchor_labels'
        else relation | replace('_labels', '') -%}
    select hash(quality_threshold)
    from {{ ref('event_thresholds') }}
    where label_set = '{{ label_set }}'
{%- endmacro %}


{#- First and last day of the fit window from `dates` (a relation with trade_date), on which thresholds
    are searched. -#}
{% macro daily_fit_window(dates) %}
    {%- set bounds = {'daily_fit_start': var('daily_fit_start'), 'daily_fit_end': var('daily_fit_end')} -%}
    {%- for name, bound in bounds.items() -%}
        {%- set is_share = bound is number and bound is not boolean and 0 <= bound <= 1 -%}
        {%- set is_date = modules.re.fullmatch('[0-9]{4}-[0-9]{2}-[0-9]{2}', bound | string) -%}
        {%- if not is_share and not is_date -%}
            {%- do _refuse_var(name, bound, "a share of the trading days from 0 to 1 or a date such as '2022-12-31'") -%}
        {%- endif -%}
    {%- endfor -%}
    select
        {%- for name, bound in bounds.items() %}
        {% if bound is number -%}
            quantile_disc(trade_date, {{ bound }}::double)
        {%- else -%}
            max('{{ bound }}'::date)
        {%- endif %} as {{ name | replace('daily_', '') }}_date{{ ',' if not loop.last }}
        {%- endfor %}
    from {{ dates }}
{% endmacro %}


{#- The CTEs `days` (of daily_event_inputs), `thresholds` and `events` (those of a label set that reach the threshold),
    from which labels are made. -#}
{% macro days_and_events(label_set, only_rebuilt) %}
days as (

    select
        inputs.ts_code,
        inputs.trade_date,
        inputs.stock_row,
        inputs.is_in_universe
    from {{ ref('daily_event_inputs') }} as inputs
    {% if only_rebuilt %}
    {{ of_stocks_to_rebuild('inputs', 'build_from') }}
    {% endif %}

),

thresholds as (

    select quality_threshold
    from {{ ref('event_thresholds') }}
    where label_set = '{{ label_set }}'

),

events as (

    select
        ts_code,
        event_date,
        peak_date,
        quality
    from {{ ref(label_set ~ '_events') }}
    where quality >= (select quality_threshold from thresholds)

),
{%- endmacro %}


{#- The day on which it is settled what starts `days` days ahead; over a window `per_stock` of `days`. -#}
{% macro settled_date_ahead(label_set, days) -%}
    lead(days.trade_date, {{ days + event_settling_days(label_set) }}) over per_stock
{%- endmacro %}


{#- Whether a row may say what starts `days` days ahead. -#}
{% macro is_start_known(label_set, days) -%}
    (select quality_threshold from thresholds) is not null
        and {{ settled_date_ahead(label_set, days) if event_settings().event_unsettled_rows == 'unknown'
            else 'lead(days.trade_date, ' ~ days ~ ') over per_stock' }} is not null
{%- endmacro %}


{#- One row per stock and day: its targets, from the events of a label set that reach the threshold. -#}
{% macro event_labels(label_set, only_rebuilt) %}
    {%- set horizons = event_horizons() -%}
    {%- set longest = horizons.values() | max %}
with

{{ days_and_events(label_set, only_rebuilt) }}

days_ahead as (

    select
        days.*,
        min(case when events.event_date is not null then days.stock_row end) over (
            partition by days.ts_code order by days.stock_row
            rows between 1 following and {{ longest }} following
        ) as next_event_row,
        {% for target, days_ahead in horizons.items() %}
        {{ settled_date_ahead(label_set, days_ahead) }} as {{ target }}_settled_date,
        {{ is_start_known(label_set, days_ahead) }} as is_{{ target }}_known,
        {% endfor %}
        max(days.trade_date) over (partition by days.ts_code) as last_trade_date
    from days
    left join events on days.ts_code = events.ts_code and days.trade_date = events.event_date
    window per_stock as (partition by days.ts_code order by days.stock_row)

),

next_events as (

    select
        days.ts_code,
        days.stock_row,
        events.event_date,
        events.peak_date,
        events.quality
    from events
    inner join days on events.ts_code = days.ts_code and events.event_date = days.trade_date

)

select
    targets.ts_code,
    targets.trade_date,
    targets.is_in_universe,
    {% for target, days_ahead in horizons.items() %}
    case
        when targets.is_{{ target }}_known
            then coalesce(targets.next_event_row - targets.stock_row <= {{ days_ahead }}, false)::tinyint
    end as {{ target }},
    {% endfor %}
    {% for target in horizons %}
    case
        when targets.is_{{ target }}_known
            then coalesce(targets.{{ target }}_settled_date, targets.last_trade_date)
    end as {{ target }}_label_end_date,
    {% endfor %}
    case
        when targets.is_e20_known then targets.next_event_row - targets.stock_row
    end::smallint as days_to_event,
    case when targets.is_e20_known then next_events.event_date end as next_event_date,
    case when targets.is_e20_known then next_events.peak_date end as next_event_peak_date,
    case when targets.is_e20_known then next_events.quality end as next_event_quality
from days_ahead as targets
left join next_events
    on
        targets.ts_code = next_events.ts_code
        and targets.next_event_row = next_events.stock_row
order by targets.ts_code, targets.trade_date
{% endmacro %}


{#- Share of a new return in the exponentially weighted mean: 1 - 2^(-1 / half-life). -#}
{% macro event_volatility_alpha() -%}
    (1 - exp(ln(0.5::double) / {{ event_setting('event_volatility_half_life_days') }}))
{%- endmacro %}


{#- column_0 + ... of `days` columns. -#}
{% macro sum_of(column, days) -%}
    ({% for k in range(days) %}{{ column }}_{{ k }}{{ ' + ' if not loop.last }}{% endfor %})
{%- endmacro %}


{#- Least-squares slope per day of column_0, column_1, ... over `days` days. -#}
{% macro line_slope(column, days) -%}
    (
        {%- for k in range(days) -%}
            {{ k - (days - 1) / 2 }}::double * {{ column }}_{{ k }}{{ ' + ' if not loop.last }}
        {%- endfor -%}
    ) / {{ days * (days * days - 1) / 12 }}::double
{%- endmacro %}


{#- Standard error of that slope, from columns slope_<days> and mean_<days>. NULL where the residuals
    are no more than what rounding of log prices leaves. -#}
{% macro line_slope_error(column, days) -%}
    {%- set residuals -%}
        (
        {%- for k in range(days) -%}
            pow({{ column }}_{{ k }} - mean_{{ days }} - slope_{{ days }} * {{ k - (days - 1) / 2 }}::double, 2)
            {{- ' + ' if not loop.last }}
        {%- endfor -%}
        )
    {%- endset -%}
    case
        when {{ residuals }} > 1e-16::double
            then sqrt({{ residuals }} / {{ days - 2 }} / {{ days * (days * days - 1) / 12 }}::double)
    end
{%- endmacro %}
