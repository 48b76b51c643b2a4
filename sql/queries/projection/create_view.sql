-- Purpose: the relation `batch` of a SQL projection where source and read model share a database, for
-- functions and for statements of `apply` that take no `with`.
-- `schema`: the projection's schema; `events`: the events; `types`: the type filter; `key`: the key.
-- Must hold: the bounds are stable functions, so the planner knows the range and uses the index; a
-- union, so that a statement cannot write to the log through this view. During the retry of a dead
-- letter the view shows the stored copy, and the bounds are null. `offset 0` keeps conditions of the
-- projection away from events that are not in the batch.
create or replace view /*schema:*/ s /*:schema*/.batch as
(select e.position, e.stream, e.version, e.type, e.data, e.metadata, e.id, e.recorded_at
from /*events:*/ highwater.event /*:events*/ e
where e.position > highwater.batch_after() and e.position <= highwater.batch_through()
  and /*types:*/ true /*:types*/
  and (highwater.batch_is_whole() or highwater.in_batch(/*key:*/ e.stream /*:key*/::text))
offset 0)
union all
select l.position, l.stream, l.version, l.type, l.data, l.metadata, l.id, l.recorded_at
from highwater.batch_dead_letter() l
