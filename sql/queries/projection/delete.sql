-- Purpose: forgets a projection; its checkpoints go with it, so whoever runs it is fenced.
-- Parameters: $1 projection.
delete from highwater.projection where name = $1
