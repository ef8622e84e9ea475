{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        on_schema_change='fail',
        pre_hook="{{ drop_outdated_days(ahead=event_label_days('trend_scanning'), stock_days=panel_days()) }}",
        post_hook="{{ record_built_days() }}"
    )
}}

{{ event_labels('trend_scanning', only_rebuilt=is_incremental()) }}
