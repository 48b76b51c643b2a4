-- Purpose: the position of the live read model of a projection: that of the partition that is
-- furthest behind.
-- Parameters: $1 projection.
select coalesce(min(c.position), 0)
from highwater.checkpoint c
join highwater.projection p on p.name = c.projection and p.generation = c.generation
where p.name = $1
