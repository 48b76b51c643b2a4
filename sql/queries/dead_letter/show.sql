-- Purpose: dead letters as they are stored, each with the number of its key that follow it.
-- Parameters: $1 projection; $2 the selection: all, key, event or fingerprint; $3 its value; $4 the
-- most dead letters.
with dead_letter as (
    select d.*,
           count(*) over (partition by d.key) as of_key,
           row_number() over (partition by d.key order by d.position) as place
      from highwater.dead_letter d
      join highwater.projection p on p.name = d.projection and p.generation = d.generation
     where p.name = $1
)
select d.position, d.stream, d.version, d.type, d.data, d.metadata, d.id, d.recorded_at,
       d.key, d.error, d.fingerprint, d.attempts, d.parked_at, d.retry_requested_at,
       d.place - 1 as before, d.of_key - d.place as behind, count(*) over () as all_dead_letters
  from dead_letter d
 where $2 = 'all' or case $2 when 'key' then d.key is not distinct from $3
                             when 'event' then d.id::text = $3
                             when 'fingerprint' then d.fingerprint = $3 end
 order by d.position
 limit $4
