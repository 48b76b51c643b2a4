-- Purpose: an instance signs off: what it ran is idle, what stopped stays stopped.
-- Parameters: $1 instance.
with gone as (
    delete from highwater.instance where id = $1
)
update highwater.checkpoint
   set owner = null, rate = 0, state = case when state = 'stopped' then state else 'idle' end
 where owner = $1
