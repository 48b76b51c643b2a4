-- Purpose: how many events of a range are wanted, the first of them and the one in the middle,
-- to halve a range that failed.
-- Parameters: $1 after; $2 through; $3 the types wanted, null for all; $4 the parked keys for
-- `parked`.
-- `partition`, `parked`: the conditions for the key.
select count(*), min(e.position),
       percentile_disc(0.5) within group (order by e.position)
from /*events:*/ highwater.event /*:events*/ e
where e.position > $1 and e.position <= $2
  and ($3::text[] is null or e.type = any($3))
  and /*partition:*/ true /*:partition*/ and /*parked:*/ true /*:parked*/
