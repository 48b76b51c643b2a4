-- Purpose: what was removed on purpose from a range of our own log.
-- Parameters: $1 after; $2 through.
select s.removed_through, r.position, r.id
from highwater.source s
left join highwater.removed r on r.position > greatest($1, s.removed_through) and r.position <= $2
order by r.position
