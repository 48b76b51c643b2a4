-- Purpose: the events after the mark: position, type and id of each, nothing else.
-- Parameters: $1 the last event at or below the mark, which is read once more: if it is missing,
-- the log is another one now; $2 the most rows to return.
-- Must hold: its snapshot is its own (READ COMMITTED, a statement by itself); the locks are read in
-- a LATER statement, never in this one.
-- `events`: a relation with the columns of highwater.event; `last_value`: the last number that the
-- sequence issued, where that is wanted: it is read after the snapshot was taken.
select e.position, e.type, e.id, /*last_value:*/ null::bigint /*:last_value*/
from /*events:*/ highwater.event /*:events*/ e
where e.position >= $1
order by e.position
limit $2
