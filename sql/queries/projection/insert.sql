-- Purpose: makes the rows of a new projection: itself and the checkpoint of its only partition.
-- Parameters: $1 projection; $2 hash; $3 source; $4 the source's identity.
-- Must hold: in the transaction that runs `up`. It waits for another instance that does the same
-- and then makes nothing.
with made as (
    insert into highwater.projection (name, hash, source) values ($1, $2, $3)
    on conflict (name) do nothing
    returning name, generation
)
insert into highwater.checkpoint (projection, generation, partition, source_identity)
select name, generation, 0, $4 from made
