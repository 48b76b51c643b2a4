-- Purpose: the applied migrations of a component, oldest first: number, name, hash.
-- Parameters: $1 the component.
select number, name, hash from highwater.migration where component = $1 order by number
