-- The sessions cover the day.
select count(*) as hours
from {{ ref('trading_sessions') }}
having count(*) <> 24
