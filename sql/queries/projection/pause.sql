-- Purpose: pauses or resumes a projection on all instances; returns whether that changed anything.
-- Parameters: $1 projection; $2 whether it is paused.
-- Must hold: one row if the projection exists; the time of the first pause stays.
update highwater.projection p
   set paused_at = case when $2 then coalesce(p.paused_at, clock_timestamp()) end
  from highwater.projection before
 where p.name = $1 and before.name = p.name
returning (before.paused_at is not null) is distinct from $2
