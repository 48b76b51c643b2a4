-- Purpose: the transactions that may still bring a lower position (gap = "table"): those that
-- hold RowExclusiveLock on the table, its partitions or its children. Right only where the
-- number is drawn by the INSERT itself.
-- Parameters: $1 the table.
-- Must hold: sent after the statement that read the rows has been answered, never with it.
-- pg_inherits, not pg_partition_tree: that one lists no INHERITS child and locks the leaves.
with recursive family as (
    select to_regclass($1)::oid as relation
    union
    select i.inhrelid from pg_inherits i join family f on i.inhparent = f.relation
)
select exists (select from pg_subscription_rel r join family f on r.srrelid = f.relation) as subscribed,
       row_security_active(to_regclass($1)) as row_security,
       array(select distinct l.virtualtransaction || case when l.pid is null then ' prepared' else '' end
               from pg_locks l join family f on l.relation = f.relation
              where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.granted
                and l.database = (select oid from pg_database where datname = current_database())
       ) as holders
