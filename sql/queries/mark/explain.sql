-- Purpose: the transactions that hold the mark.
-- Parameters: $1 their names (pg_locks.virtualtransaction).
-- Must hold: nothing; columns that the role may not see are null (pg_monitor sees all).
select h.name, h.pid, coalesce(a.usename, p.owner)::text as "user", a.application_name as application,
       nullif(a.query, '<insufficient privilege>') as query,
       coalesce(a.xact_start, p.prepared) as since, p.gid as prepared, a.state
from (select distinct l.virtualtransaction as name, l.pid
        from pg_locks l where l.virtualtransaction = any($1)) h
left join pg_stat_activity a on a.pid = h.pid
left join lateral (select t.transactionid
                     from pg_locks t
                    where t.virtualtransaction = h.name and t.locktype = 'transactionid'
                      and t.mode = 'ExclusiveLock' and t.pid is null
                    limit 1) x on h.pid is null
left join pg_prepared_xacts p on p.transaction = x.transactionid
order by since nulls last, h.pid
