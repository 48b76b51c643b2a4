-- Purpose: what the ledger counts of a batch: all events, those of the projection's types and
-- partition, and those of these whose key is parked.
-- {events}: the events; {after}, {through}: the range; {own}, {aside}: the counts of these.
-- Must hold: in the statement of the fence, whose transaction nobody's parking can overtake.
select count(*) as scanned, {own} as own, {aside} as aside
from {events} e
where e.position > {after} and e.position <= {through}
