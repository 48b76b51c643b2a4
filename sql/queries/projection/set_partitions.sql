-- Purpose: stores how many partitions a projection is to have, and by which key they are cut.
-- Returns whether the number has changed.
-- Parameters: $1 projection; $2 the number; $3 the key.
-- Must hold: by an instance with the definition that the live generation was built with;
-- highwater.repartition makes the change.
with wanted as (
    update highwater.projection set partitions = $2
     where name = $1 and partitions <> $2
    returning partitions
), cut as (
    update highwater.generation g set cut_by = $3
      from highwater.projection p
     where p.name = $1 and g.projection = p.name and g.number = p.generation
       and g.cut_by is distinct from $3
)
select exists (select from wanted)
