-- Purpose: the parked keys of a partition.
-- Parameters: $1 projection; $2 generation; $3 partition; $4 of how many.
-- Must hold: read after the checkpoint's row, in a statement of its own: parking or releasing a key
-- since then raised its `parking`, and the fence compares that.
select distinct d.key
  from highwater.dead_letter d
 where d.projection = $1 and d.generation = $2 and highwater.partition_of(d.key, $4) = $3
