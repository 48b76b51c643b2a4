-- Purpose: the parked keys, the one that was parked first before the others: how many dead letters
-- each has, and the one that blocks the key. With the sums over all of them.
-- Parameters: $1 projection; $2 the selection: all, key, event or fingerprint; $3 its value; $4 the
-- most keys.
with dead_letter as (
    select d.*
      from highwater.dead_letter d
      join highwater.projection p on p.name = d.projection and p.generation = d.generation
     where p.name = $1
), parked_key as (
    select d.key, count(*) as dead_letters, min(d.position) as first,
           max(d.retry_requested_at) as retry_requested_at
      from dead_letter d
     group by d.key
    having bool_or($2 = 'all' or case $2 when 'key' then d.key is not distinct from $3
                                         when 'event' then d.id::text = $3
                                         when 'fingerprint' then d.fingerprint = $3 end)
)
select count(*) over () as all_parked_keys,
       (sum(k.dead_letters) over ())::bigint as all_dead_letters, k.dead_letters,
       d.key, d.position, d.id, d.type, d.error, d.fingerprint, d.attempts, d.parked_at,
       k.retry_requested_at
  from parked_key k
  join dead_letter d on d.position = k.first
 order by d.position
 limit $4
