-- Purpose: claims a free checkpoint: no runner of an earlier epoch can commit after this.
-- Parameters: $1 projection; $2 generation; $3 partition; $4 the instance.
-- Must hold: one statement, which never waits. It returns no row while another living instance owns
-- the checkpoint, or it is paused, or a batch of a predecessor is in flight, or an error has
-- stopped it since this instance began. Its answer is the final position of the predecessor.
with free as (
    select c.projection, c.generation, c.partition
      from highwater.checkpoint c
     where c.projection = $1 and c.generation = $2 and c.partition = $3
       and (c.owner is null or c.owner = $4
            or not exists (select from highwater.instance i
                            where i.id = c.owner and i.seen_at + i.lease > clock_timestamp()))
       and (c.stopped_at is null
            or c.stopped_at < (select i.started_at from highwater.instance i where i.id = $4))
       and not exists (select from highwater.projection p
                        where p.name = $1 and p.paused_at is not null)
       for update of c skip locked
)
update highwater.checkpoint c
   set epoch = c.epoch + 1, owner = $4, state = 'catching_up', stopped_at = null,
       updated_at = clock_timestamp()
  from free f
 where (c.projection, c.generation, c.partition) = (f.projection, f.generation, f.partition)
returning c.position, c.epoch, c.source_identity, c.event_position, c.event_id,
          c.partitions, c.drain_at, c.parking
