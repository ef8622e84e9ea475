{{ config(materialized='incremental', on_schema_change='append_new_columns') }}

select
    model_id,
    track,
    head,
    target,
    fold,
    fold_scheme,
    trainer,
    objective,
    outputs,
    feature_list,
    feature_count,
    schema_hash,
    order_hash,
    params_json,
    seeds,
    artifacts,
    libraries_json,
    code_hash,
    make_timestamp(valid_from_ms * 1000) as valid_from,
    trained_at,
    cpu_seconds
from {{ ref('training_runs') }}
{% if is_incremental() %}
where model_id not in (select registered.model_id from {{ this }} as registered)
{% endif %}
