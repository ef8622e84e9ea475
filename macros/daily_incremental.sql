{#- Incremental builds of the daily track. staging.daily_day_hashes has a hash per source and trading day of
    the facts that take effect on it; staging.daily_built_days the hash per relation and day that its rows
    were made from, which covers the sources, the relations below and the relation's own full SQL with
    every setting in it. A pre-hook finds the first day that differs and drops what it can have
    changed, the model builds what is missing, a post-hook writes the days down. All of it is one
    transaction: a run that dies leaves nothing behind.
    Rows of a day depend on the facts up to that day, or up to `ahead` trading days later.
    A model says is_incremental() itself, never a macro it calls: its full SQL is known by setting that false. -#}

{#- Relations that the model reads: {'sources': names in daily_day_hashes, 'relations': incremental models,
    'undated': selects of a hash of what concerns every day}. -#}
{% macro _day_inputs() %}
    {% set inputs = {'sources': [], 'relations': [], 'undated': []} %}
    {% for node in model.depends_on.nodes if execute %}
        {% set name = node.split('.')[2] %}
        {% if name in daily_hashed_sources() %}
            {% do inputs.sources.append(name) %}
        {% elif name in daily_incremental_relations() %}
            {% do inputs.relations.append(name) %}
        {% elif name == 'event_thresholds' %}
            {% do inputs.undated.append(event_threshold_hash(model.name)) %}
        {% elif name not in ['daily_day_hashes', 'daily_built_days'] %}
            {% do exceptions.raise_compiler_error(
                model.name ~ ' is incremental and reads ' ~ name ~ ', whose changes nothing tells it'
            ) %}
        {% endif %}
    {% endfor %}
    {% do return(inputs) %}
{% endmacro %}


{#- Sources of staging.daily_day_hashes. -#}
{% macro daily_hashed_sources() %}
    {% do return([
        'stg_trading_calendar', 'stg_daily_bars', 'stg_daily_basic', 'stg_index_daily', 'stg_securities',
        'stg_security_names', 'stg_index_members', 'stg_industry_members',
        'board_rules', 'price_limit_rules', 'price_limit_exceptions', 'universes', 'user_universes',
    ]) %}
{% endmacro %}


{#- Relations that write into staging.daily_built_days. -#}
{% macro daily_incremental_relations() %}
    {% do return([
        'daily_gates', 'price_limits', 'entry_eligibility', 'universe_members', 'daily_panel',
        'forward_return_exits', 'forward_return_benchmarks', 'main_wave_labels', 'main_wave_episodes',
        'wave_proximity_targets', 'event_benchmarks', 'daily_event_inputs', 'directional_changes',
        'excess_adaptive_events', 'trend_scanning_events', 'triple_barrier_events', 'directional_change_events',
        'excess_adaptive_labels', 'trend_scanning_labels', 'triple_barrier_labels', 'directional_change_labels',
        'anchor_labels', 'factor_panel', 'factor_health_days',
    ]) %}
{% endmacro %}


{#- Select (trade_date, input_hash): what the model's rows of each trading day are to be made from now. -#}
{% macro _day_input_hashes() %}
    {%- set inputs = _day_inputs() -%}
    {%- set full_sql = render(model.raw_code | replace('is_incremental()', 'false')) if execute else '' -%}
    select
        trade_date,
        hash(sum(hash(name, day_hash)::hugeint), '{{ local_md5(full_sql) }}') as input_hash
    from (
        select source as name, trade_date, day_hash
        from {{ ref('daily_day_hashes') }}
        where list_contains({{ inputs.sources }}::varchar[], source)
        union all
        select relation as name, trade_date, input_hash as day_hash
        from {{ ref('daily_built_days') }}
        where list_contains({{ inputs.relations }}::varchar[], relation)
        {% for undated in inputs.undated %}
        union all
        select 'undated' as name, min(trade_date) as trade_date, ({{ undated }}) as day_hash
        from {{ ref('daily_day_hashes') }}
        having min(trade_date) is not null
        {% endfor %}
    )
    group by trade_date
{% endmacro %}


{#- The last trading day whose rows the model has; -infinity before the first. -#}
{% macro built_until() -%}
    (
        select coalesce(max(trade_date), '-infinity'::date)
        from {{ ref('daily_built_days') }}
        where relation = '{{ model.name }}'
    )
{%- endmacro %}


{#- Pre-hook: forget and drop every day that is not built from what is there now.
    ahead: trading days after a row's own on which the row depends.
    date_column: of the model's table.
    stock_days, back: for a model whose rows may wait for a stock longer than `ahead`, or that looks back on a
    stock: see stocks_to_rebuild. -#}
{% macro drop_outdated_days(ahead=0, stock_days=none, back=0, date_column='trade_date') %}
    {%- set built_days = ref('daily_built_days') -%}
    {%- set day_hashes = ref('daily_day_hashes') -%}
    {%- set calendar = ref('stg_trading_calendar') -%}
    {% if not is_incremental() %}
    delete from {{ built_days }}
    where relation = '{{ model.name }}'
    {% else %}
    delete from {{ built_days }}
    where
        relation = '{{ model.name }}'
        and trade_date >= (
            with built as (

                select trade_date, input_hash
                from {{ built_days }}
                where relation = '{{ model.name }}'

            ),

            changed as (

                select min(trade_date) as first_date
                from built
                full join ({{ _day_input_hashes() }}) as now using (trade_date)
                where built.input_hash is distinct from now.input_hash

            ),

            days_before as (

                select
                    built.trade_date,
                    row_number() over (order by built.trade_date desc) as days_ago
                from built
                inner join changed on built.trade_date < changed.first_date

            )

            select coalesce(min(days_before.trade_date), any_value(changed.first_date))
            from changed
            left join days_before on days_before.days_ago <= {{ ahead }}
        );
    {% if stock_days %}
    create or replace temp table {{ _rebuild_table() }} as
    {{ stocks_to_rebuild(stock_days, ahead, back, date_column) }};

    delete from {{ this }} as rows_built
    using {{ _rebuild_table() }} as stocks
    where rows_built.ts_code = stocks.ts_code and rows_built.{{ date_column }} >= stocks.build_from
    {% else %}
    delete from {{ this }}
    where {{ date_column }} > {{ built_until() }}
    {% endif %}
    {% endif %}
{% endmacro %}


{#- Post-hook: the days whose rows were added. -#}
{% macro record_built_days() %}
    insert into {{ ref('daily_built_days') }}
    select
        '{{ model.name }}' as relation,
        trade_date,
        input_hash
    from ({{ _day_input_hashes() }})
    where trade_date > {{ built_until() }}
{% endmacro %}


{#- How long before the change a stock's last settling day is looked for. -#}
{% macro _settling_days_searched() %}
    {% do return(60) %}
{% endmacro %}


{% macro _rebuild_table() -%}
    rebuild_{{ model.name }}
{%- endmacro %}


{#- Select (ts_code, read_from, build_from): the stocks whose rows are made anew, from which day on, and from
    which day on their inputs are read.
    stock_days: select of (ts_code, trading_day, is_settling); on a settling day no earlier row of the stock waits for
    anything beyond `ahead` days, and what a row carries forward is as good as carried from there.
    back: trading days before a row on which it depends.
    A row waits at most until the first settling day among the `ahead`-th and later days after it. So what is behind
    the last settling day before the change, less `ahead`, stands; and reading starts on a settling day at least
    `back` days before that. A stock that lacks a row or a settling day on the way is made anew from its first. -#}
{% macro stocks_to_rebuild(stock_days, ahead, back, date_column) %}
    with unbuilt as (

        select calendar.trading_day + 1 + {{ ahead }} as first_changed_day
        from (select {{ built_until() }} as last_date) as built
        left join {{ ref('stg_trading_calendar') }} as calendar on built.last_date = calendar.trade_date
        where
            exists (select 1 from {{ ref('daily_day_hashes') }} where trade_date > {{ built_until() }})
            or exists (select 1 from {{ this }} where {{ date_column }} > {{ built_until() }})

    ),

    days as (

        select
            stock_days.*,
            stock_days.trading_day >= coalesce(unbuilt.first_changed_day, 0) as is_changed,
            unbuilt.first_changed_day
        from ({{ stock_days }}) as stock_days
        inner join unbuilt
            -- a stock without a settling day for longer is rare enough to be made anew
            on stock_days.trading_day >= coalesce(unbuilt.first_changed_day, 0) - {{ ahead + back + _settling_days_searched() }}

    ),

    builds as (

        select
            ts_code,
            max(trading_day) filter (is_settling and not is_changed) + 1 - {{ ahead }} as build_day
        from days
        group by ts_code

    ),

    reads as (

        select
            builds.ts_code,
            builds.build_day,
            max(days.trading_day) filter (days.is_settling and not days.is_changed) as read_day
        from builds
        inner join days
            on builds.ts_code = days.ts_code and days.trading_day <= builds.build_day - {{ back }}
        group by builds.ts_code, builds.build_day

    ),

    whole as (

        select reads.*
        from reads
        inner join days on reads.ts_code = days.ts_code and reads.read_day <= days.trading_day
        where not days.is_changed
        group by all
        having count(*) = any_value(days.first_changed_day) - reads.read_day

    ),

    stocks as (

        select ts_code
        from builds
        union
        select ts_code
        from {{ this }}
        where {{ date_column }} > {{ built_until() }}

    )

    select
        stocks.ts_code,
        coalesce(read_days.trade_date, '-infinity'::date) as read_from,
        coalesce(build_days.trade_date, '-infinity'::date) as build_from
    from stocks
    left join whole on stocks.ts_code = whole.ts_code
    left join {{ ref('stg_trading_calendar') }} as read_days on whole.read_day = read_days.trading_day
    left join {{ ref('stg_trading_calendar') }} as build_days on whole.build_day = build_days.trading_day
{% endmacro %}


{#- Only rows of the stocks to rebuild from their `first` day (read_from or build_from) on: a join for a relation
    with ts_code and a date. -#}
{% macro of_stocks_to_rebuild(relation, first, date_column='trade_date') -%}
    semi join {{ _rebuild_table() }} as stocks_to_rebuild
        on
            {{ relation }}.ts_code = stocks_to_rebuild.ts_code
            and {{ relation }}.{{ date_column }} >= stocks_to_rebuild.{{ first }}
{%- endmacro %}


{#- Settling days for what counts rows of factors.daily_panel and waits for nothing else: all of them. -#}
{% macro panel_days() %}
    select ts_code, trading_day, true as is_settling
    from {{ ref('daily_panel') }}
{% endmacro %}


{#- Settling days of a stock for what waits for a trade, or carries the last one: those of factors.daily_panel on
    which it traded. -#}
{% macro traded_panel_days() %}
    select ts_code, trading_day, close is not null as is_settling
    from {{ ref('daily_panel') }}
{% endmacro %}


{#- The same from what the panel itself is made from. -#}
{% macro traded_gate_days() %}
    select
        gates.ts_code,
        gates.trading_day,
        bars.close * bars.adj_factor is not null as is_settling
    from {{ ref('daily_gates') }} as gates
    left join (
        select ts_code, trade_date, close, adj_factor
        from {{ ref('stg_daily_bars') }}
        where not is_suspended and volume > 0 and close > 0
    ) as bars
        on gates.ts_code = bars.ts_code and gates.trade_date = bars.trade_date
{% endmacro %}


{#- Settling days of a buyer who waits until the stock may be sold. -#}
{% macro sellable_days() %}
    select
        gates.ts_code,
        gates.trading_day,
        gates.data_ok
        and gates.not_suspended
        and not (
            coalesce(limits.opened_at_limit_down, limits.is_one_price)
            and coalesce(limits.is_limit_down_close, limits.is_one_price)
        ) as is_settling
    from {{ ref('daily_gates') }} as gates
    inner join {{ ref('price_limits') }} as limits
        on gates.ts_code = limits.ts_code and gates.trade_date = limits.trade_date
{% endmacro %}


{#- Facts of spans: each start is known on its day, each end on its own. Where a stock has several spans from one
    day, which of them counts may hang on their ends: then the start tells the end too.
    Select of (source, effective_date, fact_hash). -#}
{% macro span_facts(source, keys, columns, first, last) %}
    select
        '{{ source }}' as source,
        coalesce({{ first }}, '-infinity'::date) as effective_date,
        hash(
            'start', {{ (keys + columns) | join(', ') }}, {{ first }},
            case when count(*) over (partition by {{ keys | join(', ') }}, {{ first }}) > 1 then {{ last }} end
        ) as fact_hash
    from {{ ref(source) }}
    union all
    select
        '{{ source }}' as source,
        {{ last }} as effective_date,
        hash('end', {{ (keys + columns) | join(', ') }}, {{ first }}) as fact_hash
    from {{ ref(source) }}
    where {{ last }} is not null
{% endmacro %}
