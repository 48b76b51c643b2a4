-- Purpose: about how many events a table holds, and whether it has an index that finds those of a type in
-- the order of their position.
-- Parameters: $1 the table, as SQL text.
select greatest(c.reltuples, 0)::float8,
       exists (select from pg_index i
                 join pg_attribute t on t.attrelid = i.indrelid and t.attnum = i.indkey[0]
                 join pg_attribute p on p.attrelid = i.indrelid and p.attnum = i.indkey[1]
                where i.indrelid = c.oid and i.indisvalid and i.indpred is null
                  and t.attname = 'type' and p.attname = 'position')
from pg_class c
where c.oid = to_regclass($1)
