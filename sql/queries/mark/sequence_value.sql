-- Purpose: the last number that the sequence of a column gave, 0 if it gave none.
-- Parameters: $1 the table; $2 the column; $3 the configured sequence or null.
select coalesce(pg_sequence_last_value(case when $3::text is not null then to_regclass($3)::oid else coalesce(
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
      limit 1)) end), 0)
from pg_attribute a
where a.attrelid = to_regclass($1)::oid and a.attname = $2
