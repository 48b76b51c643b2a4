-- Copies the grants on a schema, its relations, columns and functions to the objects of the same name
-- in another schema, so that a rebuild does not lock readers out. It runs the SQL that it composes, so
-- it must not call a function from the caller's search path.
create function highwater.carry_grants(from_schema text, to_schema text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    grants text;
begin
    for grants in
        with granted as (
            select 'schema ' || quote_ident(to_schema) as object, a.privilege_type as privilege,
                   a.grantee, a.is_grantable
              from pg_namespace n, aclexplode(n.nspacl) a
             where n.nspname = from_schema and a.grantee <> n.nspowner
            union all
            select case when old.relkind = 'S' then 'sequence ' else 'table ' end
                       || format('%I.%I', to_schema, old.relname),
                   a.privilege_type, a.grantee, a.is_grantable
              from pg_class old
              join pg_class new on new.relname = old.relname
               and new.relnamespace = to_regnamespace(quote_ident(to_schema))
             cross join aclexplode(old.relacl) a
             where old.relnamespace = to_regnamespace(quote_ident(from_schema))
               and a.grantee <> old.relowner
            union all
            select 'table ' || format('%I.%I', to_schema, old.relname),
                   format('%s (%I)', a.privilege_type, c.attname), a.grantee, a.is_grantable
              from pg_class old
              join pg_attribute c on c.attrelid = old.oid and not c.attisdropped
              join pg_class new on new.relname = old.relname
               and new.relnamespace = to_regnamespace(quote_ident(to_schema))
              join pg_attribute d on d.attrelid = new.oid and d.attname = c.attname
               and not d.attisdropped
             cross join aclexplode(c.attacl) a
             where old.relnamespace = to_regnamespace(quote_ident(from_schema))
               and a.grantee <> old.relowner
            union all
            select 'routine ' || format('%I.%I(%s)', to_schema, old.proname,
                       pg_get_function_identity_arguments(new.oid)),
                   a.privilege_type, a.grantee, a.is_grantable
              from pg_proc old
              join pg_proc new on new.proname = old.proname
               and new.proargtypes = old.proargtypes
               and new.pronamespace = to_regnamespace(quote_ident(to_schema))
             cross join aclexplode(old.proacl) a
             where old.pronamespace = to_regnamespace(quote_ident(from_schema))
               and a.grantee <> old.proowner
        )
        select format('grant %s on %s to %s%s', privilege, object,
                      case when grantee = 0 then 'public' else grantee::regrole::text end,
                      case when is_grantable then ' with grant option' else '' end)
          from granted
    loop
        execute grants;
    end loop;
end
$$;
