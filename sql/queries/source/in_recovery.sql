-- Purpose: whether the server is a replica, which cannot see the primary's locks.
-- Parameters: none.
-- Must hold: asked in the session that reads: behind one address may be several servers.
select pg_is_in_recovery()
