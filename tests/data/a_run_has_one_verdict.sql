-- One manifest, whatever was traded.
select count(*) as manifests
from {{ ref('backtest_manifest') }}
having count(*) <> 1
