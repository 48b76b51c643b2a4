-- Purpose: the next dead letter to be tried again: of the keys that somebody asked for the first
-- letter that stands first.
-- Parameters: $1 projection; $2 generation; $3 partition; $4 of how many.
-- Must hold: of a key only the first, for an event is not applied before the earlier ones of its key;
-- and of a key that is asked for in part too, so that a request always comes to an end.
with asked as (
    select min(d.position) as first
      from highwater.dead_letter d
     where d.projection = $1 and d.generation = $2 and highwater.partition_of(d.key, $4) = $3
     group by d.key
    having bool_or(d.retry_requested_at is not null)
)
select d.position, d.stream, d.version, d.type, d.data, d.metadata, d.id, d.recorded_at
  from highwater.dead_letter d
 where d.projection = $1 and d.generation = $2
   and d.position = (select min(a.first) from asked a)
