{{ config(materialized='table') }}

{{ head_predictions('risk') }}
