-- Every sample and side with an entry label has an executed path, and no other has one.
select
    coalesce(labels.sample_id, paths.sample_id) as sample_id,
    coalesce(labels.side, paths.side) as side
from {{ ref('entry_labels') }} as labels
full outer join {{ ref('executed_paths') }} as paths
    on labels.sample_id = paths.sample_id and labels.side = paths.side
where labels.sample_id is null or paths.sample_id is null
