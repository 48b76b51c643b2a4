-- Purpose: what was removed on purpose from a range of our own log.
-- Parameters: $1 after; $2 through.
select s.removed_through,
       (select count(*) from highwater.removed r
         where r.position > greatest($1, s.removed_through) and r.position <= $2) as others
from highwater.source s
