-- Purpose: takes a changed definition for the live read model; a stop for that reason is over.
-- Parameters: $1 projection; $2 the new hash; $3 its source.
-- Must hold: whoever runs it with the definition before is fenced, for it would pass over events
-- that the new one wants.
with accepted as (
    update highwater.projection set hash = $2, source = $3
     where name = $1 and (hash, source) is distinct from ($2, $3)
    returning name, generation
), cleared as (
    update highwater.checkpoint c
       set epoch = c.epoch + 1, owner = null,
           last_error = case when c.last_error->>'kind' <> 'changed' then c.last_error end,
           state = case when c.state = 'stopped' and c.last_error->>'kind' <> 'changed' then c.state
                        else 'idle' end
      from accepted a
     where c.projection = a.name and c.generation = a.generation
)
select 1 from accepted
