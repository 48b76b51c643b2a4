-- Purpose: makes the rows of a new projection: itself and the checkpoints of its partitions.
-- Parameters: $1 projection; $2 hash; $3 source; $4 the source's identity; $5 partitions;
-- $6 the key that they are cut by.
-- Must hold: in the transaction that runs `up`. It waits for another instance that does the same
-- and then makes nothing. Epochs go on where a dropped projection of the name ended, so that whoever
-- still runs that one is fenced.
with made as (
    insert into highwater.projection (name, hash, source, partitions, cut_by)
    values ($1, $2, $3, $5, $6)
    on conflict (name) do nothing
    returning name, generation, partitions
)
insert into highwater.checkpoint
    (projection, generation, partition, partitions, source_identity, epoch)
select name, generation, n, partitions, $4,
       coalesce((select d.epoch from highwater.dropped d where d.projection = $1), 0)
  from made, generate_series(0, partitions - 1) n
