-- Purpose: appends one event: position, version, duplicate. Cheaper than the arrays of append.sql.
-- Parameters: $1 stream (text), $2 type (text), $3 data (jsonb), $4 metadata (jsonb), $5 id (uuid),
--   $6 expected version (bigint); $4 to $6 may be null.
select position, version, duplicate from highwater.append_one($1, $2, $3, $4, $5, $6)
