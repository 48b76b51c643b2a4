-- Purpose: lets one session at a time change what belongs to a projection.
-- Parameters: $1 projection.
select from highwater.projection where name = $1 for update
