-- Purpose: deletes an instance that ends. Its partitions are idle, stopped ones stay stopped.
-- Parameters: $1 instance.
-- Must hold: locks checkpoints in the order of partitions, as every statement that locks several
-- does.
with gone as (
    delete from highwater.instance where id = $1
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
