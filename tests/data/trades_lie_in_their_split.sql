-- A signal lies between the start of its split and that of the next.
with splits as (

    select
        boundary_name as eval_split,
        starts_at,
        lead(starts_at) over (order by boundary_order) as ends_at
    from {{ ref('split_boundaries') }}
    where boundary_kind = 'split'

)

select
    trades.accounting,
    trades.sample_id,
    trades.eval_split,
    trades.signal_time
from {{ ref('accounted_trades') }} as trades
left join splits using (eval_split)
where not coalesce(
    trades.signal_time >= splits.starts_at
    and (splits.ends_at is null or trades.signal_time < splits.ends_at),
    false
)
