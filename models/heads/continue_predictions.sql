{{ config(materialized='table') }}

{{ head_predictions('continue') }}
