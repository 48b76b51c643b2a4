-- Purpose: whether a living instance owns a partition of the live read model.
-- Parameters: $1 projection.
select exists (
    select from highwater.checkpoint c
    join highwater.projection p on p.name = c.projection and p.generation = c.generation
    join highwater.instance i on i.id = c.owner and i.seen_at + i.lease > clock_timestamp()
    where p.name = $1 and c.stopped_at is null)
