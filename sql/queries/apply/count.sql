-- Purpose: what the ledger counts of a batch: all events, those of the projection's types and
-- partition, and those of these whose key is parked.
-- {events}: the events; {after}, {through}: the range; {types}, {partition}, {parked}: which events.
-- Must hold: in the statement of the fence, whose transaction nobody's parking can overtake.
select count(*) as scanned,
       count(*) filter (where {types} and {partition}) as own,
       count(*) filter (where {types} and {partition} and {parked}) as aside
from {events} e
where e.position > {after} and e.position <= {through}
