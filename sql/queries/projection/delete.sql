-- Purpose: deletes a projection with its checkpoints, which fences its runners.
-- Parameters: $1 projection.
-- Must hold: its row is locked, and its checkpoints are deleted before it: a batch of a rebuild in
-- flight ends first, because it may still refer to the row. Its highest epoch is kept for a
-- projection that is created again under the name.
with checkpoints as (
    delete from highwater.checkpoint where projection = $1
    returning projection, epoch
), gone as (
    delete from highwater.projection
     where name = $1 and (select count(*) from checkpoints) >= 0
)
insert into highwater.dropped as d (projection, epoch)
select c.projection, max(c.epoch) from checkpoints c
 group by c.projection
on conflict (projection) do update set epoch = greatest(d.epoch, excluded.epoch)
