-- Purpose: how many events a range holds, their digest, and the last of them, up to a number of events.
-- Parameters: $1 after; $2 through; $3 the most events.
-- Must hold: $2 is never past the mark. The digest is the same as crate::block computes.
select count(*), coalesce(bit_xor(uuid_hash_extended(e.id, e.position)), 0)::bigint, max(e.position)
from (
    select e.position, e.id
    from /*events:*/ highwater.event /*:events*/ e
    where e.position > $1 and e.position <= $2
    order by e.position
    limit $3
) e
