-- Purpose: makes a scratch database as good as new: no events, positions from 1, no checkpoints.
-- Parameters: none.
-- Must hold: only ever in a scratch database.
truncate highwater.event, highwater.projection, highwater.generation, highwater.checkpoint,
         highwater.instance, highwater.dead_letter, highwater.discarded, highwater.action,
         highwater.block, highwater.block_change
restart identity
