-- Purpose: requests a retry of all dead letters of the selected keys; returns how many keys and
-- dead letters these are.
-- Parameters: $1 projection; $2 the selection: all, key, event or fingerprint; $3 its value.
-- Must hold: whole keys, because an event is not applied before the earlier ones of its key. The
-- runner of the partition does it, under its fence.
with selected as (
    select d.projection, d.generation, d.position, d.key,
           bool_or($2 = 'all' or case $2 when 'key' then d.key is not distinct from $3
                                         when 'event' then d.id::text = $3
                                         when 'fingerprint' then d.fingerprint = $3 end)
               over (partition by d.key) as meant
      from highwater.dead_letter d
      join highwater.projection p on p.name = d.projection and p.generation = d.generation
     where p.name = $1
), requested as (
    update highwater.dead_letter d
       set retry_requested_at = clock_timestamp()
      from selected l
     where l.meant and d.projection = l.projection and d.generation = l.generation
       and d.position = l.position
    returning d.key
)
select count(distinct key) + coalesce(max((key is null)::integer), 0), count(*) from requested
