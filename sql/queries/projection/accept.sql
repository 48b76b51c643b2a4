-- Purpose: accepts a changed definition for the live read model; a stop for that reason is over.
-- Parameters: $1 projection; $2 the new hash; $3 its source; $4 its key; $5 the text of its definition,
-- null for one in Rust.
-- Must hold: a runner with the old definition is fenced, because it would pass over events that the
-- new one wants.
with accepted as (
    update highwater.generation g set hash = $2, source = $3, cut_by = $4, definition = $5
      from highwater.projection p
     where p.name = $1 and g.projection = p.name and g.number = p.generation
       and (g.hash, g.source) is distinct from ($2, $3)
    returning g.projection, g.number
), cleared as (
    update highwater.checkpoint c
       set epoch = c.epoch + 1, owner = null, source = $3,
           last_error = case when c.last_error->>'kind' <> 'changed' then c.last_error end,
           stopped_at = case when c.state = 'stopped' and c.last_error->>'kind' <> 'changed'
                             then c.stopped_at end,
           state = case when c.state = 'stopped' and c.last_error->>'kind' <> 'changed' then c.state
                        else 'idle' end
      from accepted a
     where c.projection = a.projection and c.generation = a.number
)
select 1 from accepted
