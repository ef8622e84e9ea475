with axes as (

    select
        axis,
        position,
        value::double as value
    from {{ ref('pm_grid_axes') }}

),

candidates as (

    select
        row_number() over (
            order by
                {% for axis in pm_axes() %}
                {{ axis }}.position {{- ',' if not loop.last }}
                {% endfor %}
        ) as candidate_id,
        {% for axis in pm_axes() %}
        {{ axis }}.value as {{ axis }} {{- ',' if not loop.last }}
        {% endfor %}
    from axes as {{ pm_axes()[0] }}
    {% for axis in pm_axes()[1:] %}
    cross join axes as {{ axis }}
    {% endfor %}
    where
        {% for axis in pm_axes() %}
        {{ axis }}.axis = '{{ axis }}'
        {{ 'and' if not loop.last }}
        {% endfor %}

)

select
    candidate_id,
    {% for axis in pm_axes() %}
    {{ axis }},
    {% endfor %}
    -- of canonical JSON: keys sorted, no spaces
    sha256(
        '{'
        {% for axis in pm_axes() | sort %}
        || '"{{ axis }}":' || {{ axis }} {{- " || ','" if not loop.last }}
        {% endfor %}
        || '}'
    )[:16] as threshold_hash
from candidates
order by candidate_id
