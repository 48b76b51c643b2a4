-- Purpose: what stands after the mark: the position and the type of each event, nothing else.
-- Parameters: $1 the mark; $2 the most rows to return.
-- Must hold: its snapshot is its own (READ COMMITTED, a statement by itself); the locks are
-- looked at in a LATER statement, never in this one.
-- {events}: a relation with the columns of highwater.event.
select e.position, e.type
from {events} e
where e.position > $1
order by e.position
limit $2
