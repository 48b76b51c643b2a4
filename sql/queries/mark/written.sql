-- Purpose: how far the server's WAL was written, at least in memory.
-- Parameters: none.
-- Must hold: sent after the statement that read the rows has been answered; the commits of all rows
-- that it saw are before this.
select pg_current_wal_insert_lsn()::text
