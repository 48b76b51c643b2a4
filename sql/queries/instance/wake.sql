-- Purpose: tells the instances that something is to be seen: a partition is free, one is to be
-- handed over, a projection is paused or goes on.
-- Parameters: none.
-- Must hold: after the commit of what is to be seen, never within; nobody counts on it.
select pg_notify('highwater_control', '')
