-- Purpose: the next dead letter to be retried, with its key and the `parking` of its checkpoint:
-- the first one of the first requested key.
-- Parameters: $1 projection; $2 generation; $3 partition; $4 epoch; $5 keys to leave out. `first`: which
-- of a key comes first.
-- Must hold: nothing under another epoch. Of a key only the first, because an event is not applied
-- before the earlier ones of its key; also of a key that is requested in part, so that a request
-- always ends. One snapshot with `parking`, which the fence of the dead letter compares. It never
-- reads all dead letters, because it runs after each.
with mine as (
    select c.partitions, c.parking
      from highwater.checkpoint c
     where c.projection = $1 and c.generation = $2 and c.partition = $3 and c.epoch = $4
), asked as (
    select d.key
      from highwater.dead_letter d
     where d.projection = $1 and d.generation = $2 and d.retry_requested_at is not null
       and highwater.partition_of(d.key, (select m.partitions from mine m)) = $3
       and not exists (select from unnest($5::text[]) k where k is not distinct from d.key)
     order by d.position
     limit 1
), first as (
    select case when a.key is null
                then (select /*first:*/ min /*:first*/(d.position) from highwater.dead_letter d
                       where d.projection = $1 and d.generation = $2 and d.key is null)
                else (select /*first:*/ min /*:first*/(d.position) from highwater.dead_letter d
                       where d.projection = $1 and d.generation = $2 and d.key = a.key) end
           as position
      from asked a
)
select d.position, d.stream, d.version, d.type, d.data, d.metadata, d.id, d.recorded_at, d.key, m.parking
  from mine m
 cross join first f
  join highwater.dead_letter d
    on d.projection = $1 and d.generation = $2 and d.position = f.position
