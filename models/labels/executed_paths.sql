{%- set max_hold = label_settings().entry_max_hold_minutes -%}
{%- set target = setting('entry_target_bps') -%}
{%- set stop = setting('entry_stop_bps') -%}

with samples as (

    select
        sample_id,
        symbol,
        event_time,
        side,
        cost_bps,
        split_id,
        walk_forward_fold,
        label_version
    from {{ ref('entry_labels') }}

),

bars as (

    select
        bar_id,
        symbol,
        event_time,
        open,
        high,
        low,
        close
    from {{ ref('stg_minute_bars') }}
    order by bar_id

),

fills as (

    select
        *,
        lead(open) over () as entry_price
    from bars

),

bars_ahead as (

    select
        bar_id,
        symbol,
        event_time,
        entry_price,
        entry_price * (1 + {{ target }} / 1e4) as long_target_price,
        entry_price * (1 - {{ stop }} / 1e4) as long_stop_price,
        entry_price * (1 - {{ target }} / 1e4) as short_target_price,
        entry_price * (1 + {{ stop }} / 1e4) as short_stop_price,
        lead(bar_id) over () as next_bar_id,
        {{ values_ahead('high', max_hold) }},
        {{ values_ahead('low', max_hold) }}
    from fills

),

touches as (

    select
        bar_id,
        symbol,
        event_time,
        entry_price,
        long_target_price,
        long_stop_price,
        short_target_price,
        short_stop_price,
        {{ first_touch('high', '>= long_target_price', max_hold) }} as long_target_bars,
        {{ first_touch('low', '<= long_stop_price', max_hold) }} as long_stop_bars,
        {{ first_touch('low', '<= short_target_price', max_hold) }} as short_target_bars,
        {{ first_touch('high', '>= short_stop_price', max_hold) }} as short_stop_bars
    from bars_ahead
    where
        case
            when next_bar_id <= bar_id
                then error('executed_paths read the bars out of order: please report this')
            else true
        end

),

orders as (

    {% for side in ['LONG', 'SHORT'] %}
    select
        bar_id,
        symbol,
        event_time,
        '{{ side }}' as side,
        entry_price,
        {{ side | lower }}_target_price as target_price,
        {{ side | lower }}_stop_price as stop_price,
        {{ side | lower }}_target_bars as target_bars,
        {{ side | lower }}_stop_bars as stop_bars
    from touches
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

exits as (

    -- a sample has a row where its next bars follow minute by minute, so bars are minutes
    select
        samples.*,
        orders.* exclude (bar_id, symbol, event_time, side, target_bars, stop_bars),
        case
            -- a bar that touches both counts as a stop
            when orders.stop_bars <= coalesce(orders.target_bars, {{ max_hold }}) then 'stop'
            when orders.target_bars is not null then 'target'
            else 'timeout'
        end as exit_reason,
        least(orders.target_bars, orders.stop_bars, {{ max_hold }}) as holding_minutes,
        orders.bar_id + least(orders.target_bars, orders.stop_bars, {{ max_hold }}) as exit_bar_id
    from samples
    inner join orders using (symbol, event_time, side)

),

exit_prices as (

    select
        exits.*,
        bars.event_time as exit_time,
        case
            when exits.exit_reason = 'target' then exits.target_price
            when exits.exit_reason = 'timeout' then bars.close
            -- a bar that opens beyond the stop fills it at its open
            when exits.side = 'LONG' then least(exits.stop_price, bars.open)
            else greatest(exits.stop_price, bars.open)
        end as exit_price
    from exits
    inner join bars on exits.exit_bar_id = bars.bar_id

),

edges as (

    select
        *,
        case
            when side = 'LONG' then (exit_price / entry_price - 1) * 1e4
            else (entry_price / exit_price - 1) * 1e4
        end as gross_edge_bps
    from exit_prices

)

select
    ---------- keys
    sample_id,
    symbol,
    event_time,
    side,

    ---------- the way
    event_time + interval 1 minute as entry_time,
    entry_price,
    exit_time,
    exit_price,
    exit_reason,
    holding_minutes::smallint as holding_minutes,

    ---------- edges
    gross_edge_bps,
    cost_bps,
    gross_edge_bps - cost_bps as net_edge_bps,

    ---------- provenance
    split_id,
    walk_forward_fold,
    label_version
from edges
