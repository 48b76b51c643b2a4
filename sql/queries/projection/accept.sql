-- Purpose: takes a changed definition for the live read model; a stop for that reason is over.
-- Parameters: $1 projection; $2 the new hash; $3 its source; $4 its key.
-- Must hold: whoever runs it with the definition before is fenced, for it would pass over events
-- that the new one wants. What was counted before was counted by another filter, so the ledger
-- begins anew.
with accepted as (
    update highwater.projection set hash = $2, source = $3, cut_by = $4
     where name = $1 and (hash, source) is distinct from ($2, $3)
    returning name, generation
), closed as (
    delete from highwater.ledger l using accepted a
     where l.projection = a.name and l.generation = a.generation
), cleared as (
    update highwater.checkpoint c
       set epoch = c.epoch + 1, owner = null,
           counted_from = c.position,
           scanned = 0, applied = 0, filtered = 0, parked = 0, discarded = 0,
           last_error = case when c.last_error->>'kind' <> 'changed' then c.last_error end,
           stopped_at = case when c.state = 'stopped' and c.last_error->>'kind' <> 'changed'
                             then c.stopped_at end,
           state = case when c.state = 'stopped' and c.last_error->>'kind' <> 'changed' then c.state
                        else 'idle' end
      from accepted a
     where c.projection = a.name and c.generation = a.generation
)
select 1 from accepted
