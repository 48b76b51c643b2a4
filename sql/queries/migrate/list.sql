-- Purpose: the applied migrations, oldest first: number, name, hash.
-- Parameters: none.
select number, name, hash from highwater.migration order by number
