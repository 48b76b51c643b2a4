-- Purpose: records that a block has changed, and stores its present events as the block.
-- Parameters: $1 the source's identity; $2 after; $3 through; $4 events now; $5 digest now; $6 events
-- before, without those that were removed on purpose.
-- Must hold: changes nothing if the stored block is another one by now.
with before as (
    select b.* from highwater.block b
     where b.source_identity = $1 and b.after = $2 and b.through = $3
       for update
), noted as (
    insert into highwater.block_change (source_identity, after, through, events_before, events_now)
    select b.source_identity, b.after, b.through, $6, $4 from before b
)
update highwater.block b
   set events = $4, digest = $5, counted_later = true, recorded_at = clock_timestamp()
  from before
 where (b.source_identity, b.after) = (before.source_identity, before.after)
