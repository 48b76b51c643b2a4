-- Purpose: the state of schema highwater and the rights of this role: one row.
-- Parameters: none.
-- Must hold: needs no right on the schema, so that a missing right can be distinguished from a
-- missing schema.
select current_setting('server_version_num')::int as server_version,
    current_setting('server_version') as server_version_text,
    current_user::text as role,
    current_database()::text as database,
    has_database_privilege(current_database(), 'CREATE') as may_create,
    s.oid is not null as has_schema,
    pg_get_userbyid(s.nspowner)::text as owner,
    coalesce(has_schema_privilege(s.oid, 'CREATE'), false) as may_fill,
    coalesce(has_schema_privilege(s.oid, 'USAGE'), false)
        and coalesce(has_table_privilege(m.oid, 'SELECT'), false) as may_read,
    m.oid is not null as is_ours,
    not exists (select from pg_class where relnamespace = s.oid)
        and not exists (select from pg_proc where pronamespace = s.oid)
        and not exists (select from pg_type where typnamespace = s.oid) as is_empty
from (select) as one
left join pg_namespace as s on s.nspname = 'highwater'
left join pg_class as m on m.relnamespace = s.oid and m.relname = 'migration' and m.relkind = 'r'
