-- Purpose: whether the server is a replica, which cannot see the primary's locks.
-- Parameters: none.
-- Must hold: in the session that reads: there may be several servers behind one address.
select pg_is_in_recovery()
