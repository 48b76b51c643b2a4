-- Purpose: the highest checkpoints on a source, each with the last event it knows. Everything at or
-- below one was proven by the mark of the run that wrote it, if the log still has that event.
-- Parameters: $1 the source's identity.
select distinct position, event_position, event_id
from highwater.checkpoint
where source_identity = $1 and position > 0 and event_id is not null
order by position desc
limit 8
