-- Purpose: dead letters as they are stored, each with the number of its key that follow it.
-- Parameters: $1 projection; $2 the selection: all, key, event or fingerprint; $3 its value; $4 the
-- most letters.
with letter as (
    select d.*,
           count(*) over (partition by d.key) as of_key,
           row_number() over (partition by d.key order by d.position) as place
      from highwater.dead_letter d
      join highwater.projection p on p.name = d.projection and p.generation = d.generation
     where p.name = $1
)
select count(*) over () as letters, l.place - 1 as before, l.of_key - l.place as behind,
       l.key, l.position, l.stream, l.version, l.type, l.data, l.metadata, l.id, l.recorded_at,
       l.error, l.fingerprint, l.attempts, l.parked_at, l.retry_requested_at
  from letter l
 where $2 = 'all' or case $2 when 'key' then l.key is not distinct from $3
                             when 'event' then l.id::text = $3
                             when 'fingerprint' then l.fingerprint = $3 end
 order by l.position
 limit $4
