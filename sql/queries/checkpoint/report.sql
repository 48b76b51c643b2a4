-- Purpose: stores a runner's state and its last error.
-- Parameters: $1 projection; $2 generation; $3 partition; $4 epoch; $5 state; $6 error or null to
-- keep what is there.
-- Must hold: only under the epoch that owns the row. A stopped runner no longer owns it, so that an
-- instance that begins later can claim it.
update highwater.checkpoint
   set state = $5, last_error = coalesce($6, last_error), updated_at = clock_timestamp(),
       stopped_at = case when $5 = 'stopped' then clock_timestamp() end,
       owner = case when $5 <> 'stopped' then owner end
 where projection = $1 and generation = $2 and partition = $3 and epoch = $4
