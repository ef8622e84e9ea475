{{ config(materialized='table') }}

{{ head_metrics(ref('head_evaluations'), ref('head_period_metrics')) }}
