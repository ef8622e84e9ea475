{{ config(materialized='table') }}

{{ head_evaluations(['tune', 'calibrate', 'test']) }}
