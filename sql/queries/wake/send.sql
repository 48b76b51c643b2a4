-- Purpose: wakes the engines that listen.
-- Parameters: $1 a position as a hint, or null (bigint).
-- Must hold: runs in a transaction of its own, after the commit of the append. The wake may be lost
--   in a crash, so its commit waits for no disk; the setting ends with the transaction.
select set_config('synchronous_commit', 'off', true), highwater.wake($1)
