-- Purpose: forgets a projection; its checkpoints go with it, so whoever runs it is fenced.
-- Parameters: $1 projection.
-- Must hold: its row is locked, and its checkpoints go before it: a batch of a rebuild that is in
-- flight ends first, for it may refer to the row yet.
with checkpoints as (
    delete from highwater.checkpoint where projection = $1
    returning 1
)
delete from highwater.projection
 where name = $1 and (select count(*) from checkpoints) >= 0
