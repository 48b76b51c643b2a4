-- Purpose: the last event at or before a position: what a checkpoint remembers of the log.
-- Parameters: $1 the position.
select e.position, e.id
from {events} e
where e.position <= $1
order by e.position desc
limit 1
