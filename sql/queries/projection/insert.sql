-- Purpose: inserts the rows of a new projection: itself, its first generation and the checkpoints
-- of its partitions.
-- Parameters: $1 projection; $2 hash; $3 source; $4 the source's identity; $5 partitions;
-- $6 the key that they are cut by; $7 the text of its definition, null for one in Rust; $8 the name
-- of the hash of keys.
-- Must hold: in the transaction that runs `up`. It waits for another instance that does the same
-- and then inserts nothing. Epochs continue where a dropped projection of the name ended, so that a
-- runner of that one is fenced.
with made as (
    insert into highwater.projection (name, partitions)
    values ($1, $5)
    on conflict (name) do nothing
    returning name, generation, partitions
), built as (
    insert into highwater.generation (projection, number, hash, definition, source, cut_by, key_hash)
    select name, generation, $2, $7, $3, $6, $8 from made
)
insert into highwater.checkpoint
    (projection, generation, partition, source, partitions, source_identity, epoch)
select name, generation, n, $3, partitions, $4,
       coalesce((select d.epoch from highwater.dropped d where d.projection = $1), 0)
  from made, generate_series(0, partitions - 1) n
