-- Purpose: forgets a projection; its checkpoints go with it, so whoever runs it is fenced.
-- Parameters: $1 projection.
-- Must hold: its highest epoch is kept, for one that is made again under the name.
with gone as (
    delete from highwater.projection where name = $1
)
insert into highwater.dropped as d (projection, epoch)
select c.projection, max(c.epoch) from highwater.checkpoint c
 where c.projection = $1
 group by c.projection
on conflict (projection) do update set epoch = greatest(d.epoch, excluded.epoch)
