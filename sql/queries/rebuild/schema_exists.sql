-- Purpose: whether a schema exists.
-- Parameters: $1 its name.
select exists (select from pg_namespace where nspname = $1)
