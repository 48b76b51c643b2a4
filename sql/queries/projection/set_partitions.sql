-- Purpose: says how many partitions a projection is to have.
-- Parameters: $1 projection; $2 the number.
-- Must hold: highwater.repartition brings it about.
update highwater.projection set partitions = $2 where name = $1 and partitions <> $2
