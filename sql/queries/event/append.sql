-- Purpose: appends events, all or none; a row for each, in order: position, version, duplicate.
-- Parameters: $1 streams (text[]), $2 types (text[]), $3 data (jsonb[]), $4 metadata (jsonb[]),
--   $5 ids (uuid[]), $6 expected versions (bigint[]); elements of $4 to $6 may be null.
-- Must hold: the arrays have one element for each event.
select position, version, duplicate from highwater.append_all($1, $2, $3, $4, $5, $6)
