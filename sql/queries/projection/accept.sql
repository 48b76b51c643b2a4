-- Purpose: takes a changed definition for the live read model; a stop for that reason is over.
-- Parameters: $1 projection; $2 the new hash; $3 its source.
with accepted as (
    update highwater.projection set hash = $2, source = $3
     where name = $1 and (hash, source) is distinct from ($2, $3)
    returning name, generation
), cleared as (
    update highwater.checkpoint c
       set last_error = null, state = 'idle'
      from accepted a
     where c.projection = a.name and c.generation = a.generation
       and c.last_error->>'kind' = 'changed'
)
select 1 from accepted
