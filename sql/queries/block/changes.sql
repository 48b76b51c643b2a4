-- Purpose: the changes of blocks that affect a generation: it began before the change was found,
-- and has passed the beginning of the block.
-- Parameters: $1 the projection, null for all.
select p.name, c.generation, b.after, b.through, b.events_before, b.events_now, b.found_at
from highwater.block_change b
join (select c.projection, c.generation, c.source_identity, max(c.position) as position
        from highwater.checkpoint c
       group by 1, 2, 3) c
  on c.source_identity = b.source_identity and c.position > b.after
join highwater.projection p on p.name = c.projection
join highwater.generation g
  on g.projection = c.projection and g.number = c.generation and g.created_at < b.found_at
where $1::text is null or p.name = $1
order by p.name, c.generation, b.after, b.found_at
