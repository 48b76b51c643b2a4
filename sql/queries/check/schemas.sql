-- Purpose: which of these schemas exist.
-- Parameters: $1 names.
select nspname::text from pg_namespace where nspname = any($1::text[])
