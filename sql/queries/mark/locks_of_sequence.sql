-- Purpose: the transactions that may still bring a lower position (gap = "sequence"): those that
-- hold RowExclusiveLock on the sequence, which nextval takes before it draws a number and keeps
-- until the top transaction ends, through a rolled-back savepoint, PREPARE and a restart too.
-- With them the preconditions of the proof, which may have changed since the start.
-- Parameters: $1 the table; $2 the column; $3 the configured sequence or null.
-- Must hold: sent after the statement that read the rows has been answered, never with it.
-- Source: nextval_internal in PostgreSQL's sequence.c (10 and newer).
with origin as (
    select a.attrelid as relation, case when $3::text is not null then
        (select c.oid from pg_class c where c.oid = to_regclass($3)::oid and c.relkind = 'S')
    else coalesce(
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
select o.sequence::regclass::text as sequence,
       s.seqcache as cache, s.seqincrement as increment, s.seqmin as minimum, s.seqcycle as cycles,
       exists (select from pg_subscription_rel r where r.srrelid = o.relation) as subscribed,
       row_security_active(o.relation) as row_security,
       array(select l.virtualtransaction || case when l.pid is null then ' prepared' else '' end
               from pg_locks l
              where l.locktype = 'relation' and l.relation = o.sequence
                and l.mode = 'RowExclusiveLock' and l.granted
                and l.database = (select oid from pg_database where datname = current_database())
       ) as holders
from origin o left join pg_sequence s on s.seqrelid = o.sequence
