-- Purpose: blocks of a log, in their order.
-- Parameters: $1 the source's identity; $2 only those that begin after this position; $3 the most
-- blocks.
select b.after, b.through, b.events, b.digest, b.counted_later
from highwater.block b
where b.source_identity = $1 and b.after > $2
order by b.after
limit $3
