-- Purpose: a dead letter failed again: stores its new error; the key is not retried until the next
-- request.
-- Parameters: $1 projection; $2 generation; $3 partition; $4 epoch; $5 the dead letter; $6 error;
-- $7 fingerprint.
-- Must hold: only under the epoch that owns the partition.
update highwater.dead_letter d
   set retry_requested_at = null,
       error = case when d.position = $5 then $6 else d.error end,
       fingerprint = case when d.position = $5 then $7 else d.fingerprint end,
       attempts = d.attempts + (d.position = $5)::integer
  from highwater.dead_letter l
 where l.projection = $1 and l.generation = $2 and l.position = $5
   and d.projection = l.projection and d.generation = l.generation
   and d.key is not distinct from l.key
   and exists (select from highwater.checkpoint c
                where c.projection = $1 and c.generation = $2 and c.partition = $3
                  and c.epoch = $4)
