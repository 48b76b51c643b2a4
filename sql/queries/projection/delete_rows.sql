-- Purpose: deletes the rows of keys that no longer have one (KeyedView).
-- Parameters: $1 a JSON array of objects with the key columns, as text.
-- `table`: the table; `match`: t.key = k.key for each key column.
delete from /*table:*/ t /*:table*/ t
using json_populate_recordset(null::/*table:*/ t /*:table*/, $1::json) k
where /*match:*/ t.k = k.k /*:match*/
