-- The macro head_outputs and seeds/head_targets.csv say the same: the macro cannot read the seed.

with seed as (

    select
        head,
        target,
        unnest(string_split(outputs, '|')) as output,
        case when objective in ('regression', 'ranking') then 'value' else 'probability' end as kind
    from {{ ref('head_targets') }}
    where track = 'minute'

),

macro as (

    {% for output, facts in head_outputs().items() %}
    select
        '{{ facts.head }}' as head,
        '{{ facts.target }}' as target,
        '{{ output }}' as output,
        '{{ facts.kind }}' as kind
    {{ 'union all' if not loop.last }}
    {% endfor %}

)

select
    coalesce(seed.output, macro.output) as output,
    seed.output is not null as in_seed,
    macro.output is not null as in_macro
from seed
full outer join macro using (head, target, output, kind)
where seed.output is null or macro.output is null
