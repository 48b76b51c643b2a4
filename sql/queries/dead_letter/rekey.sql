-- Purpose: computes the keys of dead letters again after a change of the definition.
-- Parameters: $1 projection. `key`: the key, over the columns of an event, which a dead letter has
-- too.
-- Must hold: in the transaction that accepts the change and fences runners that know the old keys.
-- Under the old key a dead letter would not block the later events of the new one.
update highwater.dead_letter
   set key = /*key:*/ stream /*:key*/::text
 where projection = $1
   and generation = (select p.generation from highwater.projection p where p.name = $1)
   and key is distinct from /*key:*/ stream /*:key*/::text
