{#- Folds: which rows a head is fitted, tuned and calibrated on, and which it is tested on. -#}

{#- Every setting of folds and weights, checked, as a dictionary without the prefix heads_. -#}
{% macro fold_settings() %}
    {% set settings = {
        'tune_share': _share_var('heads_tune_share'),
        'calibrate_share': _share_var('heads_calibrate_share'),
        'embargo_bars': _count_var('heads_embargo_bars', 0, 100000),
        'walk_forward_folds': _count_var('walk_forward_folds', 1, 100),
        'rolling_blocks': _count_var('heads_rolling_blocks', 1, 100),
        'decay_half_life_bars': _number_var('heads_decay_half_life_bars'),
        'weighting': _choice_var('heads_weighting', ['uniqueness', 'equal']),
    } %}
    {% set blocks = settings.walk_forward_folds + 1 %}
    {% set tested = _count_var('heads_cpcv_test_groups', 0, blocks - 1) %}
    {% set ways = namespace(count=1) %}
    {% for taken in range(tested) %}
        {% set ways.count = ways.count * (blocks - taken) // (taken + 1) %}
    {% endfor %}
    {% if ways.count > 500 %}
        {% do _refuse_var('heads_cpcv_test_groups', tested,
            'at most 500 folds, not ' ~ ways.count ~ ' ways to choose ' ~ tested ~ ' of ' ~ blocks ~ ' blocks') %}
    {% endif %}
    {% if settings.decay_half_life_bars < 0 %}
        {% do _refuse_var('heads_decay_half_life_bars', settings.decay_half_life_bars,
            'bars, or 0 for no decay') %}
    {% endif %}
    {% do settings.update({'cpcv_test_groups': tested}) %}
    {% do return(settings) %}
{% endmacro %}


{#- The walk-forward folds as runs of neighbouring blocks in order of time, one dictionary each: block 0
    ends at fold_1, the last block at validation_locked. Tested blocks stay single. -#}
{% macro fold_runs() %}
    {% set settings = fold_settings() %}
    {% set blocks = range(settings.walk_forward_folds + 1) | list %}
    {% set folds = [] %}
    {% for tested in blocks[1:] %}
        {% do folds.append(['expanding', 'expanding_' ~ tested, blocks[:tested], [tested]]) %}
    {% endfor %}
    {% for tested in blocks[1:] %}
        {% set first = [0, tested - settings.rolling_blocks] | max %}
        {% do folds.append(['rolling', 'rolling_' ~ tested, blocks[first:tested], [tested]]) %}
    {% endfor %}
    {% if settings.cpcv_test_groups %}
        {% set choices = namespace(made=[[]]) %}
        {% for step in range(settings.cpcv_test_groups) %}
            {% set longer = [] %}
            {% for chosen in choices.made %}
                {% for block in blocks if not chosen or block > chosen[-1] %}
                    {% do longer.append(chosen + [block]) %}
                {% endfor %}
            {% endfor %}
            {% set choices.made = longer %}
        {% endfor %}
        {% for tested in choices.made %}
            {% do folds.append(['cpcv', 'cpcv_' ~ tested | join('_'), blocks | reject('in', tested) | list, tested]) %}
        {% endfor %}
    {% endif %}
    {% set runs = [] %}
    {% for fold_scheme, fold, trained, tested in folds %}
        {% for block in blocks if block in trained or block in tested %}
            {% set is_test = block in tested %}
            {% if not is_test and block - 1 in trained %}
                {% do runs[-1].update({'last_block': block}) %}
            {% else %}
                {% do runs.append({
                    'fold': fold,
                    'fold_scheme': fold_scheme,
                    'is_test': is_test,
                    'first_block': block,
                    'last_block': block,
                    'follows_test': block - 1 in tested,
                }) %}
            {% endif %}
        {% endfor %}
    {% endfor %}
    {% do return(runs) %}
{% endmacro %}


{% macro _share_var(name) %}
    {% set value = _number_var(name) %}
    {% if value <= 0 or value >= 0.5 %}
        {% do _refuse_var(name, value, 'a share above 0 and below 0.5') %}
    {% endif %}
    {% do return(value) %}
{% endmacro %}


{#- Every run of rows of one role in heads.folds, uninterrupted by another role of its fold, in order of
    time. Rows of all symbols at one time are one bar. -#}
{% macro fold_role_runs() -%}
    select
        fold,
        role,
        run_number,
        min(starts_at_ms) as starts_at_ms,
        max(label_ends_at_ms) as label_ends_at_ms
    from (
        select
            *,
            sum(is_first) over in_time as run_number
        from (
            select
                *,
                (role is distinct from lag(role) over in_time)::integer as is_first
            from (
                select
                    fold,
                    role,
                    starts_at_ms,
                    max(label_ends_at_ms) as label_ends_at_ms
                from {{ ref('folds') }}
                group by fold, role, starts_at_ms
            )
            window in_time as (partition by fold order by starts_at_ms, role)
        )
        window in_time as (partition by fold order by starts_at_ms, role)
    )
    group by fold, role, run_number
{%- endmacro %}
