-- Purpose: makes the rows of the next generation, in place of those of an earlier try.
-- Parameters: $1 projection; $2 hash of the definition it is built with; $3 source's identity.
-- Must hold: in the transaction that creates its schema, with the projection's row locked, so that
-- a swap that was waited for is seen. A rebuild that another process has begun is replaced: its
-- runner is fenced, for its row is gone.
with earlier as (
    delete from highwater.checkpoint c using highwater.projection p
     where p.name = $1 and c.projection = p.name and c.generation <> p.generation
    returning c.epoch
), earlier_letters as (
    delete from highwater.dead_letter d using highwater.projection p
     where p.name = $1 and d.projection = p.name and d.generation <> p.generation
), earlier_ledgers as (
    delete from highwater.ledger l using highwater.projection p
     where p.name = $1 and l.projection = p.name and l.generation <> p.generation
), marked as (
    update highwater.projection
       set next_generation = coalesce(next_generation, generation) + 1, next_hash = $2
     where name = $1
    returning name, next_generation, partitions
)
insert into highwater.checkpoint
    (projection, generation, partition, partitions, source_identity, epoch)
select name, next_generation, n, partitions, $3,
       coalesce((select max(c.epoch) from highwater.checkpoint c where c.projection = $1), 0)
  from marked, generate_series(0, partitions - 1) n
returning generation
