-- Purpose: the first position after another, to skip wide holes.
-- Parameters: $1 the position; $2 the mark.
select min(e.position)
from /*events:*/ highwater.event /*:events*/ e
where e.position > $1 and e.position <= $2
