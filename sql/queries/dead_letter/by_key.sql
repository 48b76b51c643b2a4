-- Purpose: the parked keys, the one that was parked first before the others: how many dead letters
-- each has, and the one that blocks the key. With the sums over all of them.
-- Parameters: $1 projection; $2 the selection: all, key, event or fingerprint; $3 its value; $4 the
-- most keys.
with letter as (
    select d.*
      from highwater.dead_letter d
      join highwater.projection p on p.name = d.projection and p.generation = d.generation
     where p.name = $1
), parked as (
    select l.key, count(*) as letters, min(l.position) as first,
           max(l.retry_requested_at) as retry_requested_at
      from letter l
     group by l.key
    having bool_or($2 = 'all' or case $2 when 'key' then l.key is not distinct from $3
                                         when 'event' then l.id::text = $3
                                         when 'fingerprint' then l.fingerprint = $3 end)
)
select count(*) over () as keys, (sum(k.letters) over ())::bigint as of_keys, k.letters,
       k.retry_requested_at, l.key, l.position, l.id, l.type, l.error, l.fingerprint, l.attempts,
       l.parked_at
  from parked k
  join letter l on l.position = k.first
 order by l.position
 limit $4
