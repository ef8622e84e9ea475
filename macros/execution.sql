{#- Simulation of positions: rules of the configuration's sizing, add and exit sections, minute by minute.
    What a position lives through depends on nothing before its signal, given that its symbol is flat then. So
    the episodes of all signals are simulated side by side, and afterwards those are chosen that find their
    symbol flat. A comparison with an unknown value is false: its rule does not fire. -#}

{#- Checked settings of the simulation. -#}
{% macro execution_settings() %}
    {% set share = _number_var('execution_reduce_share') %}
    {% if share <= 0 or share >= 1 %}
        {% do _refuse_var('execution_reduce_share', share, 'a number above 0 and below 1') %}
    {% endif %}
    {% do return({'execution_reduce_share': share}) %}
{% endmacro %}


{#- The lines of the configuration that the simulation obeys: {column of execution_limits: [section, setting]}. -#}
{% macro execution_rules() %}
    {% do return({
        'min_initial_ratio': ['sizing', 'minInitialRatio'],
        'max_single_leg_ratio': ['sizing', 'maxSingleLegRatio'],
        'max_total_position_ratio': ['sizing', 'maxTotalPositionRatio'],
        'min_add_ratio': ['sizing', 'minAddRatio'],
        'max_add_ratio': ['sizing', 'maxAddRatio'],
        'min_edge_bps': ['sizing', 'minEdgeBps'],
        'max_loss_per_trade_bps': ['sizing', 'maxLossPerTradeBps'],
        'max_position_path_risk_bps': ['exit', 'maxPositionPathRiskBps'],
        'close_exit_prob': ['exit', 'closeExitProb'],
        'close_position_risk_prob': ['exit', 'closePositionRiskProb'],
        'close_market_risk_prob': ['exit', 'closeMarketRiskProb'],
        'close_continue_max': ['exit', 'closeContinueMax'],
        'reduce_adverse_move_prob': ['exit', 'reduceAdverseMoveProb'],
        'reduce_continue_min': ['exit', 'reduceContinueMin'],
        'reduce_continue_max': ['exit', 'reduceContinueMax'],
        'min_profit_for_reduce_bps': ['exit', 'minProfitForReduceBps'],
        'add_min_long_prob': ['add', 'minLongProb'],
        'add_min_short_prob': ['add', 'minShortProb'],
        'add_min_continue_prob': ['add', 'minContinueProb'],
        'add_min_entry_prob': ['add', 'minEntryProb'],
        'add_max_exit_prob': ['add', 'maxExitProb'],
        'add_max_market_risk_prob': ['add', 'maxMarketRiskProb'],
        'add_max_position_risk_prob': ['add', 'maxPositionRiskProb'],
        'add_min_expected_edge_bps': ['add', 'minExpectedEdgeBps'],
        'add_min_continue_vs_exit_edge_bps': ['add', 'minContinueVsExitEdgeBps'],
        'max_add_count': ['add', 'maxAddCount'],
        'cooldown_minutes': ['add', 'cooldownMinutes'],
    }) %}
{% endmacro %}


{#- One row: the limits by name. A line that the configuration lacks stops the build. -#}
{% macro execution_limits(config) %}
    select
        {% for name, (section, setting) in execution_rules().items() %}
        {%- set line -%} (where section = '{{ section }}' and setting = '{{ setting }}') {%- endset %}
        case
            when count(value) filter {{ line }} = 1 then (max(value) filter {{ line }})::double
            else error('the configuration has no line {{ section }}.{{ setting }}, or several')
        end as {{ name }} {{- ',' if not loop.last }}
        {% endfor %}
    from {{ config }}
{% endmacro %}


{#- Return of a side between two prices, bps. -#}
{% macro side_return_bps(side, entry_price, exit_price) -%}
    case
        when {{ side }} = 'LONG' then ({{ exit_price }} / {{ entry_price }} - 1) * 1e4
        else ({{ entry_price }} / {{ exit_price }} - 1) * 1e4
    end
{%- endmacro %}


{#- What the predictions of each minute say about a position of each side, whatever its state: the first
    rule that closes it, whether it may be reduced, and how much would be added (NULL: nothing). -#}
{% macro minute_rules(minutes, limits) %}
    with sides as (

        {% for side, other in [('long', 'LONG'), ('short', 'SHORT')] %}
        select
            bar_id,
            '{{ other }}' as side,
            market_risk_prob,
            {{ side }}_prob as direction_prob,
            {{ side }}_entry_prob as entry_prob,
            {{ side }}_exit_prob as exit_prob,
            {{ side }}_continue_prob as continue_prob,
            {{ side }}_position_risk_prob as position_risk_prob,
            {{ side }}_expected_net_edge_bps as entry_edge_bps,
            {{ side }}_expected_continue_edge_bps - {{ side }}_expected_exit_edge_bps
                as continue_vs_exit_edge_bps,
            limits.add_min_{{ side }}_prob as add_min_direction_prob
        from {{ minutes }}
        cross join {{ limits }} as limits
        {{ 'union all' if not loop.last }}
        {% endfor %}

    )

    select
        sides.bar_id,
        sides.side,
        case
            when sides.exit_prob >= limits.close_exit_prob then 'exit_prob'
            when sides.position_risk_prob >= limits.close_position_risk_prob then 'position_risk'
            when sides.market_risk_prob >= limits.close_market_risk_prob then 'market_risk'
            when sides.continue_prob <= limits.close_continue_max then 'continue_prob'
        end as close_rule,
        coalesce(
            -- the exit head learns adverse moves and stops of the side: the nearest prediction there is
            sides.exit_prob >= limits.reduce_adverse_move_prob
            and sides.continue_prob >= limits.reduce_continue_min
            and sides.continue_prob <= limits.reduce_continue_max,
            false
        ) as may_reduce,
        case
            when
                sides.direction_prob >= sides.add_min_direction_prob
                and sides.continue_prob >= limits.add_min_continue_prob
                and sides.entry_prob >= limits.add_min_entry_prob
                and sides.exit_prob <= limits.add_max_exit_prob
                and sides.market_risk_prob <= limits.add_max_market_risk_prob
                and sides.position_risk_prob <= limits.add_max_position_risk_prob
                and sides.entry_edge_bps >= limits.add_min_expected_edge_bps
                and sides.continue_vs_exit_edge_bps >= limits.add_min_continue_vs_exit_edge_bps
                then least(
                    greatest(
                        {{ planned_ratio('sides.entry_edge_bps', 'sides.market_risk_prob', 'limits.min_edge_bps') }},
                        limits.min_add_ratio
                    ),
                    limits.max_add_ratio
                )
        end as add_ratio
    from sides
    cross join {{ limits }} as limits
{% endmacro %}


{#- One row per signal and minute in which its position would be held or left, were its symbol flat at the
    signal; with last_only the last of them alone. Step k of the recursion takes all positions still held to
    their next bar. -#}
{% macro held_minutes(signals, minutes, rules, limits, last_only=false) %}
    {%- set hold = label_settings().entry_max_hold_minutes -%}
    with recursive bars as (

        select
            bar_id,
            symbol,
            open_time_ms // 60000 as minute,
            open,
            high,
            low,
            close,
            lead(open_time_ms // 60000) over (partition by symbol order by open_time_ms) as next_minute
        from {{ minutes }}

    ),

    orders as (

        select
            signals.*,
            least(
                greatest(signals.planned_ratio, limits.min_initial_ratio),
                limits.max_single_leg_ratio, limits.max_total_position_ratio
            ) as initial_ratio
        from {{ signals }} as signals
        cross join {{ limits }} as limits

    ),

    held {{ 'using key (position_id) ' if last_only }}as (

        -- the signal's own minute: nothing is held, the order to open is decided
        select
            orders.position_id,
            orders.side,
            bars.minute + {{ hold }} as last_minute,
            0 as minute_index,
            bars.bar_id,
            bars.minute,
            null::bigint as decided_minute,
            null::varchar as order_kind,
            null::varchar as order_reason,
            null::double as order_price,
            0::double as ratio_before,
            0::double as ratio,
            null::double as average_price,
            0 as add_count,
            null::bigint as bought_minute,
            null::double as unrealized_bps,
            null::varchar as exit_reason,
            null::double as exit_price,
            'open' as next_kind,
            'signal' as next_reason,
            orders.initial_ratio as next_change
        from orders
        inner join bars
            on orders.symbol = bars.symbol and orders.event_time = make_timestamp(bars.minute * 60000000)
        where orders.initial_ratio > 0 and bars.next_minute <= bars.minute + {{ hold }}

        union all

        (
            with next_bars as (

                select
                    held.position_id,
                    held.side,
                    held.last_minute,
                    held.minute_index + 1 as minute_index,
                    held.minute as minute_before,
                    held.ratio as ratio_before,
                    held.average_price as average_before,
                    held.add_count as adds_before,
                    held.bought_minute as bought_before,
                    held.next_kind as order_kind,
                    held.next_reason as order_reason,
                    held.next_change as order_change,
                    bars.* exclude (symbol, next_minute),
                    coalesce(bars.next_minute > held.last_minute, true) as is_last
                from held
                -- what is still held has a next bar in time: its symbol's
                inner join bars on held.bar_id + 1 = bars.bar_id
                where held.exit_reason is null

            ),

            -- orders decided at the last close are filled at the open, at any price
            filled as (

                select
                    *,
                    case when order_kind = 'close' then 0 else ratio_before + coalesce(order_change, 0) end
                        as ratio,
                    -- the price at which all of it, bought at once, would earn the same: the harmonic mean
                    -- for LONG, the arithmetic one for SHORT, written so that equal prices stay what they are
                    case
                        when order_kind = 'open' then open
                        when order_kind = 'add' and side = 'LONG'
                            then average_before * (
                                (ratio_before + order_change)
                                / (ratio_before + order_change * (average_before / open))
                            )
                        when order_kind = 'add'
                            then
                                average_before
                                + (open - average_before) * (order_change / (ratio_before + order_change))
                        else average_before
                    end as average_price,
                    adds_before + coalesce(order_kind = 'add', false)::int as add_count,
                    case when order_kind in ('open', 'add') then minute else bought_before end
                        as bought_minute
                from next_bars

            ),

            priced as (

                select
                    *,
                    average_price * (1 + case side when 'LONG' then -1 else 1 end * {{ setting('entry_stop_bps') }} / 1e4)
                        as stop_price,
                    average_price * (1 + case side when 'LONG' then 1 else -1 end * {{ setting('entry_target_bps') }} / 1e4)
                        as target_price,
                    {{ side_return_bps('side', 'average_price', 'close') }} as unrealized_bps,
                    case
                        when side = 'LONG' then (average_price / low - 1) * 1e4
                        else (high / average_price - 1) * 1e4
                    end as adverse_bps
                from filled

            ),

            touched as (

                select
                    *,
                    case
                        when order_kind = 'close' then order_reason
                        -- a bar that touches both counts as a stop
                        when case side when 'LONG' then low <= stop_price else high >= stop_price end
                            then 'stop'
                        when case side when 'LONG' then high >= target_price else low <= target_price end
                            then 'target'
                        when minute = last_minute then 'timeout'
                        when is_last then 'end_of_data'
                    end as exit_reason
                from priced

            ),

            decided as (

                select
                    touched.*,
                    case
                        when touched.order_kind = 'close' then touched.open
                        when touched.exit_reason = 'target' then touched.target_price
                        -- a bar that opens beyond the stop fills it at its open
                        when touched.exit_reason = 'stop' and touched.side = 'LONG'
                            then least(touched.stop_price, touched.open)
                        when touched.exit_reason = 'stop' then greatest(touched.stop_price, touched.open)
                        when touched.exit_reason is not null then touched.close
                    end as exit_price,
                    case
                        when touched.exit_reason is not null then null
                        when -touched.unrealized_bps >= limits.max_loss_per_trade_bps then 'max_loss'
                        when touched.adverse_bps >= limits.max_position_path_risk_bps then 'path_risk'
                        else rules.close_rule
                    end as close_reason,
                    rules.may_reduce and touched.unrealized_bps >= limits.min_profit_for_reduce_bps
                        as is_reduced,
                    case
                        when
                            rules.add_ratio is not null
                            and touched.add_count < limits.max_add_count
                            and touched.minute + 1 - touched.bought_minute >= limits.cooldown_minutes
                            and limits.max_total_position_ratio - touched.ratio >= limits.min_add_ratio
                            then least(rules.add_ratio, limits.max_total_position_ratio - touched.ratio)
                    end as add_change
                from touched
                inner join {{ rules }} as rules
                    on touched.bar_id = rules.bar_id and touched.side = rules.side
                cross join {{ limits }} as limits

            )

            select
                position_id,
                side,
                last_minute,
                minute_index,
                bar_id,
                minute,
                case when order_kind is not null then minute_before end as decided_minute,
                order_kind,
                order_reason,
                case when order_kind is not null then open end as order_price,
                ratio_before,
                ratio,
                average_price,
                add_count,
                bought_minute,
                case when exit_reason is null then unrealized_bps end as unrealized_bps,
                exit_reason,
                exit_price,
                case
                    when exit_reason is not null then null
                    when close_reason is not null then 'close'
                    when is_reduced then 'reduce'
                    when add_change is not null then 'add'
                end as next_kind,
                case
                    when close_reason is not null then close_reason
                    when is_reduced then 'adverse_move'
                    when add_change is not null then 'add_rules'
                end as next_reason,
                case
                    when close_reason is not null then null
                    when is_reduced then -ratio * {{ execution_settings().execution_reduce_share }}::double
                    else add_change
                end as next_change
            from decided
        )

    )

    select *
    from held
    where minute_index > 0
{% endmacro %}


{#- The episodes that find their symbol flat: per group the first, then the first that starts at or after the
    minute in which the last one taken ended, and so on. Each round marks what the marked ones lead to and
    doubles the length of the leaps, so there are as many rounds as the longest chain has binary digits. -#}
{% macro taken_episodes(episodes) %}
    with recursive next_episodes as (

        select
            episodes.position_id,
            following.position_id as leap_to,
            row_number() over (
                partition by episodes.symbol, episodes.eval_split order by episodes.signal_minute
            ) = 1 as is_taken
        from {{ episodes }} as episodes
        asof left join {{ episodes }} as following
            on
                episodes.symbol = following.symbol
                and episodes.eval_split = following.eval_split
                and episodes.closed_minute <= following.signal_minute
        where
            case
                when episodes.closed_minute <= episodes.signal_minute
                    then error('a position ends before it starts: please report this')
                else true
            end

    ),

    chains as (

        select
            0 as round,
            position_id,
            leap_to,
            is_taken
        from next_episodes

        union all

        (
            with reached as (

                select distinct leap_to as position_id
                from chains
                where is_taken

            )

            select
                chains.round + 1 as round,
                chains.position_id,
                beyond.leap_to,
                chains.is_taken or reached.position_id is not null as is_taken
            from chains
            left join chains as beyond on chains.leap_to = beyond.position_id
            left join reached on chains.position_id = reached.position_id
            where exists (select 1 from chains as unfinished where unfinished.leap_to is not null)
        )

    )

    select position_id
    from chains
    where is_taken and round = (select max(round) from chains)
{% endmacro %}
