-- Purpose: when the first event after a position was recorded. The position of an event is drawn
-- before its recorded_at, so a transaction that began later has no lower number.
-- Parameters: $1 the position.
select e.recorded_at
from /*events:*/ highwater.event /*:events*/ e
where e.position > $1
order by e.position
limit 1
