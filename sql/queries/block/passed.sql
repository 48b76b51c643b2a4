-- Purpose: how far the read models have read: the highest checkpoint of each generation on its
-- source.
-- Parameters: $1 the projection, null for all.
select p.name, c.generation, g.source, c.source_identity, max(c.position)
from highwater.projection p
join highwater.checkpoint c on c.projection = p.name
join highwater.generation g on g.projection = p.name and g.number = c.generation
where $1::text is null or p.name = $1
group by 1, 2, 3, 4
order by 1, 2
