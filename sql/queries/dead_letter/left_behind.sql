-- Purpose: how many of some keys are still parked, how many dead letters these have, and how many
-- of them have an error of their own; the others only follow such a one.
-- Parameters: $1 projection; $2 the keys.
select count(distinct key) + coalesce(max((key is null)::integer), 0), count(*), count(error)
  from highwater.dead_letter d
  join highwater.projection p on p.name = d.projection and p.generation = d.generation
 where p.name = $1
   and exists (select from unnest($2::text[]) k where k is not distinct from d.key)
