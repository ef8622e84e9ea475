{#- JSON is canonical: keys sorted, no spaces, numbers as in Python's json, infinity as null. -#}

with best as (

    select *
    from {{ ref('pm_grid_search') }}
    where score_rank = 1

),

search as (

    select count(*) as candidate_count
    from {{ ref('pm_grid_search') }}

),

sections as (

    select
        section,
        string_agg(
            '"' || setting || '":'
            || case when value_type = 'integer' then value::bigint::varchar else value::varchar end,
            ',' order by setting
        ) as settings
    from {{ ref('pm_config_settings') }}
    group by section

),

config as (

    select
        '{' || string_agg('"' || section || '":' || settings, ',' order by section) || '}'
            as config_json
    from (
        select
            section,
            '{' || settings || '}' as settings
        from sections
        union all
        select
            'pmConfigVersion' as section,
            '"{{ pm_settings().pm_config_version }}"' as settings
    )

),

stability as (

    select
        best.*,
        config.config_json,
        sha256(config.config_json) as config_hash,
        '{"best_metrics":{'
        {% for name in trade_metric_names() | sort %}
        || '"{{ name }}":' || {{ json_number('best.' ~ name) }} {{- " || ','" if not loop.last }}
        {% endfor %}
        || '},"best_score":' || {{ json_number('best.score') }}
        || ',"candidate_count":' || search.candidate_count
        || ',"edge_basis":"{{ pm_settings().pm_edge_basis }}"'
        || ',"method":"deterministic_grid_search_v1"'
        || ',"source":"tune_predictions_and_entry_labels"}' as stability_json
    from best
    cross join search
    cross join config

)

select
    '{{ pm_settings().pm_config_version }}' as pm_config_version,
    candidate_id,
    {% for axis in pm_axes() %}
    {{ axis }},
    {% endfor %}
    threshold_hash,
    score as best_score,
    '{{ pm_settings().pm_edge_basis }}' as edge_basis,
    config_json,
    config_hash,
    stability_json,
    '{"config":' || config_json || ',"config_hash_sha256":"' || config_hash
    || '","pm_config_version":"{{ pm_settings().pm_config_version }}","threshold_stability_json":'
    || stability_json || '}' as payload_json
from stability
