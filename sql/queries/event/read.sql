-- Purpose: events after a position, in the order of positions.
-- Parameters: $1 the position before the first (bigint), $2 how many at most (bigint),
--   $3 only this stream, or null (text), $4 only these types, or empty (text[]).
-- Must hold: for showing the log. A projection reads through its source, which knows the mark.
select position, stream, version, type, data, metadata, id, recorded_at
from highwater.event
where position > $1
    and ($3::text is null or stream = $3)
    and (cardinality($4::text[]) = 0 or type = any ($4))
order by position
limit $2
