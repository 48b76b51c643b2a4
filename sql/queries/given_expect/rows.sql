-- Purpose: the rows of a table as they are compared with those expected.
-- {table}: the table, with its schema.
select to_jsonb(t) from {table} t
