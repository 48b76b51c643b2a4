-- Purpose: whether a change of the key would move keys between partitions that are at different
-- positions.
-- Parameters: $1 projection; $2 the new key.
-- Must hold: under the lock on the live checkpoints.
select g.cut_by is distinct from $2
       and (select count(distinct c.position) > 1 from highwater.checkpoint c
             where c.projection = p.name and c.generation = p.generation)
from highwater.projection p
join highwater.generation g on g.projection = p.name and g.number = p.generation
where p.name = $1
