-- Purpose: the highest committed position, 0 for an empty log.
-- Must hold: committed positions only; a number drawn but not committed never counts.
select coalesce(max(e.position), 0)::bigint
from /*events:*/ highwater.event /*:events*/ e
