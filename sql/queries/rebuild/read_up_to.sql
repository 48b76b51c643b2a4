-- Purpose: how far a generation has read: the position of its partition that is furthest behind.
-- Parameters: $1 projection; $2 generation.
select coalesce(min(position), 0) from highwater.checkpoint where projection = $1 and generation = $2
