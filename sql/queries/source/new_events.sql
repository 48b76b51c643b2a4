-- Purpose: as new.sql, with each event that is small, so that it need not be read once more.
-- Parameters: $1 the last event at or below the mark, which is read once more; $2 the most rows to
-- return, few: each brings up to 2 KiB as they are stored, which may be a hundred times as much as text.
-- Must hold: as in new.sql; so may the same be asked for also, behind recorded_at. Of a row that is not small,
-- data and metadata are null.
-- The condition stands there twice, for a lateral join takes 0.02 ms to plan.
select e.position, e.type, e.id, e.stream, e.version,
       case when pg_column_size(e.data) + pg_column_size(e.metadata) <= 2048 then e.data::text end,
       case when pg_column_size(e.data) + pg_column_size(e.metadata) <= 2048 then e.metadata::text end,
       e.recorded_at{also}
from {events} e
where e.position >= $1
order by e.position
limit $2
