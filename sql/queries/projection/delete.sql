-- Purpose: forgets a projection; its checkpoints go with it, so whoever runs it is fenced.
-- Parameters: $1 projection.
-- Must hold: its row is locked, and its checkpoints go before it: a batch of a rebuild that is in
-- flight ends first, for it may refer to the row yet. Its highest epoch is kept, for one that is made
-- again under the name.
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
