-- Purpose: deletes the rows of the next generation, because it can never be complete. No row if it
-- is no longer the next one.
-- Parameters: $1 projection; $2 the generation.
-- Must hold: in the transaction that drops its schema. The runner that fills it is fenced.
with given_up as (
    update highwater.projection
       set next_generation = null
     where name = $1 and next_generation = $2
    returning name
), gone as (
    delete from highwater.checkpoint c using given_up g
     where c.projection = g.name and c.generation = $2
), gone_dead_letters as (
    delete from highwater.dead_letter d using given_up g
     where d.projection = g.name and d.generation = $2
), gone_generation as (
    delete from highwater.generation n using given_up g
     where n.projection = g.name and n.number = $2
)
select name from given_up
