-- Purpose: the next dead letter to be tried again, with its key: the first one of the key that was
-- asked for and stands first.
-- Parameters: $1 projection; $2 generation; $3 partition; $4 of how many; $5 keys to leave out.
-- Must hold: of a key only the first, for an event is not applied before the earlier ones of its key;
-- and of a key that is asked for in part too, so that a request always comes to an end. Nothing of it
-- reads all letters, for it is asked after each.
with asked as (
    select d.key
      from highwater.dead_letter d
     where d.projection = $1 and d.generation = $2 and d.retry_requested_at is not null
       and highwater.partition_of(d.key, $4) = $3
       and not exists (select from unnest($5::text[]) k where k is not distinct from d.key)
     order by d.position
     limit 1
), first as (
    select case when a.key is null
                then (select min(d.position) from highwater.dead_letter d
                       where d.projection = $1 and d.generation = $2 and d.key is null)
                else (select min(d.position) from highwater.dead_letter d
                       where d.projection = $1 and d.generation = $2 and d.key = a.key) end
           as position
      from asked a
)
select d.position, d.stream, d.version, d.type, d.data, d.metadata, d.id, d.recorded_at, d.key
  from first f
  join highwater.dead_letter d
    on d.projection = $1 and d.generation = $2 and d.position = f.position
