-- Purpose: an instance signs off: what it ran is idle, what stopped stays stopped.
-- Parameters: $1 instance.
-- Must hold: locks checkpoints in the order of partitions, as everybody who locks several does. A crash may
-- take it back, and the end of the lease does the same: its commit waits for no disk.
with no_wait as materialized (
    select set_config('synchronous_commit', 'off', true)
), gone as (
    delete from highwater.instance i using no_wait where i.id = $1
), mine as (
    select c.projection, c.generation, c.partition
      from highwater.checkpoint c
     where c.owner = $1
     order by c.projection, c.generation, c.partition
       for update of c
)
update highwater.checkpoint c
   set owner = null, rate = 0, state = case when state = 'stopped' then state else 'idle' end
  from mine m
 where (c.projection, c.generation, c.partition) = (m.projection, m.generation, m.partition)
   and c.owner = $1
