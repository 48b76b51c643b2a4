-- Purpose: writes rows back (KeyedView).
-- Parameters: $1 a JSON array of row objects, as text.
-- `table`: the table; `columns`: those that the rows have; `keys`: the primary key's columns;
-- `changes`: "update set …" for the others, or "nothing".
insert into /*table:*/ t /*:table*/ (/*columns:*/ k, n /*:columns*/)
select /*columns:*/ k, n /*:columns*/ from json_populate_recordset(null::/*table:*/ t /*:table*/, $1::json)
on conflict (/*keys:*/ k /*:keys*/) do /*changes:*/ update set n = excluded.n /*:changes*/
