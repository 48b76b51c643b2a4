-- Purpose: releases a checkpoint, so that another instance can claim it at once.
-- Parameters: $1 projection; $2 generation; $3 partition; $4 epoch.
-- Must hold: only under the epoch that owns the row; a stopped one stays stopped.
update highwater.checkpoint
   set owner = null, rate = 0, state = case when state = 'stopped' then state else 'idle' end
 where projection = $1 and generation = $2 and partition = $3 and epoch = $4
