-- Purpose: how many partitions a generation has.
-- Parameters: $1 projection; $2 generation.
select coalesce(max(partitions), 0)
from highwater.checkpoint
where projection = $1 and generation = $2
