-- Purpose: makes the next generation the live one in the rows; no row if it is no longer the next
-- one.
-- Parameters: $1 projection; $2 the generation.
-- Must hold: before the schemas are renamed, in the same transaction, under the lock on the live
-- checkpoint. It waits for a rebuild that just begins.
with swapped as (
    update highwater.projection
       set generation = next_generation, next_generation = null
     where name = $1 and next_generation = $2
    returning name, generation
), gone as (
    delete from highwater.checkpoint c using swapped s
     where c.projection = s.name and c.generation <> s.generation
), gone_dead_letters as (
    delete from highwater.dead_letter d using swapped s
     where d.projection = s.name and d.generation <> s.generation
), gone_generations as (
    delete from highwater.generation g using swapped s
     where g.projection = s.name and g.number <> s.generation
)
select s.generation from swapped s
