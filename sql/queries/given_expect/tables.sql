-- Purpose: the tables and views of a projection, without those that highwater created.
-- Parameters: $1 its schema.
select c.relname::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relname not in ('batch', 'highwater_position')
order by c.relname
