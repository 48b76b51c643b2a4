-- Purpose: lets one migration run at a time in this database, until the transaction ends.
-- Parameters: none. The number is highwater's own and must stay the same.
-- Must hold: READ COMMITTED, so that the statements after the wait see the result of the other one.
select pg_advisory_xact_lock(7236013172850516334)
