{{ config(materialized='table', post_hook="{{ require_splits(this, ['tune_inner']) }}") }}

{{ pm_frame(['tune_inner']) }}
