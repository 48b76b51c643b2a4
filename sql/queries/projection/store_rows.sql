-- Purpose: writes the rows of a batch's keys back (KeyedView).
-- Parameters: $1 a JSON array of row objects.
-- {table}: the table; {columns}: those that the rows have; {keys}: the primary key's columns;
-- {changes}: "update set …" for the others, or "nothing".
insert into {table} ({columns})
select {columns} from jsonb_populate_recordset(null::{table}, $1)
on conflict ({keys}) do {changes}
