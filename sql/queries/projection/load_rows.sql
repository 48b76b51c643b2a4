-- Purpose: the rows of a batch's keys (KeyedView), each with the place of its key in $1.
-- Parameters: $1 a JSON array of objects with the key columns.
-- {table}: the table; {match}: t.key = k.key for each key column.
select w.ordinal, to_jsonb(t)
from jsonb_array_elements($1) with ordinality as w(key, ordinal)
cross join lateral jsonb_populate_record(null::{table}, w.key) k
join {table} t on {match}
