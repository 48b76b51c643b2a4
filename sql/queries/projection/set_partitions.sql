-- Purpose: says how many partitions a projection is to have, and by which key they are cut.
-- Parameters: $1 projection; $2 the number; $3 the key.
-- Must hold: by whoever has the definition that the live generation was built with;
-- highwater.repartition brings the number about.
update highwater.projection set partitions = $2, cut_by = $3
 where name = $1 and (partitions, cut_by) is distinct from ($2, $3)
