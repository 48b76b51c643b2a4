-- Purpose: sets highwater_position of the live read model to the positions of its checkpoints.
-- Parameters: $1 projection.
-- Must hold: in the transaction that moved the checkpoints, under the lock on them.
select highwater.set_positions(p.name, p.name, p.generation)
from highwater.projection p
where p.name = $1
