-- Purpose: the name of the running server: everything that crashes together has one name.
-- Parameters: none.
-- Must hold: a copy of the data directory has the same system_identifier, hence the start too.
select system_identifier::text || ' ' || extract(epoch from pg_postmaster_start_time())::text
from pg_control_system()
