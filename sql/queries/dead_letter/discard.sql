-- Purpose: discards dead letters: each is recorded with the reason and deleted. Returns their keys.
-- Parameters: $1 projection; $2 the selection: all, key, event or fingerprint; $3 its value; $4 the
-- reason.
-- Must hold: under the lock on their partitions' checkpoints, in one transaction.
with selected as (
    select d.*
      from highwater.dead_letter d
      join highwater.projection p on p.name = d.projection and p.generation = d.generation
     where p.name = $1
       and ($2 = 'all' or case $2 when 'key' then d.key is not distinct from $3
                                  when 'event' then d.id::text = $3
                                  when 'fingerprint' then d.fingerprint = $3 end)
), recorded as (
    insert into highwater.discarded
           (projection, generation, position, key, id, stream, version, type, error, attempts,
            parked_at, reason)
    select l.projection, l.generation, l.position, l.key, l.id, l.stream, l.version, l.type,
           l.error, l.attempts, l.parked_at, $4
      from selected l
    returning projection, generation, position, key
)
select r.key, highwater.settle(r.projection, r.generation, r.position)::text
  from recorded r
