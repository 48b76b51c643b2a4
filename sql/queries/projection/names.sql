-- Purpose: the projections that have a read model here.
-- Parameters: none.
select name from highwater.projection order by name
