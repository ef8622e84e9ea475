{{ config(materialized='table') }}

{{ head_predictions('direction') }}
