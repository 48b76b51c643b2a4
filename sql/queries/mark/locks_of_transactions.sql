-- Purpose: the transactions that may still bring a lower position (gap = "transactions"): every
-- other one of this database that is open now, prepared ones too.
-- Parameters: $1 the table.
-- Must hold: sent after the statement that read the rows has been answered, never with it.
-- A live transaction holds its virtualxid; PREPARE drops that row but keeps the name on its
-- transactionid row. pg_locks is read before the other two views, so a transaction may be left out
-- only if it is known to be elsewhere: a process that is gone by then may have prepared its
-- transaction before.
select exists (select from pg_subscription_rel r where r.srrelid = to_regclass($1)::oid) as subscribed,
       row_security_active(to_regclass($1)) as row_security,
       array(select l.virtualtransaction || case when l.pid is null then ' prepared' else '' end
               from pg_locks l
              where l.granted and l.mode = 'ExclusiveLock'
                and ((l.locktype = 'virtualxid' and l.pid <> pg_backend_pid()
                      and not exists (select from pg_stat_activity a
                                       where a.pid = l.pid
                                         and a.datname is distinct from current_database()))
                  or (l.locktype = 'transactionid' and l.pid is null
                      and exists (select from pg_prepared_xacts p
                                   where p.transaction = l.transactionid
                                     and p.database = current_database())))
       ) as holders
