-- Purpose: gives dead letters the keys that a changed definition sees in their events.
-- Parameters: $1 projection. `key`: the key, over the columns of an event, which a letter has too.
-- Must hold: in the transaction that accepts the change and fences whoever knows the keys from
-- before. Under the old key a letter would not hold the later events of the new one.
update highwater.dead_letter
   set key = /*key:*/ stream /*:key*/::text
 where projection = $1
   and generation = (select p.generation from highwater.projection p where p.name = $1)
   and key is distinct from /*key:*/ stream /*:key*/::text
