-- Purpose: whether the view `batch` of a schema is one that knows keys, or an earlier version made it.
-- Parameters: $1 the schema.
select exists (select from pg_views v
                where v.schemaname = $1 and v.viewname = 'batch'
                  and v.definition like '%in_batch%')
