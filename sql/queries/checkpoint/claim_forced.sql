-- Purpose: takes a checkpoint over from any owner: no runner of an earlier epoch can commit after
-- this.
-- Parameters: $1 projection; $2 generation; $3 partition; $4 the instance.
-- Must hold: one statement; it waits for the row lock of a batch in flight and returns the final
-- position.
update highwater.checkpoint
   set epoch = epoch + 1, owner = $4, state = 'catching_up', stopped_at = null,
       updated_at = clock_timestamp()
 where projection = $1 and generation = $2 and partition = $3
returning position, epoch, source_identity, event_position, event_id,
          partitions, drain_at, parking
