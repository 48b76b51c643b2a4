-- Purpose: up to where the blocks of a log reach without a hole from a position, one block further, and
-- where the next one begins.
-- Parameters: $1 the source's identity; $2 the position.
select (select b.through from highwater.block b
         where b.source_identity = $1 and b.after <= $2 and b.through > $2
         order by b.after desc limit 1),
       (select min(b.after) from highwater.block b where b.source_identity = $1 and b.after > $2)
