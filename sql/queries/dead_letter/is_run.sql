-- Purpose: whether a living instance runs the projection.
-- Parameters: $1 projection.
-- Must hold: by the database's clock.
select exists (
    select from highwater.projection p
      join highwater.checkpoint c on c.projection = p.name and c.generation = p.generation
      join highwater.instance i on i.id = c.owner
     where p.name = $1 and c.state <> 'stopped' and i.seen_at + i.lease > clock_timestamp())
