-- Purpose: the last number that the sequence of a column gave, 0 if it gave none; null with the
-- sequence's name where this role may not know it (PostgreSQL 18 would say null as if none).
-- Parameters: $1 the table; $2 the column; $3 the configured sequence or null.
with origin as (
    select case when $3::text is not null then to_regclass($3)::oid else coalesce(
        (select d.objid
           from pg_depend d join pg_class s on s.oid = d.objid and s.relkind = 'S'
          where d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
            and d.deptype = 'i' and d.refobjid = a.attrelid and d.refobjsubid = a.attnum),
        (select d.refobjid
           from pg_attrdef f
           join pg_depend d on d.classid = 'pg_attrdef'::regclass and d.objid = f.oid
           join pg_class s on s.oid = d.refobjid and s.relkind = 'S'
          where f.adrelid = a.attrelid and f.adnum = a.attnum
            and d.refclassid = 'pg_class'::regclass
          limit 1)) end as sequence
    from pg_attribute a
    where a.attrelid = to_regclass($1)::oid and a.attname = $2
)
select case when has_sequence_privilege(o.sequence, 'SELECT, USAGE') is not false
            then coalesce(pg_sequence_last_value(o.sequence), 0) end,
       o.sequence::regclass::text, current_user::text
from origin o
