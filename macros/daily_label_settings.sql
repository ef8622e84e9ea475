{#- Settings of the daily labels as one typed dictionary, each refused by its name when it is wrong. -#}

{% macro daily_label_settings() %}
    {% set settings = {} %}
    {% for name in [
        'main_wave_sigmas', 'main_wave_minimum_threshold', 'main_wave_max_adverse',
        'main_wave_minimum_amount_cny', 'main_wave_minimum_hold_return',
        'wave_episode_start_gain', 'wave_episode_max_prior_gain', 'wave_episode_minimum_gain',
        'wave_episode_minimum_daily_gain', 'wave_episode_drawdown_base', 'wave_episode_drawdown_share',
        'wave_quality_reference_days', 'wave_quality_lowest_duration_weight',
        'wave_quality_highest_duration_weight',
    ] %}
        {% do settings.update({name: _number_var(name)}) %}
    {% endfor %}
    {% for name, range in {
        'main_wave_hold_days': [2, 30],
        'main_wave_exit_delay_days': [0, 30],
        'main_wave_volatility_days': [2, 250],
        'main_wave_amount_days': [1, 250],
        'main_wave_fast_days': [1, 250],
        'main_wave_slow_days': [2, 250],
        'wave_episode_days': [2, 60],
        'wave_episode_first_peak_day': [1, 60],
        'wave_episode_prior_days': [2, 60],
    }.items() %}
        {% do settings.update({name: _count_var(name, range[0], range[1])}) %}
    {% endfor %}
    {% for name in [
        'forward_return_same_close_entry', 'main_wave_unadjusted_close', 'main_wave_partial_windows',
        'main_wave_amount_from_close', 'main_wave_cut_windows_are_valid',
        'main_wave_entry_must_be_possible',
    ] %}
        {% do settings.update({name: _boolean_var(name)}) %}
    {% endfor %}
    {% for name, allowed in {
        'forward_return_suspended_exit': ['next_traded_day', 'last_close'],
        'main_wave_entry_price': ['next_close', 'next_open'],
        'main_wave_entry_day_cross': ['hold', 'drop', 'exit'],
        'main_wave_path': ['whole_window', 'to_exit'],
        'wave_episode_drawdown_over': ['to_peak', 'whole_window'],
    }.items() %}
        {% do settings.update({name: _choice_var(name, allowed)}) %}
    {% endfor %}
    {% set days = var('forward_return_days') %}
    {% if days is string or days is mapping or days is not iterable or not days
        or days | select('integer') | list | length != days | length
        or days | unique | list | length != days | length or days | min < 1 or days | max > 250 %}
        {% do _refuse_var('forward_return_days', days, 'a list of different whole days from 1 to 250') %}
    {% endif %}
    {% set weights = var('wave_proximity_weights') %}
    {% if weights is string or weights is mapping or weights is not iterable or not weights
        or weights | select('number') | list | length != weights | length %}
        {% do _refuse_var('wave_proximity_weights', weights, 'a list of numbers, for one, two, ... days before a start') %}
    {% endif %}
    {% if settings.wave_episode_first_peak_day > settings.wave_episode_days %}
        {% do _refuse_var('wave_episode_first_peak_day', settings.wave_episode_first_peak_day,
            'no more than wave_episode_days') %}
    {% endif %}
    {% if settings.main_wave_fast_days >= settings.main_wave_slow_days %}
        {% do _refuse_var('main_wave_fast_days', settings.main_wave_fast_days,
            'less than main_wave_slow_days') %}
    {% endif %}
    {% do settings.update({'forward_return_days': days | sort, 'wave_proximity_weights': weights}) %}
    {% do return(settings) %}
{% endmacro %}


{#- A number of daily_label_settings as a literal, DOUBLE unless it is a whole count. -#}
{% macro daily_setting(name) -%}
    {%- set value = daily_label_settings()[name] -%}
    {{ value }}{{ '::double' if value is not integer }}
{%- endmacro %}
