-- Purpose: the errors that park keys, grouped by fingerprint, the one that parks most keys first.
-- With the sums over all of them.
-- Parameters: $1 projection; $2 the selection: all, key, event or fingerprint; $3 its value; $4 the
-- most errors.
with dead_letter as (
    select d.*
      from highwater.dead_letter d
      join highwater.projection p on p.name = d.projection and p.generation = d.generation
     where p.name = $1
), parked_key as (
    select d.key, count(*) as dead_letters, min(d.position) as first
      from dead_letter d
     group by d.key
    having bool_or($2 = 'all' or case $2 when 'key' then d.key is not distinct from $3
                                         when 'event' then d.id::text = $3
                                         when 'fingerprint' then d.fingerprint = $3 end)
), error_group as (
    select d.fingerprint, count(*) as parked_keys, sum(k.dead_letters)::bigint as dead_letters,
           min(d.position) as first
      from parked_key k
      join dead_letter d on d.position = k.first
     group by d.fingerprint
)
select count(*) over () as all_fingerprints,
       (sum(g.parked_keys) over ())::bigint as all_parked_keys,
       (sum(g.dead_letters) over ())::bigint as all_dead_letters, g.parked_keys, g.dead_letters,
       d.key, d.position, d.id, d.type, d.error, d.fingerprint, d.attempts, d.parked_at,
       d.retry_requested_at
  from error_group g
  join dead_letter d on d.position = g.first
 order by g.parked_keys desc, d.position
 limit $4
