-- Purpose: the next dead letter to be tried again: of all that were asked for the first, which is
-- the first of its key too, for keys are asked for as a whole.
-- Parameters: $1 projection; $2 generation; $3 partition; $4 of how many.
select d.position, d.stream, d.version, d.type, d.data, d.metadata, d.id, d.recorded_at
  from highwater.dead_letter d
 where d.projection = $1 and d.generation = $2 and highwater.partition_of(d.key, $4) = $3
   and d.retry_requested_at is not null
   and not exists (select from highwater.dead_letter b
                    where b.projection = d.projection and b.generation = d.generation
                      and b.key is not distinct from d.key and b.position < d.position)
 order by d.position
 limit 1
