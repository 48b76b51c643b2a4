-- Purpose: the highest position that any checkpoint on a source has reached. Everything at or
-- below it was proven by the mark of the run that wrote it.
-- Parameters: $1 the source's identity.
select coalesce(max(position), 0)::bigint
from highwater.checkpoint
where source_identity = $1
