-- Purpose: what the ledgers of all partitions count of a range: for each, its number, all events of
-- its keys and those of the projection's types.
-- {events}: the events; {after}, {through}: the range; {number}: the partition of an event; {types}:
-- which events are wanted.
-- Must hold: in a transaction whose snapshot is taken before any of these partitions applies the range.
select ({number})::integer as partition, count(*) as events, count(*) filter (where {types}) as wanted
from {events} e
where e.position > {after} and e.position <= {through}
group by 1
