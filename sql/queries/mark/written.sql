-- Purpose: up to where the server's WAL was written, in memory at least.
-- Parameters: none.
-- Must hold: sent after the statement that read the rows has been answered; the commits of all rows
-- it saw lie before.
select pg_current_wal_insert_lsn()::text
