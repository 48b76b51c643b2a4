-- Purpose: what outside a schema depends on a relation in it: views, foreign keys, functions.
-- Parameters: $1 the schema.
with inside as (
    select c.oid from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = $1
), uses as (
    select pg_describe_object('pg_class'::regclass, v.oid, 0) as name
      from pg_depend d
      join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
      join pg_class v on v.oid = r.ev_class
     where d.refclassid = 'pg_class'::regclass and d.refobjid in (select oid from inside)
       and v.oid not in (select oid from inside)
    union
    select pg_describe_object('pg_constraint'::regclass, k.oid, 0)
      from pg_constraint k
     where k.contype = 'f' and k.confrelid in (select oid from inside)
       and k.conrelid not in (select oid from inside)
    union
    select pg_describe_object('pg_proc'::regclass, f.oid, 0)
      from pg_depend d
      join pg_proc f on d.classid = 'pg_proc'::regclass and f.oid = d.objid
      join pg_namespace n on n.oid = f.pronamespace
     where d.refclassid = 'pg_class'::regclass and d.refobjid in (select oid from inside)
       and n.nspname <> $1
)
select name from uses order by name
