{{ config(materialized='table', post_hook="{{ require_splits(this, evaluation_splits()) }}") }}

{{ pm_frame(evaluation_splits()) }}
