-- Purpose: how much at or before a position is not in the read model although the checkpoint has
-- passed it: the number of dead letters, and whether the event at the position is parked or
-- discarded.
-- Parameters: $1 projection; $2 the position.
-- Must hold: read after the checkpoint that has passed the position; nothing is parked behind it.
select (select count(*) from highwater.dead_letter d
         where d.projection = p.name and d.generation = p.generation and d.position <= $2),
       exists (select from highwater.dead_letter d
                where d.projection = p.name and d.generation = p.generation and d.position = $2),
       exists (select from highwater.discarded d
                where d.projection = p.name and d.generation = p.generation and d.position = $2)
from highwater.projection p
where p.name = $1
