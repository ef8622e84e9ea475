with position_minutes as (

    select
        position_id,
        minute_index,
        symbol,
        side,
        eval_split,
        event_time,
        order_kind,
        order_reason,
        decided_at,
        order_price,
        ratio_before,
        ratio,
        average_price,
        exit_reason,
        exit_price
    from {{ ref('position_minutes') }}

),

costs as (

    select
        sample_id as position_id,
        side,
        cost_bps
    from {{ ref('entry_labels') }}

),

orders as (

    select
        * exclude (order_kind, order_reason, order_price, ratio, exit_reason, exit_price),
        1 as step,
        order_kind as event_kind,
        order_reason as reason,
        order_price as price,
        ratio as ratio_after
    from position_minutes
    where order_kind is not null

),

exits as (

    -- an order to close is there already
    select
        * exclude (order_kind, order_reason, order_price, ratio, exit_reason, exit_price)
        replace (ratio as ratio_before, event_time as decided_at),
        2 as step,
        'close' as event_kind,
        exit_reason as reason,
        exit_price as price,
        0::double as ratio_after
    from position_minutes
    where exit_reason is not null and order_kind is distinct from 'close'

),

events as (

    select * from orders
    union all
    select * from exits

),

changes as (

    select
        *,
        ratio_after - ratio_before as ratio_change
    from events

)

select
    ---------- keys
    changes.position_id,
    row_number() over (
        partition by changes.position_id order by changes.minute_index, changes.step
    ) as event_index,
    changes.symbol,
    changes.side,
    changes.eval_split,

    ---------- what and why
    changes.event_kind,
    changes.reason,
    changes.decided_at,
    changes.event_time as executed_at,
    changes.price,

    ---------- size
    changes.ratio_before,
    changes.ratio_change,
    changes.ratio_after,

    ---------- money
    greatest(-changes.ratio_change, 0)
    * {{ side_return_bps('changes.side', 'changes.average_price', 'changes.price') }} as pnl_bps,
    greatest(changes.ratio_change, 0) * costs.cost_bps as cost_bps
from changes
inner join costs using (position_id, side)
order by changes.symbol, executed_at, changes.position_id, event_index
