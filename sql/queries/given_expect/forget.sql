-- Purpose: makes a scratch database as good as new: no events, positions from 1, no checkpoints.
-- {schema}: the schema of the projection under test.
-- Must hold: only ever in a scratch database.
begin;
drop schema if exists {schema} cascade;
truncate highwater.event restart identity;
truncate highwater.projection, highwater.checkpoint, highwater.instance;
commit
