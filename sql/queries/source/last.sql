-- Purpose: the last event at or before a position: what a checkpoint remembers about the log.
-- Parameters: $1 the position, unless `position` is a number.
select e.position, e.id
from /*events:*/ highwater.event /*:events*/ e
where e.position <= /*position:*/ $1 /*:position*/
order by e.position desc
limit 1
