-- Purpose: the rows of keys, as JSON, each with the place of its key in $1 (KeyedView).
-- Parameters: $1 a JSON array of objects with the key columns, as text.
-- `table`: the table; `match`: t.key = k.key for each key column.
-- Must hold: works for any names of the table's columns.
select w.number, row_to_json(t)::text
from (select highwater_key, row_number() over () as number
      from json_populate_recordset(null::/*table:*/ t /*:table*/, $1::json) as highwater_key) as w
cross join lateral (select (w.highwater_key).*) as k
join /*table:*/ t /*:table*/ t on /*match:*/ t.k = k.k /*:match*/
