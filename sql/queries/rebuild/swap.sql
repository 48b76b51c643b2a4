-- Purpose: makes the next generation the live one in the rows, and carries the grants over.
-- Parameters: $1 projection; $2 the schema that the old generation has now.
-- Must hold: in the transaction that renamed the schemas, under the lock on the live checkpoint.
with swapped as (
    update highwater.projection
       set generation = next_generation, hash = next_hash, next_generation = null, next_hash = null
     where name = $1 and next_generation is not null
    returning name, generation
), gone as (
    delete from highwater.checkpoint c using swapped s
     where c.projection = s.name and c.generation <> s.generation
)
select highwater.carry_grants($2, s.name) from swapped s
