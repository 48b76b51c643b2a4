-- Purpose: the relation `batch` of a SQL projection where source and read model share a database.
-- {schema}: the projection's schema; {events}: the events; {types}: the type filter.
-- Must hold: the bounds are stable functions, so the planner knows the range and uses the index.
create or replace view {schema}.batch as
select e.position, e.stream, e.version, e.type, e.data, e.metadata, e.id, e.recorded_at
from {events} e
where e.position > highwater.batch_after() and e.position <= highwater.batch_through()
  {types}
