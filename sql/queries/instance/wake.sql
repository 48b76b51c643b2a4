-- Purpose: wakes the instances, so that they poll the cluster: a partition is free, an instance can run
-- more or less, a projection is paused or resumed.
-- Parameters: none.
-- Must hold: after the commit of the change, never within; nothing relies on it.
select pg_notify('highwater_control', '')
