{#- Every setting of the training of heads as one typed dictionary; its JSON is heads.head_settings. -#}
{% macro head_settings() %}
    {% set settings = {} %}
    {% for name in [
        'heads_max_rounds', 'heads_min_rounds', 'heads_patience', 'heads_golden_rows',
        'heads_importance_rows',
    ] %}
        {% do settings.update({name: _count_var(name, 1, 1000000)}) %}
    {% endfor %}
    {% if settings.heads_min_rounds > settings.heads_max_rounds %}
        {% do _refuse_var('heads_min_rounds', settings.heads_min_rounds, 'at most heads_max_rounds') %}
    {% endif %}
    {% set scale = _number_var('heads_scale') %}
    {% if scale <= 0 %}
        {% do _refuse_var('heads_scale', scale, 'a number above 0') %}
    {% endif %}
    {% do settings.update({'heads_scale': scale}) %}
    {% set trainers = ['lightgbm', 'torch'] %}
    {% do settings.update({'heads_trainer': _choice_var_value('heads_trainer', var('heads_trainer'), trainers)}) %}
    {% for name in ['heads_trainers', 'heads_lightgbm', 'heads_torch'] %}
        {% if var(name) is not mapping %}
            {% do _refuse_var(name, var(name), 'a mapping such as {name: value}') %}
        {% endif %}
        {% do settings.update({name: var(name)}) %}
    {% endfor %}
    {% for head, trainer in var('heads_trainers').items() %}
        {% do _choice_var_value('heads_trainers.' ~ head, trainer, trainers) %}
    {% endfor %}
    {% for name in ['heads_train_folds', 'heads_seeds', 'heads_trial_targets'] %}
        {% set value = var(name) %}
        {% if value is string or value is mapping or value is not iterable %}
            {% do _refuse_var(name, value, 'a list such as [first, second]') %}
        {% endif %}
        {% do settings.update({name: value | list}) %}
    {% endfor %}
    {% if not settings.heads_train_folds %}
        {% do _refuse_var('heads_train_folds', [], 'one fold or more, such as [anchor]') %}
    {% endif %}
    {% if not settings.heads_seeds or settings.heads_seeds | unique | list | length != settings.heads_seeds | length %}
        {% do _refuse_var('heads_seeds', settings.heads_seeds, 'one seed or more, each once') %}
    {% endif %}
    {% for seed in settings.heads_seeds if seed is not integer or seed is boolean or seed < 0 %}
        {% do _refuse_var('heads_seeds', settings.heads_seeds, 'whole numbers of 0 or more') %}
    {% endfor %}
    {% do return(settings) %}
{% endmacro %}


{% macro _choice_var_value(name, value, allowed) %}
    {% if value not in allowed %}
        {% do _refuse_var(name, value, 'one of ' ~ allowed | join(', ')) %}
    {% endif %}
    {% do return(value) %}
{% endmacro %}
