-- Purpose: which of these schemas are there.
-- Parameters: $1 names.
select nspname::text from pg_namespace where nspname = any($1::text[])
