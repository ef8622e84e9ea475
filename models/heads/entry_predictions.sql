{{ config(materialized='table') }}

{{ head_predictions('entry') }}
