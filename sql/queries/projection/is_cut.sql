-- Purpose: whether a change of the key would tear apart what was cut by it: partitions that stand at
-- different positions, or parked keys.
-- Parameters: $1 projection; $2 the new key.
-- Must hold: under the lock on the live checkpoints.
select p.cut_by is distinct from $2
       and ((select count(distinct c.position) > 1 from highwater.checkpoint c
              where c.projection = p.name and c.generation = p.generation)
            or exists (select from highwater.dead_letter d
                        where d.projection = p.name and d.generation = p.generation))
from highwater.projection p
where p.name = $1
