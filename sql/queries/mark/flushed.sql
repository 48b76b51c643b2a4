-- Purpose: whether the server's WAL is on disk up to a place.
-- Parameters: $1 the place.
-- Must hold: nothing.
select pg_current_wal_flush_lsn() >= $1::text::pg_lsn
