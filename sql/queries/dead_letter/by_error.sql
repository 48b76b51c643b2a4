-- Purpose: the errors that park keys, grouped by fingerprint, the one that parks most keys first.
-- With the sums over all of them.
-- Parameters: $1 projection; $2 the selection: all, key, event or fingerprint; $3 its value; $4 the
-- most errors.
with letter as (
    select d.*
      from highwater.dead_letter d
      join highwater.projection p on p.name = d.projection and p.generation = d.generation
     where p.name = $1
), parked as (
    select l.key, count(*) as letters, min(l.position) as first
      from letter l
     group by l.key
    having bool_or($2 = 'all' or case $2 when 'key' then l.key is not distinct from $3
                                         when 'event' then l.id::text = $3
                                         when 'fingerprint' then l.fingerprint = $3 end)
), alike as (
    select l.fingerprint, count(*) as keys, sum(k.letters)::bigint as letters,
           min(l.position) as first
      from parked k
      join letter l on l.position = k.first
     group by l.fingerprint
)
select count(*) over () as errors, (sum(a.keys) over ())::bigint as of_errors,
       (sum(a.letters) over ())::bigint as of_keys, a.fingerprint, a.keys, a.letters,
       l.position, l.id, l.type, l.error
  from alike a
  join letter l on l.position = a.first
 order by a.keys desc, l.position
 limit $4
