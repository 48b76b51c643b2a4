-- Purpose: locks the checkpoints of the live generation: a batch in flight ends first, the next
-- one waits.
-- Parameters: $1 projection.
-- Must hold: the projection's row is locked, so that these rows stay the live ones.
select c.position
from highwater.checkpoint c
join highwater.projection p on p.name = c.projection and p.generation = c.generation
where p.name = $1
order by c.partition
for update of c
