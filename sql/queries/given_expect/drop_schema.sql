-- Purpose: drops the read model of the projection under test.
-- `schema`: its schema.
-- Must hold: only ever in a scratch database.
drop schema if exists /*schema:*/ s /*:schema*/ cascade
