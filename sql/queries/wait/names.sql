-- Purpose: the projections that have a read model here, for those who mistype one.
-- Parameters: none.
select name from highwater.projection order by name
