{#- The panel of all factors. Its model is a program that `wavehouse factors compile` writes: steps of statements,
    some for a whole history, some for one day more. The materialization chooses between them. -#}

{% macro _factor_weights() %}
    {% set weights = var('factor_weights') %}
    {% if weights is not mapping %}
        {% do _refuse_var('factor_weights', weights, 'weights by prefix, such as {mf_: 0.5}') %}
    {% endif %}
    {% do return(weights) %}
{% endmacro %}


{#- Settings of the panel; stops at a weight of a prefix that no factor has. -#}
{% macro factor_panel_settings() %}
    {% set clip = _number_var('factor_clip') %}
    {% if clip <= 0 %}
        {% do _refuse_var('factor_clip', clip, 'a number above 0') %}
    {% endif %}
    {% set weights = _factor_weights() %}
    {% set panel = graph.nodes.get('model.' ~ project_name ~ '.factor_panel') if execute else none %}
    {% set prefixes = [] %}
    {% set others = ['ts_code', 'trade_date', 'in_universe', 'nonfinite_count', 'clipped_count'] %}
    {% for factor in (panel.columns if panel else []) if factor not in others %}
        {% set prefix = factor.split('_')[0] ~ '_' %}
        {% do prefixes.append(prefix) if prefix not in prefixes %}
    {% endfor %}
    {% for prefix, weight in weights.items() %}
        {% if (panel and prefix not in prefixes) or weight is not number or weight is boolean %}
            {% do _refuse_var('factor_weights', weights, 'a number by prefix, one of ' ~ prefixes | join(' ')) %}
        {% endif %}
    {% endfor %}
    {% do return({
        'factor_clip': clip,
        'factor_panel_max_new_days': _count_var('factor_panel_max_new_days', 0, 10000),
        'factor_universe': var('factor_universe') | string,
        'factor_weights': weights,
    }) %}
{% endmacro %}


{#- Statement that stops where the universe of var factor_universe has no member. -#}
{% macro require_factor_universe() %}
    {%- set universe = factor_panel_settings().factor_universe -%}
    {%- if universe -%}
select
    case
        when count(*) = 0
            then error('no stock is ever in the universe {{ universe }} of var factor_universe: see seeds/universes.csv')
    end
from {{ ref('universe_members') }}
where universe = '{{ universe }}'
    {%- else -%}
select 'every stock that traded is in the universe'
    {%- endif -%}
{% endmacro %}


{#- Subselect: factors.factor_inputs, and whether the row belongs to the universe of var factor_universe. -#}
{% macro factor_panel_inputs() %}
    {%- set universe = factor_panel_settings().factor_universe -%}
(
    select
        -- a number that changes with the stocks there are, not with what is known of them
        inputs.* exclude (stock_number),
        {{ 'members.ts_code is not null' if universe else 'true' }} as in_universe
    from {{ ref('factor_inputs') }} as inputs
    {%- if universe %}
    left join {{ ref('universe_members') }} as members
        on
            members.universe = '{{ universe }}'
            and inputs.ts_code = members.ts_code
            and inputs.trade_date = members.trade_date
    {%- endif %}
)
{%- endmacro %}


{#- Relation beside the panel: `state` has what the next day needs of each stock, `days` what each day was made
    from, `sanitized` what was cut off. -#}
{% macro factor_panel_part(part, panel=none) %}
    {% set panel = panel or this %}
    {% do return(panel.incorporate(path={'identifier': panel.identifier ~ '__' ~ part}, type='table')) %}
{% endmacro %}


{#- Steps of a program by kind: {'history': [{title, sql}, ...], ...}. -#}
{% macro factor_panel_steps(program) %}
    {% set steps = {} %}
    {% for part in program.split('-- step ')[1:] %}
        {% set head, _, text = part.partition('\n') %}
        {% set kind, _, title = head.partition(': ') %}
        {% do steps.setdefault(kind, []).append({'title': title, 'sql': text.strip()}) %}
    {% endfor %}
    {% do return(steps) %}
{% endmacro %}


{#- Run the steps of a kind, saying where it stands. -#}
{% macro run_factor_steps(steps, note='') %}
    {% for step in steps %}
        {% do log(this.identifier ~ note ~ ': ' ~ step.title, info=(steps | length > 3)) %}
        {% call statement('factor_step', auto_begin=False) %}{{ step.sql }}{% endcall %}
    {% endfor %}
{% endmacro %}


{#- Days to add to what is built: a list of dates, oldest first; none where the whole has to be made again. -#}
{% macro factor_panel_new_days(fingerprint) %}
    {% set days = factor_panel_part('days') %}
    {% set known = adapter.get_relation(days.database, days.schema, days.identifier)
        and adapter.get_relation(this.database, this.schema, factor_panel_part('state').identifier) %}
    {% if not known or should_full_refresh() %}
        {% do return(none) %}
    {% endif %}
    {% set found = run_query(
        "with built as (from " ~ days ~ "), last as (select max(trade_date) as trade_date from built)"
        ~ " select coalesce(built.trade_date, now.trade_date)::varchar as day,"
        ~ " coalesce(now.trade_date > last.trade_date, false) as is_new"
        ~ " from built full join factor_days as now using (trade_date) cross join last"
        ~ " where built.input_hash is distinct from now.input_hash or built.fingerprint <> '" ~ fingerprint ~ "'"
        ~ " order by day"
    ) %}
    {% for row in found.rows if not row[1] %}
        {% do return(none) %}
    {% endfor %}
    {% if found.rows | length > factor_panel_settings().factor_panel_max_new_days %}
        {% do return(none) %}
    {% endif %}
    {% do return(found.columns[0].values() | list) %}
{% endmacro %}


{#- A table that a program of factors fills: as a whole, or by the days that are new. Temporary tables are made
    outside of a transaction, so that each gives its memory back when dropped; what stays is written in one. -#}
{% materialization factor_program, adapter='duckdb' %}
    {%- set existing = load_cached_relation(this) -%}
    {%- set target = this.incorporate(type='table') -%}
    {%- set steps = factor_panel_steps(compiled_code) -%}
    {%- set fingerprint = local_md5(compiled_code) -%}
    {{ run_hooks(pre_hooks, inside_transaction=False) }}
    {% do run_factor_steps(steps['days']) %}
    {% set new_days = factor_panel_new_days(fingerprint) if existing is not none and existing.is_table else none %}

    {% if new_days is none %}
        {% do run_factor_steps(steps['history']) %}
        {% set tables = {
            target: steps['history_panel'],
            factor_panel_part('state'): steps['history_state'],
            factor_panel_part('sanitized'): steps['history_sanitized'],
        } %}
        {% if existing is not none and not existing.is_table %}
            {% do adapter.drop_relation(existing) %}
        {% endif %}
        {% call statement('main') %}
            {% for relation, written in tables.items() %}
            create or replace table {{ relation }} as
            {{ written[0].sql }};
            {% endfor %}
            create or replace table {{ factor_panel_part('days') }} as
            select *, '{{ fingerprint }}' as fingerprint from factor_days;
            {{ steps['record'][0].sql }}
        {% endcall %}
        {% do adapter.commit() %}
    {% endif %}
    {% for day in new_days or [] %}
        {% call statement('factor_day', auto_begin=False) %}set variable factor_day = date '{{ day }}'{% endcall %}
        {% do run_factor_steps(steps['day'], ' ' ~ day) %}
        {% call statement('main') %}
            insert into {{ target }} by name
            {{ steps['day_panel'][0].sql }};
            insert into {{ factor_panel_part('sanitized') }} by name
            {{ steps['day_sanitized'][0].sql }};
            create or replace table {{ factor_panel_part('state') }} as
            {{ steps['day_state'][0].sql }};
            insert into {{ factor_panel_part('days') }}
            select *, '{{ fingerprint }}' as fingerprint from factor_days where trade_date = date '{{ day }}';
            {{ steps['record'][0].sql }}
        {% endcall %}
        {% do adapter.commit() %}
    {% endfor %}
    {% if new_days == [] %}
        {% call statement('main') %}select 'nothing new'{% endcall %}
    {% endif %}

    {% do persist_docs(target, model) %}
    {{ run_hooks(post_hooks, inside_transaction=True) }}
    {% do adapter.commit() %}
    {{ run_hooks(post_hooks, inside_transaction=False) }}
    {{ return({'relations': [target]}) }}
{% endmaterialization %}


{#- Whether the values of a group, or of a window `over`, differ by more than what a double can still square:
    deviations and correlations of less would be noise, or no number. -#}
{% macro factor_spreads(value, over='') -%}
    max({{ value }}){{ over }} - min({{ value }}){{ over }} > 1e-140
{%- endmacro %}


{#- A factor's distance from the mean of its day's universe, in standard deviations of the population, times the
    weight of its family. NULL outside of the universe, where unknown, and where all of the day are the same. -#}
{% macro factor_z_score(factor, prefix, default_weight) -%}
    {%- set weight = _factor_weights().get(prefix, default_weight) | float -%}
    {%- set value = 'case when in_universe then ' ~ factor ~ ' end' -%}
    {%- set of_day = ' over (partition by trade_date)' -%}
    case
        when in_universe and {{ factor_spreads(value, of_day) }}
            then
                {{ '%r' % weight }}::double * ({{ factor }} - avg({{ value }}){{ of_day }})
                / nullif(stddev_pop({{ value }}){{ of_day }}, 0)
    end
{%- endmacro %}


{#- A factor's average rank among its day's universe, from -1 (least) to 1 (greatest), 0 where it is the only one. -#}
{% macro factor_normalised_rank(factor) -%}
    {#- to 40 significant bits: noise of the arithmetic decides no tie -#}
    {%- set value = '(' ~ factor ~ ' * 8193 - (' ~ factor ~ ' * 8193 - ' ~ factor ~ '))' -%}
    {%- set day = 'partition by trade_date, in_universe order by ' ~ value -%}
    {%- set all_rows = 'rows between unbounded preceding and unbounded following' -%}
    {%- set known = 'count(' ~ factor ~ ') over (' ~ day ~ ' ' ~ all_rows ~ ')' -%}
    case
        when in_universe and {{ factor }} is not null
            then
                case
                    when {{ known }} = 1 then 0::double
                    else
                        (
                            rank() over ({{ day }})
                            + round(
                                cume_dist() over ({{ day }})
                                * count(*) over ({{ day }} {{ all_rows }})
                            )
                            - 1 - {{ known }}
                        ) / ({{ known }} - 1)
                end
    end
{%- endmacro %}
