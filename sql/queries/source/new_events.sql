-- Purpose: as new.sql, with each event that is small, so that it need not be read once more.
-- Parameters: $1 the last event at or below the mark, which is read once more; $2 the most rows to
-- return, few: each brings up to 2 KiB.
-- Must hold: as in new.sql. How far the sequence is may be asked for here too, behind recorded_at. Data and
-- metadata are null for the event at $1, which nobody wants again, and for one that is not small; what is
-- compressed counts as large, for nobody knows what it unpacks to.
-- The condition stands there twice, for a lateral join takes 0.02 ms to plan.
select e.position, e.type, e.id, e.stream, e.version,
       case when e.position > $1
                 and pg_column_size(e.data) + pg_column_size(e.metadata) <= 2048
                 and pg_column_compression(e.data) is null
                 and pg_column_compression(e.metadata) is null
            then e.data::text end,
       case when e.position > $1
                 and pg_column_size(e.data) + pg_column_size(e.metadata) <= 2048
                 and pg_column_compression(e.data) is null
                 and pg_column_compression(e.metadata) is null
            then e.metadata::text end,
       e.recorded_at{also}
from {events} e
where e.position >= $1
order by e.position
limit $2
