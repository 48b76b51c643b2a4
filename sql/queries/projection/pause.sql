-- Purpose: holds a projection on all instances, or lets it go on; says whether it was otherwise.
-- Parameters: $1 projection; $2 whether it is held.
-- Must hold: one row if there is such a projection; the time of the first pause stays.
update highwater.projection p
   set paused_at = case when $2 then coalesce(p.paused_at, clock_timestamp()) end
  from highwater.projection before
 where p.name = $1 and before.name = p.name
returning (before.paused_at is not null) is distinct from $2
