-- Purpose: records why a projection could not be started.
-- Parameters: $1 projection; $2 error; $3 the instance, which may have claimed it before it failed.
-- Must hold: changes nothing that another living instance runs, or could run with its own
-- definition. Locks checkpoints in the order of partitions, as every statement that locks several
-- does.
with unstarted as (
    select c.projection, c.generation, c.partition
      from highwater.checkpoint c
      join highwater.projection p on p.name = c.projection and p.generation = c.generation
     where p.name = $1
       and not exists (select from highwater.instance i
                        where (i.id = c.owner or $1 = any (i.projections)) and i.id <> $3
                          and i.seen_at + i.lease > clock_timestamp())
     order by c.partition
       for update of c
)
update highwater.checkpoint c
   set state = 'stopped', last_error = $2, updated_at = clock_timestamp(),
       stopped_at = clock_timestamp(), owner = null
  from unstarted u
 where (c.projection, c.generation, c.partition) = (u.projection, u.generation, u.partition)
