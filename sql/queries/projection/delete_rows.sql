-- Purpose: deletes the rows of keys that have none any more (KeyedView).
-- Parameters: $1 a JSON array of objects with the key columns.
-- {table}: the table; {match}: t.key = k.key for each key column.
delete from {table} t
using jsonb_populate_recordset(null::{table}, $1) k
where {match}
