-- Purpose: writes down why a projection could not be started.
-- Parameters: $1 projection; $2 error; $3 the instance, which may have claimed it before it failed.
-- Must hold: what another living instance runs, or could run with its own definition, is left alone.
update highwater.checkpoint c
   set state = 'stopped', last_error = $2, updated_at = clock_timestamp(),
       stopped_at = clock_timestamp(), owner = null
  from highwater.projection p
 where p.name = $1 and c.projection = p.name and c.generation = p.generation
   and not exists (select from highwater.instance i
                    where (i.id = c.owner or $1 = any (i.projections)) and i.id <> $3
                      and i.seen_at + i.lease > clock_timestamp())
