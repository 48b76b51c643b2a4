-- Purpose: what the ledgers of all partitions count of a range: the events of each, and those that the
-- projection does not want (null).
-- {events}: the events; {after}, {through}: the range; {types}: which events are wanted; {number}: the
-- partition of one that is. What is not wanted is not asked for its key: it may have none.
-- Must hold: in a transaction whose snapshot is taken before any of these partitions applies the range.
select case when {types} then ({number})::integer end as partition, count(*) as events
from {events} e
where e.position > {after} and e.position <= {through}
group by 1
