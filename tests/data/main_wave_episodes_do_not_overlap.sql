-- a scan goes on behind the peak of the wave that it found
select
    ts_code,
    start_date,
    lag(peak_date) over (partition by ts_code order by start_date) as previous_peak_date
from {{ ref('main_wave_episodes') }}
qualify start_date <= previous_peak_date
