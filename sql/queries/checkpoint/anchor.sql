-- Purpose: an operator accepts the present log as the one that the read models of a projection were
-- built from: its checkpoint continues from there.
-- Parameters: $1 projection; $2 generation; $3 partition; $4 the position, which is not lower than
-- before; $5 the log's identity; $6 and $7 the log's last event at or before the position.
-- Must hold: its present runner is fenced, because it compared another log state.
update highwater.checkpoint c
   set position = $4, source_identity = $5, event_position = $6, event_id = $7,
       drain_at = case when c.drain_at < $4 then $4 else c.drain_at end,
       epoch = c.epoch + 1, owner = null, state = 'idle', last_error = null, stopped_at = null,
       updated_at = clock_timestamp()
 where c.projection = $1 and c.generation = $2 and c.partition = $3 and c.position <= $4
