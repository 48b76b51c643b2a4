-- Purpose: how many events a range holds, how many of these are wanted by type and partition, and
-- how many of those have a parked key: what the ledger counts.
-- Parameters: $1 after; $2 through; $3 the types wanted, null for all; $4 the parked keys.
-- {partition}, {parked}: the conditions for the key.
select count(*), count(*) filter (where own), count(*) filter (where own and {parked})
from (
    select e.*, ($3::text[] is null or e.type = any($3)) and {partition} as own
    from {events} e
    where e.position > $1 and e.position <= $2
) e
