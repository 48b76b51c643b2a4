-- Purpose: how far a projection is and whether an instance runs it: polled by those who wait.
-- Parameters: $1 projection.
-- Must hold: a few rows by primary key, no lock, no session state; only the live generation.
select g.source, c.position, c.state, c.last_error,
       case when i.seen_at + i.lease > clock_timestamp() then i.host || ':' || i.pid end as owner
from highwater.projection p
join highwater.generation g on g.projection = p.name and g.number = p.generation
left join highwater.checkpoint c on c.projection = p.name and c.generation = p.generation
left join highwater.instance i on i.id = c.owner
where p.name = $1
