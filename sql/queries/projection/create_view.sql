-- Purpose: the relation `batch` of a SQL projection where source and read model share a database, for
-- functions and for statements of `apply` that take no `with`.
-- {schema}: the projection's schema; {events}: the events; {types}: the type filter; {key}: the key.
-- Must hold: the bounds are stable functions, so the planner knows the range and uses the index;
-- a second item in `from`, which costs nothing, so that a statement cannot write to the log by way
-- of this view.
create or replace view {schema}.batch as
select e.position, e.stream, e.version, e.type, e.data, e.metadata, e.id, e.recorded_at
from {events} e cross join (select) as read_only
where e.position > highwater.batch_after() and e.position <= highwater.batch_through()
  and {types}
  and (highwater.batch_is_whole() or highwater.in_batch(({key})::text))
