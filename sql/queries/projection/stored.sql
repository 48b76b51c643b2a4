-- Purpose: which build of a projection's read model is live, and with which definition it was
-- built, and by which hash keys are dealt to partitions.
-- Parameters: $1 projection.
select p.generation, g.hash, g.source, p.next_generation, n.hash, g.key_hash, n.key_hash
from highwater.projection p
join highwater.generation g on g.projection = p.name and g.number = p.generation
left join highwater.generation n on n.projection = p.name and n.number = p.next_generation
where p.name = $1
