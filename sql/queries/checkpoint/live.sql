-- Purpose: the checkpoints of the live generation of a projection.
-- Parameters: $1 projection.
-- Must hold: a caller that changes them afterwards has locked them before.
select c.position, c.epoch, c.source_identity, c.event_position, c.event_id,
       c.partitions, c.drain_at, c.parking, c.generation, c.partition
from highwater.checkpoint c
join highwater.projection p on p.name = c.projection and p.generation = c.generation
where c.projection = $1
order by c.partition
