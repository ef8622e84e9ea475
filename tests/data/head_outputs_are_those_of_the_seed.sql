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

(select *, 'in the macro alone' as found from macro except select *, 'in the macro alone' from seed)
union all
(select *, 'in the seed alone' from seed except select *, 'in the seed alone' from macro)
