-- Purpose: as read.sql, with the key of each event.
-- Parameters: $1 after; $2 through; $3 the types wanted, null for all; $4 the most rows; $5 the
-- parked keys for `parked`.
-- `key`: the key; `partition`, `parked`: the conditions for it.
-- Must hold: $2 is never past the mark.
select e.position, e.stream, e.version, e.type, e.data::text, e.metadata::text, e.id, e.recorded_at,
       /*key:*/ e.stream /*:key*/::text as key
from /*events:*/ highwater.event /*:events*/ e
where e.position > $1 and e.position <= $2
  and ($3::text[] is null or e.type = any($3))
  and /*partition:*/ true /*:partition*/ and /*parked:*/ true /*:parked*/
order by e.position
limit $4
