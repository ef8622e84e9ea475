{#- Every candidate of the grid at once. A frame's row has two legs, its LONG and its SHORT side. A leg meets the
    thresholds of an axis from the loosest on: the number it meets is its steps. A candidate stands at one step of
    every axis and admits the legs that have at least its steps everywhere. So legs with equal steps are one cell,
    and what a candidate earns is a sum over a box of cells.

    Where both sides of a row are admitted only the preferred one is traded. The other is taken back by a third kind
    of leg, the overlap: it has the steps that both sides share and the amounts of the side that loses.

    Amounts are summed as integers (fixed_point): the same to the last bit in any order of rows or threads. -#}

{#- Sums that need no order, one row per key and candidate: a whole query.

    frame: relation or CTE with the columns of pm.pm_frame that gates and sizing read, and the keys.
    candidates: relation or CTE with candidate_id and the six thresholds.
    keys: columns of the frame, not NULL; each of their values is searched by itself.

        with frame as (select *, event_time::date as day from ref('pm_frame')),
        sums as ( pm_grid_additive('frame', ref('pm_candidates'), keys=['day']) )

    Columns: the keys, candidate_id, trade_count, win_count, known_count (trades of known edge), actual_edge_sum_bps,
    weighted_edge_sum_bps, weighted_edge_square_sum (bps squared), gain_sum_bps, loss_sum_bps (positive),
    planned_ratio_sum, trade_set_hash. A key without rows in the frame has no rows; without keys every candidate has
    one. Two candidates with equal trade_set_hash and trade_count admit the same trades at the same ratios. -#}
{% macro pm_grid_additive(frame, candidates, keys=[]) %}
with {{ _pm_grid_sums(frame, candidates, keys) }}

select
    {% for key in keys %}
    grid_groups.{{ key }},
    {% endfor %}
    grid_additive.* exclude (group_id, known_loss_count)
from grid_additive
inner join grid_groups using (group_id)
{% endmacro %}


{#- Steps that `value` meets on an axis. -#}
{% macro _grid_steps(axis, value) -%}
    len(list_filter(
        grid_axes.{{ axis }},
        lambda threshold: threshold {{ '>=' if axis == 'max_market_risk_prob' else '<=' }} {{ value }}
    ))
{%- endmacro %}


{#- The legs of one side that the loosest candidate admits. -#}
{% macro _grid_side(side) %}
    {%- set other = 'short' if side == 'long' else 'long' -%}
    {%- set values = {
        side ~ '_open_prob': side ~ '_prob',
        'min_entry_prob': side ~ '_entry_prob',
        'max_market_risk_prob': 'market_risk_prob',
        'min_expected_edge_bps': 'pred_' ~ side ~ '_expected_net_edge_bps',
        'min_direction_margin': side ~ '_prob - ' ~ other ~ '_prob',
    } -%}
    select
        group_id,
        row_id,
        sample_hash,
        {{ 'true' if side == 'long' else 'false' }} as is_long,
        prefers_long,
        {% for axis in pm_axes() %}
        {{ _grid_steps(axis, values[axis]) if axis in values else 0 }} as {{ axis }}_steps,
        {% endfor %}
        pred_{{ side }}_expected_net_edge_bps as predicted_edge_bps,
        market_risk_prob,
        actual_{{ side }}_expected_net_edge_bps as actual_edge_bps
    from grid_rows
    cross join grid_axes
    where
        {% for axis, value in values.items() %}
        {{ value }} {{ '<=' if axis == 'max_market_risk_prob' else '>=' }} grid_axes.{{ axis }}[1]
        {{ 'and' if not loop.last }}
        {% endfor %}
{% endmacro %}


{#- Subquery: legs once for each edge threshold that they meet. -#}
{% macro _grid_stepped(legs) -%}
    (
        select
            *,
            unnest(range(1, min_expected_edge_bps_steps + 1)) as min_expected_edge_bps_step
        from {{ legs }}
    )
{%- endmacro %}


{#- The ratio of a trade depends on the edge threshold, min_expected_edge_bps_step of a leg. -#}
{% macro _grid_sized(legs) %}
    select
        stepped.*,
        {{ planned_ratio(
            'predicted_edge_bps', 'market_risk_prob',
            'grid_axes.min_expected_edge_bps[min_expected_edge_bps_step]'
        ) }} as planned_ratio,
        actual_edge_bps * planned_ratio as weighted_edge_bps
    from {{ legs }} as stepped
    cross join grid_axes
{% endmacro %}


{#- What is summed over trades, as {name: integer}. -#}
{% macro _grid_amounts() %}
    {% do return({
        'trade_count': '1',
        'win_count': '(actual_edge_bps > 0)::bigint',
        'known_count': '(actual_edge_bps is not null)::bigint',
        'known_loss_count': '(weighted_edge_bps < 0)::bigint',
        'actual_edge_units': fixed_point('actual_edge_bps'),
        'weighted_edge_units': fixed_point('weighted_edge_bps'),
        'weighted_edge_square_units': fixed_point('weighted_edge_bps * weighted_edge_bps'),
        'gain_units': fixed_point('greatest(weighted_edge_bps, 0::double)'),
        'planned_ratio_units': fixed_point('planned_ratio'),
        'trade_set_hash': 'hash(sample_hash, is_long, planned_ratio)',
    }) %}
{% endmacro %}


{#- CTEs from the frame to grid_additive, one row per group and candidate. -#}
{% macro _pm_grid_sums(frame, candidates, keys, in_order=false) %}
{%- set axes = pm_axes() -%}
{%- set box = axes | reject('equalto', 'min_expected_edge_bps') | list -%}
{%- set amounts = _grid_amounts() -%}
{%- set most = pm_grid_settings().pm_max_candidates -%}
grid_axes as materialized (

    select
        * exclude (candidate_count) replace (
            case
                when candidate_count > {{ most }} then error(
                    'pm grid: ' || candidate_count || ' candidates ('
                    {%- for axis in axes %}
                    || '{{ axis }} ' || len({{ axis }}) || '{{ ' x ' if not loop.last }}'
                    {%- endfor %}
                    || ') are more than the {{ most }} of var pm_max_candidates:'
                    || ' take values out of seeds/pm_grid_axes.csv or raise the var'
                )
                else long_open_prob
            end as long_open_prob
        )
    from (
        -- distinct thresholds, the loosest first
        select
            {% for axis in axes %}
            {{ 'list_reverse_sort' if axis == 'max_market_risk_prob' else 'list_sort' }}(
                list(distinct {{ axis }}::double)
            ) as {{ axis }},
            {% endfor %}
            count(*) as candidate_count
        from {{ candidates }}
    )

),

grid_candidates as materialized (

    select
        candidates.candidate_id,
        {% for axis in axes %}
        list_position(grid_axes.{{ axis }}, candidates.{{ axis }}::double) as {{ axis }}_step
        {{- ',' if not loop.last }}
        {% endfor %}
    from {{ candidates }} as candidates
    cross join grid_axes

),

grid_groups as materialized (

    {% if keys %}
    select
        {{ keys | join(', ') }},
        row_number() over (order by {{ keys | join(', ') }}) as group_id
    from (
        select distinct {{ keys | join(', ') }}
        from {{ frame }}
    )
    {% else %}
    select 1 as group_id
    {% endif %}

),

grid_rows as materialized (

    select
        {{ 'grid_groups.group_id' if keys else '1' }} as group_id,
        row_number() over (
            {{ 'order by event_time, symbol, sample_id' if in_order }}
        ) as row_id,
        hash(frame.sample_id) as sample_hash,
        {{ prefers_long() }} as prefers_long,
        {% for column in [
            'long_prob', 'short_prob', 'long_entry_prob', 'short_entry_prob', 'market_risk_prob',
            'pred_long_expected_net_edge_bps', 'pred_short_expected_net_edge_bps',
            'actual_long_expected_net_edge_bps', 'actual_short_expected_net_edge_bps',
        ] %}
        frame.{{ column }} {{- ',' if not loop.last }}
        {% endfor %}
    from {{ frame }} as frame
    {{ 'inner join grid_groups using (' ~ keys | join(', ') ~ ')' if keys }}

),

grid_legs as materialized (

    {{ _grid_side('long') }}
    union all
    {{ _grid_side('short') }}

),

grid_overlaps as (

    select
        loser.* replace (
            {% for axis in axes %}
            {{ 'greatest' if axis in ['long_open_prob', 'short_open_prob'] else 'least' }}(
                loser.{{ axis }}_steps, winner.{{ axis }}_steps
            ) as {{ axis }}_steps {{- ',' if not loop.last }}
            {% endfor %}
        )
    from grid_legs as loser
    inner join grid_legs as winner
        on loser.row_id = winner.row_id and loser.is_long <> winner.is_long
    where winner.is_long = winner.prefers_long

),

grid_sized as (

    {{ _grid_sized(_grid_stepped('(from grid_legs union all from grid_overlaps)')) }}

),

grid_cells as (

    select
        group_id,
        min_expected_edge_bps_step,
        {% for axis in box %}
        {{ axis }}_steps,
        {% endfor %}
        {% for name, amount in amounts.items() %}
        sum({{ amount }}) as {{ name }} {{- ',' if not loop.last }}
        {% endfor %}
    from grid_sized
    group by all

),

-- one axis after the other, a cell is counted at each step that it meets; 0 stays 0 where the axis is another side's
{% for axis in box %}
{%- set done = box[:loop.index0] -%}
{%- set source = 'grid_sums_' ~ loop.index0 if done else 'grid_cells' %}
grid_sums_{{ loop.index }} as (

    select
        group_id,
        min_expected_edge_bps_step,
        {% for each in box %}
        {{ each }}_step{{ 's' if each not in done and each != axis }},
        {% endfor %}
        {% for name in amounts %}
        sum({{ name }}) as {{ name }} {{- ',' if not loop.last }}
        {% endfor %}
    from (
        select
            *,
            unnest(range(least(1, {{ axis }}_steps), {{ axis }}_steps + 1)) as {{ axis }}_step
        from {{ source }}
    )
    group by all

),

{% endfor %}
grid_totals as (

    select
        grid_groups.group_id,
        grid_candidates.candidate_id,
        {% for name in amounts %}
        coalesce(of_long.{{ name }}, 0) + coalesce(of_short.{{ name }}, 0) - coalesce(of_both.{{ name }}, 0)
            as {{ name }} {{- ',' if not loop.last }}
        {% endfor %}
    from grid_candidates
    cross join grid_groups
    {% for part, other in {'of_long': 'short_open_prob', 'of_short': 'long_open_prob', 'of_both': none}.items() %}
    left join grid_sums_{{ box | length }} as {{ part }}
        on
            {{ part }}.group_id = grid_groups.group_id
            {% for axis in axes %}
            and {{ part }}.{{ axis }}_step = {{ '0' if axis == other else 'grid_candidates.' ~ axis ~ '_step' }}
            {% endfor %}
    {% endfor %}

),

grid_additive as materialized (

    select
        group_id,
        candidate_id,
        trade_count::bigint as trade_count,
        win_count::bigint as win_count,
        known_count::bigint as known_count,
        known_loss_count::bigint as known_loss_count,
        {{ from_fixed_point('actual_edge_units') }} as actual_edge_sum_bps,
        {{ from_fixed_point('weighted_edge_units') }} as weighted_edge_sum_bps,
        {{ from_fixed_point('weighted_edge_square_units') }} as weighted_edge_square_sum,
        {{ from_fixed_point('gain_units') }} as gain_sum_bps,
        {{ from_fixed_point('(gain_units - weighted_edge_units)') }} as loss_sum_bps,
        {{ from_fixed_point('planned_ratio_units') }} as planned_ratio_sum,
        trade_set_hash
    from grid_totals

)
{% endmacro %}


{#- Checked settings of the search. -#}
{% macro pm_grid_settings() %}
    {% set settings = {
        'pm_ordered_metrics': _choice_var('pm_ordered_metrics', ['full', 'pruned']),
        'pm_max_candidates': _count_var('pm_max_candidates', 1, 1000000000),
    } %}
    {% for name in [
        'pm_score_no_trades', 'pm_score_total_weight', 'pm_score_drawdown_weight', 'pm_score_min_trades',
        'pm_score_missing_trade_penalty', 'pm_score_min_profit_factor', 'pm_score_profit_factor_penalty',
        'pm_score_negative_edge_penalty',
    ] %}
        {% do settings.update({name: _number_var(name)}) %}
    {% endfor %}
    {# pruned search rests on this: no drawdown is the best a candidate can have #}
    {% if settings.pm_score_drawdown_weight < 0 %}
        {% do _refuse_var('pm_score_drawdown_weight', settings.pm_score_drawdown_weight, 'a number from 0') %}
    {% endif %}
    {% do return(settings) %}
{% endmacro %}


{#- Score of a candidate from its metrics; unknown where its average is. -#}
{% macro pm_score(max_drawdown_bps='max_drawdown_bps') -%}
    {%- set settings = pm_grid_settings() -%}
    case
        when trade_count = 0 then {{ settings.pm_score_no_trades }}::double
        else
            avg_weighted_edge_bps * sqrt(trade_count)
            + {{ settings.pm_score_total_weight }}::double * total_weighted_edge_bps
            - {{ settings.pm_score_drawdown_weight }}::double * {{ max_drawdown_bps }}
            - {{ settings.pm_score_missing_trade_penalty }}::double
            * greatest({{ settings.pm_score_min_trades }}::double - trade_count, 0::double)
            - {{ settings.pm_score_profit_factor_penalty }}::double
            * greatest({{ settings.pm_score_min_profit_factor }}::double - profit_factor, 0::double)
            - {{ settings.pm_score_negative_edge_penalty }}::double * greatest(-avg_weighted_edge_bps, 0::double)
    end
{%- endmacro %}


{#- What a stretch of trades does to drawdown and losing runs, {name: how two stretches in a row make one}. It is
    known of a stretch without what comes before it:

    decline                its losses less its gains
    decline_from_start     the farthest below its start that it gets, at least 0
    drawdown_at_end        how far its end lies below its highest point after a trade; -inf without a known trade
    max_drawdown           the farthest that a point lies below an earlier one, both after a trade of it
    trade_count
    losses_at_start        losses before the first trade that is none
    losses_at_end          losses after the last trade that is none
    max_losses             the longest run of losses -#}
{% macro _grid_stretch(earlier, later, larger=_larger) %}
    {% do return({
        'decline': earlier ~ '.decline + ' ~ later ~ '.decline',
        'decline_from_start': larger(
            earlier ~ '.decline_from_start', earlier ~ '.decline + ' ~ later ~ '.decline_from_start'
        ),
        'drawdown_at_end': larger(
            later ~ '.drawdown_at_end', earlier ~ '.drawdown_at_end + ' ~ later ~ '.decline'
        ),
        'max_drawdown': larger(
            larger(earlier ~ '.max_drawdown', later ~ '.max_drawdown'),
            earlier ~ '.drawdown_at_end + ' ~ later ~ '.decline_from_start'
        ),
        'trade_count': earlier ~ '.trade_count + ' ~ later ~ '.trade_count',
        'losses_at_start': 'case when ' ~ earlier ~ '.losses_at_start = ' ~ earlier ~ '.trade_count then '
            ~ earlier ~ '.losses_at_start + ' ~ later ~ '.losses_at_start else '
            ~ earlier ~ '.losses_at_start end',
        'losses_at_end': 'case when ' ~ later ~ '.losses_at_end = ' ~ later ~ '.trade_count then '
            ~ earlier ~ '.losses_at_end + ' ~ later ~ '.losses_at_end else '
            ~ later ~ '.losses_at_end end',
        'max_losses': larger(
            larger(earlier ~ '.max_losses', later ~ '.max_losses'),
            earlier ~ '.losses_at_end + ' ~ later ~ '.losses_at_start'
        ),
    }) %}
{% endmacro %}


{#- greatest() takes twice as long on columns ... -#}
{% macro _larger(one, other) -%}
    case when {{ one }} > {{ other }} then {{ one }} else {{ other }} end
{%- endmacro %}


{#- ... and half as long on elements of lists. -#}
{% macro _greatest(one, other) -%}
    greatest({{ one }}, {{ other }})
{%- endmacro %}


{#- What a set of trades needs of the stretch so far, stretch after stretch from its first ... -#}
{% macro _grid_kept() %}
    {% do return(['drawdown_at_end', 'max_drawdown', 'losses_at_end', 'max_losses']) %}
{% endmacro %}


{#- ... and what it starts from, beside zeros. -#}
{% macro _grid_drawdown_at_start() -%}
    {{ '0' if pm_settings().pm_drawdown_from_zero else "'-inf'" }}::double
{%- endmacro %}


{#- The stretch without trades. -#}
{% macro _grid_no_trades() -%}
    0::double as decline,
    0::double as decline_from_start,
    '-inf'::double as drawdown_at_end,
    0::double as max_drawdown,
    0::integer as trade_count,
    0::integer as losses_at_start,
    0::integer as losses_at_end,
    0::integer as max_losses
{%- endmacro %}


{#- Subquery: the stretches that sets of legs make. One row per row of `sets`, which has the columns `keys` and
    `legs`, bits of up to `length` legs in order; `weights` has the same keys, the bits of the legs of known edge and
    of those that lose, and weight_0, weight_1, ... -#}
{% macro _grid_stretches(sets, weights, keys, length) %}
(
    with leg_0 as not materialized (

        select
            sets.*,
            sets.legs & coalesce(weights.known_legs, 0) as known,
            -- the first trade starts the equity: it cannot lie below an earlier point
            known & (known - 1) as later,
            sets.legs & coalesce(weights.losing_legs, 0) as losing,
            sets.legs & ~coalesce(weights.losing_legs, 0) as other,
            {% for place in range(length) %}
            weights.weight_{{ place }},
            {% endfor %}
            0::double as decline,
            0::double as decline_from_start,
            0::double as drawdown,
            0::double as max_drawdown,
            0::double as losses,
            0::double as max_losses
        from {{ sets }} as sets
        left join {{ weights }} as weights using ({{ keys | join(', ') }})

    ),

    {% for place in range(length) %}
    {% set leg = 2 ** place %}
    leg_{{ place + 1 }} as not materialized (

        select
            * exclude (weight_{{ place }}) replace (
                {{ _larger('decline_from_start', 'decline') }} as decline_from_start,
                {{ _larger('max_drawdown', 'drawdown') }} as max_drawdown,
                {{ _larger('max_losses', 'losses') }} as max_losses,
                decline - case when known & {{ leg }} <> 0 then weight_{{ place }} else 0 end as decline,
                case
                    when later & {{ leg }} = 0 then drawdown
                    when drawdown > weight_{{ place }} then drawdown - weight_{{ place }}
                    else 0
                end as drawdown,
                (losses + (losing & {{ leg }} <> 0)::double) * (other & {{ leg }} = 0)::double as losses
            )
        from leg_{{ place }}

    ) {{- ',' if not loop.last }}
    {% endfor %}

    select
        * exclude (known, later, losing, other, drawdown, losses) replace (
            {{ _larger('decline_from_start', 'decline') }} as decline_from_start,
            {{ _larger('max_drawdown', 'drawdown') }} as max_drawdown,
            ({{ _larger('max_losses', 'losses') }})::integer as max_losses
        ),
        case when known = 0 then '-inf'::double else drawdown end as drawdown_at_end,
        bit_count(legs)::integer as trade_count,
        bit_count(losing & (other - 1))::integer as losses_at_start,
        losses::integer as losses_at_end
    from leg_{{ length }}
)
{% endmacro %}


{#- Subquery: rows of `sets` with the stretches of their legs_0, legs_1, ... put one after the other. `stretches` has
    one row per `keys`, `place` (0, 1, ...) and `legs`; `names` are the columns of a stretch that rows of `sets` have
    and keep. -#}
{% macro _grid_chained(sets, stretches, keys, place, count, names) %}
{%- set joined = _grid_stretch('earlier', 'later') -%}
(
    with chained_0 as not materialized (from {{ sets }}),

    {% for number in range(count) %}
    chained_{{ number + 1 }} as not materialized (

        select
            earlier.* exclude (legs_{{ number }}) replace (
                {% for name in names %}
                {{ joined[name] }} as {{ name }} {{- ',' if not loop.last }}
                {% endfor %}
            )
        from chained_{{ number }} as earlier
        inner join (from {{ stretches }} where {{ place }} = {{ number }}) as later
            on
                earlier.legs_{{ number }} = later.legs
                {% for key in keys %}
                and earlier.{{ key }} = later.{{ key }}
                {% endfor %}

    ) {{- ',' if not loop.last }}
    {% endfor %}

    from chained_{{ count }}
)
{% endmacro %}


{#- Expression: the bits of a chunk's legs that a candidate admits. `sets` has the positions of the candidate's steps
    in the lists of `blocks`, one element per step and chunk. -#}
{% macro _grid_admitted(chunk, sets='sets', blocks='blocks') -%}
    {%- set open -%}
    (
        {{ blocks }}.long_open_prob_legs[{{ sets }}.long_open_prob_at + {{ chunk }}]
        | {{ blocks }}.short_open_prob_legs[{{ sets }}.short_open_prob_at + {{ chunk }}]
    )
    {%- for axis in pm_axes() if axis not in ['long_open_prob', 'short_open_prob'] %}
    & {{ blocks }}.{{ axis }}_legs[{{ sets }}.{{ axis }}_at + {{ chunk }}]
    {%- endfor %}
    {%- endset -%}
    {{ _grid_less_rivals('(' ~ open ~ ')', blocks ~ '.contested_legs[' ~ (chunk + 1) ~ ']') }}
{%- endmacro %}


{#- Expression: bits of legs without the next one after a contested leg: its rival, the other side of the row. -#}
{% macro _grid_less_rivals(legs, contested_legs) -%}
    {{ legs }} & ~(({{ legs }} & {{ contested_legs }}) << 1)
{%- endmacro %}


{#- CTEs from grid_legs to the legs in order, the preferred leg of a row before the other, and what they earn. They are
    cut into chunks of 62: one bit each of a BIGINT, and one more where a cut would part the legs of a row. -#}
{% macro _grid_chunks() %}
grid_ordered_legs as materialized (

    select
        *,
        ((leg_number - is_second::integer) // 62)::integer as chunk,
        leg_number - 62 * chunk as place,
        1::bigint << place as leg,
        case when is_contested then leg else 0 end as contested_leg
    from (
        select
            *,
            row_number() over in_order - 1 as leg_number,
            coalesce(lag(row_id) over in_order = row_id, false) as is_second,
            coalesce(lead(row_id) over in_order = row_id, false) as is_contested
        from grid_legs
        window in_order as (partition by group_id order by row_id, is_long <> prefers_long)
    )

)
{% endmacro %}


{#- Select: what the legs of a chunk, in parts, earn at each edge threshold that they meet. -#}
{% macro _grid_weights(legs) %}
{%- set part_length = grid_part_length() -%}
    select
        group_id,
        chunk,
        (place // {{ part_length }})::integer as part,
        min_expected_edge_bps_step,
        bit_or(1::bigint << (place % {{ part_length }})) filter (weighted_edge_bps is not null) as known_legs,
        bit_or(1::bigint << (place % {{ part_length }})) filter (weighted_edge_bps < 0) as losing_legs,
        {% for place in range(part_length) %}
        max(weighted_edge_bps) filter (place % {{ part_length }} = {{ place }}) as weight_{{ place }}
        {{- ',' if not loop.last }}
        {% endfor %}
    from (
        {{ _grid_sized(legs) }}
    )
    group by all
{% endmacro %}


{#- CTEs to grid_blocks and grid_placed_sets. Of each axis and step a chunk has the bits of the legs that meet it; the
    legs of a chunk that a candidate admits are their AND. -#}
{% macro _grid_blocks(chunks_per_block) %}
{%- set axes = pm_axes() -%}
grid_bits as (

    select
        group_id,
        chunk,
        axis,
        step,
        bit_or(leg) as legs
    from (
        select
            group_id,
            chunk,
            leg,
            axis,
            unnest(range(1, steps + 1)) as step
        from (
            select
                group_id,
                chunk,
                1::bigint << place as leg,
                unnest([{% for axis in axes %}'{{ axis }}', {% endfor %}'contested']) as axis,
                unnest([{% for axis in axes %}{{ axis }}_steps, {% endfor %}is_contested::bigint]) as steps
            from grid_ordered_legs
        )
    )
    group by group_id, chunk, axis, step

),

-- a row per block of chunks; of each axis the bits of step 1 in each of its chunks, then of step 2, ...
grid_blocks as materialized (

    select
        slots.group_id,
        slots.block,
        {% for axis in axes + ['contested'] %}
        list(coalesce(grid_bits.legs, 0) order by slots.step, slots.chunk)
            filter (slots.axis = '{{ axis }}') as {{ axis }}_legs {{- ',' if not loop.last }}
        {% endfor %}
    from (
        select
            blocks.group_id,
            blocks.block,
            blocks.block * {{ chunks_per_block }} + chunks.number as chunk,
            steps.axis,
            steps.step
        from (
            select distinct
                group_id,
                chunk // {{ chunks_per_block }} as block
            from grid_ordered_legs
        ) as blocks
        cross join (select unnest(range({{ chunks_per_block }})) as number) as chunks
        cross join (
            {% for axis in axes %}
            select
                '{{ axis }}' as axis,
                unnest(range(1, len({{ axis }}) + 1)) as step
            from grid_axes
            union all
            {% endfor %}
            select
                'contested' as axis,
                1 as step
        ) as steps
    ) as slots
    left join grid_bits using (group_id, chunk, axis, step)
    group by slots.group_id, slots.block

),

-- trade sets with the positions of their steps in the lists of grid_blocks
grid_placed_sets as materialized (

    select
        grid_trade_sets.group_id,
        grid_trade_sets.trade_set_id,
        grid_candidates.min_expected_edge_bps_step,
        {% for axis in axes %}
        ((grid_candidates.{{ axis }}_step - 1) * {{ chunks_per_block }} + 1)::integer as {{ axis }}_at
        {{- ',' if not loop.last }}
        {% endfor %}
    from grid_trade_sets
    inner join grid_candidates
        on grid_trade_sets.trade_set_id = grid_candidates.candidate_id
    where grid_trade_sets.trade_count > 0

)
{% endmacro %}


{#- CTEs from chunk_sets, one row per distinct `legs` that some trade set admits in a chunk, to chunk_stretches: what
    they make. Parts of chunks are shared by even more sets, so they are folded first, each once. -#}
{% macro _grid_chunk_stretches(weights) %}
{%- set keys = ['group_id', 'chunk', 'min_expected_edge_bps_step'] -%}
{%- set parts, length = grid_parts(), grid_part_length() -%}
part_sets as (

    select distinct *
    from (
        select
            {{ keys | join(', ') }},
            unnest(range({{ parts }}))::integer as part,
            unnest([
                {% for part in range(parts) %}
                {{ _grid_part(part) }} {{- ',' if not loop.last }}
                {% endfor %}
            ]) as legs
        from chunk_sets
    )

),

part_stretches as materialized (

    from {{ _grid_stretches('part_sets', weights, keys + ['part'], length) }}

),

parted_sets as (

    select
        *,
        {{ _grid_no_trades() }},
        {% for part in range(parts) %}
        {{ _grid_part(part) }} as legs_{{ part }} {{- ',' if not loop.last }}
        {% endfor %}
    from chunk_sets

),

chunk_stretches as materialized (

    from {{ _grid_chained(
        'parted_sets', 'part_stretches', keys, 'part', parts, _grid_stretch('a', 'b').keys() | list
    ) }}

)
{% endmacro %}


{#- A chunk's bits are cut into parts of so many legs ... -#}
{% macro grid_part_length() %}
    {% do return(16) %}
{% endmacro %}


{#- ... so many times. -#}
{% macro grid_parts() %}
    {% do return(4) %}
{% endmacro %}


{% macro _grid_part(part) -%}
    (legs >> {{ part * grid_part_length() }}) & {{ 2 ** grid_part_length() - 1 }}
{%- endmacro %}


{#- CTEs to grid_folded, for all trade sets: a recursion through time, one step per block of chunks. -#}
{% macro _grid_full_fold(keys) %}
{%- set chunks = 4 -%}
{%- set kept = _grid_kept() -%}
{%- set place = ['group_id', 'min_expected_edge_bps_step'] -%}
{{ _grid_chunks() }},

grid_weights as materialized (

    {{ _grid_weights(_grid_stepped('grid_ordered_legs')) }}

),

{{ _grid_blocks(chunks) }},

grid_running (
    block, {{ kept | join(', ') }}, group_id, trade_set_id, min_expected_edge_bps_step,
    {%- for axis in pm_axes() %} {{ axis }}_at {{- ',' if not loop.last }}{% endfor %}
) using key (group_id, trade_set_id) as (

    select
        0::bigint as block,
        {{ _grid_drawdown_at_start() }} as drawdown_at_end,
        0::double as max_drawdown,
        0::integer as losses_at_end,
        0::integer as max_losses,
        *
    from grid_placed_sets

    union all

    (
        with admitted as materialized (

            select
                sets.*,
                {% for chunk in range(chunks) %}
                {{ _grid_admitted(chunk) }} as legs_{{ chunk }} {{- ',' if not loop.last }}
                {% endfor %}
            from grid_running as sets
            cross join (from grid_blocks where block = (select max(block) from grid_running)) as blocks
            {{ 'where sets.group_id = blocks.group_id' if keys }}

        ),

        chunk_sets as materialized (

            select distinct
                {{ place | join(', ') }},
                (block * {{ chunks }} + number)::integer as chunk,
                legs
            from (
                select
                    {{ place | join(', ') }},
                    block,
                    unnest(range({{ chunks }})) as number,
                    unnest([{% for chunk in range(chunks) %}legs_{{ chunk }}{{ ', ' if not loop.last }}{% endfor %}]) as legs
                from admitted
            )

        ),

        weights as (

            from grid_weights
            where chunk // {{ chunks }} = (select max(block) from grid_running)

        ),

        {{ _grid_chunk_stretches('weights') }}

        select * replace (block + 1 as block)
        from {{ _grid_chained('admitted', 'chunk_stretches', place, 'chunk % ' ~ chunks, chunks, kept) }}
    )

),

grid_folded as materialized (

    select
        group_id,
        trade_set_id,
        max_drawdown,
        max_losses
    from grid_running

)
{% endmacro %}


{#- CTEs to grid_folded and grid_cutoffs, for the trade sets that may be among the best. With a drawdown of zero the
    score is a bound: the first round folds the sets of the highest bounds, the second all others whose bound reaches
    the scores found. -#}
{% macro _grid_pruned_fold() %}
{%- set first_sets, candidates = 16, 11 -%}
{%- set joined = _grid_stretch('earlier', 'later', _greatest) -%}
{%- set kept = _grid_kept() -%}
{%- set start = {'drawdown_at_end': _grid_drawdown_at_start()} -%}
{{ _grid_chunks() }},

grid_bounds as materialized (

    select
        sets.*,
        grid_candidates.* exclude (candidate_id),
        -- the round that may fold it
        case
            when row_number() over (
                partition by sets.group_id order by sets.bound desc nulls last, sets.trade_set_id
            ) <= {{ first_sets }} then 1
            else 2
        end as round
    from (
        select
            group_id,
            trade_set_id,
            {{ pm_score('0::double') }} as bound
        from grid_trade_sets
        where trade_count > 0
    ) as sets
    inner join grid_candidates
        on sets.trade_set_id = grid_candidates.candidate_id

),

grid_rounds (round, group_id, trade_set_id, max_drawdown, max_losses) as (

    select
        0 as round,
        group_id,
        0::bigint as trade_set_id,
        null::double as max_drawdown,
        null::integer as max_losses
    from grid_groups

    union all

    (
        with cutoffs as (

            {{ _grid_cutoffs('grid_rounds', candidates) }}

        ),

        chosen as materialized (

            select grid_bounds.*
            from grid_bounds
            inner join cutoffs
                on grid_bounds.group_id = cutoffs.group_id and grid_bounds.round = cutoffs.round + 1
            where grid_bounds.round = 1 or grid_bounds.bound >= cutoffs.score - 1e-6::double

        ),

        sets as materialized (

            select
                chosen.group_id,
                chosen.trade_set_id,
                any_value(chosen.round) as round,
                any_value(chosen.min_expected_edge_bps_step) as min_expected_edge_bps_step,
                legs.chunk,
                bit_or(legs.leg) as open_legs,
                bit_or(legs.contested_leg) as contested_legs,
                {{ _grid_less_rivals('open_legs', 'contested_legs') }} as legs
            from chosen
            inner join grid_ordered_legs as legs
                on
                    chosen.group_id = legs.group_id
                    and case
                        when legs.is_long then chosen.long_open_prob_step <= legs.long_open_prob_steps
                        else chosen.short_open_prob_step <= legs.short_open_prob_steps
                    end
                    {% for axis in pm_axes() if axis not in ['long_open_prob', 'short_open_prob'] %}
                    and chosen.{{ axis }}_step <= legs.{{ axis }}_steps
                    {% endfor %}
            group by chosen.group_id, chosen.trade_set_id, legs.chunk

        ),

        stepped as (

            select
                legs.*,
                steps.min_expected_edge_bps_step
            from grid_ordered_legs as legs
            inner join (select distinct group_id, min_expected_edge_bps_step from chosen) as steps
                on
                    legs.group_id = steps.group_id
                    and legs.min_expected_edge_bps_steps >= steps.min_expected_edge_bps_step

        ),

        weights as (

            {{ _grid_weights('stepped') }}

        ),

        chunk_sets as materialized (

            select distinct
                group_id,
                chunk,
                min_expected_edge_bps_step,
                legs
            from sets

        ),

        {{ _grid_chunk_stretches('weights') }},

        folded as (

            select
                sets.round,
                sets.group_id,
                sets.trade_set_id,
                list_reduce(
                    list_sort(list({
                        'chunk': chunk,
                        {% for name in joined %}
                        '{{ name }}': chunk_stretches.{{ name }} {{- ',' if not loop.last }}
                        {% endfor %}
                    })),
                    lambda earlier, later: {
                        'chunk': later.chunk,
                        {% for name, expression in joined.items() %}
                        '{{ name }}': {{ expression if name in kept else 'later.' ~ name }} {{- ',' if not loop.last }}
                        {% endfor %}
                    },
                    {
                        'chunk': -1,
                        {% for name in joined %}
                        '{{ name }}': {{ start.get(name, 0) }} {{- ',' if not loop.last }}
                        {% endfor %}
                    }
                ) as stretch
            from sets
            inner join chunk_stretches using (group_id, chunk, min_expected_edge_bps_step, legs)
            group by sets.round, sets.group_id, sets.trade_set_id

        )

        select
            round,
            group_id,
            trade_set_id,
            stretch.max_drawdown,
            stretch.max_losses
        from folded
    )

),

grid_folded as materialized (

    from grid_rounds
    where round > 0

),

grid_cutoffs as materialized (

    {{ _grid_cutoffs('grid_folded', candidates) }}

)
{% endmacro %}


{#- Select: per group the score of the last of the best `candidates` among folded trade sets, NULL with fewer. -#}
{% macro _grid_cutoffs(folded, candidates) %}
    select
        group_id,
        max(round) as round,
        max(score) filter (candidates_up_to_here >= {{ candidates }}) as score
    from (
        select
            group_id,
            round,
            score,
            sum(candidate_count) filter (score is not null) over (
                partition by group_id order by score desc nulls last, trade_set_id rows unbounded preceding
            ) as candidates_up_to_here
        from (
            select
                folded.*,
                sets.candidate_count,
                {{ pm_score('folded.max_drawdown') }} as score
            from {{ folded }} as folded
            left join grid_trade_sets as sets using (group_id, trade_set_id)
        )
    )
    group by group_id
{% endmacro %}


{#- Every candidate with its metrics and its score, one row per key and candidate: a whole query.

    frame, candidates, keys: as in pm_grid_additive; the frame also has symbol and event_time, which order the trades.
    ordered_metrics: 'full' or 'pruned', see var pm_ordered_metrics.

    Columns: the keys, candidate_id, the nine metrics, score, score_rank, trade_set_id. -#}
{% macro pm_grid_metrics(frame, candidates, keys=[], ordered_metrics=none) %}
{%- set pruned = (ordered_metrics or pm_grid_settings().pm_ordered_metrics) == 'pruned' -%}
with recursive {{ _pm_grid_sums(frame, candidates, keys, in_order=true) }},

-- candidates that admit the same trades at the same ratios, under the lowest candidate_id among them
grid_trade_sets as materialized (

    select
        group_id,
        trade_set_id,
        trade_set_hash,
        candidate_count,
        trade_count,
        {{ _per('win_count', 'trade_count') }} as win_rate,
        {{ _per('actual_edge_sum_bps', 'known_count') }} as avg_actual_edge_bps,
        {{ _per('weighted_edge_sum_bps', 'known_count') }} as avg_weighted_edge_bps,
        {{ _known('weighted_edge_sum_bps') }} as total_weighted_edge_bps,
        {{ _per('planned_ratio_sum', 'trade_count') }} as avg_planned_ratio,
        case
            when trade_count = 0 then 0
            when known_loss_count = 0 then 'inf'::double
            else gain_sum_bps / loss_sum_bps
        end as profit_factor,
        known_count
    from (
        select
            group_id,
            trade_set_hash,
            trade_count,
            min(candidate_id) as trade_set_id,
            count(*) as candidate_count,
            min(columns(grid_additive.* exclude (group_id, trade_set_hash, trade_count, candidate_id)))
        from grid_additive
        group by group_id, trade_set_hash, trade_count
    )

),

{{ _grid_pruned_fold() if pruned else _grid_full_fold(keys) }},

grid_scored as (

    select
        *,
        {{ pm_score() }} as score
    from (
        select
            grid_trade_sets.*,
            {{ _known('grid_folded.max_drawdown') }} as max_drawdown_bps,
            case when trade_count = 0 then 0 else grid_folded.max_losses end as max_consecutive_losses
        from grid_trade_sets
        left join grid_folded using (group_id, trade_set_id)
    )

),

grid_ranked as (

    select
        grid_additive.group_id,
        grid_additive.candidate_id,
        {% for name in trade_metric_names() %}
        grid_scored.{{ name }},
        {% endfor %}
        grid_scored.score,
        row_number() over (
            partition by grid_additive.group_id
            order by round(grid_scored.score, 9) desc nulls last, grid_additive.candidate_id
        ) as score_rank,
        grid_scored.trade_set_id
    from grid_additive
    inner join grid_scored using (group_id, trade_set_hash, trade_count)

)

select
    {% for key in keys %}
    grid_groups.{{ key }},
    {% endfor %}
    {% if pruned %}
    grid_ranked.* exclude (group_id) replace (
        case
            when grid_cutoffs.score is null or round(grid_ranked.score, 9) >= round(grid_cutoffs.score, 9)
                then score_rank
        end as score_rank
    )
    {% else %}
    grid_ranked.* exclude (group_id)
    {% endif %}
from grid_ranked
inner join grid_groups using (group_id)
{{ 'left join grid_cutoffs using (group_id)' if pruned }}
{% endmacro %}


{#- 0 without trades, unknown where every edge is. -#}
{% macro _per(amount, count) -%}
    case when trade_count = 0 then 0 when {{ count }} > 0 then {{ amount }} / {{ count }}::double end
{%- endmacro %}


{% macro _known(amount) -%}
    case when trade_count = 0 then 0 when known_count > 0 then {{ amount }} end
{%- endmacro %}
