{{ config(materialized='table') }}

{{ head_period_metrics(ref('head_evaluations')) }}
