-- Purpose: inserts the rows of the next generation, in place of those of an earlier attempt.
-- Parameters: $1 projection; $2 hash of the definition it is built with; $3 source's identity;
-- $4 its source; $5 the text of the definition, null for one in Rust; $6 the name of the
-- hash of keys.
-- Must hold: in the transaction that creates its schema, with the projection's row locked, so that
-- a swap that was waited for is seen. A rebuild that another process has begun is replaced: its
-- runner is fenced, because its row is gone.
with earlier as (
    delete from highwater.checkpoint c using highwater.projection p
     where p.name = $1 and c.projection = p.name and c.generation <> p.generation
), earlier_dead_letters as (
    delete from highwater.dead_letter d using highwater.projection p
     where p.name = $1 and d.projection = p.name and d.generation <> p.generation
), earlier_generations as (
    delete from highwater.generation g using highwater.projection p
     where p.name = $1 and g.projection = p.name and g.number <> p.generation
), marked as (
    update highwater.projection
       set next_generation = coalesce(next_generation, generation) + 1
     where name = $1
    returning name, next_generation, partitions
), built as (
    insert into highwater.generation (projection, number, hash, definition, source, key_hash)
    select name, next_generation, $2, $5, $4, $6 from marked
)
insert into highwater.checkpoint
    (projection, generation, partition, source, partitions, source_identity, epoch)
select name, next_generation, n, $4, partitions, $3,
       coalesce((select max(c.epoch) from highwater.checkpoint c where c.projection = $1), 0)
  from marked, generate_series(0, partitions - 1) n
returning generation
