-- Purpose: the checkpoints of the live generation of a projection, locked: no batch is in flight.
-- Parameters: $1 projection.
-- Must hold: in the transaction that changes them.
select c.position, c.epoch, c.source_identity, c.event_position, c.event_id,
       c.generation, c.partition
from highwater.checkpoint c
join highwater.projection p on p.name = c.projection and p.generation = c.generation
where c.projection = $1
order by c.partition
for update of c
