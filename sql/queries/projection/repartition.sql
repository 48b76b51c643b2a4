-- Purpose: one step of a change of the number of partitions; returns whether anything was done.
-- Parameters: $1 projection.
select highwater.repartition($1)
