{{ config(materialized='table') }}

{{ head_predictions('exit') }}
