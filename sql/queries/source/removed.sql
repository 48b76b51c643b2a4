-- Purpose: what was removed from our own log on purpose.
-- Parameters: $1 positions.
-- Must hold: written by the trigger in the transaction that deleted the events.
select s.identity, s.removed_through,
       array(select r.position from highwater.removed r where r.position = any($1)
              order by r.position) as removed
from highwater.source s
