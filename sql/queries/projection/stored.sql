-- Purpose: which build of a projection's read model is live, and what it was built with.
-- Parameters: $1 projection.
select generation, hash, source, next_generation, next_hash
from highwater.projection
where name = $1
