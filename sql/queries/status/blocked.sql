-- Purpose: who holds the locks that batches in flight wait for.
-- Parameters: $1 the batches' application_name.
-- Must hold: it waits for no lock; columns that the role may not see are null (pg_monitor sees
-- all). pg_blocking_pids is 0 for a prepared transaction: that one holds the lock, or is the
-- transaction, that the batch waits for.
with waiting as (
    select a.application_name as batch, a.pid
      from pg_stat_activity a
     where a.datname = current_database() and a.application_name = any($1)
       and a.wait_event_type = 'Lock'
), blocking as (
    select distinct w.batch, w.pid as waiter, b.pid
      from waiting w, unnest(pg_blocking_pids(w.pid)) b(pid)
), prepared as (
    select distinct b.batch, t.transactionid
      from blocking b
      join pg_locks w on w.pid = b.waiter and not w.granted
      join pg_locks h on h.pid is null and h.granted and h.locktype = w.locktype
       and (h.database, h.relation, h.page, h.tuple, h.transactionid, h.classid, h.objid, h.objsubid)
           is not distinct from
           (w.database, w.relation, w.page, w.tuple, w.transactionid, w.classid, w.objid, w.objsubid)
      join pg_locks t on t.pid is null and t.virtualtransaction = h.virtualtransaction
       and t.locktype = 'transactionid' and t.mode = 'ExclusiveLock'
     where b.pid = 0
)
select b.batch, b.pid, a.usename::text as "user", a.application_name as application,
       nullif(a.query, '<insufficient privilege>') as query,
       a.xact_start as since, null::text as prepared, a.state
  from blocking b
  left join pg_stat_activity a on a.pid = b.pid
 where b.pid <> 0
union all
select p.batch, null, x.owner::text, null, null, x.prepared, x.gid, null
  from prepared p
  left join pg_prepared_xacts x on x.transaction = p.transactionid
 order by 1, 6 nulls last, 2
