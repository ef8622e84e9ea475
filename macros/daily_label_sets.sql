{#- The daily label sets: labels.daily_label_manifest and daily_label_distribution read this list. By relation: targets, the
    main one first (those that are counted: few values each); `rows`, the rows that may be learned from or picked from;
    `day`, the column of the day; `hashed`, the columns that tell the content. -#}
{% macro daily_label_sets() %}
    {% set returns = [] %}
    {% for days in daily_label_settings().forward_return_days %}
        {% do returns.extend(['forward_return_' ~ days ~ 'd', 'forward_return_next_open_' ~ days ~ 'd']) %}
    {% endfor %}
    {% set sets = {
        'forward_returns': {
            'targets': [returns[0]], 'is_counted': false, 'rows': 'passes_all', 'day': 'trade_date',
            'hashed': 'ts_code, trade_date, ' ~ returns | join(', '),
        },
        'main_wave_labels': {
            'targets': ['is_main_wave'], 'is_counted': true, 'rows': 'is_eligible and (is_label_valid or not is_label_known)',
            'day': 'trade_date', 'hashed': '*',
        },
        'main_wave_episodes': {
            'targets': ['target_quality'], 'is_counted': false, 'rows': 'true', 'day': 'start_date',
            'hashed': '*',
        },
        'wave_proximity_targets': {
            'targets': ['proximity'], 'is_counted': true, 'rows': 'true', 'day': 'trade_date',
            'hashed': '*',
        },
    } %}
    {% for label_set in event_label_sets() %}
        {% do sets.update({label_set ~ '_labels': {
            'targets': event_horizons().keys() | list, 'is_counted': true, 'rows': 'is_in_universe',
            'day': 'trade_date', 'hashed': '*',
        }}) %}
    {% endfor %}
    {% do sets.update({'anchor_labels': {
        'targets': ['anchor_t1', 'anchor_t3', 'anchor_t5', 'is_background'], 'is_counted': true,
        'rows': 'is_in_universe', 'day': 'trade_date', 'hashed': '*',
    }}) %}
    {% do return(sets) %}
{% endmacro %}


{#- Every setting that a daily label depends on, as canonical JSON. -#}
{% macro daily_settings_json() -%}
    {%- set settings = dict(daily_universe_settings(), **daily_panel_settings()) -%}
    {%- do settings.update(daily_label_settings()) -%}
    {%- do settings.update(event_settings()) -%}
    {%- do settings.update({
        'daily_fit_start': var('daily_fit_start') | string, 'daily_fit_end': var('daily_fit_end') | string,
    }) -%}
    {{ tojson(settings, sort_keys=true) }}
{%- endmacro %}
