-- Purpose: a checkpoint as it is, after a fence failed or an answer was lost.
-- Parameters: $1 projection; $2 generation; $3 partition.
-- Must hold: it waits for a transaction that is still moving the row, hence the lock.
select position, epoch, source_identity, event_position, event_id,
       partitions, drain_at, parking
from highwater.checkpoint
where projection = $1 and generation = $2 and partition = $3
for update
